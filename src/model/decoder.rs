//! The one decoder: embed → blocks → norm → head, as its [`ArchSpec`] says.
use super::{
    BaseModel, KvDims, ModelError, StepContext, StepOutput,
    base_weights::BaseSite,
    checkpoint::Weights,
    layers::{Block, Embedding, LoraLinear, RmsNorm, rope_table},
    spec::{ArchSpec, Head},
};
use crate::{
    kernel::{BaseWeight, KvPrecision, Precision, Result, RopeTable},
    lora::{LoraLayout, NormSite, Site},
};
use std::{collections::BTreeMap, sync::Arc};

/// Any dense decoder-only transformer with norms before its halves.
pub(super) struct Decoder {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: LoraLinear<1>,
    rope: RopeTable,
    layout: LoraLayout,
    kv: KvDims,
    vocab: usize,
    max_positions: usize,
}

impl Decoder {
    /// Takes every weight the description names; positions beyond `max_positions` are never asked for.
    pub(super) fn load(
        weights: &mut Weights<'_>,
        spec: &ArchSpec,
        (max_positions, kv_precision): (usize, KvPrecision),
    ) -> Result<Self, ModelError> {
        let (dims, attention) = (&spec.dims, &spec.attention);
        let layout = spec.lora_layout();
        let embedding = Embedding::load(weights, dims)?;
        let blocks = (0..dims.layers)
            .map(|layer| Block::load(weights, spec, &layout, layer))
            .collect::<Result<_, _>>()?;
        let norm = RmsNorm::load(weights, NormSite::Final, dims.hidden, spec.norm_eps)?;
        let head = load_head(weights, spec, &embedding)?;
        Ok(Self {
            embedding,
            blocks,
            norm,
            head,
            rope: rope_table(&spec.rope, attention.head_dim, max_positions)?,
            layout,
            kv: KvDims {
                layers: dims.layers,
                kv_heads: attention.kv_heads,
                head_dim: attention.head_dim,
                precision: kv_precision,
            },
            vocab: dims.vocab,
            max_positions,
        })
    }
}

impl Decoder {
    /// Each linear layer's place in the base.
    pub(super) fn base_sites(&self) -> BTreeMap<Site, BaseSite> {
        let blocks = self.blocks.iter().flat_map(Block::base_sites);
        blocks.chain(self.head.base_sites()).collect()
    }

    /// `[vocab, hidden]`
    pub(super) fn embedding_table(&self) -> &Arc<BaseWeight> {
        self.embedding.table()
    }
}

impl BaseModel for Decoder {
    fn forward(&self, mut step: StepContext<'_>) -> Result<StepOutput> {
        let (kernels, batch) = (step.kernels, step.batch);
        let mut x = self.embedding.forward(&step)?;
        for block in &self.blocks {
            block.forward(&mut x, &self.rope, &mut step)?;
        }
        if batch.logit_rows.is_empty() {
            return Ok(StepOutput {
                logits: kernels.upload(&[], 0, self.vocab)?,
                outputs: Vec::new(),
            });
        }
        let x = kernels.select_rows(&x, &batch.logit_rows)?;
        let segments = batch.logit_lora.segments();
        let x = self.norm.forward(&x, segments, &step)?;
        let logits = self.head.forward(&x, segments, &step)?;
        Ok(StepOutput { logits, outputs: Vec::new() })
    }

    fn lora_layout(&self) -> &LoraLayout {
        &self.layout
    }

    fn kv_dims(&self) -> KvDims {
        self.kv
    }

    fn precision(&self) -> Precision {
        self.head.precision()
    }

    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }
}

fn load_head(
    weights: &mut Weights<'_>,
    spec: &ArchSpec,
    embedding: &Embedding,
) -> Result<LoraLinear<1>, ModelError> {
    const NAME: &str = "lm_head.weight";
    let weight = match spec.head {
        Head::Own => weights.table(NAME, spec.dims.vocab, spec.dims.hidden)?,
        Head::Tied => {
            weights.skip_copy(NAME, Embedding::NAME)?;
            Arc::clone(embedding.table())
        }
    };
    Ok(LoraLinear::plain(weight, Site::Head))
}

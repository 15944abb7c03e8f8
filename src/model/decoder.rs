//! The one decoder: embed → blocks → norm → head, as its [`ArchSpec`] says.
use super::{
    BaseModel, KvDims, ModelError, Output, Pooling, StepContext, StepOutput,
    base_weights::BaseSite,
    checkpoint::Weights,
    layers::{Block, ClassHeads, Embedding, LoraLinear, RmsNorm, rope_table},
    outputs::Readout,
    spec::{ArchSpec, Head},
};
use crate::{
    kernel::{Act, BaseWeight, KernelError, KvPrecision, Precision, Result, RopeTable},
    lora::{ClassHead, LoraLayout, ModuleNames, NormSite, Site},
};
use std::{collections::BTreeMap, sync::Arc};

/// Any dense decoder-only transformer with norms before its halves.
pub(super) struct Decoder {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    /// `None` for a model that does not generate.
    head: Option<LoraLinear<1>>,
    class_heads: ClassHeads,
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
        let embedding =
            Embedding::load(weights, ModuleNames::Decoder, (dims, spec.head == Head::Tied))?;
        let blocks = (0..dims.layers)
            .map(|layer| Block::load(weights, spec, &layout, layer))
            .collect::<Result<_, _>>()?;
        let norm = RmsNorm::load(weights, NormSite::Final, dims.hidden, spec.norm_eps)?;
        let head = load_head(weights, spec, &embedding)?;
        let class_heads = ClassHeads::of_decoder(weights, spec.labels.as_ref(), &layout)?;
        Ok(Self {
            embedding,
            blocks,
            norm,
            head,
            class_heads,
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
        blocks.chain(self.head.iter().flat_map(LoraLinear::base_sites)).collect()
    }

    /// `[vocab, hidden]`
    pub(super) fn embedding_table(&self) -> &Arc<BaseWeight> {
        self.embedding.table()
    }

    /// Its own classification head.
    pub(super) fn class_head(&self) -> Option<&ClassHead> {
        self.class_heads.base()
    }

    /// `[batch.logit_rows, vocab]`
    fn logits(&self, x: &Act, step: &StepContext<'_>) -> Result<Act> {
        let (kernels, batch) = (step.kernels, step.batch);
        if batch.logit_rows.is_empty() {
            return kernels.upload(&[], 0, self.vocab);
        }
        let Some(head) = &self.head else {
            return Err(KernelError::mismatch("logits", "the model does not generate"));
        };
        let x = kernels.select_rows(x, &batch.logit_rows)?;
        let segments = batch.logit_lora.segments();
        let x = self.norm.forward(&x, segments, step)?;
        head.forward(&x, segments, step)
    }

    /// What `batch.outputs` ask for, of each sequence's last token.
    fn outputs(&self, x: &Act, step: &StepContext<'_>) -> Result<Vec<Vec<f32>>> {
        let wanted = &step.batch.outputs;
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let last = wanted.iter().map(|wanted| match wanted.output {
            Output::Embedding(Pooling::Last) | Output::Scores => {
                wanted.rows.clone().next_back().ok_or("an output has no row")
            }
            Output::Embedding(_) | Output::Hidden | Output::TokenScores => {
                Err("a token sees those before it alone, so only the last one stands for a text")
            }
        });
        let last = last.collect::<Result<Vec<_>, _>>();
        let last = last.map_err(|detail| KernelError::mismatch("outputs", detail))?;
        let hidden = step.kernels.select_rows(x, &last)?;
        let hidden = self.norm.forward(&hidden, step.batch.output_lora.segments(), step)?;
        let readout = Readout { hidden: &hidden, heads: &self.class_heads, pooling: Pooling::Last };
        let rows = (0..).map(|row| row..row + 1);
        readout.outputs(wanted.iter().map(|wanted| wanted.output).zip(rows), step)
    }
}

impl BaseModel for Decoder {
    fn forward(&self, mut step: StepContext<'_>) -> Result<StepOutput> {
        let mut x = self.embedding.forward(&step)?;
        for block in &self.blocks {
            block.forward(&mut x, &self.rope, &mut step)?;
        }
        let logits = self.logits(&x, &step)?;
        Ok(StepOutput { logits, outputs: self.outputs(&x, &step)? })
    }

    fn lora_layout(&self) -> &LoraLayout {
        &self.layout
    }

    fn kv_dims(&self) -> KvDims {
        self.kv
    }

    fn precision(&self) -> Precision {
        self.embedding.table().precision()
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
) -> Result<Option<LoraLinear<1>>, ModelError> {
    const NAME: &str = "lm_head.weight";
    let table = Embedding::name(ModuleNames::Decoder);
    let weight = match spec.head {
        Head::Own => weights.table(NAME, spec.dims.vocab, spec.dims.hidden)?,
        Head::Tied => {
            weights.skip_copy(NAME, &table)?;
            Arc::clone(embedding.table())
        }
        Head::None => return Ok(None),
    };
    Ok(Some(LoraLinear::plain(weight, Site::Head)))
}

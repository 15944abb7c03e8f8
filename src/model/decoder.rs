//! The one decoder: embed → blocks → norm → head, as its [`ArchSpec`] says.
use super::{
    CausalLm, KvDims, ModelError, StepContext,
    checkpoint::Weights,
    layers::{Block, Embedding, Linear, RmsNorm, rope_table},
    spec::{ArchSpec, Head},
};
use crate::{
    kernel::{Act, KvPrecision, Precision, Result, RopeTable},
    lora::{LoraLayout, Projection, Site, SiteShape},
};

/// Any dense decoder-only transformer with norms before its halves.
pub(super) struct Decoder {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Linear,
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
        let layout = lora_layout(spec);
        let embedding = Embedding::load(weights, dims)?;
        let blocks = (0..dims.layers)
            .map(|layer| Block::load(weights, spec, &layout, layer))
            .collect::<Result<_, _>>()?;
        let norm = RmsNorm::load(weights, "model.norm", dims.hidden, spec.norm_eps)?;
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

impl CausalLm for Decoder {
    fn forward(&self, mut step: StepContext<'_>) -> Result<Act> {
        let (kernels, batch) = (step.kernels, step.batch);
        let mut x = self.embedding.forward(&batch.token_ids, kernels)?;
        for block in &self.blocks {
            block.forward(&mut x, &self.rope, &mut step)?;
        }
        if batch.logit_rows.is_empty() {
            return kernels.upload(&[], 0, self.vocab);
        }
        let x = kernels.select_rows(&x, &batch.logit_rows)?;
        let x = self.norm.forward(&x, kernels)?;
        self.head.forward(&x, kernels)
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
) -> Result<Linear, ModelError> {
    const NAME: &str = "lm_head.weight";
    match spec.head {
        Head::Own => Ok(Linear::plain(weights.table(NAME, spec.dims.vocab, spec.dims.hidden)?)),
        Head::Tied => {
            weights.skip_copy(NAME, Embedding::NAME)?;
            Ok(embedding.as_head())
        }
    }
}

/// Every projection of every layer.
pub(super) fn lora_layout(spec: &ArchSpec) -> LoraLayout {
    let sites = (0..spec.dims.layers).flat_map(|layer| {
        Projection::ALL.map(|projection| (Site { layer, projection }, site_shape(spec, projection)))
    });
    sites.collect()
}

fn site_shape(spec: &ArchSpec, projection: Projection) -> SiteShape {
    let (hidden, inner) = (spec.dims.hidden, spec.mlp.intermediate);
    let queries = spec.attention.heads * spec.attention.head_dim;
    let keys = spec.attention.kv_heads * spec.attention.head_dim;
    let (in_features, out_features) = match projection {
        Projection::Q => (hidden, queries),
        Projection::K | Projection::V => (hidden, keys),
        Projection::O => (queries, hidden),
        Projection::Gate | Projection::Up => (hidden, inner),
        Projection::Down => (inner, hidden),
    };
    SiteShape { in_features, out_features }
}

//! The one encoder: embed → blocks, as its [`EncoderSpec`] says.
use super::{
    BaseModel, KvDims, ModelError, Pooling, StepContext, StepOutput,
    base_weights::BaseSite,
    checkpoint::Weights,
    layers::{ClassHeads, EncoderBlock, LayerNorm, PlacedEmbedding, dense_tensor, rope_table},
    outputs::Readout,
    spec::{EncoderSpec, NormOrder, Positions},
};
use crate::{
    kernel::{BaseWeight, KvPrecision, Precision, Result, RopeTable},
    lora::{ClassHead, HeadKind, LoraLayout, NormSite, Site},
};
use std::{collections::BTreeMap, sync::Arc};

/// Any encoder-only transformer with absolute or rotary positions.
pub(super) struct Encoder {
    embedding: PlacedEmbedding,
    blocks: Vec<EncoderBlock>,
    norm: Option<LayerNorm>,
    heads: ClassHeads,
    ropes: Option<Ropes>,
    pooling: Pooling,
    layout: LoraLayout,
    kv: KvDims,
    vocab: usize,
    max_positions: usize,
}

/// The rotary tables of both kinds of layers.
struct Ropes {
    whole: RopeTable,
    windowed: RopeTable,
    /// `[layers]`: which have a window.
    has_window: Vec<bool>,
}

impl Encoder {
    /// Takes every weight the description names; positions beyond `max_positions` are never asked for.
    pub(super) fn load(
        weights: &mut Weights<'_>,
        spec: &EncoderSpec,
        (max_positions, kv_precision): (usize, KvPrecision),
    ) -> Result<Self, ModelError> {
        let (dims, attention) = (&spec.dims, &spec.attention);
        weights.skip(spec.unread());
        let has_dense = dense_tensor(spec.names).is_some_and(|name| weights.holds(&name));
        let needs_dense = spec.labels.as_ref().is_some_and(|l| l.kind == HeadKind::Sequence);
        if let (true, false, Some(name)) = (needs_dense, has_dense, dense_tensor(spec.names)) {
            return Err(weights.missing(&name));
        }
        let layout = spec.lora_layout(has_dense);
        let embedding = PlacedEmbedding::load(weights, spec, &layout, max_positions)?;
        let blocks = (0..dims.layers)
            .map(|layer| EncoderBlock::load(weights, spec, &layout, layer))
            .collect::<Result<_, _>>()?;
        let norm = match spec.norms.order {
            NormOrder::After => None,
            NormOrder::Before => {
                Some(LayerNorm::load(weights, &layout, NormSite::Final, spec.norms.eps)?)
            }
        };
        Ok(Self {
            embedding,
            blocks,
            norm,
            heads: ClassHeads::of_encoder(weights, spec, &layout)?,
            ropes: ropes(weights, spec, max_positions)?,
            pooling: spec.class_head.pooling,
            layout,
            kv: KvDims {
                // Each layer's keys and values take the place of the last one's.
                layers: 1,
                kv_heads: attention.kv_heads,
                head_dim: attention.head_dim,
                precision: kv_precision,
            },
            vocab: dims.vocab,
            max_positions,
        })
    }

    /// Each linear layer's place in the base.
    pub(super) fn base_sites(&self) -> BTreeMap<Site, BaseSite> {
        let blocks = self.blocks.iter().flat_map(EncoderBlock::base_sites);
        blocks.chain(self.heads.base_sites()).collect()
    }

    /// `[vocab, hidden]`
    pub(super) fn embedding_table(&self) -> &Arc<BaseWeight> {
        self.embedding.table()
    }

    /// Its own classification head.
    pub(super) fn class_head(&self) -> Option<&ClassHead> {
        self.heads.base()
    }
}

impl BaseModel for Encoder {
    fn forward(&self, mut step: StepContext<'_>) -> Result<StepOutput> {
        let batch = step.batch;
        let mut x = self.embedding.forward(&step)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let rope = self.ropes.as_ref().map(|ropes| ropes.at(layer));
            x = block.forward(x, rope, &mut step)?;
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x, batch.lora.segments(), &step)?;
        }
        let readout = Readout { hidden: &x, heads: &self.heads, pooling: self.pooling };
        let wanted = batch.outputs.iter().map(|wanted| (wanted.output, wanted.rows.clone()));
        let outputs = readout.outputs(wanted, &step)?;
        Ok(StepOutput { logits: step.kernels.upload(&[], 0, self.vocab)?, outputs })
    }

    fn is_causal(&self) -> bool {
        false
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

impl Ropes {
    fn at(&self, layer: usize) -> &RopeTable {
        if self.has_window[layer] { &self.windowed } else { &self.whole }
    }
}

fn ropes(
    weights: &Weights<'_>,
    spec: &EncoderSpec,
    max_positions: usize,
) -> Result<Option<Ropes>, ModelError> {
    let Positions::Rotary { whole, windowed } = &spec.positions else { return Ok(None) };
    let attention = &spec.attention;
    let table = |rope| {
        let table = rope_table(rope, attention.head_dim, max_positions)?;
        weights.kernels().load_rope(table)
    };
    let window = |layer| attention.window.at(layer).is_some();
    Ok(Some(Ropes {
        whole: table(whole)?,
        windowed: table(windowed)?,
        has_window: (0..spec.dims.layers).map(window).collect(),
    }))
}

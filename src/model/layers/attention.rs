//! Attention with grouped heads over the paged KV cache.
use super::{RmsNorm, linear::LoraLinear};
use crate::{
    kernel::{Act, AttentionArgs, Reach, Result, RopeKvArgs, RopeTable},
    lora::{LoraLayout, NormSite, Projection, Site},
    model::{
        ModelError, StepContext,
        base_weights::BaseSite,
        checkpoint::Weights,
        spec::{AttentionBias, AttentionSpec, HeadNorm, Sides},
    },
};

/// One layer's attention.
pub(super) struct Attention {
    /// The layer of the cache that its keys and values lie in.
    layer: usize,
    /// `[T, hidden]` → rows `[queries | keys | values]`
    qkv: LoraLinear<3>,
    o: LoraLinear<1>,
    /// Norms of each query and each key head.
    head_norms: Option<(RmsNorm, RmsNorm)>,
    heads: usize,
    /// Columns of the queries, and of the keys.
    widths: (usize, usize),
    scale: f32,
    reach: Reach,
}

impl Attention {
    /// Takes the weights of `layer`; `norm_eps` is that of the heads' norms.
    pub(super) fn load(
        weights: &mut Weights<'_>,
        (attention, norm_eps): (&AttentionSpec, f32),
        layout: &LoraLayout,
        layer: usize,
    ) -> Result<Self, ModelError> {
        let (qkv_biased, o_biased) = biased(attention.bias);
        let qkv = LoraLinear::load(weights, layout, (layer, Projection::Qkv), qkv_biased)?;
        let o = LoraLinear::load(weights, layout, (layer, Projection::O), o_biased)?;
        let mut norm = |site| RmsNorm::load(weights, site, attention.head_dim, norm_eps);
        let head_norms = match attention.head_norm {
            HeadNorm::None => None,
            HeadNorm::Rms => Some((norm(NormSite::Query(layer))?, norm(NormSite::Key(layer))?)),
        };
        let scale = (attention.head_dim as f32).sqrt().recip();
        let (heads, reach) = (attention.heads, attention.reach(layer));
        let widths = (heads * attention.head_dim, attention.kv_heads * attention.head_dim);
        // Whoever sees both sides has all keys in the step: the next layer needs none of them.
        let layer = if attention.sides == Sides::Both { 0 } else { layer };
        Ok(Self { layer, qkv, o, head_norms, heads, widths, scale, reach })
    }

    /// Its linear layers in the base.
    pub(super) fn base_sites(&self) -> impl Iterator<Item = (Site, BaseSite)> {
        self.qkv.base_sites().chain(self.o.base_sites())
    }

    /// What its heads make of `x` `[T, hidden]`; writes this step's keys and values on the way.
    pub(super) fn heads(
        &self,
        x: &Act,
        rope: Option<&RopeTable>,
        step: &mut StepContext<'_>,
    ) -> Result<Act> {
        let (kernels, batch) = (step.kernels, step.batch);
        let mut qkv = self.qkv.forward(x, batch.lora.segments(), step)?;
        if let Some((q_norm, k_norm)) = &self.head_norms {
            let (queries, keys) = self.widths;
            q_norm.apply(&mut qkv, 0..queries, step)?;
            k_norm.apply(&mut qkv, queries..queries + keys, step)?;
        }
        let rope = RopeKvArgs {
            heads: self.heads,
            positions: &batch.positions,
            table: rope,
            slot_mapping: &batch.slot_mapping,
        };
        kernels.rope_write_kv(&mut qkv, step.kv, self.layer, &rope)?;
        let args = AttentionArgs {
            block_tables: &batch.block_tables,
            block_starts: &batch.block_starts,
            query_starts: &batch.query_starts,
            context_lens: &batch.context_lens,
            heads: self.heads,
            scale: self.scale,
            reach: self.reach,
        };
        kernels.paged_attention(&qkv, step.kv, self.layer, &args)
    }

    /// Adds the output of `heads` to `y`, `[T, hidden]`.
    pub(super) fn add_to(&self, y: &mut Act, heads: &Act, step: &StepContext<'_>) -> Result<()> {
        self.o.add_to(y, heads, step)
    }
}

/// Whether queries, keys and values have biases, and whether the output has one.
fn biased(bias: AttentionBias) -> (bool, bool) {
    match bias {
        AttentionBias::None => (false, false),
        AttentionBias::Qkv => (true, false),
        AttentionBias::All => (true, true),
    }
}

//! Attention with grouped heads over the paged KV cache.
use super::{RmsNorm, linear::LoraLinear};
use crate::{
    kernel::{Act, AttentionArgs, Result, RopeTable},
    lora::{LoraLayout, Projection, Site},
    model::{
        ModelError, StepContext,
        checkpoint::Weights,
        spec::{ArchSpec, AttentionBias, HeadNorm},
    },
};

/// One layer's attention.
pub(super) struct Attention {
    layer: usize,
    q: LoraLinear,
    k: LoraLinear,
    v: LoraLinear,
    o: LoraLinear,
    /// Norms of each query and each key head.
    head_norms: Option<(RmsNorm, RmsNorm)>,
    heads: usize,
    scale: f32,
    window: Option<usize>,
}

impl Attention {
    /// Takes the weights of `layer`.
    pub(super) fn load(
        weights: &mut Weights<'_>,
        spec: &ArchSpec,
        layout: &LoraLayout,
        layer: usize,
    ) -> Result<Self, ModelError> {
        let attention = &spec.attention;
        let mut linear = |projection| {
            let site = Site { layer, projection };
            let shape = layout.shape(site).expect("the layout has every site of every layer");
            LoraLinear::load(weights, site, shape, biased(attention.bias, projection))
        };
        let (q, k) = (linear(Projection::Q)?, linear(Projection::K)?);
        let (v, o) = (linear(Projection::V)?, linear(Projection::O)?);
        let mut norm = |name| {
            let name = format!("model.layers.{layer}.self_attn.{name}");
            RmsNorm::load(weights, &name, attention.head_dim, spec.norm_eps)
        };
        let head_norms = match attention.head_norm {
            HeadNorm::None => None,
            HeadNorm::Rms => Some((norm("q_norm")?, norm("k_norm")?)),
        };
        let scale = (attention.head_dim as f32).sqrt().recip();
        let (heads, window) = (attention.heads, attention.window.at(layer));
        Ok(Self { layer, q, k, v, o, head_norms, heads, scale, window })
    }

    /// `[T, hidden]` → `[T, hidden]`; writes this step's keys and values on the way.
    pub(super) fn forward(
        &self,
        x: &Act,
        rope: &RopeTable,
        step: &mut StepContext<'_>,
    ) -> Result<Act> {
        let (kernels, batch) = (step.kernels, step.batch);
        let (mut q, mut k) = (self.q.forward(x, step)?, self.k.forward(x, step)?);
        let v = self.v.forward(x, step)?;
        if let Some((q_norm, k_norm)) = &self.head_norms {
            q = q_norm.forward(&q, kernels)?;
            k = k_norm.forward(&k, kernels)?;
        }
        kernels.rope(&mut q, &batch.positions, rope)?;
        kernels.rope(&mut k, &batch.positions, rope)?;
        kernels.write_kv(step.kv, self.layer, &k, &v, &batch.slot_mapping)?;
        let args = AttentionArgs {
            block_tables: &batch.block_tables,
            block_starts: &batch.block_starts,
            query_starts: &batch.query_starts,
            context_lens: &batch.context_lens,
            heads: self.heads,
            scale: self.scale,
            window: self.window,
        };
        let y = kernels.paged_attention(&q, step.kv, self.layer, &args)?;
        self.o.forward(&y, step)
    }
}

fn biased(bias: AttentionBias, projection: Projection) -> bool {
    match bias {
        AttentionBias::None => false,
        AttentionBias::Qkv => projection != Projection::O,
        AttentionBias::All => true,
    }
}

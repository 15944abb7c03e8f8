//! What the operations take besides activations.
use super::{KernelError, Precision, Result};
use candle_core::{DType, Tensor};
use std::{any::Any, ops::Range, sync::Arc};

/// Consecutive rows of a batch that use one adapter slot.
#[derive(Clone, Debug, PartialEq)]
pub struct RowSegment {
    /// Rows of the flat batch.
    pub rows: Range<usize>,
    /// Index into the layer's slots.
    pub slot: usize,
    /// Factor on the delta; 1 unless the request asks otherwise.
    pub weight: f32,
}

/// `ΔW = bᵀ · a` at one linear layer; both factors are `rank` rows: f32 as adapters are read, and as
/// [`Kernels::load_low_rank`](super::Kernels::load_low_rank) puts them on the device.
#[derive(Clone, Debug)]
pub struct LowRank {
    rank: usize,
    in_features: usize,
    out_features: usize,
    factors: Factors,
}

#[derive(Clone, Debug)]
enum Factors {
    /// `[rank, in]` and `[rank, out]`
    Rows { a: Tensor, b: Tensor },
    /// As the kernels that made them read them.
    Packed { factors: Arc<dyn Any + Send + Sync>, bytes: usize },
}

impl LowRank {
    /// From `a` `[rank, in]` and `b` `[rank, out]`: PEFT's `B` transposed and multiplied by the scaling.
    ///
    /// # Errors
    /// When the ranks or the types differ, or a factor is not a contiguous matrix of f32 or bf16.
    pub fn new(a: Tensor, b: Tensor) -> Result<Self> {
        let ((rank, in_features), (rank_b, out_features)) = (a.dims2()?, b.dims2()?);
        let plain = |t: &Tensor| matches!(t.dtype(), DType::F32 | DType::BF16) && t.is_contiguous();
        if rank != rank_b || a.dtype() != b.dtype() || !plain(&a) || !plain(&b) {
            let detail =
                format!("factors {:?} {:?}, {:?} {:?}", a.dims(), a.dtype(), b.dims(), b.dtype());
            return Err(KernelError::mismatch("low_rank", detail));
        }
        Ok(Self { rank, in_features, out_features, factors: Factors::Rows { a, b } })
    }

    /// `a` `[rank, in]` and `b` `[rank, out]`, scaling folded in.
    ///
    /// # Errors
    /// When kernels have packed them.
    pub fn rows(&self) -> Result<(&Tensor, &Tensor)> {
        match &self.factors {
            Factors::Rows { a, b } => Ok((a, b)),
            Factors::Packed { .. } => {
                Err(KernelError::mismatch("low_rank", "packed by other kernels".to_owned()))
            }
        }
    }

    /// Rows of both factors.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Columns of the layer's weight.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Rows of the layer's weight.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Bytes of both factors.
    pub fn bytes(&self) -> usize {
        match &self.factors {
            Factors::Rows { a, .. } => {
                (self.in_features + self.out_features) * self.rank * a.dtype().size_in_bytes()
            }
            Factors::Packed { bytes, .. } => *bytes,
        }
    }

    /// What kernels have made of both factors.
    pub(super) fn packed(&self) -> Option<&(dyn Any + Send + Sync)> {
        match &self.factors {
            Factors::Rows { .. } => None,
            Factors::Packed { factors, .. } => Some(factors.as_ref()),
        }
    }

    /// What kernels have made of both factors in their place.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "made on x86 alone"))]
    pub(super) fn into_packed(self, factors: Arc<dyn Any + Send + Sync>, bytes: usize) -> Self {
        Self { factors: Factors::Packed { factors, bytes }, ..self }
    }

    /// As a base of `precision` wants it: itself for f32, else rounded to bfloat16, which no base rounds less than.
    ///
    /// # Errors
    /// When kernels have packed it.
    pub(super) fn beside(&self, precision: Precision) -> Result<Self> {
        let (a, b) = self.rows()?;
        match precision {
            Precision::F32 => Ok(self.clone()),
            _ => Self::new(a.to_dtype(DType::BF16)?, b.to_dtype(DType::BF16)?),
        }
    }
}

#[cfg(test)]
impl RopeTable {
    /// Of one position that turns nothing.
    pub(super) fn still(head_dim: usize) -> Result<Self> {
        let angles = |value| Tensor::full(value, (1, head_dim / 2), &candle_core::Device::Cpu);
        Ok(Self { cos: angles(1_f32)?, sin: angles(0_f32)?, head_dim })
    }
}

/// Cosines and sines of every position, made once by the model.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// `[positions, head_dim / 2]`, any attention factor folded in.
    pub cos: Tensor,
    /// `[positions, head_dim / 2]`
    pub sin: Tensor,
    /// Elements of one head; only the table's width is rotated, all of it for now.
    pub head_dim: usize,
}

/// Where the rows of a step's queries, keys and values stand, and where the latter two go.
#[derive(Clone, Copy, Debug)]
pub struct RopeKvArgs<'a> {
    /// Query heads of a row.
    pub heads: usize,
    /// `[T]`: position of each row in its sequence.
    pub positions: &'a [u32],
    /// Their cosines and sines; `None` for a model whose positions are in its embedding.
    pub table: Option<&'a RopeTable>,
    /// `[T]`: KV row of each row.
    pub slot_mapping: &'a [u32],
}

/// A non-linearity.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Activation {
    /// `x · sigmoid(x)`
    Silu,
    /// GELU: `x/2 · (1 + erf(x / √2))` (Hendrycks and Gimpel 2016).
    Gelu,
    /// GELU, tanh approximation.
    GeluTanh,
    /// `max(x, 0)`
    Relu,
    /// `tanh(x)`
    Tanh,
}

/// What a feed-forward layer makes of its first product's rows before the last product.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FeedForward {
    /// `activation(x)`
    Plain(Activation),
    /// `activation(gate) · up` of rows `[gate | up]` (Shazeer 2020).
    Gated(Activation),
}

/// Which tokens of its sequence a token sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// Itself and those before it; of those this many, itself included, or all.
    Back(Option<usize>),
    /// Those on both sides; at most so far away, or all. All tokens of the sequence are in the step.
    Around(Option<usize>),
}

/// Which blocks each sequence reads, and how its scores are formed.
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs<'a> {
    /// All sequences' blocks, one after the other.
    pub block_tables: &'a [u32],
    /// `[N + 1]`: sequence `i`'s blocks are `block_tables[block_starts[i]..block_starts[i + 1]]`.
    pub block_starts: &'a [u32],
    /// `[N + 1]`: rows `query_starts[i]..query_starts[i + 1]` of `q` are sequence `i`'s last tokens.
    pub query_starts: &'a [u32],
    /// `[N]`: tokens in the cache, this step's included.
    pub context_lens: &'a [u32],
    /// Query heads.
    pub heads: usize,
    /// Factor on the scores, usually `head_dim^-0.5`.
    pub scale: f32,
    /// What a token sees.
    pub reach: Reach,
}

/// One sequence of an [`AttentionArgs`].
#[derive(Clone, Debug)]
pub(super) struct SequenceArgs<'a> {
    /// Its rows of `q`.
    pub(super) rows: Range<usize>,
    /// Its tokens in the cache.
    pub(super) context: usize,
    /// Its blocks.
    pub(super) blocks: &'a [u32],
}

impl AttentionArgs<'_> {
    /// The sequences, in batch order; the starts have been checked.
    pub(super) fn sequences(&self) -> impl Iterator<Item = SequenceArgs<'_>> {
        (0..self.context_lens.len()).map(|i| self.sequence(i))
    }

    /// The `i`-th sequence.
    pub(super) fn sequence(&self, i: usize) -> SequenceArgs<'_> {
        let range = |starts: &[u32]| starts[i] as usize..starts[i + 1] as usize;
        SequenceArgs {
            rows: range(self.query_starts),
            context: self.context_lens[i] as usize,
            blocks: &self.block_tables[range(self.block_starts)],
        }
    }
}

impl SequenceArgs<'_> {
    /// The positions its `i`-th row sees, itself among them; neither end falls from one row to the next.
    pub(super) fn visible(&self, i: usize, reach: Reach) -> Range<usize> {
        let own = self.context - self.rows.len() + i;
        match reach {
            Reach::Back(window) => (own + 1).saturating_sub(window.unwrap_or(own + 1))..own + 1,
            Reach::Around(None) => 0..self.context,
            Reach::Around(Some(far)) => {
                own.saturating_sub(far)..own.saturating_add(far).saturating_add(1).min(self.context)
            }
        }
    }

    /// The KV row of a position.
    pub(super) fn kv_row(&self, position: usize, block_size: usize) -> usize {
        self.blocks[position / block_size] as usize * block_size + position % block_size
    }
}

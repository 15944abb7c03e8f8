//! Rows on their way into tiles: rounded to bfloat16, and what a feed-forward layer makes of them before that.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::{Activation, FeedForward};
use super::amx::TILE;
use super::elementwise::{Curve, Gelu, GeluTanh, Relu, Silu, Tanh};
use super::simd::{Simd, Task};

/// Values of a row that one row of a tile holds: a whole step.
pub(super) const STEP_VALUES: usize = 2 * TILE;

/// Up to [`TILE`] rows.
pub(super) struct RoundTile<'a> {
    pub(super) x: &'a [f32],
    /// Of a row of `x`.
    pub(super) width: usize,
    pub(super) height: usize,
    /// `[steps, height, TILE]` pairs, all written.
    pub(super) to: &'a mut [u32],
}

impl Task for RoundTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.round(simd, |row, at, _| &row[at..(at + STEP_VALUES).min(row.len())]);
    }
}

impl RoundTile<'_> {
    /// `values` gives those of a row of `x` from the given one on, a step's or what is left, if need be in the buffer.
    #[inline(always)]
    fn round<S: Simd>(
        self,
        simd: S,
        values: impl for<'b> Fn(&'b [f32], usize, &'b mut [f32; STEP_VALUES]) -> &'b [f32],
    ) {
        for (row, x) in self.x.chunks_exact(self.width).take(self.height).enumerate() {
            let words = self.to[row * TILE..].chunks_mut(self.height * TILE);
            for (step, to) in words.enumerate() {
                let mut buffer = [0.0; STEP_VALUES];
                let values = values(x, step * STEP_VALUES, &mut buffer);
                let (to, padding) = to[..TILE].split_at_mut(values.len().div_ceil(2));
                simd.round_to_parts(values, to);
                padding.fill(0);
            }
        }
    }

    /// Of rows as `between` and the curve `C` make them.
    #[inline(always)]
    fn round_inner<S: Simd, C: Curve>(self, simd: S, is_gated: bool) {
        let inner = if is_gated { self.width / 2 } else { self.width };
        self.round(simd, |row, at, buffer| {
            let (x, factors) = row.split_at(inner);
            let len = STEP_VALUES.min(inner - at);
            activate::<S, C>(simd, (&x[at..][..len], factors.get(at..at + len)), buffer);
            &buffer[..len]
        });
    }
}

/// Rows of the result of a feed-forward layer's first product, or plain ones.
pub(super) struct RoundInner<'a> {
    pub(super) tile: RoundTile<'a>,
    pub(super) between: Option<FeedForward>,
}

impl Task for RoundInner<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (activation, is_gated) = match self.between {
            None => return self.tile.run(simd),
            Some(FeedForward::Plain(activation)) => (activation, false),
            Some(FeedForward::Gated(activation)) => (activation, true),
        };
        match activation {
            Activation::Silu => self.tile.round_inner::<S, Silu>(simd, is_gated),
            Activation::Gelu => self.tile.round_inner::<S, Gelu>(simd, is_gated),
            Activation::GeluTanh => self.tile.round_inner::<S, GeluTanh>(simd, is_gated),
            Activation::Relu => self.tile.round_inner::<S, Relu>(simd, is_gated),
            Activation::Tanh => self.tile.round_inner::<S, Tanh>(simd, is_gated),
        }
    }
}

/// A step's values, or what is left of a row, through the curve `C` and times their factors, if they have any.
///
/// The same values as of [`activate`](super::elementwise::activate) and [`gated`](super::elementwise::gated).
#[inline(always)]
fn activate<S: Simd, C: Curve>(
    simd: S,
    (x, factors): (&[f32], Option<&[f32]>),
    to: &mut [f32; STEP_VALUES],
) {
    if x.len() == STEP_VALUES {
        return activate_step::<S, C>(simd, (x, factors), to);
    }
    let padded = |values: &[f32]| {
        let mut padded = [0.0; STEP_VALUES];
        padded[..values.len()].copy_from_slice(values);
        padded
    };
    let (x, factors) = (padded(x), factors.map(padded));
    activate_step::<S, C>(simd, (&x, factors.as_ref().map(|factors| &factors[..])), to);
}

#[inline(always)]
fn activate_step<S: Simd, C: Curve>(
    simd: S,
    (x, factors): (&[f32], Option<&[f32]>),
    to: &mut [f32; STEP_VALUES],
) {
    for at in (0..STEP_VALUES).step_by(S::LANES) {
        let y = C::at(simd, simd.load(&x[at..]));
        let y = factors.map_or(y, |factors| simd.mul(y, simd.load(&factors[at..])));
        simd.store(y, &mut to[at..]);
    }
}

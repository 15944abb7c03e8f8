//! Rotary embedding, activations and gates: one pass over the values each.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::Activation;
use super::machine::{Machine, SERIAL_VALUES, rows_per_item};
use super::math::{gelu, tanh, times_sigmoid};
use super::simd::{Simd, Task};
use std::f32::consts::{FRAC_2_SQRT_PI, SQRT_2};

/// `y = activation(gate) · up` of rows `[gate | up]`; `inner` is as long as a row of `y`.
pub(super) fn gated(
    machine: &Machine,
    (gate_up, inner): (&[f32], usize),
    activation: Activation,
    y: &mut [f32],
) {
    let rows = rows_per_item(inner);
    machine.pool.chunks(y, rows * inner, |index, y| {
        let gate_up = gate_up[index * rows * 2 * inner..].chunks_exact(2 * inner);
        for (y, gate_up) in y.chunks_exact_mut(inner).zip(gate_up) {
            let (gate, x) = gate_up.split_at(inner);
            y.copy_from_slice(gate);
            machine.level.run(Gate { activation, y, x });
        }
    });
}

/// `x = activation(x)`
pub(super) fn activate(machine: &Machine, activation: Activation, x: &mut [f32]) {
    machine.pool.chunks(x, SERIAL_VALUES, |_, x| machine.level.run(Activate { activation, x }));
}

/// Rotates the heads in the first `rotated` columns of each row; `angles` gives a row's cosines and sines.
pub(super) fn rope<'a>(
    machine: &Machine,
    (x, cols): (&mut [f32], usize),
    rotated: usize,
    angles: impl Fn(usize) -> (&'a [f32], &'a [f32]) + Sync,
) {
    let rows = rows_per_item(cols);
    machine.pool.chunks(x, rows * cols, |index, x| {
        for (row, x) in x.chunks_exact_mut(cols).enumerate() {
            let (cos, sin) = angles(index * rows + row);
            machine.level.run(Rotate { x: &mut x[..rotated], cos, sin });
        }
    });
}

struct Rotate<'a> {
    x: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Task for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let half = self.cos.len();
        let full = half / S::LANES * S::LANES;
        for head in self.x.chunks_exact_mut(2 * half) {
            let (a, b) = head.split_at_mut(half);
            for i in (0..full).step_by(S::LANES) {
                let (x, y) = (simd.load(&a[i..]), simd.load(&b[i..]));
                let (cos, sin) = (simd.load(&self.cos[i..]), simd.load(&self.sin[i..]));
                let minus = simd.mul(y, simd.mul(sin, simd.splat(-1.0)));
                simd.store(simd.mul_add(x, cos, minus), &mut a[i..]);
                simd.store(simd.mul_add(y, cos, simd.mul(x, sin)), &mut b[i..]);
            }
            for i in full..half {
                let (x, y, cos, sin) = (a[i], b[i], self.cos[i], self.sin[i]);
                (a[i], b[i]) = (x * cos - y * sin, y * cos + x * sin);
            }
        }
    }
}

/// A step on two values that gives one, for every lane alike.
pub(super) trait Step {
    fn step<S: Simd>(&self, simd: S, y: S::V, x: S::V) -> S::V;
}

/// A function of one value, for every lane alike.
pub(super) trait Curve {
    fn at<S: Simd>(simd: S, x: S::V) -> S::V;
}

pub(super) struct Silu;
pub(super) struct Gelu;
pub(super) struct GeluTanh;
pub(super) struct Relu;
pub(super) struct Tanh;

impl Curve for Silu {
    #[inline(always)]
    fn at<S: Simd>(simd: S, x: S::V) -> S::V {
        times_sigmoid(simd, x, x)
    }
}

impl Curve for Gelu {
    #[inline(always)]
    fn at<S: Simd>(simd: S, x: S::V) -> S::V {
        gelu(simd, x)
    }
}

impl Curve for GeluTanh {
    /// `x/2 · (1 + tanh u) = x · sigmoid(2u)` with `u = sqrt(2/π) · (x + 0.044715 · x³)`
    /// (Hendrycks and Gimpel 2016; `transformers`' `gelu_pytorch_tanh`).
    #[inline(always)]
    fn at<S: Simd>(simd: S, x: S::V) -> S::V {
        let cubic = simd.mul_add(simd.mul(x, x), simd.splat(0.044_715), simd.splat(1.0));
        let u = simd.mul(simd.mul(x, cubic), simd.splat(SQRT_2 * FRAC_2_SQRT_PI));
        times_sigmoid(simd, x, u)
    }
}

impl Curve for Relu {
    #[inline(always)]
    fn at<S: Simd>(simd: S, x: S::V) -> S::V {
        simd.max(simd.splat(0.0), x)
    }
}

impl Curve for Tanh {
    #[inline(always)]
    fn at<S: Simd>(simd: S, x: S::V) -> S::V {
        tanh(simd, x)
    }
}

/// `y = activation(y) · x`
struct Gate<'a> {
    activation: Activation,
    y: &'a mut [f32],
    x: &'a [f32],
}

impl Task for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.activation {
            Activation::Silu => combine(simd, &Gated(Silu), self.y, self.x),
            Activation::Gelu => combine(simd, &Gated(Gelu), self.y, self.x),
            Activation::GeluTanh => combine(simd, &Gated(GeluTanh), self.y, self.x),
            Activation::Relu => combine(simd, &Gated(Relu), self.y, self.x),
            Activation::Tanh => combine(simd, &Gated(Tanh), self.y, self.x),
        }
    }
}

struct Gated<C>(C);

impl<C: Curve> Step for Gated<C> {
    #[inline(always)]
    fn step<S: Simd>(&self, simd: S, gate: S::V, up: S::V) -> S::V {
        simd.mul(C::at(simd, gate), up)
    }
}

struct Activate<'a> {
    activation: Activation,
    x: &'a mut [f32],
}

impl Task for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.activation {
            Activation::Silu => apply::<S, Silu>(simd, self.x),
            Activation::Gelu => apply::<S, Gelu>(simd, self.x),
            Activation::GeluTanh => apply::<S, GeluTanh>(simd, self.x),
            Activation::Relu => apply::<S, Relu>(simd, self.x),
            Activation::Tanh => apply::<S, Tanh>(simd, self.x),
        }
    }
}

/// Every value through a vector, so that place makes no difference.
#[inline(always)]
fn apply<S: Simd, C: Curve>(simd: S, x: &mut [f32]) {
    let mut vectors = x.chunks_exact_mut(S::LANES);
    for x in vectors.by_ref() {
        let y = C::at(simd, simd.load(x));
        simd.store(y, x);
    }
    let rest = vectors.into_remainder();
    let mut padded = [0.0; 16];
    padded[..rest.len()].copy_from_slice(rest);
    let y = C::at(simd, simd.load(&padded));
    simd.store(y, &mut padded);
    rest.copy_from_slice(&padded[..rest.len()]);
}

/// `y = step(y, x)`; what is left of a row goes through a vector too, so that place makes no difference.
#[inline(always)]
pub(super) fn combine<S: Simd>(simd: S, step: &impl Step, y: &mut [f32], x: &[f32]) {
    let (mut ys, xs) = (y.chunks_exact_mut(S::LANES), x.chunks_exact(S::LANES));
    let x_rest = xs.remainder();
    for (y, x) in ys.by_ref().zip(xs) {
        let result = step.step(simd, simd.load(y), simd.load(x));
        simd.store(result, y);
    }
    let y_rest = ys.into_remainder();
    if !y_rest.is_empty() {
        let (mut y, mut x) = ([0.0; 16], [0.0; 16]);
        y[..y_rest.len()].copy_from_slice(y_rest);
        x[..x_rest.len()].copy_from_slice(x_rest);
        let result = step.step(simd, simd.load(&y), simd.load(&x));
        simd.store(result, &mut y);
        y_rest.copy_from_slice(&y[..y_rest.len()]);
    }
}

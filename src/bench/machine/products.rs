//! Times the products of a step.
use super::shapes::Shape;
use crate::kernel::{Act, BaseWeight, Kernels, Precision, Result};
use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// Passes go on at least this long.
const WINDOW: Duration = Duration::from_millis(300);
/// Passes there are at least.
const PASSES: usize = 3;

/// All weights of a part once, with some rows.
#[derive(Clone, Debug)]
pub(super) struct Timing {
    pub(super) part: &'static str,
    pub(super) precision: Precision,
    pub(super) rows: usize,
    /// The median pass.
    pub(super) seconds: f64,
    /// The weights', packed.
    pub(super) bytes: usize,
    /// Multiplications and additions.
    pub(super) operations: usize,
}

/// Packs weights of these shapes and multiplies all of them with each number of rows.
pub(super) fn time(
    kernels: &dyn Kernels,
    part: &'static str,
    shapes: &[Shape],
    precision: Precision,
    rows: &[usize],
) -> Result<Vec<Timing>> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let weights = shapes.iter().map(|&[out, inner]| {
        let values = noise(out * inner, &mut rng);
        kernels.pack(&[Tensor::from_vec(values, (out, inner), &Device::Cpu)?], precision)
    });
    let weights = weights.collect::<Result<Vec<BaseWeight>>>()?;
    let timed = rows.iter().map(|&rows| {
        let inputs = inputs(kernels, shapes, rows, &mut rng)?;
        let seconds = median_pass(|| pass(kernels, &weights, &inputs))?;
        let size: usize = shapes.iter().map(|[out, inner]| out * inner).sum();
        let bytes = weights.iter().map(BaseWeight::bytes).sum();
        Ok(Timing { part, precision, rows, seconds, bytes, operations: 2 * rows * size })
    });
    timed.collect()
}

fn noise(len: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-0.5..0.5)).collect()
}

/// Rows for each width there is.
fn inputs(
    kernels: &dyn Kernels,
    shapes: &[Shape],
    rows: usize,
    rng: &mut ChaCha8Rng,
) -> Result<BTreeMap<usize, Act>> {
    let widths: BTreeSet<usize> = shapes.iter().map(|[_, width]| *width).collect();
    let input = |width| Ok((width, kernels.upload(&noise(rows * width, rng), rows, width)?));
    widths.into_iter().map(input).collect()
}

fn pass(
    kernels: &dyn Kernels,
    weights: &[BaseWeight],
    inputs: &BTreeMap<usize, Act>,
) -> Result<()> {
    weights.iter().try_for_each(|weight| {
        let y = kernels.linear(&inputs[&weight.in_features()], weight, None)?;
        std::hint::black_box(y);
        Ok(())
    })
}

/// Seconds of the median pass; the first one only warms up.
fn median_pass(mut pass: impl FnMut() -> Result<()>) -> Result<f64> {
    pass()?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < PASSES || start.elapsed() < WINDOW {
        let begun = Instant::now();
        pass()?;
        times.push(begun.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

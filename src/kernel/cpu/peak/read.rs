//! Reading memory.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::{
    super::{KernelError, Result},
    isa::Level,
    simd::{Simd, Task},
};
use super::rate::calls_per_second;
use std::hint::black_box;

/// What one call reads: much beside a call's own cost, little beside a measurement's time.
const CALL: usize = 1 << 20;

/// Sums that run side by side.
const CHAINS: usize = 8;

/// How far ahead of the sums memory is asked for, in values.
const AHEAD: usize = 1024;

/// Bytes a second that `threads` threads read, each from its own part of `bytes`.
pub(super) fn per_second(threads: usize, bytes: usize) -> Result<f64> {
    let len = (bytes / threads / size_of::<f32>()).max(CALL) / CALL * CALL;
    let parts = (0..threads).map(|_| filled(len)).collect::<Result<Vec<_>>>()?;
    let parts = std::sync::Mutex::new(parts);
    let level = Level::best();
    let calls = calls_per_second(threads, || {
        // Each thread takes a part of its own; there are as many as threads.
        let part = parts.lock().ok().and_then(|mut parts| parts.pop()).unwrap_or_default();
        let mut at = 0;
        move || {
            if let Some(values) = part.get(at..at + CALL) {
                black_box(level.run(Sum(values)));
            }
            at = (at + CALL) % part.len().max(CALL);
        }
    });
    Ok(calls * (CALL * size_of::<f32>()) as f64)
}

/// Written once, so that every page is there.
fn filled(len: usize) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|error| {
        KernelError::Unsupported(format!("no memory to read from, ask for less: {error}"))
    })?;
    values.resize(len, 1.0);
    Ok(values)
}

struct Sum<'a>(&'a [f32]);

impl Task for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut sums = [simd.splat(0.0); CHAINS];
        for values in self.0.chunks_exact(CHAINS * S::LANES) {
            for (sum, value) in sums.iter_mut().zip(values.chunks_exact(S::LANES)) {
                simd.prefetch(&value[0], AHEAD);
                *sum = simd.add(*sum, simd.load(value));
            }
        }
        sums.into_iter().map(|sum| simd.sum(sum)).sum()
    }
}

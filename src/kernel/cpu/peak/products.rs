//! Multiplying what lies in registers.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::{
    isa::{Isa, Level},
    simd::{Simd, Task},
};
use super::{Operands, ProductPeak, rate::calls_per_second};
use std::hint::black_box;

/// Sums that run side by side: enough to hide how long one product takes, few enough for sixteen registers.
const CHAINS: usize = 12;

/// Products of a chain in one call.
pub(super) const ROUNDS: usize = 4096;

/// Every way to multiply that this machine has.
pub(super) fn measure(threads: usize) -> Vec<ProductPeak> {
    let mut peaks = vec![fused(threads)];
    peaks.extend(Level::of(Isa::Avx512Bf16).map(|level| pairs(threads, level)));
    #[cfg(target_arch = "x86_64")]
    peaks.extend(super::x86::measure(threads));
    peaks
}

/// `a · b + c` in f32.
fn fused(threads: usize) -> ProductPeak {
    let level = Level::best();
    let calls = calls_per_second(threads, || {
        move || {
            black_box(level.run(Fused));
        }
    });
    let work = 2 * CHAINS * ROUNDS * level.lanes();
    let instructions = match level.isa() {
        Isa::Portable => "portable",
        Isa::Avx2 => "AVX2 FMA",
        Isa::Neon => "NEON FMA",
        _ => "AVX-512 FMA",
    };
    ProductPeak { operands: Operands::F32, instructions, per_second: calls * work as f64 }
}

/// Products of bfloat16 pairs.
fn pairs(threads: usize, level: Level) -> ProductPeak {
    let calls = calls_per_second(threads, || {
        move || {
            black_box(level.run(Pairs));
        }
    });
    let work = 4 * CHAINS * ROUNDS * level.lanes();
    let instructions = "AVX-512 BF16";
    ProductPeak { operands: Operands::Bf16, instructions, per_second: calls * work as f64 }
}

struct Fused;

impl Task for Fused {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let (half, one) = (simd.splat(black_box(0.5)), simd.splat(black_box(1.0)));
        let mut sums = [one; CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add(*sum, half, one);
            }
        }
        sums.into_iter().map(|sum| simd.sum(sum)).sum()
    }
}

struct Pairs;

impl Task for Pairs {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        // A pair of 1.0.
        let pair = simd.splat_part(black_box(0x3f80_3f80));
        let mut sums = [simd.splat(0.0); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.add_part(*sum, pair, pair);
            }
        }
        sums.into_iter().map(|sum| simd.sum(sum)).sum()
    }
}

//! Instructions of x86 that [`Simd`](super::super::simd::Simd) does not know: products of bytes, and tiles.
#![expect(unsafe_code, reason = "vector and tile instructions, each behind its detection")]
use super::super::amx::{Amx, Shape, configure, release};
use super::{Operands, ProductPeak, products::ROUNDS, rate::calls_per_second};
use std::{
    arch::{
        asm,
        x86_64::{
            _mm512_add_epi32, _mm512_dpbusd_epi32, _mm512_reduce_add_epi32, _mm512_set1_epi8,
            _mm512_setzero_si512,
        },
    },
    hint::black_box,
};

/// Sums that run side by side in vectors.
const CHAINS: usize = 12;

/// Sums that run side by side in tiles.
const TILES: usize = 4;

/// Those that this machine has.
pub(super) fn measure(threads: usize) -> Vec<ProductPeak> {
    let mut peaks = Vec::new();
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        let work = 2 * CHAINS * ROUNDS * 64;
        let call = || {
            // SAFETY: both features have just been detected.
            let sum = unsafe { bytes() };
            black_box(sum);
        };
        peaks.push(peak(threads, Operands::Int8, "AVX-512 VNNI", work, call));
    }
    if Amx::detect().is_some() {
        let work = 2 * TILES * ROUNDS * 16 * 16 * 32;
        peaks.push(peak(threads, Operands::Bf16, "AMX BF16", work, pair_tiles));
    }
    if Amx::detect().is_some_and(|amx| amx.bytes) {
        let work = 2 * TILES * ROUNDS * 16 * 16 * 64;
        peaks.push(peak(threads, Operands::Int8, "AMX INT8", work, byte_tiles));
    }
    peaks
}

fn peak(
    threads: usize,
    operands: Operands,
    instructions: &'static str,
    work: usize,
    call: impl Fn() + Copy + Sync,
) -> ProductPeak {
    let calls = calls_per_second(threads, || call);
    ProductPeak { operands, instructions, per_second: calls * work as f64 }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn bytes() -> i32 {
    let ones = _mm512_set1_epi8(black_box(1));
    let mut sums = [_mm512_setzero_si512(); CHAINS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, ones, ones);
        }
    }
    let sum = sums.into_iter().fold(_mm512_setzero_si512(), |a, b| _mm512_add_epi32(a, b));
    _mm512_reduce_add_epi32(sum)
}

/// A loop of one kind of product on tiles of zeros, four sums side by side.
macro_rules! tile_loop {
    ($name:ident, $product:literal) => {
        fn $name() {
            configure(&Shape::of([(16, 64); 8]));
            // SAFETY: called where the tiles and their permission have been detected; they have just been laid out, and
            // only registers are written.
            unsafe {
                asm!(
                    ".irp tile, 0, 1, 2, 3, 4, 5",
                    "tilezero tmm\\tile",
                    ".endr",
                    "2:",
                    concat!($product, " tmm0, tmm4, tmm5"),
                    concat!($product, " tmm1, tmm4, tmm5"),
                    concat!($product, " tmm2, tmm4, tmm5"),
                    concat!($product, " tmm3, tmm4, tmm5"),
                    "dec {rounds}",
                    "jnz 2b",
                    rounds = inout(reg) ROUNDS => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                    options(nostack, nomem),
                );
            }
            release();
        }
    };
}

tile_loop!(pair_tiles, "tdpbf16ps");
tile_loop!(byte_tiles, "tdpbssd");

//! The product's own CPU kernels: weights in panels, vectors picked at start, one pool of threads.
//!
//! Knows instruction sets, caches and threads. Every sum is formed in one fixed order that depends on
//! nothing but the row itself: not on the other rows, the threads, or how a prompt was cut.
mod attend;
mod attend_vectors;
mod attention;
mod buffers;
mod elementwise;
mod embedding;
mod highest;
mod host;
mod isa;
mod kernels;
mod kv;
mod kv_words;
mod linear;
mod lora;
mod machine;
mod math;
mod memory;
mod norm;
mod pack;
mod partial;
mod peak;
mod pool;
mod portable;
mod quant;
mod rows;
mod simd;
mod spans;
mod sums;
mod table;
#[cfg(test)]
mod tests;
mod trained;
mod vectors;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod attend_tiles;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod expanded;
#[cfg(target_arch = "x86_64")]
mod extras;
#[cfg(target_arch = "x86_64")]
mod lora_panels;
#[cfg(target_arch = "x86_64")]
mod lora_tiles;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod row_tiles;
#[cfg(target_arch = "x86_64")]
mod tiles;

pub(super) use buffers::{Buffer, Buffers};
pub use isa::Isa;
pub use kernels::CpuKernels;
pub(super) use kv_words::Quad;
pub(super) use memory::Pages;
pub use peak::{Operands, Peaks, ProductPeak};

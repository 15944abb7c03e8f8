//! What this machine can do at most: loops that do nothing but read, or nothing but multiply.
//!
//! They say nothing about our kernels; they are what our kernels are held against.
mod products;
mod rate;
mod read;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::super::Result;
use std::fmt;

/// The limits of a machine.
#[derive(Clone, Debug)]
pub struct Peaks {
    /// Bytes a second read from memory, with one thread, two, and so on.
    pub reads: Vec<f64>,
    /// For each way to multiply that this machine has.
    pub products: Vec<ProductPeak>,
}

/// One way to multiply, on operands that lie in registers.
#[derive(Clone, Copy, Debug)]
pub struct ProductPeak {
    /// What is multiplied.
    pub operands: Operands,
    /// The instructions.
    pub instructions: &'static str,
    /// Multiplications and additions a second, of all threads.
    pub per_second: f64,
}

/// What a product multiplies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operands {
    /// 32-bit floats.
    F32,
    /// bfloat16, summed in f32.
    Bf16,
    /// 8-bit integers, summed in 32 bits.
    Int8,
}

impl Peaks {
    /// Measures for some seconds, with up to `threads` threads and `bytes` of memory, which should be several
    /// times the caches.
    ///
    /// # Errors
    /// When the machine has no such memory.
    pub fn measure(threads: usize, bytes: usize) -> Result<Self> {
        let reads = (1..=threads).map(|threads| read::per_second(threads, bytes));
        Ok(Self { reads: reads.collect::<Result<_>>()?, products: products::measure(threads) })
    }

    /// Bytes a second of all threads.
    pub fn read(&self) -> f64 {
        self.reads.iter().copied().fold(0.0, f64::max)
    }

    /// Multiplications and additions a second that a product of such operands could reach: those of the fastest
    /// instructions for its operands, or for wider ones.
    pub fn product(&self, operands: Operands) -> f64 {
        let fits = |peak: &&ProductPeak| peak.operands.bits() >= operands.bits();
        self.products.iter().filter(fits).map(|peak| peak.per_second).fold(0.0, f64::max)
    }
}

impl fmt::Display for Operands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl Operands {
    fn bits(self) -> u32 {
        match self {
            Self::F32 => 32,
            Self::Bf16 => 16,
            Self::Int8 => 8,
        }
    }
}

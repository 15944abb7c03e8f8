//! Which vector instructions the kernels use, found once at start.
use super::portable::Portable;
use super::simd::{Simd, Task};
use std::fmt;

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
#[cfg(target_arch = "x86_64")]
use super::{amx::Amx, avx2::Avx2, avx512::Avx512};

/// Instruction sets the kernels are compiled for, best first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Isa {
    /// AVX-512 with tiles for products of bfloat16 (Sapphire Rapids and later), where the system allows them.
    Amx,
    /// AVX-512 with dot products of bfloat16 pairs (Cooper Lake, Sapphire Rapids, Zen 4 and later).
    Avx512Bf16,
    /// AVX-512 F, BW and VL (Skylake-SP and later).
    Avx512,
    /// AVX2 and FMA (Haswell, Zen 1 and later).
    Avx2,
    /// NEON, which every 64-bit Arm has; integers need its dot products too.
    Neon,
    /// Whatever the compiler's target has.
    Portable,
}

impl Isa {
    /// Every one, best first.
    pub const ALL: [Self; 6] =
        [Self::Amx, Self::Avx512Bf16, Self::Avx512, Self::Avx2, Self::Neon, Self::Portable];

    /// Whether this machine has it.
    pub fn available(self) -> bool {
        Level::of(self).is_some()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amx => "AMX",
            Self::Avx512Bf16 => "AVX-512 BF16",
            Self::Avx512 => "AVX-512",
            Self::Avx2 => "AVX2",
            Self::Neon => "NEON",
            Self::Portable => "portable",
        })
    }
}

/// An instruction set this machine is known to have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Level {
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512<true>),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512<false>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    Portable(Portable),
}

impl Level {
    /// The fastest this machine has.
    pub(super) fn best() -> Self {
        let fast = |isa: &Isa| *isa != Isa::Avx512Bf16 || !slow_pairs();
        Isa::ALL.into_iter().filter(fast).find_map(Self::of).unwrap_or(Self::Portable(Portable))
    }

    /// `isa`, where this machine has it.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn of(isa: Isa) -> Option<Self> {
        match isa {
            Isa::Amx => Amx::detect().map(Self::Amx),
            Isa::Avx512Bf16 => Avx512::detect().map(Self::Avx512Bf16),
            Isa::Avx512 => Avx512::detect().map(Self::Avx512),
            Isa::Avx2 => Avx2::detect().map(Self::Avx2),
            Isa::Neon => None,
            Isa::Portable => Some(Self::Portable(Portable)),
        }
    }

    /// `isa`, where this machine has it.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn of(isa: Isa) -> Option<Self> {
        match isa {
            Isa::Neon => Some(Self::Neon(Neon)),
            Isa::Portable => Some(Self::Portable(Portable)),
            Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 | Isa::Avx2 => None,
        }
    }

    /// `isa`, where this machine has it.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(super) fn of(isa: Isa) -> Option<Self> {
        (isa == Isa::Portable).then_some(Self::Portable(Portable))
    }

    /// Its name.
    pub(super) fn isa(self) -> Isa {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => Isa::Amx,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(_) => Isa::Avx512Bf16,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Isa::Avx512,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => Isa::Neon,
            Self::Portable(_) => Isa::Portable,
        }
    }

    /// The tiles, where products use them.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn tiles(self) -> Option<Amx> {
        match self {
            Self::Amx(amx) => Some(amx),
            _ => None,
        }
    }

    /// Runs `task` compiled for it.
    pub(super) fn run<T: Task>(self, task: T) -> T::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx(amx) => amx.wide.vectorize(task),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(simd) => simd.vectorize(task),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorize(task),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(task),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => simd.vectorize(task),
            Self::Portable(simd) => simd.vectorize(task),
        }
    }

    /// f32 values a vector has.
    pub(super) fn lanes(self) -> usize {
        struct Lanes;
        impl Task for Lanes {
            type Output = usize;
            fn run<S: Simd>(self, _: S) -> usize {
                S::LANES
            }
        }
        self.run(Lanes)
    }

    /// Words a rounded pair of activations takes.
    pub(super) fn parts(self) -> usize {
        struct Parts;
        impl Task for Parts {
            type Output = usize;
            fn run<S: Simd>(self, _: S) -> usize {
                S::PARTS
            }
        }
        self.run(Parts)
    }
}

/// Intel's cores take two cycles for a product of pairs of bfloat16, and one for two of f32: with the weights widened in
/// registers, AVX-512 alone is half as fast again (measured on Sapphire Rapids: 160 against 105 GFLOP/s).
#[cfg(target_arch = "x86_64")]
fn slow_pairs() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

#[cfg(not(target_arch = "x86_64"))]
fn slow_pairs() -> bool {
    false
}

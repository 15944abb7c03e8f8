//! Which instructions multiply integers on a machine.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::super::isa::Isa;
use super::super::isa::Level;
use super::dots::{Dots, Work};
use super::portable::Portable;

#[cfg(target_arch = "aarch64")]
use super::neon::NeonDots;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, vnni::Vnni};

/// The instructions that belong to a [`Level`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Arithmetic {
    #[cfg(target_arch = "x86_64")]
    Vnni(Vnni),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(NeonDots),
    Portable(Portable),
}

impl Arithmetic {
    /// The best that `level` allows; AVX-512 alone has none of its own, but every such machine has AVX2.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn of(level: Level) -> Self {
        let avx2 = || Avx2::detect().map(Self::Avx2);
        let best = match level.isa() {
            Isa::Portable | Isa::Neon => None,
            Isa::Avx2 => avx2(),
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => {
                Vnni::detect().map(Self::Vnni).or_else(avx2)
            }
        };
        best.unwrap_or(Self::Portable(Portable))
    }

    /// The best that `level` allows.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn of(level: Level) -> Self {
        let dots = || NeonDots::detect().filter(|_| level.isa() == Isa::Neon);
        dots().map_or(Self::Portable(Portable), Self::Neon)
    }

    /// The best that `level` allows.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(super) fn of(_: Level) -> Self {
        Self::Portable(Portable)
    }

    /// Runs `work` compiled for it.
    pub(super) fn run<W: Work>(self, work: W) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni(vnni) => vnni.vectorize(work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.vectorize(work),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(dots) => dots.vectorize(work),
            Self::Portable(portable) => portable.vectorize(work),
        }
    }
}

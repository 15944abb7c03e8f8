//! Products of integers: weights in 8 or 4 bits, activations in 8, a scale for each group of inputs.
//!
//! `y = Σ_g dot_g · x_scale_g · w_scale_g`: the dot of a group is exact, and the groups are added one after the
//! other with one rounding rule, so that every instruction set gives the same bits for any number of rows.
mod arithmetic;
mod dots;
mod format;
mod pack;
mod portable;
mod product;
mod round;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub(super) use pack::{QuantWeight, pack};

//! The implementations under test, and how near to the reference each must come.
use crate::kernel::{Act, CandleOps, CpuKernels, Isa, Kernels, KvPrecision, Precision, Reference};
use candle_core::{Device, utils};
use std::sync::OnceLock;

/// One implementation under test.
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) kernels: Box<dyn Kernels>,
    /// Whether it promises that company does not change a row's bits.
    pub(super) row_invariant: bool,
    /// Whether it has [`Precision::Int8`], [`Precision::Int4`] and [`KvPrecision::Int8`].
    pub(super) integers: bool,
    /// Largest error at [`Precision::Bf16`], relative to the largest value of the result.
    bf16_tolerance: f32,
    /// The same of attention over a cache in any precision but f32.
    kv_tolerance: f32,
    /// Largest error of deltas by pairs that are loaded for any precision but f32, relative to the value's own terms.
    delta_tolerance: f32,
}

/// Rounding of some hundred f32 products and sums, relative to the largest value of the result.
const F32_TOLERANCE: f32 = 2e-5;

/// All of them; made once, as some start threads.
pub(super) fn candidates() -> &'static [Candidate] {
    static CANDIDATES: OnceLock<Vec<Candidate>> = OnceLock::new();
    CANDIDATES.get_or_init(|| {
        let mut candidates = vec![
            // Sums in another order than the oracle's would be the only difference; there is none.
            candidate("reference", Reference, true, 0.0),
            // candle rounds a bf16 product's result to bf16 as well: half a unit in 8 bits.
            candidate("candle on the CPU", CandleOps::new(Device::Cpu), false, 5e-3),
        ];
        candidates.extend(cpu_candidates());
        candidates.extend(gpu_candidate());
        candidates
    })
}

/// The CPU kernels with every instruction set of this machine, on one thread and on two.
fn cpu_candidates() -> impl Iterator<Item = Candidate> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.available());
    isas.flat_map(|isa| [1, 2].map(|threads| (isa, threads))).map(|(isa, threads)| {
        let kernels = CpuKernels::with_isa(threads, isa).expect("the machine has it");
        // Operands are rounded as the oracle's are, sums are f32: no further from it than at f32.
        let mut candidate = candidate(kernels.describe(), kernels, true, F32_TOLERANCE);
        if isa == Isa::Amx {
            // Queries and probabilities are rounded too: half a unit in 8 bits each.
            candidate.kv_tolerance = 5e-3;
            // So is what a pair shrinks a row to.
            candidate.delta_tolerance = 5e-3;
        }
        candidate
    })
}

/// candle on the GPU, where this build and this machine have one.
fn gpu_candidate() -> Option<Candidate> {
    let device = if utils::cuda_is_available() {
        Device::new_cuda_with_stream(0)
    } else if utils::metal_is_available() {
        Device::new_metal(0)
    } else {
        return None;
    };
    device.ok().map(|device| candidate("candle on the GPU", CandleOps::new(device), false, 5e-3))
}

fn candidate(
    name: impl Into<String>,
    kernels: impl Kernels + 'static,
    row_invariant: bool,
    bf16_tolerance: f32,
) -> Candidate {
    // candle's operations are the ones that neither keep a row's order nor multiply integers.
    let (kernels, integers) = (Box::new(kernels), row_invariant);
    Candidate {
        name: name.into(),
        kernels,
        row_invariant,
        integers,
        bf16_tolerance,
        kv_tolerance: F32_TOLERANCE,
        delta_tolerance: bf16_tolerance,
    }
}

impl Candidate {
    /// The precisions it has.
    pub(super) fn precisions(&self) -> impl Iterator<Item = Precision> {
        let all = [Precision::F32, Precision::Bf16, Precision::Int8, Precision::Int4];
        all.into_iter().take(if self.integers { 4 } else { 2 })
    }

    /// Whether it has caches of this precision.
    pub(super) fn keeps(&self, precision: KvPrecision) -> bool {
        self.integers || precision != KvPrecision::Int8
    }

    /// `[rows, cols]` on its device.
    pub(super) fn act(&self, values: &[f32], cols: usize) -> Act {
        self.kernels.upload(values, values.len() / cols, cols).expect("sizes agree")
    }

    /// The values of `x`.
    pub(super) fn read(&self, x: &Act) -> Vec<f32> {
        self.kernels.read(x).expect("the device answers").into_owned()
    }

    /// Fails with the first value of `got` that is too far from `want`.
    pub(super) fn check(&self, got: &Act, want: &Act, precision: Precision) -> Result<(), String> {
        let bf16 = precision == Precision::Bf16;
        self.near(got, want, if bf16 { self.bf16_tolerance } else { F32_TOLERANCE })
    }

    /// As [`Candidate::check`], of deltas by pairs loaded for `precision` onto rows that bf16 holds exactly.
    ///
    /// Each value may be off by a part of its `terms`, not of the result: two pairs, or one with weights of both signs, may
    /// cancel each other, and what was rounded on the way does not cancel with them.
    pub(super) fn check_deltas(
        &self,
        (got, want): (&Act, &Act),
        terms: &[f32],
        precision: Precision,
    ) -> Result<(), String> {
        let rounded = if precision == Precision::F32 { 0.0 } else { self.delta_tolerance };
        let sums = F32_TOLERANCE * largest(terms);
        self.within(got, want, |i| terms[i] * rounded + sums)
    }

    /// As [`Candidate::check`], of attention over a cache of `precision`.
    pub(super) fn check_attention(
        &self,
        got: &Act,
        want: &Act,
        precision: KvPrecision,
    ) -> Result<(), String> {
        let rounded = precision != KvPrecision::F32;
        self.near(got, want, if rounded { self.kv_tolerance } else { F32_TOLERANCE })
    }

    fn near(&self, got: &Act, want: &Act, relative: f32) -> Result<(), String> {
        let tolerance = relative * largest(&Reference.read(want).expect("host memory"));
        self.within(got, want, |_| tolerance)
    }

    /// Fails with the first value of `got` that is further from `want` than its tolerance.
    fn within(
        &self,
        got: &Act,
        want: &Act,
        tolerance: impl Fn(usize) -> f32,
    ) -> Result<(), String> {
        let shapes = ((got.rows(), got.cols()), (want.rows(), want.cols()));
        if shapes.0 != shapes.1 {
            return Err(format!("{}: shape {:?}, expected {:?}", self.name, shapes.0, shapes.1));
        }
        let (got, want) = (self.read(got), Reference.read(want).expect("host memory"));
        for (i, (got, want)) in got.iter().zip(want.iter()).enumerate() {
            let (error, tolerance) = ((got - want).abs(), tolerance(i));
            if error.is_nan() || error > tolerance {
                let name = &self.name;
                return Err(format!("{name}: value {i} is {got}, expected {want} ± {tolerance}"));
            }
        }
        Ok(())
    }
}

/// The largest size among `values`, at least 1.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(1.0, |max, value| max.max(value.abs()))
}

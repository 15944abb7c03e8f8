//! What adapters do to a layer's own output: `y ← gain ∘ y + shift`, before any product of theirs is added.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::segments::{held, runs};
use super::super::{LinearDelta, LoraTarget, Result};
use super::host;
use super::lora::AddLora;
use super::machine::{Machine, rows_per_item};
use super::simd::{Simd, Task};
use std::ops::Range;

/// Why a tensor's values can be read inside a job.
pub(super) const HOST: &str = "seen in host memory before the job began";

impl AddLora<'_> {
    /// `y ← (1 + Σ weight · (gain − 1)) ∘ y + Σ weight · shift`; `y` is `[rows, out]`.
    pub(super) fn scale_and_shift(&self, machine: &Machine, y: &mut [f32]) -> Result<()> {
        for delta in self.targets.iter().flat_map(|target| target.slots).flatten() {
            let mut vectors = [&delta.gain, &delta.shift].into_iter().flatten();
            vectors.try_for_each(|vector| host::values(vector).map(drop))?;
        }
        let (out, rows) = (self.out_features, rows_per_item(self.out_features));
        machine.pool.chunks(y, rows * out, |index, y| {
            let first = index * rows;
            for run in runs(self.segments, first..first + y.len() / out) {
                let y = &mut y[(run.start - first) * out..(run.end - first) * out];
                for target in self.targets {
                    self.change(machine, target, run.start, y);
                }
            }
        });
        Ok(())
    }

    /// Rows that are in the same segments as `row`.
    fn change(&self, machine: &Machine, target: &LoraTarget<'_>, row: usize, y: &mut [f32]) {
        let held = held(target.slots, self.segments, row)
            .filter(|(delta, _)| delta.gain.is_some() || delta.shift.is_some());
        let mut some = held.clone();
        let Some((delta, weight)) = some.next() else { return };
        let rows = Rows { y, width: self.out_features, columns: &target.columns };
        if some.next().is_none() {
            let vector = |vector| host::values(vector).expect(HOST);
            let (gain, shift) = (delta.gain.as_ref().map(vector), delta.shift.as_ref().map(vector));
            let (gain, shift) = (gain.as_deref(), shift.as_deref());
            return machine.level.run(Change { gain, shift, weight, rows });
        }
        let len = target.columns.len();
        let mut vectors = machine.floats.scratch(2 * len);
        let (gain, shift) = vectors.split_at_mut(len);
        mix(held, gain, shift);
        machine.level.run(Change { gain: Some(gain), shift: Some(shift), weight: 1.0, rows });
    }
}

/// `(1 − Σ weight) + Σ weight · gain` and `Σ weight · shift` of several deltas.
fn mix<'a>(
    held: impl Iterator<Item = (&'a LinearDelta, f32)> + Clone,
    gain: &mut [f32],
    shift: &mut [f32],
) {
    let gains = held.clone().filter_map(|(delta, weight)| Some((delta.gain.as_ref()?, weight)));
    gain.fill(1.0 - gains.clone().map(|(_, weight)| weight).sum::<f32>());
    for (of_slot, weight) in gains {
        add_scaled(gain, &host::values(of_slot).expect(HOST), weight);
    }
    shift.fill(0.0);
    for (delta, weight) in held {
        if let Some(of_slot) = &delta.shift {
            add_scaled(shift, &host::values(of_slot).expect(HOST), weight);
        }
    }
}

/// `to += weight · values`
pub(super) fn add_scaled(to: &mut [f32], values: &[f32], weight: f32) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += weight * value);
}

/// Some columns of some rows.
struct Rows<'a> {
    /// `[rows, width]`
    y: &'a mut [f32],
    width: usize,
    columns: &'a Range<usize>,
}

/// `y ← (1 − weight + weight · gain) ∘ y + weight · shift`: a gain of weight 1 to the bit.
struct Change<'a> {
    gain: Option<&'a [f32]>,
    shift: Option<&'a [f32]>,
    weight: f32,
    rows: Rows<'a>,
}

impl Task for Change<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Rows { y, width, columns } = self.rows;
        let full = columns.len() / S::LANES * S::LANES;
        let (weight, rest) = (simd.splat(self.weight), 1.0 - self.weight);
        for row in y.chunks_exact_mut(width) {
            let y = &mut row[columns.clone()];
            for at in (0..full).step_by(S::LANES) {
                let mut value = simd.load(&y[at..]);
                if let Some(gain) = self.gain {
                    let factor = simd.mul_add(simd.load(&gain[at..]), weight, simd.splat(rest));
                    value = simd.mul(value, factor);
                }
                if let Some(shift) = self.shift {
                    value = simd.mul_add(simd.load(&shift[at..]), weight, value);
                }
                simd.store(value, &mut y[at..]);
            }
            for (at, y) in y.iter_mut().enumerate().skip(full) {
                *y *= self.gain.map_or(1.0, |gain| gain[at] * self.weight + rest);
                *y += self.shift.map_or(0.0, |shift| shift[at] * self.weight);
            }
        }
    }
}

//! What adapters change at the embedding, a row at a time.
#![expect(clippy::inline_always, reason = "must be compiled with the caller's instruction set")]
use super::super::segments::held;
use super::super::{EmbeddingDelta, LowRank, Result, RowSegment};
use super::host::{self, values_of};
use super::machine::{Machine, rows_per_item};
use super::rows::add_rows;
use super::simd::{Simd, Stored, Task};
use super::vectors::{HOST, add_scaled};
use candle_core::{DType, WithDType};
use half::bf16;

/// The operands, checked by the caller.
pub(super) struct AdaptEmbedding<'a> {
    /// `[rows]`
    pub(super) ids: &'a [u32],
    pub(super) hidden: usize,
    pub(super) slots: &'a [Option<EmbeddingDelta>],
    pub(super) segments: &'a [RowSegment],
}

impl AdaptEmbedding<'_> {
    /// `x` is `[rows, hidden]`.
    pub(super) fn run(&self, machine: &Machine, x: &mut [f32]) -> Result<()> {
        self.slots.iter().flatten().try_for_each(in_host_memory)?;
        let rows = rows_per_item(self.hidden);
        machine.pool.chunks(x, rows * self.hidden, |index, x| {
            for (row, x) in x.chunks_exact_mut(self.hidden).enumerate() {
                self.row(machine, index * rows + row, x);
            }
        });
        Ok(())
    }

    fn row(&self, machine: &Machine, row: usize, x: &mut [f32]) {
        let (id, held) = (self.ids[row], held(self.slots, self.segments, row));
        scale(machine, id, held.clone(), x);
        for (delta, weight) in held {
            if let Some(pair) = &delta.low_rank {
                match pair.rows().expect(HOST).0.dtype() {
                    DType::BF16 => add_pair::<bf16>(machine, pair, (id, weight), x),
                    _ => add_pair::<f32>(machine, pair, (id, weight), x),
                }
            }
            let Some(trained) = &delta.trained else { continue };
            let Some(place) = trained.place(id) else { continue };
            let mut row = machine.floats.scratch(x.len());
            trained.weight.packed().expect(HOST).row(place, &mut row);
            add_scaled(x, &row, weight);
        }
    }
}

fn in_host_memory(delta: &EmbeddingDelta) -> Result<()> {
    delta.gain.as_ref().map_or(Ok(()), |gain| host::values(gain).map(drop))?;
    delta.trained.as_ref().map_or(Ok(()), |rows| rows.weight.packed().map(drop))?;
    delta.low_rank.as_ref().map_or(Ok(()), pair_in_host_memory)
}

/// Both factors can be read.
pub(super) fn pair_in_host_memory(pair: &LowRank) -> Result<()> {
    let (a, b) = pair.rows()?;
    match a.dtype() {
        DType::BF16 => drop((values_of::<bf16>(a)?, values_of::<bf16>(b)?)),
        _ => drop((values_of::<f32>(a)?, values_of::<f32>(b)?)),
    }
    Ok(())
}

/// `x ← ((1 − Σ weight) + Σ weight · k) ∘ x` over the deltas that have a `k`: 0 where the row is replaced, else a gain.
fn scale<'a>(
    machine: &Machine,
    id: u32,
    held: impl Iterator<Item = (&'a EmbeddingDelta, f32)> + Clone,
    x: &mut [f32],
) {
    let gains = held.filter_map(|(delta, weight)| match &delta.gain {
        _ if delta.replaces(id) => Some((None, weight)),
        Some(gain) => Some((Some(gain), weight)),
        None => None,
    });
    if gains.clone().next().is_none() {
        return;
    }
    let mut factors = machine.floats.scratch(x.len());
    factors.fill(1.0 - gains.clone().map(|(_, weight)| weight).sum::<f32>());
    for (gain, weight) in gains {
        if let Some(gain) = gain {
            add_scaled(&mut factors, &host::values(gain).expect(HOST), weight);
        }
    }
    x.iter_mut().zip(&*factors).for_each(|(x, factor)| *x *= factor);
}

/// `x += weight · a[:, id]ᵀ · b`
fn add_pair<T: Stored + WithDType>(
    machine: &Machine,
    pair: &LowRank,
    (id, weight): (u32, f32),
    x: &mut [f32],
) {
    let (a, b) = pair.rows().expect(HOST);
    let (a, b) = (values_of::<T>(a).expect(HOST), values_of::<T>(b).expect(HOST));
    let mut factors = machine.floats.scratch(pair.rank());
    let column = a.iter().skip(id as usize).step_by(pair.in_features());
    factors.iter_mut().zip(column).for_each(|(factor, a)| *factor = weight * a.wide());
    machine.level.run(AddRows { factors: &factors, rows: &b, x });
}

/// `x += Σ_j factors[j] · row j`
struct AddRows<'a, T> {
    factors: &'a [f32],
    rows: &'a [T],
    x: &'a mut [f32],
}

impl<T: Stored> Task for AddRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        add_rows(simd, &[self.rows], [self.factors], &mut [self.x]);
    }
}

//! What adapters change, one row after the other.
use super::operations::{dot, host, in_precision};
use crate::kernel::{
    Act, BaseWeight, EmbeddingDelta, LinearDelta, LoraTarget, LowRank, NormWeights, Result,
    RowSegment, TrainedRows,
    segments::{held, runs},
};

/// `y ← (1 + Σ weight · (gain − 1)) ∘ y + Σ weight · addition` in the columns of one target.
pub(super) fn add_lora(
    y: &mut Act,
    x: &Act,
    target: &LoraTarget<'_>,
    segments: &[RowSegment],
) -> Result<()> {
    let (width, x_width) = (y.cols(), x.cols());
    for run in runs(segments, 0..x.rows()) {
        let deltas = held(target.slots, segments, run.start);
        let deltas = deltas
            .map(|(delta, weight)| HostDelta::new(delta, f64::from(weight)))
            .collect::<Result<Vec<_>>>()?;
        for row in run {
            let x = &x.values()?[row * x_width..(row + 1) * x_width];
            let y = &mut y.values_mut()?[row * width..(row + 1) * width][target.columns.clone()];
            let mut sums: Vec<f64> = y.iter().map(|y| f64::from(*y)).collect();
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum *= 1.0 + deltas.iter().map(|delta| delta.more(i)).sum::<f64>();
            }
            for delta in &deltas {
                delta.add_to(&mut sums, x);
            }
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = sum as f32);
        }
    }
    Ok(())
}

/// A delta where it can be read.
struct HostDelta<'a> {
    weight: f64,
    pair: Option<(Vec<f32>, Vec<f32>)>,
    gain: Option<Vec<f32>>,
    shift: Option<Vec<f32>>,
    trained: Option<(&'a TrainedRows, Vec<f32>)>,
}

impl<'a> HostDelta<'a> {
    fn new(delta: &'a LinearDelta, weight: f64) -> Result<Self> {
        let factors = |pair: &LowRank| -> Result<_> {
            let (a, b) = pair.rows()?;
            Ok((host(a)?, host(b)?))
        };
        let rows =
            |rows: &'a TrainedRows| -> Result<_> { Ok((rows, host(rows.weight.tensor()?)?)) };
        Ok(Self {
            weight,
            pair: delta.low_rank.as_ref().map(factors).transpose()?,
            gain: delta.gain.as_ref().map(host).transpose()?,
            shift: delta.shift.as_ref().map(host).transpose()?,
            trained: delta.trained.as_ref().map(rows).transpose()?,
        })
    }

    /// What it adds to the factor on output `i`.
    fn more(&self, i: usize) -> f64 {
        self.gain.as_ref().map_or(0.0, |gain| self.weight * (f64::from(gain[i]) - 1.0))
    }

    fn add_to(&self, y: &mut [f64], x: &[f32]) {
        if let Some((a, b)) = &self.pair {
            for (a, b) in a.chunks_exact(x.len()).zip(b.chunks_exact(y.len())) {
                add_scaled(y, b, self.weight * dot(x, a));
            }
        }
        if let Some(shift) = &self.shift {
            add_scaled(y, shift, self.weight);
        }
        let Some((trained, rows)) = &self.trained else { return };
        let x = in_precision(x, &trained.weight);
        for (place, row) in rows.chunks_exact(x.len()).enumerate() {
            let column = trained.ids.as_ref().map_or(place, |ids| ids[place] as usize);
            y[column] += self.weight * dot(&x, row);
        }
    }
}

/// As [`add_lora`], of the rows that tokens have in the embedding.
pub(super) fn adapt_embedding(
    x: &mut Act,
    ids: &[u32],
    slots: &[Option<EmbeddingDelta>],
    segments: &[RowSegment],
) -> Result<()> {
    let width = x.cols();
    for (row, (x, id)) in x.values_mut()?.chunks_exact_mut(width.max(1)).zip(ids).enumerate() {
        let deltas = held(slots, segments, row);
        let deltas: Vec<_> = deltas.map(|(delta, weight)| (delta, f64::from(weight))).collect();
        let mut factors = vec![1.0; width];
        for (delta, weight) in &deltas {
            if delta.replaces(*id) {
                for factor in &mut factors {
                    *factor -= weight;
                }
            } else if let Some(gain) = &delta.gain {
                let gain = host(gain)?.into_iter().map(|gain| f64::from(gain) - 1.0);
                factors.iter_mut().zip(gain).for_each(|(factor, more)| *factor += weight * more);
            }
        }
        let mut sums: Vec<f64> = x.iter().zip(factors).map(|(x, f)| f64::from(*x) * f).collect();
        for (delta, weight) in deltas {
            add_embedding(&mut sums, delta, weight, *id)?;
        }
        x.iter_mut().zip(sums).for_each(|(x, sum)| *x = sum as f32);
    }
    Ok(())
}

fn add_embedding(y: &mut [f64], delta: &EmbeddingDelta, weight: f64, id: u32) -> Result<()> {
    if let Some(pair) = &delta.low_rank {
        let (a, b) = pair.rows()?;
        let (column, b) = (host(&a.narrow(1, id as usize, 1)?)?, host(b)?);
        for (a, b) in column.into_iter().zip(b.chunks_exact(y.len())) {
            add_scaled(y, b, weight * f64::from(a));
        }
    }
    let Some(trained) = &delta.trained else { return Ok(()) };
    let Some(place) = trained.place(id) else { return Ok(()) };
    let table: &BaseWeight = &trained.weight;
    add_scaled(y, &host(&table.tensor()?.narrow(0, place, 1)?)?, weight);
    Ok(())
}

/// The weight of a norm that a row's adapters give it.
pub(super) fn norm_weight(weights: &NormWeights<'_>, row: usize) -> Result<Vec<f64>> {
    let base = weights.base.values()?;
    let mut sums: Vec<f64> = base.iter().map(|base| f64::from(*base)).collect();
    for (slot, weight) in weights.held(row) {
        add_scaled(&mut sums, &host(slot)?, f64::from(weight));
        add_scaled(&mut sums, base, -f64::from(weight));
    }
    Ok(sums)
}

fn add_scaled(y: &mut [f64], x: &[f32], factor: f64) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += factor * f64::from(*x));
}

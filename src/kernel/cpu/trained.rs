//! Rows of a layer's weight that adapters have of their own: `y += weight · x · trainedᵀ` at the columns they replace.
use super::super::{LoraTarget, Result, RowSegment, TrainedRows};
use super::linear::Linear;
use super::lora::AddLora;
use super::machine::{Machine, rows_per_item};
use super::vectors::add_scaled;
use std::ops::Range;

impl AddLora<'_> {
    /// One segment after the other; `y` is `[rows, out]`.
    pub(super) fn add_trained(&self, machine: &Machine, y: &mut [f32]) -> Result<()> {
        for target in self.targets {
            for segment in self.segments.iter().filter(|segment| !segment.rows.is_empty()) {
                let Some(delta) = &target.slots[segment.slot] else { continue };
                let Some(trained) = &delta.trained else { continue };
                if trained.weight.out_features() == 0 {
                    continue;
                }
                let Range { start, end } = segment.rows;
                let y = &mut y[start * self.out_features..end * self.out_features];
                self.add_rows(machine, (target, trained), segment, y)?;
            }
        }
        Ok(())
    }

    /// `y` holds the segment's rows.
    fn add_rows(
        &self,
        machine: &Machine,
        (target, trained): (&LoraTarget<'_>, &TrainedRows),
        segment: &RowSegment,
        y: &mut [f32],
    ) -> Result<()> {
        let (rows, out_features) = (segment.rows.len(), trained.weight.out_features());
        let x = &self.x[segment.rows.start * self.in_features..][..rows * self.in_features];
        // A head of its own for whole rows: nothing is in between.
        let onto = trained.ids.is_none()
            && out_features == self.out_features
            && (1.0..=1.0).contains(&segment.weight);
        let in_features = self.in_features;
        let (bias, pairs, between) = (None, None, None);
        let linear = Linear { x, rows, in_features, out_features, bias, onto, pairs, between };
        if onto {
            return linear.multiply(machine, &trained.weight, y);
        }
        let mut product = machine.floats.scratch(rows * out_features);
        linear.multiply(machine, &trained.weight, &mut product)?;
        let (width, chunk) = (self.out_features, rows_per_item(self.out_features));
        machine.pool.chunks(y, chunk * width, |index, y| {
            let products = product[index * chunk * out_features..].chunks_exact(out_features);
            for (y, product) in y.chunks_exact_mut(width).zip(products) {
                scatter(&mut y[target.columns.clone()], product, (trained, segment.weight));
            }
        });
        Ok(())
    }
}

fn scatter(y: &mut [f32], product: &[f32], (trained, weight): (&TrainedRows, f32)) {
    match &trained.ids {
        None => add_scaled(y, product, weight),
        Some(ids) => {
            for (id, product) in ids.iter().zip(product) {
                y[*id as usize] += weight * product;
            }
        }
    }
}

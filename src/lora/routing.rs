//! Which rows of a batch use which adapter slot.
use super::AdapterSlot;
use crate::kernel::RowSegment;

/// A batch's rows as segments: ascending, disjoint, one for each run of equal slots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoraRouting {
    segments: Vec<RowSegment>,
}

impl LoraRouting {
    /// From `(rows, adapter slot)` of each sequence, in batch order. Equal neighbours are joined.
    pub fn new(sequences: impl IntoIterator<Item = (usize, Option<AdapterSlot>)>) -> Self {
        let mut routing = Self::default();
        routing.set(sequences);
        routing
    }

    /// As [`LoraRouting::new`], in the memory that is there.
    pub fn set(&mut self, sequences: impl IntoIterator<Item = (usize, Option<AdapterSlot>)>) {
        let segments = &mut self.segments;
        segments.clear();
        let mut row = 0;
        for (rows, slot) in sequences {
            let end = row + rows;
            if let (Some(AdapterSlot(slot)), true) = (slot, rows > 0) {
                match segments.last_mut() {
                    Some(last) if last.slot == slot && last.rows.end == row => last.rows.end = end,
                    _ => segments.push(RowSegment { rows: row..end, slot, weight: 1.0 }),
                }
            }
            row = end;
        }
    }

    /// Rows without an adapter are in none of them.
    pub fn segments(&self) -> &[RowSegment] {
        &self.segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_with_one_slot_become_one_segment() {
        let slot = |s| Some(AdapterSlot(s));
        let routing =
            LoraRouting::new([(3, slot(1)), (1, slot(1)), (2, None), (0, slot(4)), (2, slot(1))]);
        let segment = |rows| RowSegment { rows, slot: 1, weight: 1.0 };
        assert_eq!(routing.segments(), [segment(0..4), segment(6..8)]);
    }
}

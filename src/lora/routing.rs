//! Which rows of a batch use which adapter slots.
use super::AdapterSlot;
use crate::kernel::RowSegment;

/// One of a sequence's adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlotUse {
    /// Where it lies.
    pub slot: AdapterSlot,
    /// How much of it.
    pub weight: f32,
    /// The first of the sequence's rows in this batch that it changes; those before it are the base's.
    pub from: usize,
}

impl From<AdapterSlot> for SlotUse {
    /// All of it, on every row.
    fn from(slot: AdapterSlot) -> Self {
        Self { slot, weight: 1.0, from: 0 }
    }
}

/// A batch's rows as segments, in layers: first every row's first adapter, then every row's second, and so on.
///
/// The segments of a layer are ascending and disjoint. Each row meets its adapters in the sequence's own order,
/// whoever shares the batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoraRouting {
    segments: Vec<RowSegment>,
}

impl LoraRouting {
    /// From `(rows, adapters)` of each sequence, in batch order. Neighbours with the same adapter and weight are
    /// joined.
    pub fn new<U>(sequences: impl IntoIterator<Item = (usize, U), IntoIter: Clone>) -> Self
    where
        U: IntoIterator<Item: Into<SlotUse>>,
    {
        let mut routing = Self::default();
        routing.set(sequences);
        routing
    }

    /// As [`LoraRouting::new`], in the memory that is there.
    pub fn set<U>(&mut self, sequences: impl IntoIterator<Item = (usize, U), IntoIter: Clone>)
    where
        U: IntoIterator<Item: Into<SlotUse>>,
    {
        self.segments.clear();
        let sequences = sequences.into_iter();
        for layer in 0.. {
            if !self.add_layer(layer, sequences.clone()) {
                return;
            }
        }
    }

    /// Adds the adapter number `layer` of every sequence. Whether any sequence has so many.
    fn add_layer<U>(&mut self, layer: usize, sequences: impl Iterator<Item = (usize, U)>) -> bool
    where
        U: IntoIterator<Item: Into<SlotUse>>,
    {
        let (first, mut row, mut any) = (self.segments.len(), 0, false);
        for (rows, uses) in sequences {
            let end = row + rows;
            if let Some(used) = uses.into_iter().nth(layer) {
                any = true;
                self.add(first, row, end, used.into());
            }
            row = end;
        }
        any
    }

    /// Adds rows `start..end`, as far as `used` changes them, to the layer whose segments begin at `first`.
    fn add(&mut self, first: usize, start: usize, end: usize, used: SlotUse) {
        let SlotUse { slot: AdapterSlot(slot), weight, from } = used;
        let start = start.saturating_add(from);
        if start >= end {
            return;
        }
        match self.segments[first..].last_mut() {
            Some(last)
                if (last.slot, last.rows.end) == (slot, start)
                    && last.weight.to_bits() == weight.to_bits() =>
            {
                last.rows.end = end;
            }
            _ => self.segments.push(RowSegment { rows: start..end, slot, weight }),
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
    use proptest::prelude::*;

    fn used(slot: usize, weight: f32, from: usize) -> SlotUse {
        SlotUse { slot: AdapterSlot(slot), weight, from }
    }

    #[test]
    fn neighbours_with_one_slot_become_one_segment() {
        let slot = |s| Some(AdapterSlot(s));
        let routing =
            LoraRouting::new([(3, slot(1)), (1, slot(1)), (2, None), (0, slot(4)), (2, slot(1))]);
        let segment = |rows| RowSegment { rows, slot: 1, weight: 1.0 };
        assert_eq!(routing.segments(), [segment(0..4), segment(6..8)]);
    }

    #[test]
    fn a_mix_lies_in_layers_and_weights_keep_neighbours_apart() {
        let routing = LoraRouting::new([
            (2, vec![used(0, 0.7, 0), used(1, 0.3, 1)]),
            (1, vec![used(0, 0.7, 0), used(1, 0.3, 0)]),
            (1, vec![used(0, 0.6, 0), used(2, 0.3, 5)]),
        ]);
        let segment = |rows, slot, weight| RowSegment { rows, slot, weight };
        let expected = [segment(0..3, 0, 0.7), segment(3..4, 0, 0.6), segment(1..3, 1, 0.3)];
        assert_eq!(routing.segments(), expected);
    }

    proptest! {
        #[test]
        fn every_row_meets_its_own_adapters_in_its_own_order(
            sequences in prop::collection::vec(
                (0_usize..4, prop::collection::vec((0_usize..3, 0_u8..2, 0_usize..5), 0..4)),
                0..8,
            ),
        ) {
            let uses = |list: &Vec<(usize, u8, usize)>| -> Vec<SlotUse> {
                list.iter().map(|&(slot, w, from)| used(slot, f32::from(w) + 0.5, from)).collect()
            };
            let sequences: Vec<_> =
                sequences.iter().map(|(rows, list)| (*rows, uses(list))).collect();
            let routing = LoraRouting::new(sequences.clone());
            let mut first = 0;
            for (rows, uses) in &sequences {
                for row in 0..*rows {
                    let own = uses.iter().filter(|used| used.from <= row);
                    let own: Vec<_> = own.map(|used| (used.slot.0, used.weight)).collect();
                    let met = routing.segments().iter().filter(|s| s.rows.contains(&(first + row)));
                    let met: Vec<_> = met.map(|s| (s.slot, s.weight)).collect();
                    prop_assert_eq!(met, own);
                }
                first += rows;
            }
            prop_assert!(routing.segments().iter().all(|segment| !segment.rows.is_empty()));
        }
    }
}

//! Rows of a batch by what holds them: segments may overlap, as those of a mix do.
use super::RowSegment;
use std::{iter, ops::Range};

/// `rows` cut wherever a segment begins or ends: every row of a run is in the same segments.
pub(super) fn runs(
    segments: &[RowSegment],
    rows: Range<usize>,
) -> impl Iterator<Item = Range<usize>> {
    let (mut start, end) = (rows.start, rows.end);
    iter::from_fn(move || {
        let borders = segments.iter().flat_map(|segment| [segment.rows.start, segment.rows.end]);
        let next = borders.filter(|border| *border > start).fold(end, usize::min);
        let run = start..next;
        start = next;
        (!run.is_empty()).then_some(run)
    })
}

/// What a row meets in the slots of a place, and its weights there, in the order of the segments.
pub(super) fn held<'a, T>(
    slots: &'a [Option<T>],
    segments: &'a [RowSegment],
    row: usize,
) -> impl Iterator<Item = (&'a T, f32)> + Clone {
    let segments = segments.iter().filter(move |segment| segment.rows.contains(&row));
    segments.filter_map(|segment| Some((slots.get(segment.slot)?.as_ref()?, segment.weight)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_the_rows_and_end_where_segments_do() {
        let segment = |rows| RowSegment { rows, slot: 0, weight: 1.0 };
        let segments = [segment(2..6), segment(4..9), segment(7..7), segment(20..30)];
        let cut = |rows| runs(&segments, rows).collect::<Vec<_>>();
        assert_eq!(cut(0..10), [0..2, 2..4, 4..6, 6..7, 7..9, 9..10]);
        assert_eq!(cut(5..8), [5..6, 6..7, 7..8]);
        assert!(cut(3..3).is_empty());
        assert!(runs(&[], 3..5).eq(iter::once(3..5)));
    }

    #[test]
    fn a_row_meets_what_its_segments_name_in_their_order() {
        let segment = |rows, slot, weight| RowSegment { rows, slot, weight };
        let segments = [segment(0..4, 2, 0.7), segment(2..9, 1, 0.5), segment(0..9, 0, 0.3)];
        let slots = [Some('a'), None, Some('c')];
        let met = |row| held(&slots, &segments, row).collect::<Vec<_>>();
        assert_eq!(met(3), [(&'c', 0.7), (&'a', 0.3)]);
        assert_eq!(met(8), [(&'a', 0.3)]);
        assert_eq!(held::<char>(&[], &segments, 3).next(), None);
    }
}

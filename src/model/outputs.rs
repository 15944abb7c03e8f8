//! What a step gives besides logits: hidden states and scores of labels.
use super::{Output, Pooling, StepContext, layers::ClassHeads};
use crate::{
    kernel::{Act, KernelError, Result, RowSegment},
    lora::HeadKind,
};
use std::ops::Range;

/// What outputs are read from.
pub(super) struct Readout<'a> {
    /// `[rows, hidden]`: the last layer's.
    pub(super) hidden: &'a Act,
    /// What scores labels.
    pub(super) heads: &'a ClassHeads,
    /// Which hidden state stands for a text before its labels are scored.
    pub(super) pooling: Pooling,
}

/// One output on its way.
struct Part {
    /// Its place among the outputs.
    index: usize,
    /// Its rows of the hidden states.
    rows: Range<u32>,
    /// Its own rows, those that `output_lora` counts.
    own: Range<usize>,
}

/// Outputs by how they are made.
#[derive(Default)]
struct Parts {
    /// Hidden states as they are.
    hidden: Vec<Part>,
    means: Vec<Part>,
    scores: Vec<Part>,
    token_scores: Vec<Part>,
}

impl Readout<'_> {
    /// Each of `wanted`, outputs and their rows of the hidden states, in that order.
    pub(super) fn outputs(
        &self,
        wanted: impl IntoIterator<Item = (Output, Range<u32>)>,
        step: &StepContext<'_>,
    ) -> Result<Vec<Vec<f32>>> {
        let segments = step.batch.output_lora.segments();
        let (parts, count) = self.parts(wanted)?;
        let mut outputs = vec![Vec::new(); count];
        self.copy(&parts.hidden, gather, &mut outputs, step)?;
        self.copy(&parts.means, mean, &mut outputs, step)?;
        let pool: Pool = if self.pooling == Pooling::Mean { mean } else { gather };
        let scored = [
            (HeadKind::Sequence, parts.scores, pool),
            (HeadKind::Token, parts.token_scores, gather),
        ];
        for (kind, parts, pool) in scored {
            if parts.is_empty() {
                continue;
            }
            let own: Vec<_> = parts.iter().map(|part| part.own.clone()).collect();
            let segments = restricted(segments, &own);
            let mut scores =
                self.heads.scores(kind, pool(self, &parts, step)?, &segments, step)?.into_iter();
            for part in &parts {
                outputs[part.index] = scores.by_ref().take(part.own.len()).flatten().collect();
            }
        }
        Ok(outputs)
    }

    fn parts(
        &self,
        wanted: impl IntoIterator<Item = (Output, Range<u32>)>,
    ) -> Result<(Parts, usize)> {
        let (mut parts, mut count, mut next) = (Parts::default(), 0, 0);
        for (index, (output, rows)) in wanted.into_iter().enumerate() {
            if rows.is_empty() || rows.end as usize > self.hidden.rows() {
                return Err(outside(&rows, self.hidden.rows()));
            }
            let own = next..next + output.width(rows.len());
            (count, next) = (index + 1, own.end);
            let (first, last) = (rows.start..rows.start + 1, rows.end - 1..rows.end);
            let (list, rows) = match output {
                Output::Embedding(Pooling::First) => (&mut parts.hidden, first),
                Output::Embedding(Pooling::Last) => (&mut parts.hidden, last),
                Output::Embedding(Pooling::Mean) => (&mut parts.means, rows),
                Output::Hidden => (&mut parts.hidden, rows),
                Output::TokenScores => (&mut parts.token_scores, rows),
                Output::Scores => {
                    let rows = match self.pooling {
                        Pooling::First => first,
                        Pooling::Last => last,
                        Pooling::Mean => rows,
                    };
                    (&mut parts.scores, rows)
                }
            };
            list.push(Part { index, rows, own });
        }
        Ok((parts, count))
    }

    /// Reads what `pool` makes of the parts.
    fn copy(
        &self,
        parts: &[Part],
        pool: Pool,
        outputs: &mut [Vec<f32>],
        step: &StepContext<'_>,
    ) -> Result<()> {
        if parts.is_empty() {
            return Ok(());
        }
        let rows = pool(self, parts, step)?;
        let values = step.kernels.read(&rows)?;
        let mut rows = values.chunks(rows.cols().max(1));
        for part in parts {
            outputs[part.index] = rows.by_ref().take(part.own.len()).flatten().copied().collect();
        }
        Ok(())
    }
}

/// Makes rows of parts.
type Pool = fn(&Readout<'_>, &[Part], &StepContext<'_>) -> Result<Act>;

/// All rows of the parts, one part's after the other's.
fn gather(readout: &Readout<'_>, parts: &[Part], step: &StepContext<'_>) -> Result<Act> {
    let rows: Vec<u32> = parts.iter().flat_map(|part| part.rows.clone()).collect();
    step.kernels.select_rows(readout.hidden, &rows)
}

/// A row for each part: the mean of its own.
fn mean(readout: &Readout<'_>, parts: &[Part], step: &StepContext<'_>) -> Result<Act> {
    let rows: Vec<_> = parts.iter().map(|part| part.rows.clone()).collect();
    step.kernels.mean_rows(readout.hidden, &rows)
}

/// The segments of some rows alone, where those stand one after the other; layers stay in their order.
fn restricted(segments: &[RowSegment], kept: &[Range<usize>]) -> Vec<RowSegment> {
    let mut restricted = Vec::new();
    for segment in segments {
        let mut first = 0;
        for range in kept {
            let (start, end) =
                (segment.rows.start.max(range.start), segment.rows.end.min(range.end));
            if start < end {
                let rows = first + start - range.start..first + end - range.start;
                restricted.push(RowSegment { rows, ..segment.clone() });
            }
            first += range.len();
        }
    }
    restricted
}

fn outside(rows: &Range<u32>, all: usize) -> KernelError {
    KernelError::mismatch("outputs", format!("rows {rows:?} of {all}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_of_some_rows_stand_where_those_do() {
        let segment = |rows, slot| RowSegment { rows, slot, weight: 0.5 };
        let segments = [segment(0..4, 1), segment(6..9, 2), segment(2..8, 3)];
        let kept = [1..2, 3..7];
        let restricted = restricted(&segments, &kept);
        let expected = [segment(0..1, 1), segment(1..2, 1), segment(4..5, 2), segment(1..5, 3)];
        assert_eq!(restricted, expected);
    }
}

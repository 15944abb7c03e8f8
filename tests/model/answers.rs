//! Golden answers, asked for alone and all in one batch.
use crate::harness::{Harness, Sequence, argmax, max_difference};
use lorad::lora::AdapterSlot;
use std::slice;

/// Two correct f32 programs differ by 1e-4 at most here (tests/golden/PROVENANCE.md).
pub(crate) const TOLERANCE: f32 = 1e-3;

/// One golden answer.
pub(crate) struct Answer {
    /// Its name.
    pub(crate) what: String,
    /// The adapters it is given with, and how much of each.
    pub(crate) mix: Vec<(AdapterSlot, f32)>,
    pub(crate) prompt: Vec<u32>,
    /// Of every token of the prompt.
    pub(crate) logits: Vec<Vec<f32>>,
    pub(crate) greedy: Vec<u32>,
}

/// Each of the answers alone, and all of them in one batch, logits and greedy tokens.
pub(crate) fn alone_and_together(harness: &mut Harness, kernels: &str, answers: &[Answer]) {
    let sequences = answers.iter().map(|answer| harness.sequence(&answer.prompt, &answer.mix));
    let mut sequences: Vec<_> = sequences.collect();
    let together = step_all(harness, &mut sequences);
    for (answer, together) in answers.iter().zip(&together) {
        let what = format!("{} on {kernels}", answer.what);
        let mut sequence = harness.sequence(&answer.prompt, &answer.mix);
        let alone = step_all(harness, slice::from_mut(&mut sequence)).remove(0);
        let difference = max_difference(&alone, &answer.logits);
        assert!(difference <= TOLERANCE, "{what}: logits differ by {difference}");
        assert_same(kernels, &what, &alone, together);
        let decoded = decode(harness, vec![sequence], &[&alone], answer.greedy.len());
        assert_eq!(decoded[0], answer.greedy, "{what}");
    }
    let steps = answers.iter().map(|answer| answer.greedy.len()).min().unwrap();
    let prefilled: Vec<_> = together.iter().collect();
    let decoded = decode(harness, sequences, &prefilled, steps);
    for (answer, decoded) in answers.iter().zip(decoded) {
        assert_eq!(decoded, answer.greedy[..steps], "{} in company on {kernels}", answer.what);
    }
}

/// The greedy tokens of each sequence, one of each a step; the last of its rows of `prefilled` begins.
fn decode(
    harness: &mut Harness,
    mut sequences: Vec<Sequence>,
    prefilled: &[&Vec<Vec<f32>>],
    steps: usize,
) -> Vec<Vec<u32>> {
    let mut last: Vec<_> = prefilled.iter().map(|rows| argmax(rows.last().unwrap())).collect();
    let mut decoded: Vec<_> = last.iter().map(|token| vec![*token]).collect();
    for _ in 1..steps {
        sequences.iter_mut().zip(&last).for_each(|(sequence, token)| sequence.tokens.push(*token));
        let logits = step_all(harness, &mut sequences);
        last = logits.iter().map(|rows| argmax(&rows[0])).collect();
        decoded.iter_mut().zip(&last).for_each(|(decoded, token)| decoded.push(*token));
    }
    for sequence in sequences {
        harness.release(sequence);
    }
    decoded
}

/// What a kernel promises about a row in other company: the same bits, or at least the same numbers.
pub(crate) fn assert_same(kernels: &str, what: &str, alone: &[Vec<f32>], together: &[Vec<f32>]) {
    match kernels {
        "candle" => {
            let difference = max_difference(alone, together);
            assert!(difference <= TOLERANCE, "{what} on {kernels}: differs by {difference}");
        }
        _ => assert!(alone == together, "{what} on {kernels}: the bits differ"),
    }
}

/// One step over all that is left of every sequence.
pub(crate) fn step_all(harness: &mut Harness, sequences: &mut [Sequence]) -> Vec<Vec<Vec<f32>>> {
    let mut work: Vec<_> = sequences
        .iter_mut()
        .map(|sequence| {
            let left = sequence.left();
            (sequence, left)
        })
        .collect();
    harness.step(&mut work)
}

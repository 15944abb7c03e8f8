//! Draws one of many weighted tokens, of the most likely ones where asked, without sorting them all.
use super::softmax;
use std::{cmp::Ordering, collections::BinaryHeap};

/// Buffers for the ranking of candidates.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    candidates: Vec<Candidate>,
    kept: Vec<Candidate>,
}

/// A token that may be drawn; of two equally likely ones the lower id is greater.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    weight: f32,
    id: u32,
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.weight.total_cmp(&other.weight).then(other.id.cmp(&self.id))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best weight is 1. Hardly ever does anything below this one belong to the most likely tokens.
const LIKELY: f32 = 1e-4;

impl Ranking {
    /// The token at share `at` of the weight of those that `top_k` (0 is all) and then `top_p` keep.
    pub(super) fn pick(
        &mut self,
        weights: &[f32],
        top_k: usize,
        top_p: f32,
        at: f64,
    ) -> Option<u32> {
        if top_k == 0 && top_p >= 1.0 {
            return pick_by_id(weights, at);
        }
        let wanted = f64::from(top_p) * softmax::total(weights);
        gather(&mut self.candidates, weights, LIKELY);
        let enough = match top_k {
            0 => total(&self.candidates) >= wanted,
            k => self.candidates.len() >= k,
        };
        if !enough {
            gather(&mut self.candidates, weights, f32::MIN_POSITIVE);
        }
        if top_k == 0 {
            self.keep_mass(wanted);
        } else {
            keep_top(&mut self.candidates, top_k);
            self.keep_mass(f64::from(top_p) * total(&self.candidates));
        }
        pick_in_order(&self.kept, at)
    }

    /// The most likely ones, best first, until together they have `wanted`.
    fn keep_mass(&mut self, wanted: f64) {
        let mut heap = BinaryHeap::from(std::mem::take(&mut self.candidates));
        let mut sum = 0.0;
        self.kept.clear();
        self.kept.reserve(heap.capacity());
        while let Some(candidate) = heap.pop() {
            self.kept.push(candidate);
            sum += f64::from(candidate.weight);
            if sum >= wanted {
                break;
            }
        }
        self.candidates = heap.into_vec();
    }
}

/// Every token of at least `floor`, by id.
fn gather(candidates: &mut Vec<Candidate>, weights: &[f32], floor: f32) {
    let all = weights.iter().zip(0..);
    candidates.clear();
    // For all of them, or a flatter distribution than any before would need more.
    candidates.reserve(weights.len());
    candidates.extend(
        all.filter(|(weight, _)| **weight >= floor).map(|(&weight, id)| Candidate { weight, id }),
    );
}

/// The `k` most likely ones.
fn keep_top(candidates: &mut Vec<Candidate>, k: usize) {
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        candidates.truncate(k);
    }
}

fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
}

fn pick_in_order(candidates: &[Candidate], at: f64) -> Option<u32> {
    let mut left = at * total(candidates);
    for candidate in candidates {
        left -= f64::from(candidate.weight);
        if left < 0.0 {
            return Some(candidate.id);
        }
    }
    // Rounding left a rest.
    candidates.last().map(|candidate| candidate.id)
}

/// Of all tokens, block by block.
fn pick_by_id(weights: &[f32], at: f64) -> Option<u32> {
    let mut left = at * softmax::total(weights);
    for (block, first) in weights.chunks(softmax::BLOCK).zip((0..).step_by(softmax::BLOCK)) {
        let mass = softmax::mass(block);
        if left >= mass {
            left -= mass;
            continue;
        }
        for (&weight, id) in block.iter().zip(first..) {
            left -= f64::from(weight);
            if left < 0.0 {
                return Some(id);
            }
        }
    }
    weights.iter().rposition(|&weight| weight > 0.0).map(|id| id as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The tokens that may be drawn, by sorting everything.
    fn allowed(weights: &[f32], top_k: usize, top_p: f32) -> Vec<u32> {
        let mut ranked: Vec<(u32, f64)> =
            (0..).zip(weights).map(|(id, &weight)| (id, f64::from(weight))).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked.truncate(if top_k == 0 { usize::MAX } else { top_k });
        let total: f64 = ranked.iter().map(|(_, weight)| weight).sum();
        let mut sum = 0.0;
        let enough = ranked.iter().position(|(_, weight)| {
            sum += weight;
            sum >= total * f64::from(top_p) * (1.0 + 1e-5)
        });
        ranked.truncate(enough.map_or(ranked.len(), |at| at + 1));
        ranked.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn every_token_has_its_share() {
        let weights = [0.5, 1.0, 0.0, 0.25, 0.25];
        let mut ranking = Ranking::default();
        for (at, id) in [(0.0, 0), (0.24, 0), (0.26, 1), (0.74, 1), (0.76, 3), (0.99, 4)] {
            assert_eq!(ranking.pick(&weights, 0, 1.0, at), Some(id));
        }
        for (at, id) in [(0.0, 1), (0.66, 1), (0.67, 0), (0.99, 0)] {
            assert_eq!(ranking.pick(&weights, 2, 1.0, at), Some(id), "best first");
            assert_eq!(ranking.pick(&weights, 0, 0.75, at), Some(id));
        }
    }

    #[test]
    fn of_equals_the_lower_id_is_kept() {
        let weights = [0.1, 1.0, 1.0, 1.0];
        let mut ranking = Ranking::default();
        for at in [0.0, 0.6, 0.999] {
            assert!(ranking.pick(&weights, 2, 1.0, at).is_some_and(|id| id == 1 || id == 2));
        }
    }

    proptest! {
        #[test]
        fn only_allowed_tokens_are_drawn_whatever_was_drawn_before(
            exponents in prop::collection::vec(-14.0_f32..0.0, 1..600),
            (top_k, top_p) in (0_usize..40, 0.01_f32..=1.0),
            at in 0.0_f64..1.0,
        ) {
            let mut weights: Vec<f32> = exponents.iter().map(|x| x.exp()).collect();
            weights[0] = 1.0;
            let mut ranking = Ranking::default();
            let id = ranking.pick(&weights, top_k, top_p, at).expect("there is one");
            prop_assert!(allowed(&weights, top_k, top_p).contains(&id));
            ranking.pick(&[1.0, 0.5], 1, 0.5, at);
            prop_assert_eq!(ranking.pick(&weights, top_k, top_p, at), Some(id));
        }
    }
}

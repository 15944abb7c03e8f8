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

/// Which tokens may be drawn, one rule after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    /// This many of the most likely; 0 is all.
    pub(super) top_k: usize,
    /// The most likely that together have this share.
    pub(super) top_p: f32,
    /// The most typical that together have this share.
    pub(super) typical_p: f32,
}

impl Ranking {
    /// The token at share `at` of the weight of those that are kept.
    pub(super) fn pick(&mut self, weights: &[f32], keep: Keep, at: f64) -> Option<u32> {
        let Keep { top_k, top_p, typical_p } = keep;
        match (top_k == 0 && top_p >= 1.0, typical_p < 1.0) {
            (true, false) => return pick_by_id(weights, at),
            (true, true) => gather(&mut self.kept, weights, f32::MIN_POSITIVE),
            (false, _) => self.keep_likely(weights, top_k, top_p),
        }
        if typical_p < 1.0 {
            keep_typical(&mut self.kept, typical_p);
        }
        pick_in_order(&self.kept, at)
    }

    fn keep_likely(&mut self, weights: &[f32], top_k: usize, top_p: f32) {
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

/// Those whose surprise is nearest to the surprise to be expected, until together they have `share` (locally typical
/// sampling, Meister et al. 2022; `TypicalLogitsWarper` in transformers).
fn keep_typical(candidates: &mut Vec<Candidate>, share: f32) {
    let total = total(candidates);
    // Of a weight `w` the surprise is `ln(total) - ln(w)`; what all have in common falls out of the differences.
    let surprise = |candidate: &Candidate| -f64::from(candidate.weight).ln();
    let expected: f64 =
        candidates.iter().map(|one| f64::from(one.weight) / total * surprise(one)).sum();
    let distance = |candidate: &Candidate| (surprise(candidate) - expected).abs();
    candidates.sort_by(|a, b| distance(a).total_cmp(&distance(b)).then(a.id.cmp(&b.id)));
    let (wanted, mut sum) = (f64::from(share) * total, 0.0);
    let enough = candidates.iter().position(|candidate| {
        sum += f64::from(candidate.weight);
        sum >= wanted
    });
    candidates.truncate(enough.map_or(candidates.len(), |at| at + 1));
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

    fn likely(top_k: usize, top_p: f32) -> Keep {
        Keep { top_k, top_p, typical_p: 1.0 }
    }

    #[test]
    fn the_most_typical_tokens_need_not_be_the_most_likely() {
        // Shares 0.4, 0.1 five times and 0.02 five times; 2.0 nats are expected, 2.3 is the surprise of a tenth.
        let weights: Vec<f32> = [1.0].into_iter().chain([0.25; 5]).chain([0.05; 5]).collect();
        let kept = |keep: Keep| {
            let mut ranking = Ranking::default();
            ranking.pick(&weights, keep, 0.0).expect("there is one");
            let mut ids: Vec<_> = ranking.kept.iter().map(|one| one.id).collect();
            ids.sort_unstable();
            ids
        };
        let typical = |typical_p| kept(Keep { top_k: 0, top_p: 1.0, typical_p });
        assert_eq!(typical(0.05), [1]);
        assert_eq!(typical(0.45), [1, 2, 3, 4, 5]);
        assert_eq!(typical(0.55), [0, 1, 2, 3, 4, 5]);
        assert_eq!(
            kept(Keep { top_k: 2, top_p: 1.0, typical_p: 0.1 }),
            [0],
            "of two, the likely one"
        );
    }

    #[test]
    fn every_token_has_its_share() {
        let weights = [0.5, 1.0, 0.0, 0.25, 0.25];
        let mut ranking = Ranking::default();
        for (at, id) in [(0.0, 0), (0.24, 0), (0.26, 1), (0.74, 1), (0.76, 3), (0.99, 4)] {
            assert_eq!(ranking.pick(&weights, likely(0, 1.0), at), Some(id));
        }
        for (at, id) in [(0.0, 1), (0.66, 1), (0.67, 0), (0.99, 0)] {
            assert_eq!(ranking.pick(&weights, likely(2, 1.0), at), Some(id), "best first");
            assert_eq!(ranking.pick(&weights, likely(0, 0.75), at), Some(id));
        }
    }

    #[test]
    fn of_equals_the_lower_id_is_kept() {
        let weights = [0.1, 1.0, 1.0, 1.0];
        let mut ranking = Ranking::default();
        for at in [0.0, 0.6, 0.999] {
            assert!(
                ranking.pick(&weights, likely(2, 1.0), at).is_some_and(|id| id == 1 || id == 2)
            );
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
            let keep = likely(top_k, top_p);
            let id = ranking.pick(&weights, keep, at).expect("there is one");
            prop_assert!(allowed(&weights, top_k, top_p).contains(&id));
            ranking.pick(&[1.0, 0.5], likely(1, 0.5), at);
            prop_assert_eq!(ranking.pick(&weights, keep, at), Some(id));
        }
    }
}

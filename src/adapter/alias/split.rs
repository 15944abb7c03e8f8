//! Which target a request gets.
use super::WeightedTarget;
use crate::adapter::AdapterName;
use sha2::{Digest, Sha256};

/// By weight: `chance` is uniform in `[0, 1)`. `None` where no target has a weight.
pub(super) fn by_chance<'a>(
    targets: impl Iterator<Item = (usize, &'a WeightedTarget)> + Clone,
    chance: f64,
) -> Option<usize> {
    let total: f64 = targets.clone().map(|(_, target)| target.weight).sum();
    let mut left = chance * total;
    let mut last = None;
    for (index, target) in targets.filter(|(_, target)| target.weight > 0.0) {
        last = Some(index);
        left -= target.weight;
        if left < 0.0 {
            break;
        }
    }
    last
}

/// Always the same for one `value`, and by weight over many of them (weighted rendezvous hashing: Schindelhauer and
/// Schomaker 2005, the logarithmic method). Values move only to targets whose share rises and from those whose share falls.
pub(super) fn by_value<'a>(
    alias: &AdapterName,
    targets: impl Iterator<Item = (usize, &'a WeightedTarget)>,
    value: &str,
) -> Option<usize> {
    let distance = |(index, target): (usize, &WeightedTarget)| {
        let point = point(alias, &target.target.to_string(), value);
        (index, -point.ln() / target.weight)
    };
    let nearest = targets
        .filter(|(_, target)| target.weight > 0.0)
        .map(distance)
        .min_by(|(_, a), (_, b)| a.total_cmp(b));
    nearest.map(|(index, _)| index)
}

/// Uniform in `(0, 1)`. The alias is the salt: a value that is lucky under one is not so under all.
fn point(alias: &AdapterName, target: &str, value: &str) -> f64 {
    let mut hasher = Sha256::new();
    for part in [alias.as_str(), target, value] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let hash = hasher.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    ((u64::from_le_bytes(first) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const DRAWS: usize = 10_000;

    fn alias() -> AdapterName {
        "chat".parse().expect("a name")
    }

    fn targets(weights: &[f64]) -> Vec<WeightedTarget> {
        let target = |(at, weight): (usize, &f64)| WeightedTarget {
            target: format!("t{at}").parse().expect("a target"),
            weight: *weight,
        };
        weights.iter().enumerate().map(target).collect()
    }

    fn of_value(weights: &[f64], value: usize) -> usize {
        let all = targets(weights);
        by_value(&alias(), all.iter().enumerate(), &format!("user-{value}")).expect("a target")
    }

    /// Six standard deviations: a fair draw fails once in a billion runs, and these runs are all the same.
    fn check_shares(counts: &[usize], weights: &[f64]) {
        let (draws, total) = (DRAWS as f64, weights.iter().sum::<f64>());
        for (count, weight) in counts.iter().zip(weights) {
            let share = weight / total;
            let bound = 6.0 * (draws * share * (1.0 - share)).sqrt();
            let off = (*count as f64 - draws * share).abs();
            assert!(off <= bound, "{counts:?} for {weights:?}");
        }
    }

    #[test]
    fn draws_are_as_the_weights_are() {
        for weights in [&[90.0, 10.0][..], &[1.0, 1.0, 1.0], &[0.5, 0.0, 0.25], &[1.0], &[1e6, 1.0]]
        {
            let all = targets(weights);
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            let (mut drawn, mut hashed) = (vec![0; weights.len()], vec![0; weights.len()]);
            for value in 0..DRAWS {
                let chance = by_chance(all.iter().enumerate(), rng.random());
                drawn[chance.expect("a target")] += 1;
                hashed[of_value(weights, value)] += 1;
            }
            check_shares(&drawn, weights);
            check_shares(&hashed, weights);
        }
    }

    #[test]
    fn the_ends_of_chance_are_targets_too() {
        let all = targets(&[0.0, 1.0, 2.0, 0.0]);
        let at = |chance| by_chance(all.iter().enumerate(), chance);
        assert_eq!((at(0.0), at(1.0 - f64::EPSILON), at(1.0)), (Some(1), Some(2), Some(2)));
        assert_eq!(by_chance(targets(&[0.0]).iter().enumerate(), 0.5), None);
        assert_eq!(by_value(&alias(), targets(&[0.0]).iter().enumerate(), "a"), None);
    }

    #[test]
    fn one_value_stays_where_it_is() {
        for value in 0..100 {
            let first = of_value(&[90.0, 10.0], value);
            assert_eq!(first, of_value(&[90.0, 10.0], value));
            assert_eq!(first, of_value(&[9.0, 1.0], value), "shares count, not sums");
        }
    }

    #[test]
    fn no_more_values_move_than_shares_do() {
        // 90/10 → 70/30 moves a fifth of all, all of them to the second.
        let moved: Vec<_> = (0..DRAWS)
            .map(|value| (of_value(&[90.0, 10.0], value), of_value(&[70.0, 30.0], value)))
            .filter(|(before, after)| before != after)
            .collect();
        assert!(moved.iter().all(|step| *step == (0, 1)));
        check_shares(&[moved.len(), DRAWS - moved.len()], &[0.2, 0.8]);
        // A third target takes its tenth from both, and nothing moves between them.
        for value in 0..DRAWS {
            let before = of_value(&[60.0, 30.0], value);
            let after = of_value(&[60.0, 30.0, 10.0], value);
            assert!(after == before || after == 2);
        }
    }

    #[test]
    fn the_alias_is_the_salt() {
        let all = targets(&[1.0, 1.0]);
        let other: AdapterName = "other".parse().expect("a name");
        let differing = (0..1000).filter(|value| {
            let value = format!("user-{value}");
            by_value(&alias(), all.iter().enumerate(), &value)
                != by_value(&other, all.iter().enumerate(), &value)
        });
        assert!((400..600).contains(&differing.count()));
    }
}

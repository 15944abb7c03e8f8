//! The requests of a run: to whom, what, and when.
use super::args::{Mapping, TrafficArgs};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// A request not yet sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    /// Which of the target's kinds.
    pub(super) route: usize,
    /// Token ids.
    pub(super) prompt: Vec<u32>,
    /// When to send it, from the start of the run; zero where the next free client takes it.
    pub(super) at: Duration,
}

/// `count` requests over `routes` kinds. The same seed makes the same ones, another one shares no prompt with them.
pub(super) fn plan(args: &TrafficArgs, routes: usize, count: usize, seed: u64) -> Vec<Planned> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shares = shares(args, routes);
    let mut at = Duration::ZERO;
    let request = |index: usize| {
        let route = match &shares {
            Some(shares) => shares.draw(rng.random()),
            None => index % routes,
        };
        if let Some(rate) = args.rate {
            at += wait(rate, rng.random());
        }
        Planned { route, prompt: prompt(args, index, &mut rng), at }
    };
    (0..count).map(request).collect()
}

/// Prompts of a run differ in their first token already, so that no cache of beginnings helps.
fn prompt(args: &TrafficArgs, index: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let ids = &args.token_ids.0;
    let mut prompt: Vec<u32> =
        (0..args.prompt_tokens.get()).map(|_| rng.random_range(ids.clone())).collect();
    prompt[0] = ids.start + index as u32 % (ids.end - ids.start);
    prompt
}

/// The time between two requests of a Poisson process; `draw` is uniform in 0..1.
fn wait(rate: f64, draw: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - draw).ln() / rate)
}

/// How often each route is drawn; `None` takes them in turn.
fn shares(args: &TrafficArgs, routes: usize) -> Option<Shares> {
    match (&args.split, args.map) {
        (Some(split), _) => Some(Shares::new(split.0.iter().copied())),
        // Zipf's law with exponent 1.
        (None, Mapping::Zipf) => Some(Shares::new((1..=routes).map(|k| 1.0 / k as f64))),
        (None, Mapping::Rr) => None,
    }
}

/// Routes that are drawn as often as their weights say.
struct Shares {
    /// Weights summed up, the last one 1.
    sums: Vec<f64>,
}

impl Shares {
    fn new(weights: impl Iterator<Item = f64> + Clone) -> Self {
        let all: f64 = weights.clone().sum();
        let mut sum = 0.0;
        let sums = weights.map(|weight| {
            sum += weight / all;
            sum
        });
        Self { sums: sums.collect() }
    }

    /// The index at `draw`, which is uniform in 0..1.
    fn draw(&self, draw: f64) -> usize {
        self.sums.partition_point(|sum| *sum <= draw).min(self.sums.len() - 1)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        traffic: TrafficArgs,
    }

    pub(in crate::bench::load) fn traffic(flags: &[&str]) -> TrafficArgs {
        Line::parse_from(["load"].iter().chain(flags)).traffic
    }

    #[test]
    fn prompts_are_exact_reproducible_and_begin_differently() {
        let args = traffic(&["--prompt-tokens", "5", "--token-ids", "10..20"]);
        let requests = plan(&args, 3, 8, 1);
        assert_eq!(requests, plan(&args, 3, 8, 1));
        assert_ne!(requests, plan(&args, 3, 8, 2));
        assert_eq!(requests.iter().map(|r| r.route).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0, 1]);
        for (index, request) in requests.iter().enumerate() {
            assert_eq!(request.prompt.len(), 5);
            assert!(request.prompt.iter().all(|id| (10..20).contains(id)));
            assert_eq!(request.prompt[0], 10 + index as u32);
        }
    }

    #[test]
    fn zipf_draws_the_kth_by_its_weight() {
        let zipf = shares(&traffic(&["--map", "zipf"]), 3).expect("shares");
        // Weights 1, 1/2, 1/3 of 11/6: shares 6/11, 3/11, 2/11.
        assert_eq!(counts(&zipf, 1100), [600, 300, 200]);
        assert_eq!(zipf.draw(1.0), 2);
        let args = traffic(&["--map", "zipf"]);
        assert!(plan(&args, 50, 400, 0).iter().filter(|r| r.route == 0).count() > 50);
    }

    #[test]
    fn a_split_draws_each_by_its_share() {
        let split = shares(&traffic(&["--split", "7,2,1"]), 3).expect("shares");
        assert_eq!(counts(&split, 1000), [700, 200, 100]);
        assert!(shares(&traffic(&[]), 3).is_none());
    }

    /// How often each of three routes is drawn in `draws` even steps.
    fn counts(shares: &Shares, draws: u32) -> [usize; 3] {
        let mut counts = [0; 3];
        let at = |draw: u32| (f64::from(draw) + 0.5) / f64::from(draws);
        (0..draws).for_each(|draw| counts[shares.draw(at(draw))] += 1);
        counts
    }

    #[test]
    fn an_open_loop_waits_one_over_the_rate_on_average() {
        let requests = plan(&traffic(&["--rate", "50"]), 1, 2000, 3);
        assert!(requests.windows(2).all(|pair| pair[0].at <= pair[1].at));
        let mean = requests[1999].at.as_secs_f64() / 2000.0;
        assert!((0.018..0.022).contains(&mean), "{mean}");
        assert!(plan(&traffic(&[]), 1, 9, 3).iter().all(|request| request.at.is_zero()));
    }
}

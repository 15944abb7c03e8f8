//! A histogram that the engine keeps itself, shown as it is.
use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Steps by their tokens: bucket `i` holds those of up to `2^i`, and the last one all others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StepTokens {
    /// Steps in each bucket.
    pub counts: [u64; 16],
    /// Tokens of all of them.
    pub sum: u64,
}

/// The numbers of the latest scrape.
#[derive(Clone, Debug, Default)]
pub(super) struct StepHistogram(Arc<Mutex<StepTokens>>);

impl StepHistogram {
    pub(super) fn set(&self, tokens: &StepTokens) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = *tokens;
    }
}

impl EncodeMetric for StepHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let StepTokens { counts, sum } = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = counts.len() - 1;
        let bound = |at| if at == last { f64::INFINITY } else { (1_u64 << at) as f64 };
        let buckets: Vec<_> = counts.iter().enumerate().map(|(at, n)| (bound(at), *n)).collect();
        encoder.encode_histogram::<NoLabelSet>(sum as f64, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::{encoding::text::encode, registry::Registry};

    #[test]
    fn a_step_counts_in_every_bucket_from_its_own_on() {
        let (mut registry, steps) = (Registry::default(), StepHistogram::default());
        registry.register("steps", "Steps", steps.clone());
        let mut tokens = StepTokens { sum: 40_001, ..StepTokens::default() };
        (tokens.counts[0], tokens.counts[15]) = (1, 1);
        steps.set(&tokens);
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        for line in [
            "steps_sum 40001.0\n",
            "steps_count 2\n",
            "steps_bucket{le=\"1.0\"} 1\n",
            "steps_bucket{le=\"16384.0\"} 1\n",
            "steps_bucket{le=\"+Inf\"} 2\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}

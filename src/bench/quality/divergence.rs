//! How far one model's next-token distributions are from another's.

/// Sums over positions; a text's last token is followed by none, so windows count one position less than tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct Divergence {
    positions: usize,
    /// Of the tokens that do follow, nats.
    surprise: f64,
    /// Kullback-Leibler, from the truth, nats.
    distance: f64,
    /// Positions whose most likely token is the truth's.
    agreed: usize,
}

impl Divergence {
    pub(super) fn is_empty(&self) -> bool {
        self.positions == 0
    }

    /// exp of the mean surprise.
    pub(super) fn perplexity(&self) -> f64 {
        self.mean(self.surprise).exp()
    }

    /// Mean over positions, nats.
    pub(super) fn mean_divergence(&self) -> f64 {
        self.mean(self.distance)
    }

    /// Share of positions.
    pub(super) fn agreement(&self) -> f64 {
        self.mean(self.agreed as f64)
    }

    fn mean(&self, sum: f64) -> f64 {
        sum / self.positions as f64
    }

    /// Adds a window: logits `[tokens, vocab]` of the truth and of `read`.
    pub(super) fn add(&mut self, truth: &[f32], read: &[f32], tokens: &[u32], vocab: usize) {
        let rows = truth.chunks_exact(vocab).zip(read.chunks_exact(vocab));
        for ((truth, read), next) in rows.zip(&tokens[1..]) {
            let (truth, read) = (Row::new(truth), Row::new(read));
            self.positions += 1;
            self.surprise -= read.log_probability(*next as usize);
            self.distance += truth.divergence(&read);
            self.agreed += usize::from(truth.greatest == read.greatest);
        }
    }
}

/// One position's logits.
struct Row<'a> {
    logits: &'a [f32],
    /// The logarithm of the sum of their exponentials.
    log_sum: f64,
    /// The first of the most likely tokens.
    greatest: usize,
}

impl<'a> Row<'a> {
    fn new(logits: &'a [f32]) -> Self {
        let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
        let greatest = (0..logits.len()).reduce(better).unwrap_or_default();
        let shift = f64::from(logits[greatest]);
        let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - shift).exp()).sum();
        Self { logits, log_sum: shift + sum.ln(), greatest }
    }

    fn log_probability(&self, token: usize) -> f64 {
        f64::from(self.logits[token]) - self.log_sum
    }

    /// Σ p · (ln p − ln q)
    fn divergence(&self, other: &Self) -> f64 {
        let terms = (0..self.logits.len()).map(|token| {
            let own = self.log_probability(token);
            own.exp() * (own - other.log_probability(token))
        });
        terms.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of the probabilities 1/2, 1/4, 1/4, shifted: that must not matter.
    const TRUTH: [f32; 3] = [7.0, 7.0 - std::f32::consts::LN_2, 7.0 - std::f32::consts::LN_2];
    const UNIFORM: [f32; 3] = [-3.0; 3];

    #[test]
    fn a_text_under_its_own_distribution_has_no_divergence() {
        let mut sum = Divergence::default();
        let rows = TRUTH.repeat(3);
        // Tokens 1 and 0 follow; the row after the last one is not counted.
        sum.add(&rows, &rows, &[2, 1, 0], 3);
        assert_eq!(sum.positions, 2);
        assert!((sum.perplexity() - 8.0_f64.sqrt()).abs() < 1e-5, "{}", sum.perplexity());
        assert!(sum.mean_divergence().abs() < 1e-12);
        assert_eq!(sum.agreement(), 1.0);
    }

    #[test]
    fn another_distribution_is_as_far_as_the_formula_says() {
        let mut sum = Divergence::default();
        sum.add(&TRUTH.repeat(2), &[UNIFORM, UNIFORM].concat(), &[0, 0], 3);
        // ln 3 less the entropy of the truth, 1.5 ln 2.
        let expected = 3.0_f64.ln() - 1.5 * std::f64::consts::LN_2;
        assert!((sum.mean_divergence() - expected).abs() < 1e-6, "{}", sum.mean_divergence());
        assert!((sum.perplexity() - 3.0).abs() < 1e-9);
        let mut other = Divergence::default();
        other.add(&[0.0, 1.0, 0.0, 0.0], &[1.0, 0.0, 0.0, 0.0], &[0, 1], 2);
        assert_eq!(other.agreement(), 0.0);
    }
}

//! Quality as text and JSON.
use super::{divergence::Divergence, reader::Reader};
use serde::Serialize;
use std::fmt;

/// Every precision's figures on one text.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    model: String,
    /// Tokens read at a time.
    window: usize,
    precisions: Vec<Quality>,
}

#[derive(Clone, Debug, Serialize)]
struct Quality {
    precision: String,
    weight_bytes: usize,
    kv_precision: String,
    /// Of a token's keys and values.
    kv_bytes: usize,
    perplexity: f64,
    /// Mean Kullback-Leibler divergence from f32, nats a token.
    divergence: f64,
    /// Share of positions with f32's most likely token.
    agreement: f64,
}

impl Report {
    pub(super) fn new<'a>(
        model: String,
        window: usize,
        read: impl Iterator<Item = (&'a Reader, &'a Divergence)>,
    ) -> Self {
        let precisions = read.map(|(reader, sum)| Quality {
            precision: reader.precision().to_string(),
            weight_bytes: reader.weight_bytes(),
            kv_precision: reader.kv_precision().to_string(),
            kv_bytes: reader.kv_bytes(),
            perplexity: sum.perplexity(),
            divergence: sum.mean_divergence(),
            agreement: sum.agreement(),
        });
        Self { model, window, precisions: precisions.collect() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, windows of {} tokens, against f32", self.model, self.window)?;
        writeln!(
            f,
            "precision  MB of weights    KV  KB a token  perplexity  divergence/nats  same first choice"
        )?;
        self.precisions.iter().try_for_each(|quality| {
            writeln!(
                f,
                "{:<9} {:>14.1} {:>5} {:>11.2} {:>11.4} {:>16.6} {:>17.2}%",
                quality.precision,
                quality.weight_bytes as f64 / 1e6,
                quality.kv_precision,
                quality.kv_bytes as f64 / 1e3,
                quality.perplexity,
                quality.divergence,
                quality.agreement * 100.0
            )
        })
    }
}

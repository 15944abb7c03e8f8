//! Figures as text.
use super::{
    stats::Spread,
    summary::{Figures, Summary},
};
use std::fmt;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = &self.all;
        writeln!(
            f,
            "{}: {:.1} output tokens/s, prompts included ({} tokens in {:.2} s, {:.2} requests/s, {:.0} prompt \
             tokens/s, {} answered, {} failed)",
            self.server,
            self.output_tokens_per_second,
            all.output_tokens,
            self.seconds,
            self.requests_per_second,
            self.prompt_tokens_per_second,
            all.answered,
            all.failed
        )?;
        self.times(f)?;
        self.models.iter().try_for_each(|(name, figures)| model(f, name, figures))?;
        for (failure, count) in &self.failures {
            writeln!(f, "failed {count} times: {failure}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

impl Summary {
    fn times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = &self.all;
        let columns = ["mean", "p50", "p90", "p99", "max"].map(|name| format!("{name:>10}"));
        writeln!(f, "{:<22}{}", "milliseconds", columns.concat())?;
        for (name, spread) in [
            ("to the first token", all.first_token),
            ("between tokens", all.inter_token),
            ("a token after the 1st", all.per_token),
            ("end to end", all.end_to_end),
        ] {
            if let Some(Spread { mean, p50, p90, p99, max, .. }) = spread {
                let values = [mean, p50, p90, p99, max].map(|value| format!("{value:>10.2}"));
                writeln!(f, "{name:<22}{}", values.concat())?;
            }
        }
        Ok(())
    }
}

/// One model on one line.
fn model(f: &mut fmt::Formatter<'_>, name: &str, figures: &Figures) -> fmt::Result {
    let p50 = |spread: Option<Spread>| spread.map_or(f64::NAN, |spread| spread.p50);
    writeln!(
        f,
        "  {name}: {} answered, {} failed, {} tokens; p50 to the first token {:.2} ms, between tokens {:.2} ms, end to \
         end {:.2} ms",
        figures.answered,
        figures.failed,
        figures.output_tokens,
        p50(figures.first_token),
        p50(figures.inter_token),
        p50(figures.end_to_end)
    )
}

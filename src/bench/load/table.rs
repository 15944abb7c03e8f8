//! Figures as text.
use super::{
    stats::Spread,
    summary::{Figures, Summary},
};
use std::fmt;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = &self.all;
        if let Some(texts) = self.texts_per_second {
            writeln!(
                f,
                "{}: {texts:.1} texts/s ({} requests in {:.2} s, {:.0} tokens/s, {} failed)",
                self.server, all.answered, self.seconds, self.prompt_tokens_per_second, all.failed
            )?;
            return self.rest(f);
        }
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
        self.rest(f)
    }
}

impl Summary {
    fn rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.times(f)?;
        self.models.iter().try_for_each(|(name, figures)| model(f, name, figures))?;
        for (failure, count) in &self.failures {
            writeln!(f, "failed {count} times: {failure}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }

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
    // Answers that come in one piece have nothing between their tokens.
    let p50 = |spread: Option<Spread>| {
        spread.map_or_else(|| "-".to_owned(), |spread| format!("{:.2} ms", spread.p50))
    };
    writeln!(
        f,
        "  {name}: {} answered, {} failed, {} tokens; p50 to the first token {}, between tokens {}, end to end {}",
        figures.answered,
        figures.failed,
        figures.output_tokens,
        p50(figures.first_token),
        p50(figures.inter_token),
        p50(figures.end_to_end)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, time::Duration};

    #[test]
    fn what_nobody_measured_is_a_dash() {
        let spread = |ms| Spread::of([Duration::from_millis(ms)].into_iter());
        let figures = || Figures {
            answered: 1,
            failed: 0,
            prompt_tokens: 2,
            output_tokens: 1,
            first_token: spread(4),
            inter_token: None,
            per_token: None,
            end_to_end: spread(5),
        };
        let summary = Summary {
            server: "here".into(),
            seconds: 1.0,
            output_tokens_per_second: 1.0,
            prompt_tokens_per_second: 2.0,
            requests_per_second: 1.0,
            texts_per_second: None,
            all: figures(),
            models: BTreeMap::from([("a".into(), figures())]),
            failures: BTreeMap::new(),
            notes: Vec::new(),
        };
        let text = summary.to_string();
        assert!(
            text.contains("first token 4.00 ms, between tokens -, end to end 5.00 ms"),
            "{text}"
        );
    }
}

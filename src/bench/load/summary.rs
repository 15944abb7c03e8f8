//! A run reduced to figures.
use super::{args::TrafficArgs, drive::Run, sample::Sample, stats::Spread, target::Target};
use serde::Serialize;
use std::collections::BTreeMap;

/// The figures of one run on one server. Times in milliseconds, unless they say seconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    pub(super) server: String,
    pub(super) seconds: f64,
    /// Output tokens a second over the whole run, the prompts' time included.
    pub(super) output_tokens_per_second: f64,
    pub(super) prompt_tokens_per_second: f64,
    pub(super) requests_per_second: f64,
    /// Where texts are read and not continued.
    pub(super) texts_per_second: Option<f64>,
    pub(super) all: Figures,
    /// By the name of the model, where there are several.
    pub(super) models: BTreeMap<String, Figures>,
    /// What failed, and how often.
    pub(super) failures: BTreeMap<String, usize>,
    /// What a reader of the figures should know.
    pub(super) notes: Vec<String>,
}

/// Answers of a kind.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    /// Answered in full.
    pub(super) answered: usize,
    pub(super) failed: usize,
    pub(super) prompt_tokens: usize,
    pub(super) output_tokens: usize,
    /// Until the first text.
    pub(super) first_token: Option<Spread>,
    /// Between one piece of text and the next.
    pub(super) inter_token: Option<Spread>,
    /// An answer's mean time a token after the first.
    pub(super) per_token: Option<Spread>,
    /// Until the end of the answer.
    pub(super) end_to_end: Option<Spread>,
}

impl Summary {
    /// What the server is measured by, a second, and what that is.
    pub(super) fn pace(&self) -> (f64, &'static str) {
        match self.texts_per_second {
            Some(texts) => (texts, "texts"),
            None => (self.output_tokens_per_second, "output tokens"),
        }
    }

    /// Of a run on `target`.
    pub(super) fn new(target: &Target, args: &TrafficArgs, run: &Run) -> Self {
        let samples = &run.samples;
        let all = Figures::of(samples.iter(), args);
        let seconds = run.wall.as_secs_f64();
        let rate = |count: usize| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let mut failures = BTreeMap::new();
        for failure in samples.iter().filter_map(|sample| sample.failure.clone()) {
            *failures.entry(failure).or_default() += 1;
        }
        Self {
            server: target.url.clone(),
            seconds,
            output_tokens_per_second: rate(all.output_tokens),
            prompt_tokens_per_second: rate(all.prompt_tokens),
            requests_per_second: rate(all.answered),
            texts_per_second: args.endpoint.reads().then(|| rate(all.answered * args.inputs.get())),
            models: by_model(target, args, samples),
            all,
            failures,
            notes: notes(args, samples),
        }
    }
}

fn by_model(target: &Target, args: &TrafficArgs, samples: &[Sample]) -> BTreeMap<String, Figures> {
    let mut models: BTreeMap<String, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        models.entry(target.label(sample.route)).or_default().push(sample);
    }
    if models.len() < 2 {
        return BTreeMap::new();
    }
    models.into_iter().map(|(name, own)| (name, Figures::of(own.into_iter(), args))).collect()
}

impl Figures {
    fn of<'a>(samples: impl Iterator<Item = &'a Sample>, args: &TrafficArgs) -> Self {
        let (whole, failed): (Vec<&Sample>, Vec<&Sample>) =
            samples.partition(|sample| sample.failure.is_none());
        // Words are not tokens.
        let uncounted = if args.endpoint.reads() { 0 } else { args.prompt_tokens.get() };
        let prompt = |sample: &&Sample| sample.usage.map_or(uncounted, |(prompt, _)| prompt);
        Self {
            answered: whole.len(),
            failed: failed.len(),
            prompt_tokens: whole.iter().map(prompt).sum(),
            output_tokens: whole.iter().map(|sample| sample.output_tokens()).sum(),
            first_token: Spread::of(whole.iter().filter_map(|sample| sample.first_piece())),
            inter_token: Spread::of(whole.iter().flat_map(|sample| sample.pauses())),
            per_token: Spread::of(whole.iter().filter_map(|sample| sample.per_token())),
            end_to_end: Spread::of(whole.iter().map(|sample| sample.end_to_end())),
        }
    }
}

/// Where the server's counts and what was seen disagree.
fn notes(args: &TrafficArgs, samples: &[Sample]) -> Vec<String> {
    let whole = || samples.iter().filter(|sample| sample.failure.is_none());
    let count = |odd: &dyn Fn(&Sample) -> bool| whole().filter(|sample| odd(sample)).count();
    let (wanted, prompt) = (args.output_tokens.get(), args.prompt_tokens.get());
    let tokens: usize = whole().map(Sample::output_tokens).sum();
    let pieces: usize = whole().map(|sample| sample.pieces.len()).sum();
    let mut notes = Vec::new();
    if args.endpoint.reads() {
        let uncounted = count(&|sample| sample.usage.is_none());
        if uncounted > 0 {
            notes.push(format!(
                "{uncounted} answers came without usage: their tokens are not known"
            ));
        }
        return notes;
    }
    let mut note = |count: usize, what: String| {
        if count > 0 {
            notes.push(format!("{count} {what}"));
        }
    };
    note(
        count(&|sample| sample.usage.is_none()),
        "answers came without usage: their pieces are counted as tokens".to_owned(),
    );
    note(
        count(&|sample| sample.output_tokens() != wanted),
        format!("answers do not have the {wanted} tokens asked for"),
    );
    note(
        count(&|sample| sample.usage.is_some_and(|(counted, _)| counted != prompt)),
        format!("prompts were not counted as {prompt} tokens: is something put before them?"),
    );
    note(
        count(&|sample| sample.usage.is_some_and(|(_, output)| sample.pieces.len() > output)),
        "answers came in more pieces than tokens: doubt the server's usage".to_owned(),
    );
    if pieces < tokens * 9 / 10 {
        notes.push(format!(
            "{tokens} tokens came in {pieces} pieces: inter-token times are those of pieces"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::{
        plan::tests::traffic,
        target::{FieldSets, Fields},
    };
    use std::time::Duration;

    fn target() -> Target {
        Target {
            url: "http://x".into(),
            models: vec!["a".into(), "b".into()],
            body: Fields::default(),
            extras: FieldSets::default(),
            api_key: None,
        }
    }

    /// Sent at 100 ms, a piece every 10 ms from 150 ms on.
    fn sample(route: usize, pieces: u64, usage: Option<(usize, usize)>) -> Sample {
        let at = |i| Duration::from_millis(150 + 10 * i);
        let sent = Duration::from_millis(100);
        let pieces = (0..pieces).map(at).collect();
        Sample { route, sent, pieces, ended: Duration::from_secs(1), usage, failure: None }
    }

    fn summary(samples: Vec<Sample>) -> Summary {
        let args = traffic(&["--prompt-tokens", "5", "--output-tokens", "3"]);
        Summary::new(&target(), &args, &Run { samples, wall: Duration::from_secs(1) })
    }

    #[test]
    fn figures_are_of_whole_answers_and_failures_are_counted_by_what_they_say() {
        let mut broken = sample(1, 2, None);
        broken.failure = Some("broke".into());
        let whole = || sample(0, 3, Some((5, 3)));
        let summary = summary(vec![whole(), whole(), broken.clone(), broken]);
        assert_eq!((summary.all.answered, summary.all.failed), (2, 2));
        assert_eq!((summary.output_tokens_per_second, summary.requests_per_second), (6.0, 2.0));
        assert_eq!(summary.failures["broke"], 2);
        assert_eq!(summary.all.first_token.unwrap().p50, 50.0);
        assert_eq!(summary.all.inter_token.unwrap().max, 10.0);
        assert_eq!(summary.all.per_token.unwrap().p50, 10.0);
        assert_eq!(summary.all.end_to_end.unwrap().max, 900.0);
        assert_eq!(summary.models["b"].answered, 0);
        assert!(summary.notes.is_empty(), "{:?}", summary.notes);
    }

    #[test]
    fn texts_that_are_read_are_counted_and_their_tokens_are_the_servers() {
        let args = traffic(&["--endpoint", "classify", "--inputs", "4"]);
        let samples = vec![sample(0, 0, Some((9, 0))), sample(1, 0, None)];
        let summary =
            Summary::new(&target(), &args, &Run { samples, wall: Duration::from_secs(2) });
        assert_eq!((summary.pace(), summary.all.prompt_tokens), ((4.0, "texts"), 9));
        assert!(summary.notes[0].contains("1 answers came without usage"), "{:?}", summary.notes);
    }

    #[test]
    fn counts_that_disagree_are_noted() {
        let notes = |sample| summary(vec![sample]).notes.join("; ");
        assert!(notes(sample(0, 3, None)).contains("without usage"));
        assert!(notes(sample(0, 2, Some((5, 2)))).contains("3 tokens asked for"));
        assert!(notes(sample(0, 3, Some((6, 3)))).contains("counted as 5"));
        assert!(notes(sample(0, 4, Some((5, 3)))).contains("more pieces"));
        assert!(notes(sample(0, 1, Some((5, 3)))).contains("in 1 pieces"));
    }
}

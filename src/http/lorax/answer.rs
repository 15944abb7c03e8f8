//! Answers as LoRAX and TGI write them: the union of both, which the clients of both can read.
use super::parameters::Shown;
use crate::{
    generation::{Completion, FinishedBecause, GenerateEvent, StopReason, Token, Usage},
    http::{
        ApiError, served,
        sse::{SseBuffer, StreamDialect},
    },
};
use serde_json::{Value, json};

/// JSON has no infinity.
const LEAST: f32 = -9999.0;

/// The response to a request that does not stream.
///
/// `others` are the answers of `best_of` that are not the best.
pub(super) fn whole(answer: &Completion, others: &[Completion], shown: &Shown) -> Value {
    let mut response = json!({"generated_text": text(answer, shown)});
    if shown.details {
        let mut details = details(&answer.because, answer.usage, shown);
        details["seed"] = json!(seed(answer, shown));
        list_tokens(&mut details, answer, shown);
        if !others.is_empty() {
            details["best_of_sequences"] =
                others.iter().map(|other| sequence(other, shown)).collect();
        }
        response["details"] = details;
    }
    response
}

fn text(answer: &Completion, shown: &Shown) -> String {
    format!("{}{}", shown.prompt.as_deref().unwrap_or_default(), answer.text)
}

/// Each answer of a request is drawn from a seed of its own.
fn seed(answer: &Completion, shown: &Shown) -> Option<u64> {
    shown.seed.map(|seed| seed.wrapping_add(answer.index as u64))
}

fn list_tokens(details: &mut Value, answer: &Completion, shown: &Shown) {
    let prompt = answer.prompt.iter().filter(|_| shown.prefill).flat_map(|prompt| &prompt.tokens);
    details["prefill"] = prompt.map(judged).collect();
    details["tokens"] = answer.tokens.iter().map(|token| described(token, shown)).collect();
}

/// Nothing judges the first token.
fn judged(token: &Token) -> Value {
    let logprob = token.logprob.map(|logprob| logprob.max(LEAST));
    json!({"id": token.id, "text": token.text, "logprob": logprob})
}

fn sequence(answer: &Completion, shown: &Shown) -> Value {
    let mut sequence = json!({
        "generated_text": text(answer, shown),
        "finish_reason": finish_reason(&answer.because),
        "generated_tokens": answer.usage.completion_tokens,
        "seed": seed(answer, shown),
    });
    list_tokens(&mut sequence, answer, shown);
    sequence
}

fn details(because: &FinishedBecause, usage: Usage, shown: &Shown) -> Value {
    let mut details = json!({
        "finish_reason": finish_reason(because),
        "prompt_tokens": usage.prompt_tokens,
        "input_length": usage.prompt_tokens,
        "generated_tokens": usage.completion_tokens,
        "skipped_tokens": 0,
        "seed": shown.seed,
    });
    if let Some(adapters) = served::list(&shown.served) {
        details["adapters"] = adapters;
    }
    details
}

fn finish_reason(because: &FinishedBecause) -> &'static str {
    match because {
        FinishedBecause::Length => "length",
        FinishedBecause::Stop(StopReason::EndOfSequence) => "eos_token",
        FinishedBecause::Stop(StopReason::Token(_) | StopReason::Text(_)) => "stop_sequence",
    }
}

/// The texts of an answer's tokens joined are the answer; clients leave special tokens out themselves.
fn described(token: &Token, shown: &Shown) -> Value {
    let text = if token.special { &token.text } else { &token.shown };
    let mut described = with_text(token, text);
    if shown.alternatives {
        let described_alone = |token: &Token| with_text(token, &token.text);
        described["alternative_tokens"] = token.top.iter().map(described_alone).collect();
    }
    described
}

fn with_text(token: &Token, text: &str) -> Value {
    json!({
        "id": token.id,
        "text": text,
        "logprob": token.logprob.unwrap_or(LEAST).max(LEAST),
        "special": token.special,
        "skipped": false,
    })
}

/// The response to a request that streams: an event a token, the last one with the whole text.
///
/// The last token waits for the end, because only then is it known to be the last.
#[derive(Debug)]
pub(super) struct LoraxStream {
    shown: Shown,
    text: String,
    sent: usize,
    held: Option<Token>,
}

impl LoraxStream {
    /// Nothing sent yet.
    pub(super) fn new(shown: Shown) -> Self {
        let text = shown.prompt.clone().unwrap_or_default();
        Self { shown, text, sent: 0, held: None }
    }

    /// The next event; `end` is the whole text and its details.
    fn send(&mut self, token: &Token, end: Option<(&str, Value)>, out: &mut SseBuffer) {
        self.sent += 1;
        let (text, details) = end.unzip();
        out.tight_json(&json!({
            "index": self.sent,
            "token": described(token, &self.shown),
            "generated_text": text,
            "details": details,
        }));
    }
}

impl StreamDialect for LoraxStream {
    fn event(&mut self, event: GenerateEvent, out: &mut SseBuffer) {
        match event {
            GenerateEvent::Prompt { .. } => {}
            GenerateEvent::Delta { text, tokens, .. } => {
                self.text.push_str(&text);
                for token in tokens {
                    if let Some(before) = self.held.replace(token) {
                        self.send(&before, None, out);
                    }
                }
            }
            GenerateEvent::Finished { because, usage, .. } => {
                let details = details(&because, usage, &self.shown);
                // An answer without any token still needs an event to end with.
                let last = self.held.take().unwrap_or_else(nothing);
                let text = std::mem::take(&mut self.text);
                self.send(&last, Some((&text, details)), out);
            }
        }
    }

    fn fail(&mut self, error: &ApiError, out: &mut SseBuffer) {
        out.tight_json(&error.lorax());
    }
}

fn nothing() -> Token {
    let (text, shown, bytes, top) = (String::new(), String::new(), Vec::new(), Vec::new());
    let (logprob, rank) = (Some(0.0), None);
    Token { id: 0, text, bytes, shown, special: true, logprob, rank, top }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::PromptTokens;
    use std::{sync::Arc, time::Duration};

    fn token(id: u32, text: &str) -> Token {
        let (bytes, shown, top) = (text.as_bytes().to_vec(), text.to_owned(), Vec::new());
        Token {
            id,
            text: "\u{fffd}".into(),
            bytes,
            shown,
            special: false,
            logprob: Some(-0.5),
            rank: Some(1),
            top,
        }
    }

    const USAGE: Usage =
        Usage { prompt_tokens: 3, completion_tokens: 2, cached_tokens: 0, queued: Duration::ZERO };

    #[test]
    fn a_whole_answer_has_the_fields_of_both_clients() {
        let answer = Completion {
            index: 0,
            text: " hi".into(),
            tokens: vec![token(5, " hi")],
            prompt: None,
            because: FinishedBecause::Length,
            usage: USAGE,
        };
        assert_eq!(whole(&answer, &[], &Shown::default()), json!({"generated_text": " hi"}));
        let shown = Shown { details: true, prompt: Some("oh".into()), ..Shown::default() };
        let expected = json!({"generated_text": "oh hi", "details": {
            "finish_reason": "length", "prompt_tokens": 3, "input_length": 3,
            "generated_tokens": 2, "skipped_tokens": 0, "seed": null, "prefill": [],
            "tokens": [{"id": 5, "text": " hi", "logprob": -0.5, "special": false, "skipped": false}],
        }});
        assert_eq!(whole(&answer, &[], &shown), expected);
    }

    #[test]
    fn the_other_answers_stand_beside_the_best_with_their_own_seeds() {
        let prompt = PromptTokens {
            text: "ab".into(),
            tokens: vec![Token { logprob: None, ..token(1, "a") }, token(2, "b")],
        };
        let answer = |index| Completion {
            index,
            text: format!(" {index}"),
            tokens: vec![token(5, "x")],
            prompt: Some(Arc::new(prompt.clone())),
            because: FinishedBecause::Length,
            usage: USAGE,
        };
        let shown =
            Shown { details: true, prefill: true, seed: Some(u64::MAX), ..Shown::default() };
        let response = whole(&answer(1), &[answer(0)], &shown);
        assert_eq!(
            (&response["generated_text"], &response["details"]["seed"]),
            (&json!(" 1"), &json!(0))
        );
        let judged = json!([{"id": 1, "text": "\u{fffd}", "logprob": null},
                            {"id": 2, "text": "\u{fffd}", "logprob": -0.5}]);
        assert_eq!(response["details"]["prefill"], judged);
        let other = &response["details"]["best_of_sequences"][0];
        assert_eq!((&other["generated_text"], &other["seed"]), (&json!(" 0"), &json!(u64::MAX)));
        assert_eq!((&other["prefill"], &other["generated_tokens"]), (&judged, &json!(2)));
        assert_eq!(other["tokens"][0]["id"], 5);
    }

    #[test]
    fn only_the_last_event_of_a_stream_has_the_text() {
        let mut stream = LoraxStream::new(Shown::default());
        let mut out = SseBuffer::default();
        for (id, text) in [(1, "a"), (2, "b")] {
            let tokens = vec![token(id, text)];
            stream.event(GenerateEvent::Delta { index: 0, text: text.into(), tokens }, &mut out);
        }
        let because = FinishedBecause::Stop(StopReason::EndOfSequence);
        stream.event(GenerateEvent::Finished { index: 0, because, usage: USAGE }, &mut out);
        stream.close(&mut out);
        let text = out.text();
        let events: Vec<Value> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0]["index"], 1);
        assert_eq!(events[0]["generated_text"], Value::Null);
        assert_eq!(events[1]["token"]["id"], 2);
        assert_eq!(events[1]["token"]["text"], "b", "what it adds, not its own bytes");
        assert_eq!(events[1]["generated_text"], "ab");
        assert_eq!(events[1]["details"]["finish_reason"], "eos_token");
    }
}

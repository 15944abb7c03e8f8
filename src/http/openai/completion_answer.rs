//! Completions as OpenAI writes them: whole, and in pieces.
use super::{
    fields::SharedFields,
    logprobs,
    shown::Shown,
    usage::{Head, StreamUsage, UsageSum, finish_reason, stop_reason},
};
use crate::{
    generation::{Completion, GenerateEvent, PromptTokens, Token},
    http::{
        ApiError,
        sse::{SseBuffer, StreamDialect},
    },
};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};

const OBJECT: &str = "text_completion";

/// The response to a request that does not stream.
pub(super) fn whole(head: &Head, usage: &UsageSum, answers: &[Completion], shown: Shown) -> Value {
    let choices: Vec<_> = answers.iter().map(|answer| choice(answer, shown)).collect();
    let mut response = head.json(OBJECT, &choices);
    response["usage"] = usage.json(head);
    response
}

fn choice(answer: &Completion, shown: Shown) -> Value {
    let nothing = PromptTokens::default();
    let prompt = answer.prompt.as_deref().unwrap_or(&nothing);
    let echoed = if shown.echo { prompt } else { &nothing };
    let tokens = || echoed.tokens.iter().chain(&answer.tokens);
    let listed = |top| logprobs::completion(tokens(), (top, shown.spelling), &mut 0);
    let mut choice = json!({
        "index": answer.index,
        "text": format!("{}{}", echoed.text, answer.text),
        "logprobs": shown.logprobs.map(listed),
        "finish_reason": finish_reason(&answer.because),
        "stop_reason": stop_reason(&answer.because),
    });
    if let Some(top) = shown.prompt_logprobs {
        choice["prompt_logprobs"] = logprobs::prompt(&prompt.tokens, top);
    }
    if shown.token_ids {
        choice["prompt_token_ids"] = ids(&prompt.tokens);
        choice["token_ids"] = ids(&answer.tokens);
    }
    choice
}

fn ids(tokens: &[Token]) -> Value {
    tokens.iter().map(|token| token.id).collect()
}

/// The response to a request that streams.
#[derive(Debug)]
pub(super) struct CompletionStream {
    head: Head,
    shown: Shown,
    usage: StreamUsage,
    /// Characters of each answer so far.
    offsets: HashMap<usize, usize>,
}

impl CompletionStream {
    /// Nothing sent yet of the answers to these prompts.
    pub(super) fn new(
        head: Head,
        shared: &SharedFields,
        shown: Shown,
        prompts: &[Arc<[u32]>],
    ) -> Self {
        let usage = StreamUsage::new(shared, prompts);
        Self { head, shown, usage, offsets: HashMap::new() }
    }

    /// Text of an answer, or of the prompt before it.
    fn piece(&mut self, piece: &Piece<'_>, out: &mut SseBuffer) {
        let Piece { index, text, tokens, is_answer } = *piece;
        let is_first = !self.offsets.contains_key(&index);
        let offset = self.offsets.entry(index).or_default();
        let listed = |top| logprobs::completion(tokens, (top, self.shown.spelling), offset);
        let mut choice = json!({
            "index": index,
            "text": text,
            "logprobs": self.shown.logprobs.map(listed),
            "finish_reason": null,
            "stop_reason": null,
        });
        if self.shown.token_ids && is_first {
            choice["prompt_token_ids"] = json!(self.usage.prompt(index));
        }
        if self.shown.token_ids && is_answer {
            choice["token_ids"] = ids(tokens);
        }
        self.chunk(index, &choice, out);
    }

    fn chunk(&self, index: usize, choice: &Value, out: &mut SseBuffer) {
        let mut chunk = self.head.json(OBJECT, std::slice::from_ref(choice));
        if let Some(usage) = self.usage.so_far(index) {
            chunk["usage"] = usage;
        }
        out.json(&chunk);
    }
}

/// A piece of one choice.
struct Piece<'a> {
    index: usize,
    text: &'a str,
    tokens: &'a [Token],
    /// Not the prompt's.
    is_answer: bool,
}

impl StreamDialect for CompletionStream {
    fn event(&mut self, event: GenerateEvent, out: &mut SseBuffer) {
        match event {
            GenerateEvent::Prompt { answers, text, tokens } if self.shown.echo => {
                for index in answers {
                    let (text, tokens) = (text.as_str(), tokens.as_slice());
                    self.piece(&Piece { index, text, tokens, is_answer: false }, out);
                }
            }
            GenerateEvent::Prompt { .. } => {}
            GenerateEvent::Delta { index, text, tokens } => {
                self.usage.more(index, tokens.len());
                // A piece of a character, or of what may become a stop string.
                if text.is_empty() && self.shown.logprobs.is_none() && !self.shown.token_ids {
                    return;
                }
                let (text, tokens) = (text.as_str(), tokens.as_slice());
                self.piece(&Piece { index, text, tokens, is_answer: true }, out);
            }
            GenerateEvent::Finished { index, because, usage } => {
                self.usage.finished(index, usage);
                let choice = json!({
                    "index": index,
                    "text": "",
                    "logprobs": null,
                    "finish_reason": finish_reason(&because),
                    "stop_reason": stop_reason(&because),
                });
                self.chunk(index, &choice, out);
            }
        }
    }

    fn close(&mut self, out: &mut SseBuffer) {
        if let Some(usage) = self.usage.total(&self.head) {
            let mut chunk = self.head.json(OBJECT, &[]);
            chunk["usage"] = usage;
            out.json(&chunk);
        }
        out.done();
    }

    fn fail(&mut self, error: &ApiError, out: &mut SseBuffer) {
        out.json(&error.openai());
        out.done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generation::{FinishedBecause, StopReason, Usage},
        http::json::JsonBody,
    };

    fn head() -> Head {
        Head::test("cmpl")
    }

    fn shared(body: &Value) -> SharedFields {
        let body = JsonBody::parse(body.to_string().as_bytes()).expect("an object");
        SharedFields::read(&body, 8).expect("valid")
    }

    fn stream(body: &Value, shown: Shown) -> CompletionStream {
        CompletionStream::new(head(), &shared(body), shown, &[vec![7, 8].into()])
    }

    fn token(id: u32, text: &str, logprob: Option<f32>) -> Token {
        let (bytes, shown) = (text.as_bytes().to_vec(), text.to_owned());
        let (rank, top) = (logprob.map(|_| 1), vec![]);
        Token { id, text: text.into(), bytes, shown, special: false, logprob, rank, top }
    }

    fn answer(prompt: Option<PromptTokens>) -> Completion {
        let usage = Usage { prompt_tokens: 2, completion_tokens: 1, ..Usage::default() };
        Completion {
            index: 0,
            text: " hi".into(),
            tokens: vec![token(9, " hi", Some(-0.5))],
            prompt: prompt.map(Arc::new),
            because: FinishedBecause::Stop(StopReason::Text("END".into())),
            usage,
        }
    }

    fn events(out: &mut SseBuffer) -> Vec<Value> {
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| json!(line));
        out.text().lines().filter_map(|line| line.strip_prefix("data: ")).map(read).collect()
    }

    fn delta(text: &str) -> GenerateEvent {
        let tokens = vec![token(9, text, Some(-0.5))];
        GenerateEvent::Delta { index: 0, text: text.into(), tokens }
    }

    #[test]
    fn a_whole_answer_has_exactly_the_fields_of_openai_and_vllm() {
        let answer = answer(None);
        let mut usage = UsageSum::new(1);
        usage.add(0, answer.usage);
        let mut shown = whole(&head(), &usage, &[answer], Shown::default());
        let id = shown["id"].take();
        assert!(id.as_str().expect("text").starts_with("cmpl-"));
        assert!(shown["created"].take().is_u64());
        let expected = json!({
            "id": null, "object": "text_completion", "created": null, "model": "rate",
            "choices": [{"index": 0, "text": " hi", "logprobs": null, "finish_reason": "stop",
                         "stop_reason": "END"}],
            "system_fingerprint": "fp_0",
            "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3,
                      "prompt_tokens_details": {"cached_tokens": 0},
                      "completion_tokens_details": {"reasoning_tokens": 0}},
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn an_echo_puts_the_prompt_first_and_its_first_token_is_not_judged() {
        let prompt = || {
            let tokens = vec![token(7, "oh", None), token(8, ",", Some(-1.5))];
            Some(PromptTokens { text: "oh,".into(), tokens })
        };
        let wanted = Shown { echo: true, logprobs: Some(0), token_ids: true, ..Shown::default() };
        let shown = choice(&answer(prompt()), wanted);
        assert_eq!(shown["text"], "oh, hi");
        assert_eq!(shown["logprobs"]["tokens"], json!(["oh", ",", " hi"]));
        assert_eq!(shown["logprobs"]["token_logprobs"], json!([null, -1.5, -0.5]));
        assert_eq!(shown["logprobs"]["text_offset"], json!([0, 2, 3]));
        assert_eq!(
            (&shown["prompt_token_ids"], &shown["token_ids"]),
            (&json!([7, 8]), &json!([9]))
        );
        let judged = Shown { prompt_logprobs: Some(0), ..Shown::default() };
        let shown = choice(&answer(prompt()), judged);
        assert_eq!(shown["text"], " hi");
        assert_eq!(shown["prompt_logprobs"][0], Value::Null);
        assert_eq!(shown["prompt_logprobs"][1]["8"]["decoded_token"], ",");
    }

    #[test]
    fn a_stream_is_text_then_reason_then_usage_then_done() {
        let body = json!({"stream": true, "stream_options": {"include_usage": true}});
        let mut stream = stream(&body, Shown::default());
        let mut out = SseBuffer::default();
        stream.event(delta("a"), &mut out);
        stream.event(delta(""), &mut out);
        let usage = Usage { prompt_tokens: 2, completion_tokens: 1, ..Usage::default() };
        let because = FinishedBecause::Length;
        stream.event(GenerateEvent::Finished { index: 0, because, usage }, &mut out);
        stream.close(&mut out);
        let events = events(&mut out);
        assert_eq!(events.len(), 4, "{events:?}");
        assert_eq!(events[0]["choices"][0]["text"], "a");
        assert_eq!(events[0]["choices"][0]["finish_reason"], Value::Null);
        assert_eq!(events[1]["choices"][0]["finish_reason"], "length");
        assert_eq!(events[2]["choices"], json!([]));
        assert_eq!(events[2]["usage"]["total_tokens"], 3);
        assert_eq!(events[3], "[DONE]");
    }

    #[test]
    fn a_stream_shows_the_prompt_and_counts_along_where_it_is_asked_to() {
        let options = json!({"include_usage": true, "continuous_usage_stats": true});
        let body = json!({"stream": true, "n": 2, "stream_options": options});
        let wanted = Shown { echo: true, logprobs: Some(0), token_ids: true, ..Shown::default() };
        let mut stream = stream(&body, wanted);
        let mut out = SseBuffer::default();
        let tokens = vec![token(7, "oh", None)];
        let prompt = GenerateEvent::Prompt { answers: 0..2, text: "oh".into(), tokens };
        stream.event(prompt, &mut out);
        stream.event(delta("a"), &mut out);
        let events = events(&mut out);
        let first = &events[0]["choices"][0];
        assert_eq!((&first["index"], &first["text"]), (&json!(0), &json!("oh")));
        assert_eq!(first["prompt_token_ids"], json!([7, 8]));
        assert_eq!(first.get("token_ids"), None);
        assert_eq!(events[1]["choices"][0]["index"], 1);
        let third = &events[2]["choices"][0];
        assert_eq!(third["logprobs"]["text_offset"], json!([2]));
        assert_eq!((third.get("prompt_token_ids"), &third["token_ids"]), (None, &json!([9])));
        assert_eq!(events[1]["usage"]["completion_tokens"], 0);
        let counts = json!({"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3});
        assert_eq!(events[2]["usage"], counts);
    }

    #[test]
    fn a_failure_midway_is_an_error_event_and_then_done() {
        let mut stream = stream(&json!({}), Shown::default());
        let mut out = SseBuffer::default();
        stream.fail(&ApiError::internal("step_failed"), &mut out);
        let events = events(&mut out);
        assert_eq!(events[0]["error"]["code"], 500);
        assert_eq!(events[1], "[DONE]");
    }
}

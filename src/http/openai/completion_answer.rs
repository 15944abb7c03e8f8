//! Completions as OpenAI writes them: whole, and in pieces.
use super::{
    fields::SharedFields,
    logprobs,
    usage::{Head, UsageSum, finish_reason, stop_reason},
};
use crate::{
    generation::{Completion, GenerateEvent, Token},
    http::{
        ApiError,
        sse::{SseBuffer, StreamDialect},
    },
};
use serde_json::{Value, json};
use std::collections::HashMap;

const OBJECT: &str = "text_completion";

/// The response to a request that does not stream; each prompt has `n` answers.
pub(super) fn whole(head: &Head, answers: &[Completion], n: usize, with_logprobs: bool) -> Value {
    let mut usage = UsageSum::new(n);
    let mut choices = Vec::with_capacity(answers.len());
    for answer in answers {
        usage.add(answer.index, answer.usage);
        let logprobs = with_logprobs.then(|| logprobs::completion(&answer.tokens, &mut 0));
        choices.push(json!({
            "index": answer.index,
            "text": answer.text,
            "logprobs": logprobs,
            "finish_reason": finish_reason(&answer.because),
            "stop_reason": stop_reason(&answer.because),
        }));
    }
    let mut response = head.json(OBJECT, &choices);
    response["usage"] = usage.json(head);
    response
}

/// The response to a request that streams.
#[derive(Debug)]
pub(super) struct CompletionStream {
    head: Head,
    with_logprobs: bool,
    include_usage: bool,
    usage: UsageSum,
    /// Characters of each answer so far.
    offsets: HashMap<usize, usize>,
}

impl CompletionStream {
    /// Nothing sent yet.
    pub(super) fn new(head: Head, shared: &SharedFields, with_logprobs: bool) -> Self {
        let usage = UsageSum::new(shared.answers());
        let include_usage = shared.include_usage();
        Self { head, with_logprobs, include_usage, usage, offsets: HashMap::new() }
    }

    fn logprobs(&mut self, index: usize, tokens: &[Token]) -> Option<Value> {
        let offset = self.offsets.entry(index).or_default();
        self.with_logprobs.then(|| logprobs::completion(tokens, offset))
    }
}

impl StreamDialect for CompletionStream {
    fn event(&mut self, event: GenerateEvent, out: &mut SseBuffer) {
        let choice = match event {
            // A piece of a character, or of what may become a stop string.
            GenerateEvent::Delta { text, .. } if text.is_empty() && !self.with_logprobs => return,
            GenerateEvent::Delta { index, text, tokens } => json!({
                "index": index,
                "text": text,
                "logprobs": self.logprobs(index, &tokens),
                "finish_reason": null,
                "stop_reason": null,
            }),
            GenerateEvent::Finished { index, because, usage } => {
                self.usage.add(index, usage);
                json!({
                    "index": index,
                    "text": "",
                    "logprobs": null,
                    "finish_reason": finish_reason(&because),
                    "stop_reason": stop_reason(&because),
                })
            }
        };
        out.json(&self.head.json(OBJECT, &[choice]));
    }

    fn close(&mut self, out: &mut SseBuffer) {
        if self.include_usage {
            let mut chunk = self.head.json(OBJECT, &[]);
            chunk["usage"] = self.usage.json(&self.head);
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
        Head::new("cmpl", "rate".into(), &[])
    }

    fn shared(body: &Value) -> SharedFields {
        let body = JsonBody::parse(body.to_string().as_bytes()).expect("an object");
        SharedFields::read(&body, 8).expect("valid")
    }

    fn events(out: &mut SseBuffer) -> Vec<Value> {
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| json!(line));
        out.text().lines().filter_map(|line| line.strip_prefix("data: ")).map(read).collect()
    }

    #[test]
    fn a_whole_answer_has_exactly_the_fields_of_openai_and_vllm() {
        let usage = Usage { prompt_tokens: 1, completion_tokens: 1, ..Usage::default() };
        let because = FinishedBecause::Stop(StopReason::Text("END".into()));
        let answer = Completion { index: 0, text: " hi".into(), tokens: vec![], because, usage };
        let mut shown = whole(&head(), &[answer], 1, false);
        let id = shown["id"].take();
        assert!(id.as_str().expect("text").starts_with("cmpl-"));
        assert!(shown["created"].take().is_u64());
        let expected = json!({
            "id": null, "object": "text_completion", "created": null, "model": "rate",
            "choices": [{"index": 0, "text": " hi", "logprobs": null, "finish_reason": "stop",
                         "stop_reason": "END"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2,
                      "prompt_tokens_details": {"cached_tokens": 0}},
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_stream_is_text_then_reason_then_usage_then_done() {
        let fields = shared(&json!({"stream": true, "stream_options": {"include_usage": true}}));
        let mut stream = CompletionStream::new(head(), &fields, false);
        let mut out = SseBuffer::default();
        stream.event(GenerateEvent::Delta { index: 0, text: "a".into(), tokens: vec![] }, &mut out);
        stream.event(
            GenerateEvent::Delta { index: 0, text: String::new(), tokens: vec![] },
            &mut out,
        );
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
    fn a_failure_midway_is_an_error_event_and_then_done() {
        let mut stream = CompletionStream::new(head(), &shared(&json!({})), false);
        let mut out = SseBuffer::default();
        stream.fail(&ApiError::internal("step_failed"), &mut out);
        let events = events(&mut out);
        assert_eq!(events[0]["error"]["code"], 500);
        assert_eq!(events[1], "[DONE]");
    }
}

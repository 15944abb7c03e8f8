//! Chat completions as OpenAI writes them: whole, and in pieces.
use super::{
    fields::SharedFields,
    logprobs,
    usage::{Head, UsageSum, finish_reason, stop_reason},
};
use crate::{
    generation::{Completion, GenerateEvent},
    http::{
        ApiError,
        sse::{SseBuffer, StreamDialect},
    },
};
use serde_json::{Value, json};

const CHUNK: &str = "chat.completion.chunk";

/// The response to a request that does not stream.
pub(super) fn whole(head: &Head, answers: &[Completion], with_logprobs: bool) -> Value {
    let mut usage = UsageSum::new(answers.len().max(1));
    let mut choices = Vec::with_capacity(answers.len());
    for answer in answers {
        usage.add(answer.index, answer.usage);
        choices.push(json!({
            "index": answer.index,
            "message": {"role": "assistant", "content": answer.text, "refusal": null},
            "logprobs": with_logprobs.then(|| logprobs::chat(&answer.tokens)),
            "finish_reason": finish_reason(&answer.because),
            "stop_reason": stop_reason(&answer.because),
        }));
    }
    let mut response = head.json("chat.completion", &choices);
    response["usage"] = usage.json(head);
    response["system_fingerprint"] = Value::Null;
    response
}

/// The response to a request that streams.
#[derive(Debug)]
pub(super) struct ChatStream {
    head: Head,
    answers: usize,
    with_logprobs: bool,
    include_usage: bool,
    usage: UsageSum,
}

impl ChatStream {
    /// Nothing sent yet.
    pub(super) fn new(head: Head, shared: &SharedFields, with_logprobs: bool) -> Self {
        let answers = shared.answers();
        let (usage, include_usage) = (UsageSum::new(answers), shared.include_usage());
        Self { head, answers, with_logprobs, include_usage, usage }
    }

    fn chunk(&self, choice: Value, out: &mut SseBuffer) {
        out.json(&self.head.json(CHUNK, &[choice]));
    }
}

impl StreamDialect for ChatStream {
    fn open(&mut self, out: &mut SseBuffer) {
        for index in 0..self.answers {
            let delta = json!({"role": "assistant", "content": ""});
            let choice =
                json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
            self.chunk(choice, out);
        }
    }

    fn event(&mut self, event: GenerateEvent, out: &mut SseBuffer) {
        let choice = match event {
            // A piece of a character, or of what may become a stop string.
            GenerateEvent::Delta { text, .. } if text.is_empty() && !self.with_logprobs => return,
            GenerateEvent::Delta { index, text, tokens } => json!({
                "index": index,
                "delta": {"content": text},
                "logprobs": self.with_logprobs.then(|| logprobs::chat(&tokens)),
                "finish_reason": null,
            }),
            GenerateEvent::Finished { index, because, usage } => {
                self.usage.add(index, usage);
                json!({
                    "index": index,
                    "delta": {},
                    "logprobs": null,
                    "finish_reason": finish_reason(&because),
                    "stop_reason": stop_reason(&because),
                })
            }
        };
        self.chunk(choice, out);
    }

    fn close(&mut self, out: &mut SseBuffer) {
        if self.include_usage {
            let mut chunk = self.head.json(CHUNK, &[]);
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
        generation::{FinishedBecause, StopReason, Token, Usage},
        http::json::JsonBody,
    };
    use std::time::Duration;

    const USAGE: Usage =
        Usage { prompt_tokens: 9, completion_tokens: 2, cached_tokens: 4, queued: Duration::ZERO };

    #[test]
    fn a_whole_answer_has_exactly_the_fields_of_openai_and_vllm() {
        let because = FinishedBecause::Stop(StopReason::Token(7));
        let answer =
            Completion { index: 0, text: "hi".into(), tokens: vec![], because, usage: USAGE };
        let mut shown = whole(&Head::new("chatcmpl", "rate".into(), &[]), &[answer], false);
        assert!(shown["id"].take().as_str().expect("text").starts_with("chatcmpl-"));
        shown["created"].take();
        let expected = json!({
            "id": null, "object": "chat.completion", "created": null, "model": "rate",
            "choices": [{
                "index": 0, "message": {"role": "assistant", "content": "hi", "refusal": null},
                "logprobs": null, "finish_reason": "stop", "stop_reason": 7,
            }],
            "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11,
                      "prompt_tokens_details": {"cached_tokens": 4}},
            "system_fingerprint": null,
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_stream_opens_with_a_role_for_each_answer() {
        let body = json!({"n": 2, "stream": true});
        let body = JsonBody::parse(body.to_string().as_bytes()).expect("an object");
        let shared = SharedFields::read(&body, 8).expect("valid");
        let mut stream = ChatStream::new(Head::new("chatcmpl", "m".into(), &[]), &shared, true);
        let mut out = SseBuffer::default();
        stream.open(&mut out);
        let token = Token {
            id: 1,
            text: "a".into(),
            bytes: vec![97],
            shown: "a".into(),
            special: false,
            logprob: Some(-1.0),
            top: vec![],
        };
        let delta = GenerateEvent::Delta { index: 1, text: "a".into(), tokens: vec![token] };
        stream.event(delta, &mut out);
        let because = FinishedBecause::Length;
        stream.event(GenerateEvent::Finished { index: 1, because, usage: USAGE }, &mut out);
        stream.close(&mut out);
        let text = out.text();
        let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let events: Vec<Value> =
            lines[..4].iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(events[1]["choices"][0]["index"], 1);
        assert_eq!(events[1]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        assert_eq!(events[2]["choices"][0]["delta"], json!({"content": "a"}));
        assert_eq!(events[2]["choices"][0]["logprobs"]["content"][0]["bytes"], json!([97]));
        assert_eq!(events[3]["choices"][0]["delta"], json!({}));
        assert_eq!(events[3]["choices"][0]["finish_reason"], "length");
        assert!(events.iter().all(|event| event.get("usage").is_none()));
        assert_eq!(lines[4..], ["[DONE]"]);
    }
}

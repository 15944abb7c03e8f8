//! Chat completions as OpenAI writes them: whole, and in pieces.
use super::{
    calls::{CallReader, CallReading},
    fields::SharedFields,
    logprobs,
    usage::{Head, UsageSum, finish_reason, stop_reason},
};
use crate::{
    generation::{Completion, FinishedBecause, GenerateEvent, Token},
    http::{
        ApiError,
        sse::{SseBuffer, StreamDialect},
    },
};
use serde_json::{Value, json};

const CHUNK: &str = "chat.completion.chunk";

/// What answers show besides text.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) with_logprobs: bool,
    /// Where answers may have calls.
    pub(super) calls: Option<CallReading>,
}

impl Shown {
    fn message(&self, text: &str, because: &FinishedBecause) -> (Value, &'static str) {
        if let Some(calls) = &self.calls {
            return calls.message(text, because);
        }
        let message = json!({"role": "assistant", "content": text, "refusal": null});
        (message, finish_reason(because))
    }
}

/// The response to a request that does not stream.
pub(super) fn whole(head: &Head, answers: &[Completion], shown: &Shown) -> Value {
    let mut usage = UsageSum::new(answers.len().max(1));
    let mut choices = Vec::with_capacity(answers.len());
    for answer in answers {
        usage.add(answer.index, answer.usage);
        let (message, finish_reason) = shown.message(&answer.text, &answer.because);
        choices.push(json!({
            "index": answer.index,
            "message": message,
            "logprobs": shown.with_logprobs.then(|| logprobs::chat(&answer.tokens)),
            "finish_reason": finish_reason,
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
    /// One an answer, where answers may have calls.
    calls: Vec<CallReader>,
}

impl ChatStream {
    /// Nothing sent yet.
    pub(super) fn new(head: Head, shared: &SharedFields, shown: &Shown) -> Self {
        let answers = shared.answers();
        let (usage, include_usage) = (UsageSum::new(answers), shared.include_usage());
        let calls = shown.calls.iter().flat_map(|calls| (0..answers).map(|_| calls.streamed()));
        let (with_logprobs, calls) = (shown.with_logprobs, calls.collect());
        Self { head, answers, with_logprobs, include_usage, usage, calls }
    }

    /// What a piece of text says, each in a chunk of its own; the tokens go with the first.
    fn delta(&mut self, index: usize, text: &str, tokens: &[Token], out: &mut SseBuffer) {
        let deltas = match self.calls.get_mut(index) {
            Some(calls) => calls.push(text),
            None if text.is_empty() => Vec::new(),
            None => vec![json!({"content": text})],
        };
        let mut logprobs = self.with_logprobs.then(|| logprobs::chat(tokens));
        // A piece of a character, or of what may become a stop string or a call.
        let silent = deltas.is_empty() && logprobs.is_some();
        for delta in deltas.into_iter().chain(silent.then(|| json!({"content": ""}))) {
            self.piece(index, &delta, logprobs.take().as_ref(), out);
        }
    }

    fn piece(&self, index: usize, delta: &Value, logprobs: Option<&Value>, out: &mut SseBuffer) {
        let choice =
            json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null});
        self.chunk(choice, out);
    }

    fn end(&mut self, index: usize, because: &FinishedBecause, out: &mut SseBuffer) {
        let rest = self.calls.get_mut(index).map(CallReader::finish).unwrap_or_default();
        for delta in rest {
            self.piece(index, &delta, None, out);
        }
        let reason = match self.calls.get(index) {
            Some(calls) => calls.finish_reason(because),
            None => finish_reason(because),
        };
        let choice = json!({
            "index": index,
            "delta": {},
            "logprobs": null,
            "finish_reason": reason,
            "stop_reason": stop_reason(because),
        });
        self.chunk(choice, out);
    }

    fn chunk(&self, choice: Value, out: &mut SseBuffer) {
        out.json(&self.head.json(CHUNK, &[choice]));
    }
}

impl StreamDialect for ChatStream {
    fn open(&mut self, out: &mut SseBuffer) {
        for index in 0..self.answers {
            self.piece(index, &json!({"role": "assistant", "content": ""}), None, out);
        }
    }

    fn event(&mut self, event: GenerateEvent, out: &mut SseBuffer) {
        match event {
            GenerateEvent::Delta { index, text, tokens } => self.delta(index, &text, &tokens, out),
            GenerateEvent::Finished { index, because, usage } => {
                self.usage.add(index, usage);
                self.end(index, &because, out);
            }
        }
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
        generation::{StopReason, Usage},
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
        let mut shown =
            whole(&Head::new("chatcmpl", "rate".into(), &[]), &[answer], &Shown::default());
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
        let shown = Shown { with_logprobs: true, calls: None };
        let mut stream = ChatStream::new(Head::new("chatcmpl", "m".into(), &[]), &shared, &shown);
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

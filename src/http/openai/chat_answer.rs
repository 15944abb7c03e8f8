//! Chat completions as OpenAI writes them: whole, and in pieces.
use super::{
    calls::{CallReader, CallReading},
    fields::SharedFields,
    logprobs,
    shown::Shown,
    usage::{Head, StreamUsage, UsageSum, finish_reason, stop_reason},
};
use crate::{
    generation::{Completion, FinishedBecause, GenerateEvent, Token},
    http::{
        ApiError,
        sse::{SseBuffer, StreamDialect},
    },
};
use serde_json::{Value, json};
use std::{collections::HashSet, sync::Arc};

const CHUNK: &str = "chat.completion.chunk";

/// What answers show, and what they are to be read as.
#[derive(Debug, Default)]
pub(super) struct ChatShown {
    pub(super) shown: Shown,
    /// What each answer continues, where it is to be shown.
    pub(super) echo: String,
    /// Where answers may have calls.
    pub(super) calls: Option<CallReading>,
}

impl ChatShown {
    fn message(&self, text: &str, because: &FinishedBecause) -> (Value, &'static str) {
        let plain = || {
            let message = json!({"role": "assistant", "content": text, "refusal": null});
            (message, finish_reason(because))
        };
        let calls = self.calls.as_ref().map(|calls| calls.message(text, because));
        let (mut message, reason) = calls.unwrap_or_else(plain);
        if !self.echo.is_empty() {
            let said = message["content"].as_str().unwrap_or_default();
            message["content"] = format!("{}{said}", self.echo).into();
        }
        (message, reason)
    }
}

/// The response to a request that does not stream.
pub(super) fn whole(head: &Head, answers: &[Completion], chat: &ChatShown) -> Value {
    let shown = chat.shown;
    let mut usage = UsageSum::new(answers.len().max(1));
    let mut choices = Vec::with_capacity(answers.len());
    for answer in answers {
        usage.add(answer.index, answer.usage);
        let (message, finish_reason) = chat.message(&answer.text, &answer.because);
        let mut choice = json!({
            "index": answer.index,
            "message": message,
            "logprobs": shown.logprobs.map(|_| logprobs::chat(&answer.tokens, shown.spelling)),
            "finish_reason": finish_reason,
            "stop_reason": stop_reason(&answer.because),
        });
        if shown.token_ids {
            choice["token_ids"] = ids(&answer.tokens);
        }
        choices.push(choice);
    }
    let mut response = head.json("chat.completion", &choices);
    response["usage"] = usage.json(head);
    if let Some(prompt) = answers.first().and_then(|answer| answer.prompt.as_deref()) {
        if let Some(top) = shown.prompt_logprobs {
            response["prompt_logprobs"] = logprobs::prompt(&prompt.tokens, top);
        }
        if shown.token_ids {
            response["prompt_token_ids"] = ids(&prompt.tokens);
        }
    }
    response
}

fn piece(index: usize, delta: &Value) -> Value {
    json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null})
}

fn ids(tokens: &[Token]) -> Value {
    tokens.iter().map(|token| token.id).collect()
}

/// The response to a request that streams.
#[derive(Debug)]
pub(super) struct ChatStream {
    head: Head,
    shown: Shown,
    /// What each answer continues, where it is to be shown.
    echo: String,
    usage: StreamUsage,
    /// Answers that chunks were sent of.
    begun: HashSet<usize>,
    /// One an answer, where answers may have calls.
    calls: Vec<CallReader>,
}

impl ChatStream {
    /// Nothing sent yet of the answers to this prompt.
    pub(super) fn new(
        head: Head,
        shared: &SharedFields,
        chat: ChatShown,
        prompt: &[Arc<[u32]>],
    ) -> Self {
        let usage = StreamUsage::new(shared, prompt);
        let ChatShown { shown, echo, calls } = chat;
        let readers = |calls: CallReading| (0..usage.answers()).map(|_| calls.streamed()).collect();
        let calls = calls.map(readers).unwrap_or_default();
        Self { head, shown, echo, usage, begun: HashSet::new(), calls }
    }

    /// What a piece of text says, each in a chunk of its own; the tokens go with the first.
    fn delta(&mut self, index: usize, text: &str, tokens: &[Token], out: &mut SseBuffer) {
        let mut deltas = match self.calls.get_mut(index) {
            Some(calls) => calls.push(text),
            None if text.is_empty() => Vec::new(),
            None => vec![json!({"content": text})],
        };
        let Shown { logprobs, token_ids, spelling, .. } = self.shown;
        // A piece of a character, or of what may become a stop string or a call.
        if deltas.is_empty() && (logprobs.is_some() || token_ids) {
            deltas.push(json!({"content": ""}));
        }
        let mut logprobs = logprobs.map(|_| logprobs::chat(tokens, spelling));
        let mut ids = token_ids.then(|| ids(tokens));
        for delta in deltas {
            let mut choice = piece(index, &delta);
            choice["logprobs"] = logprobs.take().unwrap_or_default();
            if let Some(ids) = ids.take() {
                choice["token_ids"] = ids;
            }
            self.chunk(index, &choice, out);
        }
    }

    fn end(&mut self, index: usize, because: &FinishedBecause, out: &mut SseBuffer) {
        let rest = self.calls.get_mut(index).map(CallReader::finish).unwrap_or_default();
        for delta in rest {
            self.chunk(index, &piece(index, &delta), out);
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
        self.chunk(index, &choice, out);
    }

    fn chunk(&mut self, index: usize, choice: &Value, out: &mut SseBuffer) {
        let mut chunk = self.head.json(CHUNK, std::slice::from_ref(choice));
        if let Some(usage) = self.usage.so_far(index) {
            chunk["usage"] = usage;
        }
        if self.begun.insert(index) && self.shown.token_ids {
            chunk["prompt_token_ids"] = json!(self.usage.prompt(index));
        }
        out.json(&chunk);
    }
}

impl StreamDialect for ChatStream {
    fn open(&mut self, out: &mut SseBuffer) {
        let mut deltas = vec![json!({"role": "assistant", "content": ""})];
        if !self.echo.is_empty() {
            deltas.push(json!({"content": self.echo}));
        }
        for index in 0..self.usage.answers() {
            for delta in &deltas {
                self.chunk(index, &piece(index, delta), out);
            }
        }
    }

    fn event(&mut self, event: GenerateEvent, out: &mut SseBuffer) {
        match event {
            GenerateEvent::Prompt { .. } => {}
            GenerateEvent::Delta { index, text, tokens } => {
                self.usage.more(index, tokens.len());
                self.delta(index, &text, &tokens, out);
            }
            GenerateEvent::Finished { index, because, usage } => {
                self.usage.finished(index, usage);
                self.end(index, &because, out);
            }
        }
    }

    fn close(&mut self, out: &mut SseBuffer) {
        if let Some(usage) = self.usage.total(&self.head) {
            let mut chunk = self.head.json(CHUNK, &[]);
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
        generation::{PromptTokens, StopReason, Usage},
        http::json::JsonBody,
    };
    use std::time::Duration;

    const USAGE: Usage =
        Usage { prompt_tokens: 9, completion_tokens: 2, cached_tokens: 4, queued: Duration::ZERO };

    fn token(id: u32) -> Token {
        Token {
            id,
            text: "a".into(),
            bytes: vec![97],
            shown: "a".into(),
            special: false,
            logprob: Some(-1.0),
            rank: Some(1),
            top: vec![],
        }
    }

    fn answer() -> Completion {
        let because = FinishedBecause::Stop(StopReason::Token(7));
        let (text, tokens) = ("hi".into(), vec![token(5)]);
        Completion { index: 0, text, tokens, prompt: None, because, usage: USAGE }
    }

    #[test]
    fn a_whole_answer_has_exactly_the_fields_of_openai_and_vllm() {
        let mut shown = whole(&Head::test("chatcmpl"), &[answer()], &ChatShown::default());
        assert!(shown["id"].take().as_str().expect("text").starts_with("chatcmpl-"));
        shown["created"].take();
        let expected = json!({
            "id": null, "object": "chat.completion", "created": null, "model": "rate",
            "choices": [{
                "index": 0, "message": {"role": "assistant", "content": "hi", "refusal": null},
                "logprobs": null, "finish_reason": "stop", "stop_reason": 7,
            }],
            "system_fingerprint": "fp_0",
            "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11,
                      "prompt_tokens_details": {"cached_tokens": 4},
                      "completion_tokens_details": {"reasoning_tokens": 0}},
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn an_answer_shows_what_it_continues_and_the_prompt_s_tokens_where_it_is_asked_to() {
        let first = Token { logprob: None, ..token(3) };
        let tokens = vec![first, token(4)];
        let prompt = Some(Arc::new(PromptTokens { text: "aa".into(), tokens }));
        let wanted = Shown { prompt_logprobs: Some(0), token_ids: true, ..Shown::default() };
        let answer = Completion { prompt, ..answer() };
        let wanted = ChatShown { shown: wanted, echo: "oh ".into(), calls: None };
        let shown = whole(&Head::test("chatcmpl"), &[answer], &wanted);
        assert_eq!(shown["choices"][0]["message"]["content"], "oh hi");
        assert_eq!(shown["choices"][0]["token_ids"], json!([5]));
        assert_eq!(shown["prompt_token_ids"], json!([3, 4]));
        assert_eq!(shown["prompt_logprobs"][0], Value::Null);
        assert_eq!(shown["prompt_logprobs"][1]["4"]["rank"], 1);
    }

    #[test]
    fn a_stream_opens_with_a_role_for_each_answer() {
        let body = json!({"n": 2, "stream": true});
        let body = JsonBody::parse(body.to_string().as_bytes()).expect("an object");
        let shared = SharedFields::read(&body, 8).expect("valid");
        let shown = Shown { logprobs: Some(0), ..Shown::default() };
        let shown = ChatShown { shown, ..ChatShown::default() };
        let mut stream = ChatStream::new(Head::test("chatcmpl"), &shared, shown, &[vec![1].into()]);
        let mut out = SseBuffer::default();
        stream.open(&mut out);
        let tokens = vec![token(1)];
        stream.event(GenerateEvent::Delta { index: 1, text: "a".into(), tokens }, &mut out);
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

    #[test]
    fn a_stream_shows_what_it_continues_after_the_role() {
        let body = JsonBody::parse(b"{\"stream\": true}").expect("an object");
        let shared = SharedFields::read(&body, 8).expect("valid");
        let shown = Shown { token_ids: true, ..Shown::default() };
        let shown = ChatShown { shown, echo: "oh ".into(), calls: None };
        let mut stream =
            ChatStream::new(Head::test("chatcmpl"), &shared, shown, &[vec![1, 2].into()]);
        let mut out = SseBuffer::default();
        stream.open(&mut out);
        let text = out.text();
        let events: Vec<Value> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0]["prompt_token_ids"], json!([1, 2]));
        assert_eq!(events[1]["choices"][0]["delta"], json!({"content": "oh "}));
        assert_eq!(events[1].get("prompt_token_ids"), None);
    }
}

//! Streamed answers.
use super::*;
use crate::client::tokens;
use lorad::engine::{Event, FinishReason};
use tokio::sync::mpsc::unbounded_channel;

/// A stream as text, without what differs each time.
fn transcript(answer: &Answer) -> String {
    let event = |event: String| {
        let Ok(mut value) = serde_json::from_str::<Value>(&event) else { return event };
        assert!(value["id"].take().as_str().expect("text").starts_with("chatcmpl-"));
        assert!(value["created"].take().is_u64());
        assert!(value["system_fingerprint"].take().as_str().expect("text").starts_with("fp_"));
        if let Some(id) = value.pointer_mut("/choices/0/delta/tool_calls/0/id") {
            assert!(id.take().as_str().expect("text").starts_with("chatcmpl-tool-"));
        }
        value.to_string()
    };
    let events = answer.events().into_iter().map(event);
    events.flat_map(|event| ["data: ".to_owned(), event, "\n\n".to_owned()]).collect()
}

const TRANSCRIPT: &str = r#"data: {"id":null,"object":"chat.completion.chunk","created":null,"model":"tiny","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"system_fingerprint":null}

data: {"id":null,"object":"chat.completion.chunk","created":null,"model":"tiny","choices":[{"index":0,"delta":{"content":"Yes."},"logprobs":null,"finish_reason":null}],"system_fingerprint":null}

data: {"id":null,"object":"chat.completion.chunk","created":null,"model":"tiny","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":null,"type":"function","function":{"name":"add","arguments":""}}]},"logprobs":null,"finish_reason":null}],"system_fingerprint":null}

data: {"id":null,"object":"chat.completion.chunk","created":null,"model":"tiny","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\": 1}"}}]},"logprobs":null,"finish_reason":null}],"system_fingerprint":null}

data: {"id":null,"object":"chat.completion.chunk","created":null,"model":"tiny","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":null,"type":"function","function":{"name":"get_weather","arguments":""}}]},"logprobs":null,"finish_reason":null}],"system_fingerprint":null}

data: {"id":null,"object":"chat.completion.chunk","created":null,"model":"tiny","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{\"place\": \"Köln\"}"}}]},"logprobs":null,"finish_reason":null}],"system_fingerprint":null}

data: {"id":null,"object":"chat.completion.chunk","created":null,"model":"tiny","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls","stop_reason":null}],"system_fingerprint":null}

data: {"id":null,"object":"chat.completion.chunk","created":null,"model":"tiny","choices":[],"system_fingerprint":null,"usage":{"prompt_tokens":PROMPT,"completion_tokens":ANSWER,"total_tokens":TOTAL,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}

data: [DONE]

"#;

#[tokio::test]
async fn calls_are_streamed_as_openai_and_vllm_do() {
    let said = format!("Yes.\n{}", FORMATS[0].1);
    let stream = json!({"stream": true, "stream_options": {"include_usage": true}});
    let answer = server(HERMES, &[&said]).post(PATH, &with(asking(), stream)).await;
    let whole = server(HERMES, &[&said]).post(PATH, &asking()).await.ok();
    let expected =
        [("PROMPT", "prompt_tokens"), ("ANSWER", "completion_tokens"), ("TOTAL", "total_tokens")]
            .iter()
            .fold(TRANSCRIPT.to_owned(), |text, (name, field)| {
                text.replace(name, &whole["usage"][field].to_string())
            });
    assert_eq!(transcript(&answer), expected);
}

#[tokio::test]
async fn a_stream_of_every_format_is_the_whole_answer_in_pieces() {
    for (template, said) in FORMATS {
        let said = [said, "I cannot."];
        let whole = server(template, &said).post(PATH, &with(asking(), json!({"n": 2}))).await.ok();
        let stream = with(asking(), json!({"n": 2, "stream": true}));
        let answer = server(template, &said).post(PATH, &stream).await;
        let joined = joined(&answer);
        assert_eq!(joined.len(), 2);
        for (choice, (message, reason)) in
            whole["choices"].as_array().expect("choices").iter().zip(&joined)
        {
            assert_eq!(called(message), called(&choice["message"]));
            assert_eq!(
                message["content"],
                choice["message"]["content"].as_str().unwrap_or_default()
            );
            assert_eq!(*reason, choice["finish_reason"]);
        }
        assert!(
            !answer.text.contains("TOOL_CALLS") && !answer.text.contains("tool_call>"),
            "{}",
            answer.text
        );
    }
}

#[tokio::test]
async fn arguments_come_while_the_model_still_writes_them() {
    let (started, mut engine) = unbounded_channel();
    let app = with_tools(Script::Hold(started), HERMES, ToolCallSetting::Auto);
    let server = Server::start(app);
    let mut stream = server.open(PATH, &with(asking(), json!({"stream": true}))).await;
    let engine = engine.recv().await.expect("a submission");
    let mut seen = String::new();
    for (said, mark) in [
        ("<tool_call>\n{\"name\": \"add\", \"arguments\": {", r#""arguments":"{""#),
        ("\"a\": ", r#""arguments":"\"a\": ""#),
        ("1}}\n</tool_call>", r#""arguments":"1}""#),
    ] {
        for id in tokens(said) {
            engine.send(Event::Token { id, logprobs: None }).expect("a reader");
        }
        while !seen.contains(mark) {
            let chunk = stream.chunk().await.expect("a stream").expect("more of it");
            seen.push_str(std::str::from_utf8(&chunk).expect("whole characters"));
        }
    }
    engine.send(Event::Finished { reason: FinishReason::EndOfSequence }).expect("a reader");
    while let Some(chunk) = stream.chunk().await.expect("a stream") {
        seen.push_str(std::str::from_utf8(&chunk).expect("whole characters"));
    }
    assert!(seen.contains(r#""finish_reason":"tool_calls""#) && !seen.contains("</"), "{seen}");
}

#[tokio::test]
async fn every_token_s_probability_is_told_once() {
    let server = server(HERMES, &[FORMATS[0].1]);
    let body = with(asking(), json!({"stream": true, "logprobs": true}));
    let answer = server.post(PATH, &body).await;
    let mut text = String::new();
    for event in answer.events() {
        let event: Value = serde_json::from_str(&event).unwrap_or_default();
        for token in event["choices"][0]["logprobs"]["content"].as_array().into_iter().flatten() {
            text.push_str(token["token"].as_str().expect("text"));
        }
    }
    assert_eq!(text.replace('\u{fffd}', "").len(), FORMATS[0].1.replace('ö', "").len());
}

#[tokio::test]
async fn text_that_only_looks_like_a_call_comes_whole() {
    for said in
        ["a <tool_", "{\"name\": \"ad", "<tool_call>\n{\"name\": \"nope\"", "[TOOL", " {\"a\": 1} "]
    {
        for (template, _) in FORMATS {
            let server = server(template, &[said]);
            let answer = server.post(PATH, &with(asking(), json!({"stream": true}))).await;
            let [(message, reason)] = &joined(&answer)[..] else { panic!("one answer") };
            assert_eq!((&message["content"], reason), (&json!(said), &json!("stop")), "{template}");
        }
    }
}

#[tokio::test]
async fn json_that_breaks_after_a_call_was_told_is_content() {
    let server = server(
        HERMES,
        &["<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": one}}\n</tool_call>"],
    );
    let answer = server.post(PATH, &with(asking(), json!({"stream": true}))).await;
    let [(message, _)] = &joined(&answer)[..] else { panic!("one answer") };
    assert_eq!(called(message), [("add".to_owned(), "{\"a\": ".to_owned())]);
    assert_eq!(message["content"], "one}}\n</tool_call>");
}

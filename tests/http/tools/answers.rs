//! Whole answers.
use super::*;

async fn answered(template: &str, said: &str, more: Value) -> Value {
    let server = server(template, &[said]);
    server.post(PATH, &with(asking(), more)).await.ok()["choices"][0].clone()
}

#[tokio::test]
async fn calls_are_read_in_every_format() {
    for (template, said) in FORMATS {
        let choice = answered(template, said, json!({})).await;
        let message = &choice["message"];
        assert_eq!(called(message), both());
        assert_eq!(message["content"], Value::Null);
        assert_eq!(choice["finish_reason"], "tool_calls");
    }
}

#[tokio::test]
async fn a_message_with_calls_has_exactly_the_fields_of_openai() {
    let mut choice = answered(HERMES, FORMATS[0].1, json!({"parallel_tool_calls": false})).await;
    let id = choice["message"]["tool_calls"][0]["id"].take();
    let id = id
        .as_str()
        .expect("text")
        .strip_prefix("chatcmpl-tool-")
        .expect("vLLM's prefix")
        .to_owned();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let call = json!({"id": null, "type": "function", "function": {"name": "add", "arguments": "{\"a\": 1}"}});
    let message =
        json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [call]});
    let expected = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "tool_calls",
                          "stop_reason": null});
    assert_eq!(choice, expected);
}

#[tokio::test]
async fn ids_are_as_short_as_the_template_wants_them() {
    let message = answered(MISTRAL, FORMATS[2].1, json!({})).await["message"].clone();
    let server = server(MISTRAL, &["fine"]);
    let ids: Vec<&Value> = [0, 1].map(|at| &message["tool_calls"][at]["id"]).into();
    assert_ne!(ids[0], ids[1]);
    let answers = ids.iter().map(|id| json!({"role": "tool", "tool_call_id": id, "content": "1"}));
    let messages = [json!({"role": "user", "content": "Hello"}), message.clone()];
    let messages: Vec<Value> = messages.into_iter().chain(answers).collect();
    let answer = server.post(PATH, &with(asking(), json!({"messages": messages}))).await.ok();
    assert_eq!(answer["choices"][0]["message"]["content"], "fine");
}

#[tokio::test]
async fn an_answer_without_calls_is_text_as_ever() {
    for (template, _) in FORMATS {
        let choice = answered(template, " Hello.\n", json!({})).await;
        let expected = json!({"role": "assistant", "content": " Hello.\n", "refusal": null});
        assert_eq!((&choice["message"], &choice["finish_reason"]), (&expected, &json!("stop")));
    }
}

#[tokio::test]
async fn text_and_calls_may_stand_together() {
    let said = format!("I shall look.\n{}", FORMATS[0].1);
    let message = answered(HERMES, &said, json!({})).await["message"].clone();
    assert_eq!((message["content"].as_str(), called(&message)), (Some("I shall look."), both()));
}

#[tokio::test]
async fn what_is_no_call_is_given_back() {
    for said in [
        "<tool_call>\n{\"name\": \"nope\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": }}\n</tool_call>",
        "<tool_call>\n{\"name\": \"add\", \"arg",
    ] {
        let choice = answered(HERMES, said, json!({})).await;
        assert_eq!(choice["message"]["content"], said);
        assert_eq!(choice["message"].get("tool_calls"), None);
        assert_eq!(choice["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn a_call_that_is_cut_off_says_so() {
    let choice = answered(MISTRAL, FORMATS[2].1, json!({"max_tokens": 30})).await;
    assert_eq!(choice["finish_reason"], "length");
    let [(name, arguments)] = &called(&choice["message"])[..] else { panic!("one call: {choice}") };
    assert_eq!(name, "add");
    assert!("{\"a\": 1}".starts_with(arguments), "{arguments}");
}

#[tokio::test]
async fn each_answer_has_calls_of_its_own() {
    let server = server(HERMES, &["no", FORMATS[0].1, "<tool_call>"]);
    let answer = server.post(PATH, &with(asking(), json!({"n": 3}))).await.ok();
    let message = |at: usize| &answer["choices"][at]["message"];
    assert_eq!(message(0)["content"], "no");
    assert_eq!(called(message(1)), both());
    assert_eq!(message(2)["content"], "<tool_call>");
    let reasons = [0, 1, 2].map(|at| answer["choices"][at]["finish_reason"].clone());
    assert_eq!(reasons, ["stop", "tool_calls", "stop"]);
}

#[tokio::test]
async fn stop_strings_and_probabilities_work_as_ever() {
    let more = json!({"stop": ["</tool_call>"], "logprobs": true});
    let choice = answered(HERMES, FORMATS[0].1, more).await;
    assert_eq!(called(&choice["message"]), both()[..1]);
    assert_eq!(choice["stop_reason"], "</tool_call>");
    let tokens = choice["logprobs"]["content"].as_array().expect("tokens").iter();
    let text: String = tokens.map(|token| token["token"].as_str().expect("text")).collect();
    assert!(FORMATS[0].1.starts_with(&text) && text.ends_with("</tool_call>"), "{text}");
}

#[tokio::test]
async fn without_tools_marks_are_what_they_were() {
    let server = server(MISTRAL, &["[TOOL_CALLS][]", "[TOOL_CALLS][]"]);
    let body = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50});
    for body in [body, with(asking(), json!({"tool_choice": "none"}))] {
        let answer = server.post(PATH, &body).await.ok();
        assert_eq!(answer["choices"][0]["message"]["content"], "[]", "a special token is no text");
    }
}

#[tokio::test]
async fn the_setting_says_how_calls_are_read() {
    let app = with_tools(Script::say(&[FORMATS[2].1]), HERMES, ToolCallSetting::Mistral);
    let answer = Server::start(app).post(PATH, &asking()).await.ok();
    assert_eq!(called(&answer["choices"][0]["message"]), both());
}

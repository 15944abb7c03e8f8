//! OpenAI's dialect, against a real engine.
use crate::client::{Case, Server, cases};
use futures_util::future::join_all;
use serde_json::{Value, json};

fn server() -> Server {
    Server::golden("llama")
}

fn greedy(case: &Case) -> Value {
    json!({"model": case.adapter, "prompt": case.prompt, "max_tokens": case.greedy.len(),
           "temperature": 0})
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn parsed(events: &[String]) -> Vec<Value> {
    events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
}

#[tokio::test]
async fn base_and_adapters_answer_side_by_side_as_transformers_and_peft_do() {
    let server = server();
    let cases = cases("llama");
    let answers = join_all(cases.iter().map(async |case| {
        let answer = server.post("/v1/completions", &greedy(case)).await.ok();
        let expected = server.post("/detokenize", &json!({"tokens": case.greedy})).await.ok();
        (case, answer, expected["prompt"].clone())
    }))
    .await;
    for (case, answer, expected) in answers {
        assert_eq!(answer["choices"][0]["text"], expected, "{:?}", case.adapter);
        assert_eq!(answer["model"], *case.adapter.as_deref().unwrap_or("llama"));
        assert_eq!(answer["usage"]["prompt_tokens"], case.prompt.len());
        assert_eq!(answer["usage"]["completion_tokens"], case.greedy.len());
    }
}

#[tokio::test]
async fn answers_have_the_fields_of_openai_and_vllm_and_no_others() {
    let server = server();
    let body = json!({"prompt": "a", "max_tokens": 3, "user": "x", "metadata": {}});
    let completion = server.post("/v1/completions", &body).await.ok();
    let head = ["id", "object", "created", "model", "choices", "system_fingerprint", "usage"];
    assert_eq!(keys(&completion), head);
    assert_eq!(completion["object"], "text_completion");
    let choice = ["index", "text", "logprobs", "finish_reason", "stop_reason"];
    assert_eq!(keys(&completion["choices"][0]), choice);

    let body = json!({"messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 3});
    let chat = server.post("/v1/chat/completions", &body).await.ok();
    assert_eq!(keys(&chat), head);
    assert_eq!(chat["object"], "chat.completion");
    let choice = ["index", "message", "logprobs", "finish_reason", "stop_reason"];
    assert_eq!(keys(&chat["choices"][0]), choice);
    assert_eq!(keys(&chat["choices"][0]["message"]), ["role", "content", "refusal"]);
    assert!(chat["usage"]["completion_tokens"].as_u64().expect("a count") <= 3);
}

#[tokio::test]
async fn a_stream_says_what_the_whole_answer_says() {
    let server = server();
    let case = cases("llama").into_iter().find(|case| case.adapter.is_some()).expect("a case");
    let mut body = greedy(&case);
    let whole = server.post("/v1/completions", &body).await.ok();
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let answer = server.post("/v1/completions", &body).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(answer.headers["cache-control"], "no-cache");
    let mut events = answer.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let events = parsed(&events);
    let (last, pieces) = events.split_last().expect("events");
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
    let text: String = pieces.iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, whole["choices"][0]["text"]);
    let end = &pieces.last().expect("a piece")["choices"][0];
    assert_eq!(end["finish_reason"], "length");
}

#[tokio::test]
async fn a_chat_stream_opens_with_the_role_and_ends_with_the_reason() {
    let server = server();
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 6,
                          "temperature": 0, "n": 2});
    let whole = server.post("/v1/chat/completions", &body).await.ok();
    body["stream"] = true.into();
    let mut events = server.post("/v1/chat/completions", &body).await.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let events = parsed(&events);
    for index in 0..2 {
        let of_answer = |event: &&Value| event["choices"][0]["index"] == index;
        let choices: Vec<_> = events.iter().filter(of_answer).map(|e| &e["choices"][0]).collect();
        assert_eq!(choices[0]["delta"], json!({"role": "assistant", "content": ""}));
        let text: String = choices.iter().filter_map(|c| c["delta"]["content"].as_str()).collect();
        assert_eq!(text, whole["choices"][index]["message"]["content"]);
        let end = choices.last().expect("an end");
        assert_eq!(end["finish_reason"], whole["choices"][index]["finish_reason"]);
    }
    let ids: Vec<_> = events.iter().map(|event| &event["id"]).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[tokio::test]
async fn several_prompts_with_several_answers_are_numbered_through() {
    let server = server();
    let body = json!({"prompt": ["one", "two", "three"], "n": 2, "max_tokens": 4, "seed": 7});
    let first = server.post("/v1/completions", &body).await.ok();
    let choices = first["choices"].as_array().expect("choices");
    let indices: Vec<_> = choices.iter().map(|choice| choice["index"].as_u64()).collect();
    assert_eq!(indices, (0..6).map(Some).collect::<Vec<_>>());
    let again = server.post("/v1/completions", &body).await.ok();
    assert_eq!(first["choices"], again["choices"], "the same seed, the same answers");
    assert_ne!(choices[0]["text"], choices[1]["text"], "answers to one prompt differ");
}

#[tokio::test]
async fn logprobs_come_in_the_shape_of_the_route() {
    let server = server();
    let case = &cases("llama")[0];
    let mut body = greedy(case);
    body["logprobs"] = 2.into();
    let shown = server.post("/v1/completions", &body).await.ok()["choices"][0]["logprobs"].clone();
    let fields = ["text_offset", "token_logprobs", "tokens", "top_logprobs"];
    assert_eq!(keys(&shown), fields);
    for field in fields {
        assert_eq!(shown[field].as_array().expect("a list").len(), case.greedy.len(), "{field}");
    }
    assert!(shown["token_logprobs"][0].as_f64().expect("a number") <= 0.0);
    assert_eq!(shown["text_offset"][0], 0);

    let body = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 2,
                      "ignore_eos": true, "temperature": 0, "logprobs": true, "top_logprobs": 3});
    let chat = server.post("/v1/chat/completions", &body).await.ok();
    let content = chat["choices"][0]["logprobs"]["content"].as_array().expect("a list").clone();
    assert_eq!(content.len(), 2);
    assert_eq!(keys(&content[0]), ["token", "logprob", "bytes", "top_logprobs"]);
    let top = content[0]["top_logprobs"].as_array().expect("a list");
    assert_eq!(top.len(), 3);
    assert_eq!(top[0]["logprob"], content[0]["logprob"], "greedy takes the most likely");
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_is_named() {
    let server = server();
    let mut body = greedy(&cases("llama")[0]);
    let text = server.post("/v1/completions", &body).await.ok()["choices"][0]["text"].clone();
    let text = text.as_str().expect("text");
    let stop: String = text.chars().skip(2).take(2).collect();
    body["stop"] = stop.as_str().into();
    let choice = server.post("/v1/completions", &body).await.ok()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["stop_reason"], stop);
    assert_eq!(choice["text"], text[..text.find(&stop).expect("inside")]);
}

#[tokio::test]
async fn models_are_the_base_and_its_adapters() {
    let server = server();
    let models = server.get("/v1/models").await.ok();
    assert_eq!(models["object"], "list");
    let cards = models["data"].as_array().expect("cards");
    let fields =
        ["id", "object", "created", "owned_by", "root", "parent", "max_model_len", "tasks"];
    assert!(cards.iter().all(|card| keys(card) == fields));
    assert!(cards.iter().all(|card| card["tasks"] == json!(["generate"])), "{models}");
    assert_eq!((&cards[0]["id"], &cards[0]["parent"]), (&json!("llama"), &Value::Null));
    assert_eq!(cards[0]["max_model_len"], 256);
    let layers = cards.iter().find(|card| card["id"] == "layers").expect("the adapter");
    assert_eq!(layers["parent"], "llama");
    assert_eq!(server.get("/v1/models/layers").await.ok(), *layers);
    assert_eq!(server.get("/v1/models/llama").await.ok(), cards[0]);
    let error = server.get("/v1/models/org/nope").await.error(404);
    assert!(error["message"].as_str().expect("text").contains("org/nope"));

    let version = layers["root"].as_str().expect("name and version");
    let body = json!({"model": version, "prompt": "a", "max_tokens": 1});
    assert_eq!(server.post("/v1/completions", &body).await.ok()["model"], version);
}

#[tokio::test]
async fn text_and_tokens_are_each_others_inverse() {
    let server = server();
    let tokens = server.post("/tokenize", &json!({"prompt": "abc def"})).await.ok();
    assert_eq!(keys(&tokens), ["count", "max_model_len", "tokens", "token_strs"]);
    assert_eq!(tokens["max_model_len"], 256);
    let text = server.post("/detokenize", &json!({"tokens": tokens["tokens"]})).await.ok();
    assert_eq!(text, json!({"prompt": "abc def"}));
    let chat = json!({"messages": [{"role": "user", "content": "a"}], "return_token_strs": true});
    let tokens = server.post("/tokenize", &chat).await.ok();
    assert_eq!(tokens["token_strs"].as_array().expect("texts").len(), tokens["count"]);
    server.post("/detokenize", &json!({"tokens": [99_999]})).await.error(400);
}

#[tokio::test]
async fn every_mistake_has_its_status_and_names_its_field() {
    let server = server();
    let user = json!([{"role": "user", "content": "a"}]);
    for (path, body, status, param) in [
        ("completions", json!({}), 400, "prompt"),
        ("completions", json!({"prompt": "a", "model": "nope"}), 404, "model"),
        ("completions", json!({"prompt": "a", "model": "../etc/passwd"}), 404, "model"),
        ("completions", json!({"prompt": "a", "max_tokens": 300}), 400, "input_tokens"),
        ("completions", json!({"prompt": "a", "max_tokens": 0}), 400, "max_tokens"),
        ("completions", json!({"prompt": "a", "max_tokens": -1}), 400, "max_tokens"),
        ("completions", json!({"prompt": "a", "temperature": -1}), 400, "temperature"),
        ("completions", json!({"prompt": "a", "temperature": 1e39}), 400, "temperature"),
        ("completions", json!({"prompt": "a", "top_p": 0}), 400, "top_p"),
        ("completions", json!({"prompt": "a", "logprobs": 21}), 400, "logprobs"),
        ("completions", json!({"prompt": "a", "logit_bias": {"320": 1}}), 400, "logit_bias"),
        ("completions", json!({"prompt": "a", "n": 1_000_000}), 400, "n"),
        ("completions", json!({"prompt": vec!["a"; 129]}), 400, "prompt"),
        ("completions", json!({"prompt": [1, 320]}), 400, "prompt"),
        ("completions", json!({"prompt": "a", "suffix": "b"}), 501, "suffix"),
        ("completions", json!({"prompt": "a", "use_beam_search": true}), 501, "use_beam_search"),
        ("completions", json!({"prompt": "a", "prompt_embeds": "b"}), 501, "prompt_embeds"),
        ("chat/completions", json!({}), 400, "messages"),
        ("chat/completions", json!({"messages": user, "top_logprobs": 2}), 400, "top_logprobs"),
        (
            "chat/completions",
            json!({"messages": user, "functions": [{"name": "f"}]}),
            501,
            "functions",
        ),
    ] {
        let answer = server.post(&format!("/v1/{path}"), &body).await;
        let error = answer.error(status);
        assert_eq!(error["param"], param, "{body}: {error}");
        assert_eq!(error["code"], status, "{body}");
        assert_eq!(keys(&error), ["message", "type", "param", "code", "reason"], "{body}");
    }
    let long = json!({"prompt": vec![5; 300], "max_tokens": 1});
    let message = server.post("/v1/completions", &long).await.error(400)["message"].clone();
    let message = message.as_str().expect("text");
    assert!(message.contains("maximum context length is 256 tokens"), "{message}");
    assert!(message.contains("300"), "{message}");
}

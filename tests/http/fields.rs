//! What OpenAI's and vLLM's requests may ask for besides text, against a real engine.
use crate::client::{Server, cases, directory};
use serde_json::{Value, json};
use std::fs;

fn server() -> Server {
    Server::golden("llama")
}

async fn choice(server: &Server, body: Value) -> Value {
    server.post("/v1/completions", &body).await.ok()["choices"][0].clone()
}

/// Rows of logits that transformers has for each token of a prompt.
fn golden_logits(key: &str) -> Vec<Vec<f32>> {
    let file = fs::read(directory("llama").join("golden.safetensors")).expect("a file");
    let tensors = safetensors::SafeTensors::deserialize(&file).expect("tensors");
    let tensor = tensors.tensor(key).expect("the case's");
    let width = tensor.shape()[1];
    let values: Vec<f32> = tensor
        .data()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four")))
        .collect();
    values.chunks_exact(width).map(<[f32]>::to_vec).collect()
}

fn log_softmax(row: &[f32], id: usize) -> f64 {
    let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
    f64::from(row[id]) - sum.ln()
}

#[tokio::test]
async fn a_prompt_s_log_probabilities_are_those_of_transformers_and_peft() {
    let server = server();
    let text = fs::read(directory("llama").join("golden.json")).expect("golden.json");
    let listed: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    for (case, line) in cases("llama").iter().zip(&listed) {
        let rows = golden_logits(line["logits_key"].as_str().expect("a key"));
        let body = json!({"model": case.adapter, "prompt": case.prompt, "max_tokens": 1,
                          "prompt_logprobs": 2});
        let judged = choice(&server, body).await["prompt_logprobs"].clone();
        let judged = judged.as_array().expect("a list");
        assert_eq!((judged.len(), &judged[0]), (case.prompt.len(), &Value::Null));
        for (at, entries) in judged.iter().enumerate().skip(1) {
            let (row, id) = (&rows[at - 1], case.prompt[at] as usize);
            let own = &entries[id.to_string()];
            let difference = own["logprob"].as_f64().expect("a number") - log_softmax(row, id);
            assert!(difference.abs() < 1e-3, "{:?} {at}: {difference}", case.adapter);
            let rank = row.iter().filter(|logit| **logit >= row[id]).count();
            assert_eq!(own["rank"], rank, "{:?} {at}", case.adapter);
            let best = entries.as_object().expect("a map").values().find(|one| one["rank"] == 1);
            let best = best.expect("the most likely")["logprob"].as_f64().expect("a number");
            let highest = row.iter().copied().fold(f32::MIN, f32::max);
            let highest = row.iter().position(|logit| *logit >= highest).expect("there is one");
            assert!((best - log_softmax(row, highest)).abs() < 1e-3);
            assert!(entries.as_object().expect("a map").len() <= 3);
        }
    }
}

#[tokio::test]
async fn chat_shows_its_prompt_s_log_probabilities_beside_the_choices() {
    let server = server();
    let messages = json!([{"role": "user", "content": "hi"}]);
    let body = json!({"messages": messages, "max_tokens": 2, "n": 2, "prompt_logprobs": 0,
                      "return_token_ids": true});
    let answer = server.post("/v1/chat/completions", &body).await.ok();
    let ids = answer["prompt_token_ids"].as_array().expect("ids").clone();
    let judged = answer["prompt_logprobs"].as_array().expect("a list");
    assert_eq!(judged.len(), ids.len());
    assert_eq!(answer["usage"]["prompt_tokens"], ids.len());
    for (id, entries) in ids.iter().zip(judged).skip(1) {
        let entries = entries.as_object().expect("a map");
        assert_eq!(entries.keys().collect::<Vec<_>>(), [&id.to_string()]);
    }
    assert_eq!(answer["choices"][1]["token_ids"].as_array().expect("ids").len(), 2);
}

#[tokio::test]
async fn an_echo_is_the_prompt_then_the_answer_with_and_without_log_probabilities() {
    let server = server();
    let (prompt, adapter) = ("one two é", "layers");
    let ask = |more: Value| {
        let mut body = json!({"model": adapter, "prompt": prompt, "max_tokens": 4,
                              "temperature": 0, "echo": true});
        for (field, value) in more.as_object().expect("an object") {
            body[field] = value.clone();
        }
        choice(&server, body)
    };
    let plain = ask(json!({"echo": false})).await;
    let answer = plain["text"].as_str().expect("text");
    let echoed = ask(json!({})).await;
    assert_eq!(echoed["text"], format!("{prompt}{answer}"));
    let judged = ask(json!({"logprobs": 1})).await;
    assert_eq!(judged["text"], echoed["text"]);
    let listed = &judged["logprobs"];
    assert_eq!(
        (&listed["token_logprobs"][0], &listed["top_logprobs"][0]),
        (&Value::Null, &Value::Null)
    );
    let text: Vec<char> = judged["text"].as_str().expect("text").chars().collect();
    let tokens = listed["tokens"].as_array().expect("tokens");
    let offsets = listed["text_offset"].as_array().expect("offsets");
    for (token, offset) in tokens.iter().zip(offsets) {
        let (token, offset) = (token.as_str().expect("text"), offset.as_u64().expect("a number"));
        let rest: String = text[offset as usize..].iter().collect();
        assert!(rest.starts_with(token) || token.contains('\u{fffd}'), "{token:?} at {offset}");
    }

    let read = ask(json!({"max_tokens": 0, "logprobs": 1})).await;
    assert_eq!((&read["text"], &read["finish_reason"]), (&json!(prompt), &json!("length")));
    let of_prompt = read["logprobs"]["token_logprobs"].as_array().expect("numbers").clone();
    assert_eq!(
        of_prompt[..],
        listed["token_logprobs"].as_array().expect("numbers")[..of_prompt.len()]
    );
    assert_eq!(of_prompt.len() + 4, tokens.len());
    assert_eq!(ask(json!({"max_tokens": 0})).await["text"], prompt);
}

#[tokio::test]
async fn an_echo_streams_as_it_answers() {
    let server = server();
    let mut body = json!({"prompt": ["one two", "three"], "max_tokens": 3, "temperature": 0, "n": 2,
                          "echo": true, "logprobs": 0, "seed": 1});
    let whole = server.post("/v1/completions", &body).await.ok();
    body["stream"] = true.into();
    let mut events = server.post("/v1/completions", &body).await.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let events: Vec<Value> =
        events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    for index in 0..4 {
        let of_it = events.iter().map(|event| &event["choices"][0]);
        let of_it: Vec<_> = of_it.filter(|choice| choice["index"] == index).collect();
        let text: String = of_it.iter().filter_map(|choice| choice["text"].as_str()).collect();
        assert_eq!(text, whole["choices"][index]["text"].as_str().expect("text"));
        for list in ["tokens", "token_logprobs", "text_offset"] {
            let joined: Vec<Value> = of_it
                .iter()
                .filter_map(|choice| choice["logprobs"][list].as_array())
                .flatten()
                .cloned()
                .collect();
            assert_eq!(json!(joined), whole["choices"][index]["logprobs"][list], "{list}");
        }
    }
}

#[tokio::test]
async fn the_best_of_several_answers_are_told_and_all_are_counted() {
    let server = server();
    let body = json!({"prompt": ["one", "two"], "max_tokens": 4, "seed": 5, "temperature": 1.5,
                      "logprobs": 0, "ignore_eos": true});
    let with = |more: &[(&str, Value)]| {
        let mut body = body.clone();
        for (field, value) in more {
            body[*field] = value.clone();
        }
        body
    };
    let all = server.post("/v1/completions", &with(&[("n", json!(6))])).await.ok();
    let best =
        server.post("/v1/completions", &with(&[("n", json!(2)), ("best_of", json!(6))])).await.ok();
    assert_eq!(best["usage"]["completion_tokens"], 48);
    assert_eq!(best["usage"]["prompt_tokens"], all["usage"]["prompt_tokens"]);
    let mean = |choice: &Value| {
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().expect("numbers").clone();
        logprobs.iter().filter_map(Value::as_f64).sum::<f64>() / logprobs.len() as f64
    };
    let choices = best["choices"].as_array().expect("choices");
    assert_eq!(choices.len(), 4);
    for (prompt, pair) in choices.chunks(2).enumerate() {
        let mut ranked = all["choices"].as_array().expect("choices")[6 * prompt..][..6].to_vec();
        ranked.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        for (at, choice) in pair.iter().enumerate() {
            assert_eq!(choice["text"], ranked[at]["text"]);
            assert_eq!(choice["index"], 2 * prompt + at);
        }
    }
    for (more, param) in [
        (vec![("best_of", json!(0))], "best_of"),
        (vec![("best_of", json!(129))], "best_of"),
        (vec![("n", json!(3)), ("best_of", json!(2))], "best_of"),
        (vec![("best_of", json!(2)), ("stream", json!(true))], "best_of"),
        (vec![("best_of", json!(100))], "prompt"),
    ] {
        let error = server.post("/v1/completions", &with(&more)).await.error(400);
        assert_eq!(error["param"], param, "{more:?}");
    }
}

#[tokio::test]
async fn an_answer_keeps_to_allowed_tokens_and_away_from_bad_words() {
    let server = server();
    let body = json!({"prompt": "one", "max_tokens": 6, "temperature": 0, "ignore_eos": true,
                      "return_token_ids": true});
    let free = choice(&server, body.clone()).await;
    let mut only = body.clone();
    only["allowed_token_ids"] = json!([70, 71]);
    let ids = choice(&server, only).await["token_ids"].clone();
    assert!(ids.as_array().expect("ids").iter().all(|id| *id == 70 || *id == 71), "{ids}");
    let first = server.post("/detokenize", &json!({"tokens": [free["token_ids"][0]]})).await.ok();
    let word = first["prompt"].as_str().expect("text").trim_start().to_owned();
    if !word.is_empty() && !word.contains('\u{fffd}') {
        let mut without = body.clone();
        without["bad_words"] = json!([word]);
        let other = choice(&server, without).await;
        assert_ne!(other["token_ids"][0], free["token_ids"][0]);
    }
    for (field, value) in [
        ("allowed_token_ids", json!([320])),
        ("bad_words", json!([" "])),
        ("cache_salt", json!("a@b")),
        ("typical_p", json!(0)),
        ("prompt_logprobs", json!(21)),
    ] {
        let mut wrong = body.clone();
        wrong[field] = value;
        assert_eq!(server.post("/v1/completions", &wrong).await.error(400)["param"], field);
    }
}

#[tokio::test]
async fn a_salt_keeps_cached_beginnings_apart() {
    let server = server();
    let cached = async |salt: Value| {
        let body = json!({"prompt": vec![5; 100], "max_tokens": 1, "cache_salt": salt});
        let usage = server.post("/v1/completions", &body).await.ok()["usage"].clone();
        usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count")
    };
    assert_eq!(cached(json!("mine")).await, 0);
    assert_eq!(cached(Value::Null).await, 0);
    assert_eq!(cached(json!("other")).await, 0);
    assert!(cached(json!("mine")).await > 0);
}

#[tokio::test]
async fn a_request_that_can_wait_is_answered_and_one_that_pushes_is_refused() {
    let server = server();
    let body = |priority: i64| json!({"prompt": "a", "max_tokens": 1, "priority": priority});
    server.post("/v1/completions", &body(5)).await.ok();
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("vllm:request_success_total"), "it is somebody's");
    let error = server.post("/v1/completions", &body(-1)).await.error(501);
    assert_eq!(error["param"], "priority");
}

#[tokio::test]
async fn token_ids_are_told_in_streams_too() {
    let server = server();
    for (path, prompt, ids_of) in [
        ("/v1/completions", json!({"prompt": "one"}), "choices"),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "one"}]}),
            "event",
        ),
    ] {
        let mut body = prompt;
        for (field, value) in [
            ("max_tokens", json!(4)),
            ("temperature", json!(0)),
            ("ignore_eos", json!(true)),
            ("return_token_ids", json!(true)),
        ] {
            body[field] = value;
        }
        let whole = server.post(path, &body).await.ok();
        body["stream"] = true.into();
        let mut events = server.post(path, &body).await.events();
        events.pop();
        let events: Vec<Value> =
            events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
        let of_prompt = |value: &Value| match ids_of {
            "choices" => value["choices"][0]["prompt_token_ids"].clone(),
            _ => value["prompt_token_ids"].clone(),
        };
        assert_eq!(of_prompt(&events[0]), of_prompt(&whole), "{path}");
        assert!(of_prompt(&whole).is_array() && of_prompt(&events[1]).is_null());
        let ids: Vec<Value> = events
            .iter()
            .filter_map(|event| event["choices"][0]["token_ids"].as_array())
            .flatten()
            .cloned()
            .collect();
        assert_eq!(json!(ids), whole["choices"][0]["token_ids"], "{path}");
    }
}

#[tokio::test]
async fn a_token_may_be_called_by_its_id() {
    let server = server();
    let body = json!({"prompt": "one", "max_tokens": 2, "temperature": 0, "logprobs": 1,
                      "return_token_ids": true, "return_tokens_as_token_ids": true});
    let shown = choice(&server, body).await;
    let expected: Vec<String> = shown["token_ids"]
        .as_array()
        .expect("ids")
        .iter()
        .map(|id| format!("token_id:{id}"))
        .collect();
    assert_eq!(shown["logprobs"]["tokens"], json!(expected));
    assert!(shown["logprobs"]["top_logprobs"][0][&expected[0]].is_number());
}

#[tokio::test]
async fn the_fingerprint_is_the_same_in_every_answer() {
    let server = server();
    let completion = json!({"prompt": "a", "max_tokens": 1});
    let print =
        server.post("/v1/completions", &completion).await.ok()["system_fingerprint"].clone();
    assert!(print.as_str().expect("text").starts_with("fp_"));
    let chat = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1,
                      "model": "layers", "stream": true});
    let events = server.post("/v1/chat/completions", &chat).await.events();
    let first: Value = serde_json::from_str(&events[0]).expect("JSON");
    assert_eq!(first["system_fingerprint"], print);
}

#[tokio::test]
async fn a_continued_message_is_shown_before_its_continuation() {
    let server = server();
    let messages =
        json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "oh,"}]);
    let mut body = json!({"messages": messages, "max_tokens": 3, "temperature": 0,
                          "continue_final_message": true});
    let content = async |body: &Value| {
        let answer = server.post("/v1/chat/completions", body).await.ok();
        answer["choices"][0]["message"]["content"].as_str().expect("text").to_owned()
    };
    let plain = content(&body).await;
    body["echo"] = true.into();
    assert_eq!(content(&body).await, format!("oh,{plain}"));
}

#[tokio::test]
async fn documents_are_for_templates_that_take_them() {
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1,
                      "documents": [{"title": "a", "text": "b"}]});
    let error = server().post("/v1/chat/completions", &body).await.error(400);
    assert_eq!(error["param"], "documents");
}

#[tokio::test]
async fn an_adapter_is_deleted_as_a_model_and_nothing_else_is() {
    let server = server();
    let delete = async |id: &str| {
        crate::client::Answer::of(server.request("DELETE", &format!("/v1/models/{id}"))).await
    };
    assert_eq!(delete("llama").await.error(400)["param"], "model");
    assert_eq!(delete("org%2Fnope").await.error(404)["param"], "model");
    let gone = delete("layers").await.ok();
    assert_eq!(gone, json!({"id": "layers", "object": "model", "deleted": true}));
    server.get("/v1/models/layers").await.error(404);
    delete("layers").await.error(404);
}

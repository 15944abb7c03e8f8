//! LoRAX's and TGI's dialect, against a real engine.
use crate::client::Server;
use serde_json::{Value, json};

fn server() -> Server {
    Server::golden("llama")
}

fn body(adapter: Option<&str>) -> Value {
    json!({"inputs": "one two", "parameters": {"adapter_id": adapter, "max_new_tokens": 5,
           "ignore_eos_token": true, "details": true, "seed": null}})
}

#[tokio::test]
async fn generate_answers_an_object_and_the_root_a_list() {
    let server = server();
    let object = server.post("/generate", &body(Some("layers"))).await.ok();
    assert_eq!(server.post("/", &body(Some("layers"))).await.ok(), json!([object]));
    let details = &object["details"];
    assert_eq!(details["finish_reason"], "length");
    assert_eq!(details["generated_tokens"], 5);
    let tokens = details["tokens"].as_array().expect("tokens");
    assert_eq!(tokens.len(), 5);
    assert!(tokens.iter().all(|token| token["logprob"].is_number()));
    let base = server.post("/generate", &body(None)).await.ok();
    assert_ne!(base["generated_text"], object["generated_text"], "the adapter changes the answer");

    let same = json!({"model": "layers", "prompt": "one two", "max_tokens": 5, "temperature": 0,
                      "ignore_eos": true});
    let openai = server.post("/v1/completions", &same).await.ok();
    assert_eq!(openai["choices"][0]["text"], object["generated_text"], "one engine, two dialects");
}

#[tokio::test]
async fn a_stream_has_an_event_a_token_and_no_end_mark() {
    let server = server();
    let whole = server.post("/generate", &body(None)).await.ok();
    let mut streamed = body(None);
    streamed["stream"] = true.into();
    for path in ["/generate_stream", "/"] {
        let events = server.post(path, &streamed).await.events();
        let events: Vec<Value> =
            events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
        assert_eq!(events.len(), 5, "{path}");
        let indices: Vec<_> = events.iter().filter_map(|event| event["index"].as_u64()).collect();
        assert_eq!(indices, [1, 2, 3, 4, 5]);
        let (last, before) = events.split_last().expect("events");
        assert!(before.iter().all(|event| event["generated_text"].is_null()));
        assert_eq!(last["generated_text"], whole["generated_text"]);
        assert_eq!(last["details"]["generated_tokens"], 5);
    }
}

#[tokio::test]
async fn headers_tell_the_adapter_and_what_the_answer_took() {
    let server = server();
    let answer = server.post("/generate", &body(Some("layers"))).await;
    let header = |name: &str| answer.headers[name].to_str().expect("text").to_owned();
    assert_eq!(header("x-adapter-id"), "layers");
    assert_eq!(header("x-generated-tokens"), "5");
    assert_eq!(
        (header("x-model-id"), header("x-adapter-source")),
        ("llama".into(), "local".into())
    );
    assert_eq!(
        (header("x-compute-type"), header("x-compute-characters")),
        ("cpu".into(), "7".into())
    );
    for name in [
        "x-compute-time",
        "x-total-time",
        "x-validation-time",
        "x-queue-time",
        "x-inference-time",
        "x-time-per-token",
    ] {
        assert!(header(name).parse::<u64>().is_ok(), "{name}");
    }
    let base = server.post("/generate", &body(None)).await;
    assert!(!base.headers.contains_key("x-adapter-id"));
}

#[tokio::test]
async fn the_prompt_s_tokens_are_details_with_their_log_probabilities() {
    let server = server();
    let mut asked = body(Some("layers"));
    asked["parameters"]["decoder_input_details"] = true.into();
    let details = server.post("/generate", &asked).await.ok()["details"].clone();
    let prefill = details["prefill"].as_array().expect("tokens");
    assert_eq!(prefill.len(), details["prompt_tokens"]);
    assert!(prefill[0]["logprob"].is_null());
    let same = json!({"model": "layers", "prompt": "one two", "max_tokens": 1, "echo": true,
                      "logprobs": 0, "return_token_ids": true});
    let openai = server.post("/v1/completions", &same).await.ok()["choices"][0].clone();
    for (at, token) in prefill.iter().enumerate() {
        assert_eq!(token["id"], openai["prompt_token_ids"][at]);
        assert_eq!(token["logprob"], openai["logprobs"]["token_logprobs"][at], "one engine");
    }
    asked["stream"] = true.into();
    let refused = server.post("/", &asked).await;
    assert_eq!(refused.status.as_u16(), 422);
}

#[tokio::test]
async fn the_best_of_several_answers_comes_with_the_others() {
    let server = server();
    let mut asked = body(None);
    asked["parameters"]["best_of"] = 3.into();
    asked["parameters"]["temperature"] = json!(1.5);
    asked["parameters"]["seed"] = 7.into();
    let answer = server.post("/generate", &asked).await.ok();
    let details = &answer["details"];
    let others = details["best_of_sequences"].as_array().expect("a list");
    assert_eq!(others.len(), 2);
    let mean = |of: &Value| {
        let tokens = of["tokens"].as_array().expect("tokens").clone();
        tokens.iter().filter_map(|token| token["logprob"].as_f64()).sum::<f64>()
            / tokens.len() as f64
    };
    assert!(mean(details) >= mean(&others[0]) && mean(&others[0]) >= mean(&others[1]));
    let mut seeds =
        vec![details["seed"].as_u64(), others[0]["seed"].as_u64(), others[1]["seed"].as_u64()];
    seeds.sort_unstable();
    assert_eq!(seeds, [Some(7), Some(8), Some(9)]);
    asked["parameters"]["seed"] = details["seed"].clone();
    asked["parameters"]["best_of"] = 1.into();
    let again = server.post("/generate", &asked).await.ok();
    assert_eq!(again["generated_text"], answer["generated_text"], "its seed is its own");
}

#[tokio::test]
async fn info_tells_the_limits_in_both_spellings() {
    let info = server().get("/info").await.ok();
    assert_eq!((&info["model_id"], &info["max_total_tokens"]), (&json!("llama"), &json!(256)));
    assert_eq!(info["max_input_length"], info["max_input_tokens"]);
}

#[tokio::test]
async fn inputs_are_tokenized_in_this_dialects_form() {
    let tokens = server().post("/tokenize", &json!({"inputs": "one two"})).await.ok();
    let tokens = tokens.as_array().expect("a list").clone();
    let text: String = tokens.iter().filter_map(|token| token["text"].as_str()).collect();
    assert_eq!(text, "one two");
    assert_eq!(tokens.last().expect("a token")["stop"], 7);
}

#[tokio::test]
async fn mistakes_come_in_this_dialects_form() {
    let server = server();
    let wrong = |parameters: Value| json!({"inputs": "a", "parameters": parameters});
    for (body, status, kind) in [
        (json!({}), 422, "validation"),
        (json!({"inputs": 1}), 422, "validation"),
        (wrong(json!({"max_new_tokens": 1000})), 422, "validation"),
        (wrong(json!({"top_p": 2})), 422, "validation"),
        (wrong(json!({"best_of": 4})), 422, "validation"),
        (wrong(json!({"watermark": true})), 422, "validation"),
        (wrong(json!({"adapter_source": "pbase"})), 422, "validation"),
        (wrong(json!({"adapter_id": "nope"})), 404, "model_not_found"),
    ] {
        let answer = server.post("/generate", &body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text);
        let error = answer.json();
        assert_eq!(error["error_type"], kind, "{body}");
        assert!(error["error"].is_string(), "{body}");
    }
}

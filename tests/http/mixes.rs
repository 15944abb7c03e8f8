//! Several adapters in one request, in every spelling, against a real engine.
use crate::client::Server;
use serde_json::{Value, json};

fn server() -> Server {
    Server::golden("llama")
}

/// A greedy completion's body with these fields besides.
fn body(fields: Value) -> Value {
    let mut body = json!({"prompt": "one two", "max_tokens": 8, "temperature": 0, "ignore_eos": true,
                          "logprobs": 2});
    merge(&mut body, fields);
    body
}

fn lorax_body(parameters: Value) -> Value {
    let mut body = json!({"inputs": "one two", "parameters": {
        "max_new_tokens": 8, "ignore_eos_token": true, "details": true}});
    merge(&mut body["parameters"], parameters);
    body
}

fn merge(into: &mut Value, fields: Value) {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    into.as_object_mut().expect("an object").extend(fields);
}

/// The text and the log-probabilities of a completion with these fields.
async fn completion(server: &Server, fields: Value) -> (Value, Value) {
    let answer = server.post("/v1/completions", &body(fields)).await.ok();
    let choice = &answer["choices"][0];
    (choice["text"].clone(), choice["logprobs"]["token_logprobs"].clone())
}

/// The text and the log-probabilities of a LoRAX answer to this body.
async fn generated(server: &Server, path: &str, body: &Value) -> (Value, Value) {
    let answer = server.post(path, body).await.ok();
    let answer = answer.get(0).unwrap_or(&answer);
    let tokens = answer["details"]["tokens"].as_array().expect("tokens");
    let logprobs = tokens.iter().map(|token| token["logprob"].clone()).collect();
    (answer["generated_text"].clone(), logprobs)
}

/// The number that llama.cpp's clients name `adapter` by.
async fn number(server: &Server, adapter: &str) -> Value {
    let listed = server.get("/lora-adapters").await.ok();
    let listed = listed.as_array().expect("a list");
    let entry = listed.iter().find(|entry| entry["path"] == adapter).expect("the adapter");
    assert_eq!(entry["scale"], 0.0);
    entry["id"].clone()
}

#[tokio::test]
async fn one_adapter_in_a_list_answers_as_the_model_of_its_name() {
    let server = server();
    let alone = completion(&server, json!({"model": "layers"})).await;
    let id = number(&server, "layers").await;
    for fields in [
        json!({"adapters": ["layers"]}),
        json!({"adapters": [{"name": "layers"}], "model": "llama"}),
        json!({"adapters": [{"name": "layers", "weight": 0.25}, {"name": "layers", "weight": 0.75}]}),
        json!({"adapters": [{"name": "layers"}, {"name": "all-linear", "weight": 0}], "model": ""}),
        json!({"lora": [{"id": id, "scale": 1}]}),
        json!({"lora": [{"name": "layers", "scale": 1.0}], "adapters": []}),
    ] {
        assert_eq!(completion(&server, fields.clone()).await, alone, "{fields}");
    }
    let base = completion(&server, json!({})).await;
    assert_ne!(base, alone);
    for fields in [
        json!({"adapters": []}),
        json!({"lora": []}),
        json!({"adapters": null, "lora": null}),
        json!({"lora": [{"id": id, "scale": 0}]}),
        json!({"adapters": [{"name": "layers", "weight": 0.5}, {"name": "layers", "weight": -0.5}]}),
    ] {
        assert_eq!(completion(&server, fields.clone()).await, base, "{fields}");
    }
    let half = completion(&server, json!({"adapters": [{"name": "layers", "weight": 0.5}]})).await;
    assert!(half != alone && half != base);
}

#[tokio::test]
async fn every_spelling_of_a_mix_is_the_same_mix() {
    let server = server();
    let [layers, all] = [number(&server, "layers").await, number(&server, "all-linear").await];
    let adapters =
        json!([{"name": "layers", "weight": 0.7}, {"name": "all-linear", "weight": 0.3}]);
    let turned = json!([{"name": "all-linear", "weight": 0.3}, {"name": "layers", "weight": 0.7}]);
    let lora = json!([{"id": layers, "scale": 0.7}, {"id": all, "scale": 0.3}]);
    let merged = json!({"ids": ["layers", "all-linear"], "weights": [0.7, 0.3],
                        "merge_strategy": "linear", "density": 0.0});

    let mixed = completion(&server, json!({"adapters": adapters})).await;
    assert_eq!(completion(&server, json!({"adapters": turned})).await, mixed);
    assert_eq!(completion(&server, json!({"lora": lora})).await, mixed);
    assert_ne!(completion(&server, json!({"model": "layers"})).await, mixed);

    let in_lorax =
        generated(&server, "/generate", &lorax_body(json!({"adapters": adapters}))).await;
    assert_eq!(in_lorax.0, mixed.0);
    for parameters in [
        json!({"adapters": turned}),
        json!({"lora": lora}),
        json!({"merged_adapters": merged}),
        json!({"merged_adapters": merged, "adapter_id": null, "adapters": []}),
    ] {
        let body = lorax_body(parameters);
        assert_eq!(generated(&server, "/generate", &body).await, in_lorax, "{body}");
        assert_eq!(generated(&server, "/", &body).await, in_lorax, "{body}");
    }
    let mut above = lorax_body(json!({}));
    merge(&mut above, json!({"adapters": adapters}));
    assert_eq!(generated(&server, "/generate", &above).await, in_lorax);
    let events = server.post("/generate_stream", &above).await.events();
    let last: Value = serde_json::from_str(events.last().expect("events")).expect("JSON");
    assert_eq!(last["generated_text"], in_lorax.0);

    let user = json!([{"role": "user", "content": "one two"}]);
    let chat = async |fields: Value| {
        let mut body = json!({"messages": user, "max_tokens": 8, "temperature": 0});
        merge(&mut body, fields);
        server.post("/v1/chat/completions", &body).await.ok()["choices"][0]["message"].clone()
    };
    assert_eq!(chat(json!({"adapters": adapters})).await, chat(json!({"lora": lora})).await);
    assert_eq!(chat(json!({"adapters": ["layers"]})).await, chat(json!({"model": "layers"})).await);
}

#[tokio::test]
async fn a_mix_is_named_by_its_adapters_and_answers_as_the_base() {
    let server = server();
    let mixed = json!(["layers", {"name": "all-linear", "weight": 0.3}]);
    let answer = server.post("/v1/completions", &body(json!({"adapters": mixed}))).await.ok();
    assert_eq!(answer["model"], "llama");
    let answer = server.post("/generate", &lorax_body(json!({"adapters": mixed}))).await;
    assert_eq!(answer.headers["x-adapter-id"], "layers,all-linear");
    let metrics = server.get("/metrics").await.text;
    let count = |adapter: &str| {
        let label = format!("adapter=\"{adapter}\"");
        let mut lines = metrics.lines();
        let line = lines.find(|l| l.starts_with("lorad_requests_total") && l.contains(&label));
        line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    assert_eq!(count("layers").as_deref(), Some("2"));
    assert_eq!(count("all-linear").as_deref(), Some("2"));
    assert_eq!(count(""), None, "the base answered nobody");
}

#[tokio::test]
async fn the_prefix_cache_tells_mixes_apart() {
    let server = server();
    let prompt: Vec<u32> = (5..80).collect();
    let ask = async |weight: f64| {
        let adapters = json!(["layers", {"name": "all-linear", "weight": weight}]);
        let body = json!({"prompt": prompt, "max_tokens": 1, "adapters": adapters});
        let usage = server.post("/v1/completions", &body).await.ok()["usage"].clone();
        usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count")
    };
    assert_eq!(ask(0.3).await, 0);
    assert_eq!(ask(0.3).await, 64);
    assert_eq!(ask(0.4).await, 0);
}

#[tokio::test]
async fn an_activated_adapter_and_the_base_find_what_the_other_has_computed() {
    let server = server();
    let ask = async |model: &str, first: u32| {
        // Two blocks, then what invokes `alora`.
        let prompt: Vec<u32> = (first..first + 66).chain([72, 86, 5]).collect();
        let body = json!({"model": model, "prompt": prompt, "max_tokens": 1});
        let usage = server.post("/v1/completions", &body).await.ok()["usage"].clone();
        usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count")
    };
    let both_ways = [("llama", "alora", 100), ("alora", "llama", 180)];
    for (one, other, first) in both_ways {
        assert_eq!((ask(one, first).await, ask(other, first).await), (0, 64), "{one}, {other}");
    }
    assert_eq!(ask("layers", 100).await, 0);
}

#[tokio::test]
async fn numbers_stay_while_adapters_come_and_go() {
    let server = server();
    let before = number(&server, "layers").await;
    server.request("DELETE", "/admin/adapters/all-linear").send().await.expect("an answer");
    assert_eq!(number(&server, "layers").await, before);
    let listed = server.get("/lora-adapters").await.ok();
    let ids: Vec<_> = listed.as_array().expect("a list").iter().map(|entry| &entry["id"]).collect();
    assert!(ids.is_sorted_by_key(|id| id.as_u64()), "{ids:?}");
}

/// What is asked for, and the status, the field and the code that refuse it.
fn mistakes() -> Vec<(Value, u16, &'static str, &'static str)> {
    let one = |entry: Value| json!({"adapters": ["layers", entry]});
    let many: Vec<_> = (0..17).map(|_| "layers").collect();
    let unknown = format!("layers@{}", "0".repeat(64));
    vec![
        (one(json!("nope")), 404, "adapters[1]", "adapter_not_found"),
        (one(json!({"name": "nope"})), 404, "adapters[1].name", "adapter_not_found"),
        (one(json!(unknown)), 404, "adapters[1]", "adapter_version_not_found"),
        (one(json!("../x")), 400, "adapters[1]", "invalid_adapter_name"),
        (one(json!({"weight": 1})), 400, "adapters[1].name", "malformed_body"),
        (one(json!(7)), 400, "adapters[1]", "malformed_body"),
        (
            one(json!({"name": "layers", "weight": "1"})),
            400,
            "adapters[1].weight",
            "malformed_body",
        ),
        (
            one(json!({"name": "layers", "weight": "NaN"})),
            400,
            "adapters[1].weight",
            "malformed_body",
        ),
        (
            one(json!({"name": "layers", "weight": 1e39})),
            400,
            "adapters[1].weight",
            "invalid_value",
        ),
        (
            one(json!({"name": "layers", "weight": -101})),
            400,
            "adapters[1].weight",
            "invalid_value",
        ),
        (one(json!({"name": "layers", "wieght": 1})), 400, "adapters[1].wieght", "malformed_body"),
        (json!({"adapters": many}), 400, "adapters", "invalid_value"),
        (json!({"adapters": "layers"}), 400, "adapters", "malformed_body"),
        (json!({"adapters": ["layers"], "model": "layers"}), 400, "adapters", "exclusive_fields"),
        (json!({"adapters": ["layers"], "model": "nope"}), 404, "model", "model_not_found"),
        (json!({"lora": [{"id": 99, "scale": 1}]}), 404, "lora[0].id", "adapter_not_found"),
        (json!({"lora": [{"id": 0}]}), 400, "lora[0].scale", "malformed_body"),
        (json!({"lora": [{"id": "0", "scale": 1}]}), 400, "lora[0].id", "malformed_body"),
        (
            json!({"lora": [{"id": 0, "scale": 1}], "adapters": ["layers"]}),
            400,
            "lora",
            "exclusive_fields",
        ),
    ]
}

#[tokio::test]
async fn every_mistake_names_its_field() {
    let server = server();
    for (fields, status, param, reason) in mistakes() {
        let error = server.post("/v1/completions", &body(fields.clone())).await.error(status);
        assert_eq!(
            (&error["param"], &error["reason"]),
            (&json!(param), &json!(reason)),
            "{fields}"
        );
        let mut chat = json!({"messages": [{"role": "user", "content": "a"}]});
        merge(&mut chat, fields.clone());
        let error = server.post("/v1/chat/completions", &chat).await.error(status);
        assert_eq!(error["param"], param, "{fields}");
    }
}

#[tokio::test]
async fn mistakes_come_in_lorax_s_form() {
    let server = server();
    let merged = |fields: Value| {
        let mut merge_of = json!({"ids": ["layers"], "weights": [1]});
        merge(&mut merge_of, fields);
        json!({"merged_adapters": merge_of})
    };
    let both =
        json!({"merged_adapters": {"ids": ["layers"], "weights": [1]}, "adapter_id": "layers"});
    for (parameters, status, says) in [
        (merged(json!({"weights": [1, 2]})), 422, "a weight for each"),
        (merged(json!({"ids": []})), 422, "at least one id"),
        (merged(json!({"merge_strategy": "ties"})), 422, "can only be `linear`"),
        (merged(json!({"merge_strategy": "dare_linear"})), 422, "dare_linear"),
        (merged(json!({"ids": ["nope"]})), 404, "`nope` does not exist"),
        (merged(json!({"weights": ["1"]})), 422, "merged_adapters.weights[0]"),
        (both, 422, "parameters.adapter_id"),
        (
            json!({"adapters": [{"name": "layers", "weight": 200}]}),
            422,
            "parameters.adapters[0].weight",
        ),
        (json!({"lora": [{"id": 77, "scale": 1}]}), 404, "GET /lora-adapters"),
    ] {
        let body = lorax_body(parameters);
        for path in ["/", "/generate", "/generate_stream"] {
            let answer = server.post(path, &body).await;
            assert_eq!(answer.status.as_u16(), status, "{path} {body}: {}", answer.text);
            let error = answer.json();
            let sentence = error["error"].as_str().expect("a sentence");
            assert!(sentence.contains(says), "{body}: {sentence}");
        }
    }
}

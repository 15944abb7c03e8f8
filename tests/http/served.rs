//! Every response names the versions that answered it.
use crate::client::{Answer, Server};
use serde_json::{Value, json};

/// Each generation route and a body for it.
const ROUTES: [(&str, bool); 6] = [
    ("/v1/completions", false),
    ("/v1/completions", true),
    ("/v1/chat/completions", false),
    ("/v1/chat/completions", true),
    ("/generate", false),
    ("/generate_stream", true),
];

fn body(path: &str, stream: bool, adapters: &Value) -> Value {
    match path {
        "/v1/completions" => json!({"prompt": "one two", "max_tokens": 2, "adapters": adapters,
            "stream": stream, "stream_options": stream.then(|| json!({"include_usage": true}))}),
        "/v1/chat/completions" => json!({"messages": [{"role": "user", "content": "one"}],
            "max_tokens": 2, "adapters": adapters, "stream": stream,
            "stream_options": stream.then(|| json!({"include_usage": true}))}),
        _ => json!({"inputs": "one two", "parameters": {"max_new_tokens": 2, "details": true,
            "adapters": adapters}}),
    }
}

async fn version(server: &Server, name: &str) -> String {
    let entry = server.get(&format!("/admin/adapters/{name}")).await.ok();
    entry["version"].as_str().expect("a version").to_owned()
}

/// What the body says of the adapters: in `usage`, or in LoRAX's `details`.
fn told(answer: &Answer, stream: bool) -> Value {
    let last = if stream {
        let events = answer.events();
        let mut objects = events.iter().filter_map(|event| serde_json::from_str(event).ok());
        objects.next_back().expect("an event")
    } else {
        answer.ok()
    };
    let within = |part: &str| last.get(part).map(|part| part["adapters"].clone());
    within("usage").or_else(|| within("details")).expect("usage or details")
}

#[tokio::test]
async fn header_and_body_name_the_version_on_every_route() {
    let server = Server::golden("llama");
    let (layers, linear) = (version(&server, "layers").await, version(&server, "all-linear").await);
    for (path, stream) in ROUTES {
        let ask = async |adapters: Value| server.post(path, &body(path, stream, &adapters)).await;
        let one = ask(json!(["layers"])).await;
        assert_eq!(one.headers["x-lorad-adapter"], format!("layers@{layers}"), "{path}");
        let expected = json!([{"name": "layers", "version": layers, "weight": 1.0}]);
        assert_eq!(told(&one, stream), expected, "{path}");

        let mix = ask(json!([{"name": "layers", "weight": 0.5}, "all-linear"])).await;
        let expected = format!("layers@{layers};weight=0.5, all-linear@{linear}");
        assert_eq!(mix.headers["x-lorad-adapter"], expected, "{path}");
        let expected = json!([{"name": "layers", "version": layers, "weight": 0.5},
                              {"name": "all-linear", "version": linear, "weight": 1.0}]);
        assert_eq!(told(&mix, stream), expected, "{path}");

        for base in [json!([]), json!([{"name": "layers", "weight": 0}])] {
            let base = ask(base).await;
            assert!(!base.headers.contains_key("x-lorad-adapter"), "{path}");
            assert_eq!(told(&base, stream), Value::Null, "{path}");
        }
    }
}

#[tokio::test]
async fn a_version_that_a_request_names_is_the_one_it_is_told() {
    let server = Server::golden("llama");
    let version = version(&server, "layers").await;
    let model = format!("layers@{version}");
    let body = json!({"model": model, "prompt": ["a", "b"], "max_tokens": 1});
    let answer = server.post("/v1/completions", &body).await;
    assert_eq!(answer.headers["x-lorad-adapter"], model);
    assert_eq!(answer.ok()["usage"]["adapters"][0]["version"], version);
}

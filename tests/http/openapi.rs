//! The API for machines, and its page.
use crate::client::{Answer, Server, adapter_files};
use lorad::adapter::AdapterFiles;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

#[tokio::test]
async fn the_document_is_open_to_everybody_and_describes_itself() {
    let server = Server::golden_with("llama", &["--api-key", "secret", "--admin-key", "other"]);
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let document = answer.ok();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["paths"]["/openapi.json"]["get"]["security"], json!([]));
    let stream = &document["paths"]["/v1/completions"]["post"]["responses"]["200"]["content"];
    assert!(stream["text/event-stream"].is_object());
    let upload = &document["paths"]["/admin/adapters/{name}"]["put"]["requestBody"]["content"];
    assert!(upload["multipart/form-data"].is_object());
}

#[tokio::test]
async fn the_page_needs_nothing_but_this_server() {
    let server = Server::golden("llama");
    let page = server.get("/docs").await;
    assert_eq!(page.status.as_u16(), 200, "it leads to its first file");
    assert!(page.text.contains("swagger-ui"));
    assert!(!page.text.contains("https://"), "{}", page.text);
    let start = server.get("/docs/swagger-initializer.js").await;
    assert!(start.text.contains("/openapi.json"));
    server.get("/docs/nope").await.error(404);
    server.get("/docs/..%2Fcargo").await.error(404);
}

/// Why `value` is not as `schema` says; of the schema only what the document uses.
fn misfit(document: &Value, schema: &Value, value: &Value, path: &str) -> Option<String> {
    if let Some(target) = schema["$ref"].as_str() {
        let schema = document.pointer(&target[1..]).expect("a reference that leads somewhere");
        return misfit(document, schema, value, path);
    }
    if let Some(choices) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let failures: Vec<_> =
            choices.iter().map(|schema| misfit(document, schema, value, path)).collect();
        let fits = failures.iter().any(Option::is_none);
        return if fits { None } else { failures.into_iter().flatten().last() };
    }
    let is_of = |kind: &Value| match kind.as_str().expect("a type") {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        kind => panic!("{path}: {kind}"),
    };
    let fits = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(is_of),
        kind => is_of(kind),
    };
    if !fits {
        return Some(format!("{path}: {value} is not {}", schema["type"]));
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for field in required.filter(|_| value.is_object()) {
        if value.get(field).is_none() {
            return Some(format!("{path} lacks {field}"));
        }
    }
    let named = schema["properties"].as_object().into_iter().flatten();
    let named =
        named.filter_map(|(field, schema)| Some((field.clone(), schema, value.get(field)?)));
    let others = value.as_object().filter(|_| schema["additionalProperties"].is_object());
    let others = others.into_iter().flatten();
    let others =
        others.map(|(field, value)| (field.clone(), &schema["additionalProperties"], value));
    let items = value.as_array().filter(|_| schema["items"].is_object()).into_iter().flatten();
    let items = items.enumerate().map(|(at, item)| (at.to_string(), &schema["items"], item));
    named
        .chain(others)
        .chain(items)
        .find_map(|(at, schema, value)| misfit(document, schema, value, &format!("{path}.{at}")))
}

/// A server and what it says of its answers.
struct Described {
    server: Server,
    document: Value,
}

impl Described {
    async fn golden() -> Self {
        let server = Server::golden("llama");
        let document = server.get("/openapi.json").await.ok();
        Self { server, document }
    }

    /// An answer must be a success, and what the document says of this pattern.
    fn check(&self, method: &str, pattern: &str, answer: &Answer) {
        assert!(answer.status.is_success(), "{method} {pattern}: {}", answer.text);
        let responses = &self.document["paths"][pattern][method.to_lowercase()]["responses"];
        let schema = &responses[answer.status.as_str()]["content"]["application/json"]["schema"];
        let says = ["$ref", "type", "oneOf", "anyOf"].iter().any(|key| !schema[key].is_null());
        assert!(says, "nothing is said of {method} {pattern}");
        let misfit = misfit(&self.document, schema, &answer.json(), pattern);
        assert_eq!(misfit, None, "{}", answer.text);
    }

    async fn send(&self, method: &str, (pattern, path): (&str, &str), body: Option<Value>) {
        let mut request = self.server.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.check(method, pattern, &Answer::of(request).await);
    }
}

#[tokio::test]
async fn answers_to_requests_are_as_the_document_says() {
    let described = Described::golden().await;
    let chat = json!({"messages": [{"role": "user", "content": "a"}], "model": "layers", "max_tokens": 2,
        "logprobs": true, "top_logprobs": 2, "prompt_logprobs": 1, "return_token_ids": true});
    let text = json!({"prompt": ["a", "b"], "max_tokens": 2, "logprobs": 2, "echo": true, "n": 2,
        "prompt_logprobs": 1, "return_token_ids": true, "stop": ["x"]});
    let inputs = json!({"inputs": "a", "parameters": {"max_new_tokens": 2, "details": true}});
    for (path, body) in [
        ("/v1/completions", text),
        ("/v1/completions", json!({"prompt": "a", "max_tokens": 1, "model": "layers"})),
        ("/v1/chat/completions", chat),
        ("/generate", inputs.clone()),
        ("/", inputs),
        ("/tokenize", json!({"prompt": "a b", "return_token_strs": true})),
        ("/tokenize", json!({"prompt": "a b"})),
        ("/tokenize", json!({"inputs": "a b"})),
        ("/tokenize", json!({"inputs": ["a b", "c"]})),
        ("/decode", json!({"ids": [[5], [6, 7]]})),
        ("/detokenize", json!({"tokens": [5]})),
        ("/lora-adapters", json!([{"id": 0, "scale": 0.5}])),
    ] {
        described.send("POST", (path, path), Some(body)).await;
    }
}

#[tokio::test]
async fn what_is_told_of_server_and_adapters_is_as_the_document_says() {
    let described = Described::golden().await;
    let adapter = "/admin/adapters/{name}";
    let alias = ("/admin/aliases/{alias}", "/admin/aliases/split");
    let AdapterFiles::Peft { config, weights } = adapter_files("llama", "layers") else {
        panic!("PEFT's files")
    };
    let form = Form::new().part("config", Part::stream(config));
    let form = form.part("weights", Part::stream(weights));
    let upload = described.server.request("PUT", "/admin/adapters/new").multipart(form);
    described.check("PUT", adapter, &Answer::of(upload).await);
    let terms = json!({"terms": {"pin": true}});
    described.send("PATCH", (adapter, "/admin/adapters/new"), Some(terms)).await;
    let targets = json!({"targets": [{"model": "new", "weight": 1}], "shadow": "layers"});
    described.send("PUT", alias, Some(targets)).await;
    for at in [
        ("/v1/models", "/v1/models"),
        ("/v1/models/{id}", "/v1/models/new"),
        ("/info", "/info"),
        ("/lora-adapters", "/lora-adapters"),
        ("/load", "/load"),
        ("/is_sleeping", "/is_sleeping"),
        ("/version", "/version"),
        ("/v1/health", "/v1/health"),
        ("/admin/adapters", "/admin/adapters?limit=2"),
        (adapter, "/admin/adapters/new"),
        ("/admin/events", "/admin/events"),
        ("/admin/aliases", "/admin/aliases"),
        alias,
    ] {
        described.send("GET", at, None).await;
    }
    for at in [alias, (adapter, "/admin/adapters/layers"), ("/v1/models/{id}", "/v1/models/new")] {
        described.send("DELETE", at, None).await;
    }
}

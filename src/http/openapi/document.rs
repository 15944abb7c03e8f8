//! `GET /openapi.json`
use super::{
    answers::{Answers, answer},
    bodies::Bodies,
    reading_answers::ReadingAnswers,
    reading_bodies::ReadingBodies,
};
use crate::http::{Dialect, ROUTES, Route, auth::Access, colliding};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
use utoipa::OpenApi;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| whole().to_string());

/// The same as long as the program is.
pub(in crate::http) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

fn whole() -> Value {
    let mut schemas = schemas(&Bodies::openapi());
    for more in [ReadingBodies::openapi(), Answers::openapi(), ReadingAnswers::openapi()] {
        schemas.append(&mut self::schemas(&more));
    }
    schemas.append(&mut errors());
    let mut paths = Map::new();
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[route.method.to_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "lorad",
            "version": env!("CARGO_PKG_VERSION"),
            "description": env!("CARGO_PKG_DESCRIPTION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "api_key": {"type": "http", "scheme": "bearer",
                            "description": "--api-key; without any key, everybody may call"},
                "admin_key": {"type": "http", "scheme": "bearer",
                              "description": "--admin-key; without one, the server's own machine alone may call"},
            },
        },
    })
}

fn schemas(described: &utoipa::openapi::OpenApi) -> Map<String, Value> {
    let described = serde_json::to_value(described).unwrap_or_default();
    described["components"]["schemas"].as_object().cloned().unwrap_or_default()
}

/// Failures in the form of each dialect.
fn errors() -> Map<String, Value> {
    let text = || json!({"type": "string"});
    let openai = json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "reason"],
            "properties": {
                "message": {"type": "string", "description": "what is wrong and what to do"},
                "type": text(),
                "param": {"type": ["string", "null"], "description": "the field at fault"},
                "code": {"type": "integer", "description": "the status"},
                "reason": {"type": "string", "description": "a stable name of the failure"},
            },
        }},
    });
    let lorax = json!({
        "type": "object",
        "required": ["error", "error_type"],
        "properties": {"error": text(), "error_type": text()},
    });
    let kinds = ["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"];
    let tei = json!({
        "type": "object",
        "required": ["error", "error_type"],
        "properties": {"error": text(), "error_type": {"enum": kinds}},
    });
    Map::from_iter([
        ("OpenAiError".to_owned(), openai),
        ("LoraxError".to_owned(), lorax),
        ("TeiError".to_owned(), tei),
    ])
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "tags": [tag(route)],
        "summary": route.purpose,
        "parameters": parameters(route),
        "responses": responses(route),
    });
    match route.access {
        Access::Open => operation["security"] = json!([]),
        Access::Key => operation["security"] = json!([{"api_key": []}, {}]),
        Access::Admin => operation["security"] = json!([{"admin_key": []}, {}]),
    }
    if let Some(body) = body(route) {
        operation["requestBody"] = body;
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let path: String = route.path.chars().filter(|c| !"{}*".contains(*c)).collect();
    let words = path.split(['/', '-', '.']).filter(|word| !word.is_empty());
    let words: Vec<_> = [route.method.to_lowercase().as_str()]
        .into_iter()
        .chain(words)
        .map(ToOwned::to_owned)
        .collect();
    words.join("_")
}

fn tag(route: &Route) -> &'static str {
    match (route.dialect, route.path) {
        (Dialect::Lorax, _) => "LoRAX and TGI",
        (Dialect::Vllm, _) => "vLLM",
        (Dialect::Tei, _) => "TEI",
        (_, path) if path.starts_with("/admin") => "admin",
        (_, path) if path.starts_with("/v1/") => "OpenAI",
        _ => "server",
    }
}

/// Name, schema and meaning of what a query may say.
fn query(route: &Route) -> Vec<(&'static str, Value, &'static str)> {
    let flag = || json!({"type": "boolean"});
    let policy = || {
        vec![
            (
                "policy",
                json!({"enum": ["pin", "drain", "cancel"]}),
                "what becomes of running requests",
            ),
            (
                "drain_seconds",
                json!({"type": "integer", "minimum": 0, "maximum": 86400}),
                "with `policy=drain`",
            ),
        ]
    };
    let force = ("force", flag(), "though an alias sends requests to it");
    match (route.method, route.path) {
        ("GET", "/admin/adapters") => vec![
            ("limit", json!({"type": "integer", "minimum": 1}), "names of one page"),
            ("after", json!({"type": "string"}), "the name before the page"),
            ("prefix", json!({"type": "string"}), "how names begin"),
            ("tier", json!({"enum": ["device", "host", "store"]}), "where they are now"),
        ],
        ("GET", "/admin/events") => vec![
            (
                "limit",
                json!({"type": "integer", "minimum": 1, "maximum": 1000}),
                "events, the newest first",
            ),
            ("name", json!({"type": "string"}), "of this adapter or alias alone"),
        ],
        ("GET", "/admin/adapters/{name}/files") => {
            vec![("version", json!({"type": "string"}), "a former version")]
        }
        ("PUT", "/admin/adapters/{name}") => {
            let text = || json!({"type": "string"});
            let mut all = policy();
            all.extend([
                ("dry_run", flag(), "check, and publish nothing"),
                ("probe", flag(), "try it before it is published"),
                ("probe_prompt", text(), "what the probe continues"),
                ("probe_expect", text(), "what its answer must have"),
                ("labels", text(), "names of what its head scores, with commas between them"),
            ]);
            all
        }
        ("DELETE", "/admin/adapters/{name}" | "/v1/models/{*id}") => {
            let mut all = policy();
            all.push(force);
            all
        }
        ("POST", "/admin/adapters/{name}/rollback") => policy(),
        _ => Vec::new(),
    }
}

/// Conditions that a change may have.
fn headers(route: &Route) -> &'static [(&'static str, &'static str)] {
    const MATCH: (&str, &str) =
        ("If-Match", "only over this version or revision, as `ETag` gave it");
    const NONE: (&str, &str) = ("If-None-Match", "`*`: only where nothing has this name");
    match (route.method, route.path) {
        ("PUT", path) if path.starts_with("/admin/") => &[MATCH, NONE],
        ("DELETE", path) if path.starts_with("/admin/") => &[MATCH],
        ("POST", path) if path.ends_with("/rollback") => &[MATCH],
        _ => &[],
    }
}

fn parameters(route: &Route) -> Value {
    let in_path =
        route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| {
        let name = name.trim_start_matches('*');
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
    });
    let in_query = query(route).into_iter().map(|(name, schema, description)| {
        json!({"name": name, "in": "query", "schema": schema, "description": description})
    });
    let in_head = headers(route).iter().map(|(name, description)| {
        json!({"name": name, "in": "header", "schema": {"type": "string"}, "description": description})
    });
    in_path.chain(in_query).chain(in_head).collect()
}

fn body(route: &Route) -> Option<Value> {
    let json_of = |schema: &str| json!({"required": true, "content": {"application/json": {"schema": reference(schema)}}});
    Some(match (route.method, route.path) {
        (_, "/v1/completions") => json_of("CompletionRequest"),
        (_, "/v1/chat/completions") => json_of("ChatCompletionRequest"),
        (_, "/generate" | "/generate_stream" | "/") => json_of("GenerateRequest"),
        (_, "/v1/embeddings") => json_of("EmbeddingRequest"),
        (_, "/classify") => json_of("ClassifyRequest"),
        (_, "/classify_batch") => json_of("ClassifyBatchRequest"),
        (_, "/score" | "/v1/score") => json_of("ScoreRequest"),
        (_, "/rerank" | "/v1/rerank" | "/v2/rerank") => json_of("RerankRequest"),
        (_, "/embed" | "/embed_all" | "/embed_sparse") => json_of("EmbedRequest"),
        (_, "/predict") => json_of("PredictRequest"),
        (_, "/similarity") => json_of("SimilarityRequest"),
        (_, "/tokenize") => json_of("TokenizeRequest"),
        (_, "/decode") => json_of("DecodeRequest"),
        (_, "/detokenize") => json_of("DetokenizeRequest"),
        (_, "/v1/load_lora_adapter") => json_of("LoadLoraAdapter"),
        (_, "/v1/unload_lora_adapter") => json_of("UnloadLoraAdapter"),
        ("POST", "/lora-adapters") => json!({"required": true, "content": {"application/json": {
            "schema": {"type": "array", "items": reference("LoraScale")},
        }}}),
        ("PATCH", "/admin/adapters/{name}") => json_of("TermsPatch"),
        ("PUT", "/admin/aliases/{alias}") => json_of("AliasForm"),
        ("POST", "/admin/adapters/{name}/rollback") => {
            json!({"content": {"application/json": {"schema": reference("RollBack")}}})
        }
        ("PUT", "/admin/adapters/{name}") => json!({"required": true, "content": {
            "multipart/form-data": {"schema": {"type": "object", "properties": {
                "config": {"type": "string", "format": "binary", "description": "adapter_config.json"},
                "weights": {"type": "string", "format": "binary", "description": "adapter_model.safetensors"},
            }}},
            "application/octet-stream": {"schema": {
                "type": "string", "format": "binary", "description": "tar, tar.gz, zip or GGUF",
            }},
            "application/json": {"schema": reference("SourceReference")},
        }}),
        _ => return None,
    })
}

/// The kinds of body that a success may have; none for a body that has nothing.
fn contents(route: &Route) -> Vec<&'static str> {
    match route.path {
        "/v1/completions" | "/v1/chat/completions" | "/" => {
            vec!["application/json", "text/event-stream"]
        }
        "/generate_stream" => vec!["text/event-stream"],
        "/health" | "/livez" | "/ping" => Vec::new(),
        "/metrics" | "/v1/load_lora_adapter" | "/v1/unload_lora_adapter" => vec!["text/plain"],
        "/admin/adapters/{name}/files" => vec!["application/x-tar"],
        "/docs/{*file}" => vec!["text/html", "text/css", "application/javascript", "image/png"],
        _ => vec!["application/json"],
    }
}

fn error_schema(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAi | Dialect::Vllm => "OpenAiError",
        Dialect::Lorax => "LoraxError",
        Dialect::Tei => "TeiError",
    }
}

/// What the clients of a dialect are told of a body that is wrong.
fn malformed(dialect: Dialect) -> &'static [(&'static str, &'static str)] {
    match dialect {
        Dialect::OpenAi | Dialect::Vllm => {
            &[("400", "a field is wrong"), ("501", "a field is known and not served")]
        }
        Dialect::Lorax => &[("422", "a field is wrong, or known and not served")],
        Dialect::Tei => &[
            ("400", "nothing to read"),
            ("422", "a field is wrong, or known and not served"),
            ("424", "the model is not made for this"),
        ],
    }
}

/// A reference to one schema, or the choice of several.
fn one_of<'a>(schemas: impl Iterator<Item = &'a str>) -> Value {
    let mut all: Vec<_> = schemas.map(reference).collect();
    match all.pop() {
        Some(only) if all.is_empty() => only,
        last => {
            all.extend(last);
            json!({"anyOf": all})
        }
    }
}

fn responses(route: &Route) -> Value {
    let mut responses = Map::new();
    let of_kind = |kind: &&str| {
        let schema = match *kind {
            "application/json" => answer(route),
            // No schema says what a stream's events are before OpenAPI 3.2.
            "text/event-stream" => json!({}),
            _ => json!({"type": "string"}),
        };
        ((*kind).to_owned(), json!({"schema": schema}))
    };
    let content: Map<_, _> = contents(route).iter().map(of_kind).collect();
    if route.path == "/docs" {
        responses.insert("307".into(), json!({"description": "where the page is"}));
    } else {
        let success = json!({"description": "done", "content": content});
        responses.insert("200".into(), success.clone());
        if (route.method, route.path.starts_with("/admin")) == ("PUT", true) {
            responses.insert("201".into(), success);
        }
    }
    let dialects = colliding::dialects(route);
    let schema = one_of(dialects.iter().map(|dialect| error_schema(*dialect)));
    let admin = [
        ("403", "no admin key, or no source that is allowed"),
        ("404", "nothing has this name"),
        ("409", "in use, or changed meanwhile"),
        ("412", "a condition does not hold"),
        ("422", "the adapter did not pass"),
    ];
    let work = [
        ("403", "the key is for other models"),
        ("404", "no such model"),
        ("408", "the body stopped arriving"),
        ("413", "the body is too large"),
        ("429", "busy: come again after `Retry-After`"),
    ];
    let mut failures: Vec<(&str, &str)> = vec![("503", "it starts, drains, or lost its engine")];
    if route.access != Access::Open {
        failures.extend(dialects.iter().flat_map(|dialect| malformed(*dialect)));
        failures.push(("401", "no valid key"));
        failures.extend(work);
    }
    if route.access == Access::Admin {
        failures.extend(admin);
    }
    if route.path.starts_with("/docs/") {
        failures.push(("404", "no such file"));
    }
    for (status, description) in failures {
        let content = json!({"application/json": {"schema": schema}});
        responses.insert(status.into(), json!({"description": description, "content": content}));
    }
    Value::Object(responses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{lorax, openai, tei, tokens, vllm};
    use std::collections::BTreeSet;

    /// Names of the properties of a schema, its parts included.
    fn properties(document: &Value, schema: &Value) -> BTreeSet<String> {
        let parts = schema["allOf"].as_array().into_iter().flatten();
        let of_parts = parts.flat_map(|part| properties(document, part));
        let own = schema["properties"].as_object().into_iter().flat_map(|own| own.keys().cloned());
        let target = schema["$ref"].as_str().and_then(|target| target.strip_prefix('#'));
        let target = target.and_then(|target| document.pointer(target));
        own.chain(of_parts)
            .chain(target.into_iter().flat_map(|target| properties(document, target)))
            .collect()
    }

    #[test]
    fn every_route_is_described_once_and_nothing_else() {
        let document = whole();
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .expect("paths")
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().expect("methods").keys();
                methods.map(move |method| (method.to_uppercase(), path.clone()))
            })
            .collect();
        let routes: BTreeSet<_> = ROUTES
            .iter()
            .map(|route| (route.method.to_owned(), route.path.replace("{*", "{")))
            .collect();
        assert_eq!(described, routes);
        let ids: BTreeSet<_> = ROUTES.iter().map(operation_id).collect();
        assert_eq!(ids.len(), ROUTES.len(), "an id each");
    }

    #[test]
    fn every_field_that_is_read_is_described() {
        let document = whole();
        let schema = |name: &str| {
            let schema = &document["components"]["schemas"][name];
            assert!(schema.is_object(), "{name}");
            properties(&document, schema)
        };
        for (name, read) in [
            ("CompletionRequest", openai::completion_fields()),
            ("ChatCompletionRequest", openai::chat_fields()),
            ("GenerateParameters", lorax::parameter_fields()),
            ("TokenizeRequest", tokens::tokenize_fields()),
            ("EmbeddingRequest", openai::embedding_fields()),
            ("RerankRequest", vllm::rerank_fields()),
            ("EmbedRequest", tei::embed_fields()),
        ] {
            assert!(!read.is_empty(), "{name}");
            let described = schema(name);
            let missing: Vec<_> =
                read.into_iter().filter(|field| !described.contains(*field)).collect();
            assert!(missing.is_empty(), "{name} lacks {missing:?}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(document: &Value, value: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                        let found = target.strip_prefix('#').and_then(|at| document.pointer(at));
                        assert!(found.is_some(), "{target}");
                    }
                    fields.values().for_each(|value| check(document, value));
                }
                Value::Array(values) => values.iter().for_each(|value| check(document, value)),
                _ => {}
            }
        }
        let document = whole();
        check(&document, &document);
    }
}

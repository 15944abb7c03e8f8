//! Calls that must be made, by a real engine that knows nothing of them.
use super::*;
use std::{fs, path::Path};
use tempfile::TempDir;

/// The whole server with the tiny Llama and this template, shortened to what its context holds. Where the mark of calls is to be
/// a special token, one of the tokenizer's is called so.
fn real(template: &str, special: Option<&str>) -> (Server, TempDir) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama");
    let base = TempDir::new().expect("a directory");
    for name in ["config.json", "model.safetensors", "tokenizer_config.json"] {
        fs::copy(golden.join(name), base.path().join(name)).expect("a copy");
    }
    let tokenizer = fs::read_to_string(golden.join("tokenizer.json")).expect("a tokenizer");
    let tokenizer = match special {
        Some(mark) => tokenizer.replace("<|endoftext|>", mark),
        None => tokenizer,
    };
    fs::write(base.path().join("tokenizer.json"), tokenizer).expect("a file");
    let names = "tools | map(attribute='function') | map(attribute='name') | join(' ')";
    let template = template.replace("tools | tojson", names);
    fs::write(base.path().join("chat_template.jinja"), template).expect("a file");
    fs::create_dir(base.path().join("adapters")).expect("a directory");
    (Server::of(base.path()), base)
}

const SERVERS: [(&str, Option<&str>); 5] = [
    (HERMES, None),
    (LLAMA3, None),
    (MISTRAL, None),
    (MISTRAL, Some("[TOOL_CALLS]")),
    (PLAIN_JSON, None),
];

fn asking(choice: &Value, seed: u64) -> Value {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["a"],
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "unit": {"enum": ["c", "f"]}},
    });
    let nothing = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let tool = |name: &str, schema: Value| json!({"type": "function", "function": {"name": name, "parameters": schema}});
    json!({
        "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 150, "temperature": 1.5, "seed": seed,
        "tools": [tool("add", schema), tool("now", nothing)], "tool_choice": choice,
    })
}

fn named(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

/// Whether a call is as its function wants it.
fn is_right((name, arguments): &(String, String)) -> bool {
    let Ok(Value::Object(fields)) = serde_json::from_str(arguments) else { return false };
    match name.as_str() {
        "now" => fields.is_empty(),
        "add" => {
            fields["a"].as_u64().is_some_and(|a| a < 100)
                && fields.iter().all(|(name, value)| match name.as_str() {
                    "a" => true,
                    "unit" => matches!(value.as_str(), Some("c" | "f")),
                    _ => false,
                })
        }
        _ => false,
    }
}

#[tokio::test]
async fn a_required_call_obeys_its_schema_in_every_format() {
    for (template, special) in SERVERS {
        let (server, _base) = real(template, special);
        for seed in 0..6 {
            let body =
                with(asking(&json!("required"), seed), json!({"parallel_tool_calls": false}));
            let choice = server.post(PATH, &body).await.ok()["choices"][0].clone();
            let [call] = &called(&choice["message"])[..] else { panic!("one call: {choice}") };
            assert!(is_right(call), "{choice}");
            assert_eq!(choice["message"]["content"], Value::Null);
            assert_eq!(choice["finish_reason"], "tool_calls");
        }
    }
}

#[tokio::test]
async fn a_named_function_is_the_one_that_is_called() {
    for (template, special) in SERVERS {
        let (server, _base) = real(template, special);
        for (name, seed) in [("add", 0), ("add", 1), ("now", 2)] {
            let choice =
                server.post(PATH, &asking(&named(name), seed)).await.ok()["choices"][0].clone();
            let [call] = &called(&choice["message"])[..] else { panic!("one call: {choice}") };
            assert!(call.0 == name && is_right(call), "{choice}");
            assert_eq!(choice["finish_reason"], "stop", "as OpenAI and vLLM have it");
        }
    }
}

#[tokio::test]
async fn several_calls_are_each_right_and_one_where_the_template_takes_one() {
    for (template, special) in SERVERS {
        let (server, _base) = real(template, special);
        let mut most = 0;
        for seed in 0..6 {
            let choice = server.post(PATH, &asking(&json!("required"), seed)).await.ok()["choices"]
                [0]
            .clone();
            let calls = called(&choice["message"]);
            most = most.max(calls.len());
            let whole = calls.len() - usize::from(choice["finish_reason"] == "length");
            assert!(calls[..whole].iter().all(is_right), "{choice}");
        }
        if template == LLAMA3 {
            assert_eq!(most, 1);
        }
    }
}

#[tokio::test]
async fn what_the_model_says_is_what_its_template_would_write() {
    let (server, _base) = real(HERMES, None);
    let body = with(asking(&named("now"), 0), json!({"logprobs": true}));
    let choice = server.post(PATH, &body).await.ok()["choices"][0].clone();
    let tokens = choice["logprobs"]["content"].as_array().expect("tokens").iter();
    let text: String = tokens.map(|token| token["token"].as_str().expect("text")).collect();
    assert_eq!(text, "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>");
}

#[tokio::test]
async fn a_stream_makes_the_same_call() {
    for (template, special) in SERVERS {
        let (server, _base) = real(template, special);
        for choice in [json!("required"), named("add")] {
            let body = with(asking(&choice, 3), json!({"n": 2, "parallel_tool_calls": false}));
            let whole = server.post(PATH, &body).await.ok();
            let streamed = joined(&server.post(PATH, &with(body, json!({"stream": true}))).await);
            assert_eq!(streamed.len(), 2);
            for (index, (message, reason)) in streamed.iter().enumerate() {
                let choice = &whole["choices"][index];
                assert_eq!(called(message), called(&choice["message"]));
                assert!(is_right(&called(message)[0]));
                assert_eq!(*reason, choice["finish_reason"]);
            }
        }
    }
}

#[tokio::test]
async fn without_a_schema_arguments_are_any_object() {
    let (server, _base) = real(HERMES, None);
    for parameters in [json!(null), json!({}), json!({"properties": {"a": {"type": "boolean"}}})] {
        let function = json!({"name": "f", "parameters": parameters});
        let tools = json!([{"type": "function", "function": function}]);
        let body = with(
            asking(&json!("required"), 1),
            json!({"tools": tools, "parallel_tool_calls": false}),
        );
        let choice = server.post(PATH, &body).await.ok()["choices"][0].clone();
        let [(_, arguments)] = &called(&choice["message"])[..] else {
            panic!("one call: {choice}")
        };
        let is_object =
            serde_json::from_str::<Value>(arguments).is_ok_and(|value| value.is_object());
        let is_cut = choice["finish_reason"] == "length";
        assert!(arguments.starts_with('{') && (is_object || is_cut), "{choice}");
    }
}

#[tokio::test]
async fn what_cannot_be_enforced_is_refused_with_its_path() {
    let (server, _base) = real(HERMES, None);
    let tools = |parameters: Value| {
        let tool = |name: &str, parameters: &Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
        json!([tool("f", &json!({})), tool("g", &parameters)])
    };
    let deep = (0..40).fold(json!({}), |schema, _| json!({"properties": {"a": schema}}));
    let impossible = json!({"required": ["a"], "properties": {"a": false}});
    let path = "tools[1].function.parameters";
    for (parameters, choice, param) in [
        (deep.clone(), named("g"), path),
        (deep, json!("required"), path),
        (json!({"properties": {"a": {"type": "nonsense"}}}), named("g"), path),
        (json!({"properties": {"a": {"type": "nonsense"}}}), json!("required"), "tools"),
        (impossible, named("g"), path),
    ] {
        let body = with(asking(&choice, 0), json!({"tools": tools(parameters.clone())}));
        let error = server.post(PATH, &body).await.error(400);
        assert_eq!(error["param"], param, "{parameters}: {error}");
    }
}

#[tokio::test]
async fn more_schemas_than_can_be_enforced_are_refused_where_they_would_be() {
    let tool = |at: usize, strict: bool| {
        let parameters = json!({"description": "x".repeat(40_000)});
        json!({"type": "function", "function": {"name": format!("f{at}"), "parameters": parameters, "strict": strict}})
    };
    let server = server(HERMES, &[]);
    for (choice, strict) in [("required", false), ("auto", true)] {
        let tools = json!({"tools": [tool(0, strict), tool(1, strict)]});
        let error = server.post(PATH, &with(asking(&json!(choice), 0), tools)).await.error(400);
        assert_eq!((&error["param"], &error["reason"]), (&json!("tools"), &json!("invalid_value")));
    }
    let tools = json!({"tools": [tool(0, false), tool(1, false)]});
    let error = server.post(PATH, &with(asking(&json!("auto"), 0), tools)).await.error(400);
    assert_eq!(
        error["reason"], "context_length_exceeded",
        "left to the model, they only have to fit"
    );
}

#[tokio::test]
async fn no_answer_has_two_forms() {
    let (server, _base) = real(HERMES, None);
    for (field, value) in [
        ("response_format", json!({"type": "json_object"})),
        ("structured_outputs", json!({"choice": ["a"]})),
        ("guided_regex", json!("a")),
    ] {
        for choice in [json!("required"), named("add")] {
            let error = server
                .post(PATH, &with(asking(&choice, 0), json!({field: value})))
                .await
                .error(400);
            assert_eq!(
                (&error["reason"], &error["param"]),
                (&json!("exclusive_fields"), &json!("tool_choice"))
            );
        }
    }
}

#[tokio::test]
async fn a_model_that_need_not_call_may_answer_in_the_form_that_is_asked_for() {
    let (server, _base) = real(HERMES, None);
    let schema = json!({"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"],
                        "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let (mut called_once, mut said_once) = (false, false);
    for seed in 0..24 {
        let body = with(
            asking(&json!("auto"), seed),
            json!({"response_format": format, "parallel_tool_calls": false}),
        );
        let choice = server.post(PATH, &body).await.ok()["choices"][0].clone();
        let calls = called(&choice["message"]);
        assert!(calls.iter().all(is_right), "{choice}");
        if calls.is_empty() {
            let said: Value =
                serde_json::from_str(choice["message"]["content"].as_str().expect("text"))
                    .expect("JSON");
            assert!(said == json!({"n": 1}) || said == json!({"n": 2}), "{choice}");
        }
        called_once |= !calls.is_empty();
        said_once |= calls.is_empty();
    }
    assert!(called_once && said_once, "both may happen");
}

#[tokio::test]
async fn a_strict_function_that_need_not_be_called_obeys_its_schema_when_it_is() {
    for (template, special) in SERVERS {
        let (server, _base) = real(template, special);
        let mut body = asking(&json!("auto"), 0);
        for tool in body["tools"].as_array_mut().expect("tools") {
            tool["function"]["strict"] = true.into();
        }
        // The model knows nothing of calls: what makes one likely here is a bias towards the byte that begins one.
        let tokens = server.post("/tokenize", &json!({"prompt": "{"})).await.ok()["tokens"].clone();
        body["logit_bias"] = json!({tokens[0].to_string(): 100});
        let choice = server.post(PATH, &body).await.ok()["choices"][0].clone();
        let calls = called(&choice["message"]);
        if matches!(template, LLAMA3 | PLAIN_JSON) {
            assert!(!calls.is_empty() && calls.iter().all(is_right), "{choice}");
        } else {
            assert!(calls.is_empty() && choice["message"]["content"].is_string(), "{choice}");
        }
    }
}

//! Forms of answers that are wrong, or meant to hurt: each is answered soon, and nobody else notices.
use crate::client::Server;
use serde_json::{Value, json};
use std::time::Duration;

/// Longer than the compiler's time limit and the wait for its place, on a slow machine.
const SOON: Duration = Duration::from_secs(15);

fn chain(length: usize) -> Value {
    let name = |index: usize| format!("d{index}");
    let defs: serde_json::Map<String, Value> = (0..length)
        .map(|index| (name(index), json!({"$ref": format!("#/$defs/{}", name(index + 1))})))
        .chain([(name(length), json!({"type": "null"}))])
        .collect();
    json!({"$ref": "#/$defs/d0", "$defs": defs})
}

fn lark_chain(length: usize, prefix: char) -> String {
    let rule = |index| format!("{prefix}{index}: \"a\" {prefix}{}", index + 1);
    let rules: Vec<String> = (0..length).map(rule).collect();
    format!("start: {prefix}0\n{}\n{prefix}{length}: \"b\"\n", rules.join("\n"))
}

fn refused() -> Vec<(Value, &'static str)> {
    let schema = |schema: Value| json!({"guided_json": schema});
    let grammar = |text: String| json!({"guided_grammar": text});
    let deep = (0..60).fold(json!({}), |inner, _| json!({"items": inner}));
    vec![
        (schema(json!({"type": "thing"})), "invalid_grammar"),
        (schema(json!({"type": 5})), "invalid_grammar"),
        (schema(json!({"properties": []})), "invalid_grammar"),
        (schema(json!({"type": "array", "contains": {"type": "null"}})), "invalid_grammar"),
        (schema(json!({"not": {"type": "null"}})), "invalid_grammar"),
        (schema(json!({"$ref": "https://example.com/schema.json"})), "invalid_grammar"),
        (schema(json!({"$ref": "file:///etc/passwd"})), "invalid_grammar"),
        (schema(json!({"$ref": "http://169.254.169.254/latest"})), "invalid_grammar"),
        (schema(json!({"$ref": "#/$defs/nowhere"})), "invalid_grammar"),
        (schema(json!({"type": "string", "format": "unheard-of"})), "invalid_grammar"),
        (schema(json!({"type": "string", "pattern": "("})), "invalid_grammar"),
        (schema(json!({"x-guidance": {"unheard_of": 1}})), "invalid_grammar"),
        (schema(deep), "grammar_too_complex"),
        (schema(json!({"enum": (0..20_000).collect::<Vec<_>>()})), "grammar_too_complex"),
        (json!({"guided_regex": "(a{1000}){1000}"}), "grammar_too_complex"),
        (json!({"guided_regex": "(?=a)b"}), "invalid_grammar"),
        (json!({"guided_regex": "a".repeat(20_000)}), "grammar_too_complex"),
        (json!({"guided_choice": vec!["a"; 5000]}), "grammar_too_complex"),
        (grammar("begin: \"a\"".into()), "invalid_grammar"),
        (grammar("start: nowhere".into()), "invalid_grammar"),
        (grammar("start: \"a".into()), "invalid_grammar"),
        (
            grammar(format!("start: {}\"a\"{}", "(".repeat(5000), ")".repeat(5000))),
            "grammar_too_complex",
        ),
        (grammar("root ::= missing".into()), "invalid_grammar"),
        (grammar("start: %json {\"$ref\": \"https://example.com/s\"}".into()), "invalid_grammar"),
    ]
}

/// Hard to compile, perhaps: whatever comes of them comes soon.
fn bombs() -> Vec<Value> {
    let schema = |schema: Value| json!({"guided_json": schema});
    let grammar = |text: String| json!({"guided_grammar": text});
    let recursive = json!({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties":
        {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}}}}});
    let endless = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}});
    let every = (0..12).fold(json!({"type": "string"}), |inner, index| {
        json!({"anyOf": [inner.clone(), {"type": "object", "properties": {format!("p{index}"): inner}}]})
    });
    let all: Vec<Value> = (0..40)
        .map(|index| json!({"anyOf": [{"required": [format!("a{index}")]}, {"required": [format!("b{index}")]}]}))
        .collect();
    let double = |index| format!("T{index}: T{} T{}", index + 1, index + 1);
    let doubled: Vec<String> = (0..40).map(double).collect();
    let ambiguous = "start: s\ns: s s s | s s | \"a\" | \"\"";
    vec![
        schema(recursive),
        schema(endless),
        schema(every),
        schema(json!({"allOf": all})),
        schema(chain(500)),
        schema(json!({"type": "array", "minItems": 1_000_000, "items": {"type": "null"}})),
        schema(json!({"type": "string", "minLength": 1_000_000, "maxLength": 2_000_000})),
        schema(json!({"type": "string", "pattern": "(a|b|c|d)*e(a|b|c|d){40}"})),
        schema(json!({"enum": (0..6000).collect::<Vec<_>>()})),
        json!({"guided_regex": "((a|aa|aaa)*)*b"}),
        json!({"guided_regex": "(.*a){30}"}),
        json!({"guided_regex": "(a|b)*c(a|b){60}"}),
        json!({"guided_regex": "[\\s\\S]{1,100000}"}),
        json!({"guided_regex": format!("{}a{}", "(".repeat(200), ")".repeat(200))}),
        json!({"guided_choice": (0..1024).map(|i| format!("choice {i} of many")).collect::<Vec<_>>()}),
        grammar(lark_chain(4000, 'r')),
        grammar(lark_chain(4000, 'T')),
        grammar(format!("start: T0\n{}\nT40: \"a\"\n", doubled.join("\n"))),
        grammar(ambiguous.into()),
        grammar("start: \"a\"{1,1000000}".into()),
        grammar("start: r\nr: r".into()),
        grammar("root ::= root root | \"a\"".into()),
    ]
}

#[tokio::test]
async fn wrong_forms_are_told_apart_and_named_by_their_field() {
    let server = Server::golden("llama");
    for (mut body, reason) in refused() {
        let field = body.as_object().and_then(|o| o.keys().next()).expect("a field").clone();
        body["prompt"] = "a".into();
        let answer = tokio::time::timeout(SOON, server.post("/v1/completions", &body)).await;
        let error = answer.expect("an answer, soon").error(400);
        assert_eq!(error["reason"], reason, "{field}: {error}");
        assert_eq!(error["param"], field, "{error}");
        let message = error["message"].as_str().expect("a message");
        assert!((10..420).contains(&message.chars().count()), "{message}");
        assert!(!message.contains("panic"), "{message}");
    }
    let unsupported = json!({"prompt": "a", "guided_json": {"type": "array", "contains": {}}});
    let error = server.post("/v1/completions", &unsupported).await.error(400);
    assert!(error["message"].as_str().expect("a message").contains("contains"), "{error}");
}

#[tokio::test]
async fn a_body_nested_without_end_is_no_body() {
    let server = Server::golden("llama");
    let open = "{\"items\":".repeat(5000);
    let body = format!("{{\"prompt\": \"a\", \"guided_json\": {open}1{}}}", "}".repeat(5000));
    let request = server.client.post(format!("{}/v1/completions", server.url));
    let request = request.header("content-type", "application/json").body(body);
    let answer = crate::client::Answer::of(request).await;
    assert_eq!(answer.error(400)["param"], "body");
}

#[tokio::test]
async fn bombs_are_answered_soon_while_others_go_on() {
    let server = Server::golden("llama");
    for mut body in bombs() {
        body["prompt"] = "a".into();
        body["max_tokens"] = 6.into();
        let free = json!({"prompt": "b", "max_tokens": 20, "ignore_eos": true});
        let bomb = tokio::time::timeout(SOON, server.post("/v1/completions", &body));
        let company = server.post("/v1/completions", &free);
        let (bomb, company) = tokio::join!(bomb, company);
        let bomb = bomb.unwrap_or_else(|_| panic!("no answer to {}", shown(&body)));
        assert!([200, 400].contains(&bomb.status.as_u16()), "{}: {}", shown(&body), bomb.text);
        let text = company.ok()["choices"][0]["text"].as_str().map(str::len);
        assert!(text.is_some_and(|length| length > 0));
    }
    let plain = json!({"prompt": "a", "guided_choice": ["one"], "max_tokens": 20});
    let answer = server.post("/v1/completions", &plain).await.ok();
    assert_eq!(answer["choices"][0]["text"], "one", "the compiler has places again");
}

fn shown(body: &Value) -> String {
    body.to_string().chars().take(120).collect()
}

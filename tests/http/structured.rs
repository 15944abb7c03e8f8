//! Forms of answers, in every dialect.
use crate::client::Server;
use serde_json::{Value, json};

fn server() -> Server {
    Server::golden("llama")
}

fn schema() -> Value {
    json!({"type": "object", "additionalProperties": false, "required": ["name", "age"],
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 150}}})
}

fn text(answer: &Value) -> &str {
    let choice = &answer["choices"][0];
    choice["text"].as_str().or(choice["message"]["content"].as_str()).expect("a text")
}

/// Whether `text` is what [`schema`] asks for.
fn is_person(text: &str) -> bool {
    let Ok(Value::Object(person)) = serde_json::from_str(text) else { return false };
    let name = person.get("name").and_then(Value::as_str);
    let age = person.get("age").and_then(Value::as_u64);
    person.len() == 2
        && name.is_some_and(|name| name.chars().count() <= 8)
        && age.is_some_and(|age| age <= 150)
}

type Check<'a> = &'a dyn Fn(&str) -> bool;

fn hot(mut fields: Value, seed: u64) -> Value {
    let body = fields.as_object_mut().expect("an object");
    body.insert("temperature".into(), 1.5.into());
    body.insert("seed".into(), seed.into());
    body.insert("max_tokens".into(), 120.into());
    fields
}

#[tokio::test]
async fn every_field_of_openai_and_vllm_is_obeyed() {
    let server = server();
    let word = |text: &str| matches!(text, "yes" | "no");
    let json_schema =
        json!({"type": "json_schema", "json_schema": {"name": "p", "schema": schema()}});
    let gbnf = "root ::= a | a \" \" root\na ::= [xy]{2} # pairs";
    let cases: [(Value, Check<'_>); 12] = [
        (json!({"response_format": json_schema}), &is_person),
        (json!({"response_format": {"type": "json_object", "schema": schema()}}), &is_person),
        (json!({"structured_outputs": {"json": schema()}}), &is_person),
        (json!({"structured_outputs": {"json": schema().to_string()}}), &is_person),
        (json!({"guided_json": schema()}), &is_person),
        (json!({"structured_outputs": {"choice": ["yes", "no"]}}), &word),
        (json!({"guided_choice": ["yes", "no"]}), &word),
        (json!({"structured_outputs": {"regex": "(yes|no)"}}), &word),
        (json!({"guided_regex": "^(yes|no)$"}), &word),
        (json!({"structured_outputs": {"grammar": "start: \"yes\" | \"no\""}}), &word),
        (json!({"guided_grammar": "start: WORD\nWORD: /yes/ | /no/"}), &word),
        (json!({"structured_outputs": {"grammar": gbnf}, "max_tokens": 30}), &|text| {
            text.split(' ').all(|pair| pair.len() <= 2 && pair.chars().all(|c| "xy".contains(c)))
        }),
    ];
    for (body, is_right) in cases {
        for (route, prompt) in [
            ("/v1/completions", json!({"prompt": "A person: "})),
            (
                "/v1/chat/completions",
                json!({"messages": [{"role": "user", "content": "A person"}]}),
            ),
        ] {
            for seed in 0..2 {
                let mut body = hot(body.clone(), seed);
                body.as_object_mut()
                    .expect("an object")
                    .extend(prompt.as_object().expect("one").clone());
                let answer = server.post(route, &body).await.ok();
                let text = text(&answer);
                assert!(is_right(text), "{route} {body}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn lorax_and_tgi_parameters_are_obeyed() {
    let server = server();
    for parameters in [
        json!({"response_format": {"type": "json_object", "schema": schema()}}),
        json!({"grammar": {"type": "json", "value": schema()}}),
        json!({"grammar": {"type": "json_schema", "value": {"name": "p", "schema": schema()}}}),
    ] {
        let mut parameters = hot(parameters, 3);
        let fields = parameters.as_object_mut().expect("an object");
        fields.remove("max_tokens");
        fields.insert("max_new_tokens".into(), 120.into());
        let body = json!({"inputs": "A person: ", "parameters": parameters});
        let answer = server.post("/generate", &body).await.ok();
        assert!(is_person(answer["generated_text"].as_str().expect("a text")), "{answer}");
    }
    let regex = json!({"inputs": "A", "parameters":
        {"grammar": {"type": "regex", "value": "[0-9]{3}"}, "details": true}});
    let answer = server.post("/generate", &regex).await.ok();
    let text = answer["generated_text"].as_str().expect("a text");
    assert!(text.len() == 3 && text.chars().all(|c| c.is_ascii_digit()), "{text}");
    assert_eq!(answer["details"]["finish_reason"], "eos_token", "it is whole");
    let wrong = json!({"inputs": "A", "parameters": {"grammar": {"type": "regex", "value": "("}}});
    let error = server.post("/generate", &wrong).await;
    assert_eq!(error.status, 422, "{}", error.text);
    assert_eq!(error.json()["error_type"], "validation");
}

#[tokio::test]
async fn a_stream_and_several_answers_have_the_form_too() {
    let server = server();
    let body = hot(
        json!({"messages": [{"role": "user", "content": "A person"}], "n": 4,
        "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": schema()}}}),
        9,
    );
    let whole = server.post("/v1/chat/completions", &body).await.ok();
    let mut body = body;
    body["stream"] = true.into();
    let mut events = server.post("/v1/chat/completions", &body).await.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let mut texts = vec![String::new(); 4];
    let mut reasons = vec![Value::Null; 4];
    for event in events {
        let event: Value = serde_json::from_str(&event).expect("JSON");
        let choice = &event["choices"][0];
        let index = choice["index"].as_u64().expect("an index") as usize;
        texts[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        reasons[index] = choice["finish_reason"].clone();
    }
    for (index, text) in texts.iter().enumerate() {
        assert!(is_person(text), "{text}");
        assert_eq!(whole["choices"][index]["message"]["content"], text.as_str());
        assert_eq!(
            (&reasons[index], &whole["choices"][index]["finish_reason"]),
            (&json!("stop"), &json!("stop"))
        );
    }
    assert!(texts.iter().any(|text| *text != texts[0]), "each answer goes its own way");
}

#[tokio::test]
async fn a_constrained_answer_in_company_is_the_one_it_is_alone() {
    let server = server();
    let forms = [
        json!({}),
        json!({"guided_json": schema()}),
        json!({"guided_choice": ["alpha", "beta", "gamma delta"]}),
        json!({"guided_regex": "[a-f ]{5,40}"}),
    ];
    let bodies: Vec<Value> = (0..12)
        .map(|index| {
            let mut body = hot(forms[index % forms.len()].clone(), index as u64);
            body["prompt"] = format!("number {index}").into();
            body["max_tokens"] = 40.into();
            body
        })
        .collect();
    let ask =
        async |body: &Value| text(&server.post("/v1/completions", body).await.ok()).to_owned();
    let mut alone = Vec::new();
    for body in &bodies {
        alone.push(ask(body).await);
    }
    let together = futures_util::future::join_all(bodies.iter().map(ask)).await;
    assert_eq!(together, alone);
}

#[tokio::test]
async fn an_adapter_and_log_probabilities_go_with_a_form() {
    let server = server();
    let body = json!({"model": "all-linear", "prompt": "a", "guided_choice": ["one", "two"],
        "temperature": 0, "logprobs": 2, "max_tokens": 20});
    let answer = server.post("/v1/completions", &body).await.ok();
    assert!(["one", "two"].contains(&text(&answer)), "{answer}");
    let shown = answer["choices"][0]["logprobs"]["token_logprobs"].as_array().expect("a list");
    assert!(shown.iter().all(|logprob| logprob.as_f64().is_some_and(|logprob| logprob <= 0.0)));
}

#[tokio::test]
async fn compact_json_has_no_space_and_no_json_has_much() {
    let server = server();
    for (options, most) in [(json!({"disable_any_whitespace": true}), 0), (json!({}), 25)] {
        for seed in 0..6 {
            let mut form = json!({"json": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4}});
            form.as_object_mut()
                .expect("an object")
                .extend(options.as_object().expect("one").clone());
            let body = hot(json!({"prompt": "1", "structured_outputs": form}), seed);
            let answer = server.post("/v1/completions", &body).await.ok();
            let longest = text(&answer)
                .split(|c: char| !c.is_whitespace())
                .map(str::len)
                .max()
                .expect("at least one");
            assert!(longest <= most, "{answer}");
        }
    }
}

#[tokio::test]
async fn what_forms_cost_is_in_the_metrics() {
    let server = server();
    let body = json!({"prompt": "a", "guided_choice": ["one", "two"], "n": 2, "max_tokens": 20});
    for _ in 0..3 {
        server.post("/v1/completions", &body).await.ok();
    }
    server.post("/v1/completions", &json!({"prompt": "a", "guided_regex": "("})).await.error(400);
    let metrics = server.get("/metrics").await.text;
    for line in [
        "lorad_grammar_compiles_total{model_name=\"llama\",engine=\"0\",result=\"ok\"} 1\n",
        "lorad_grammar_compiles_total{model_name=\"llama\",engine=\"0\",result=\"invalid\"} 1\n",
        "lorad_grammar_cache_hits_total{model_name=\"llama\",engine=\"0\"} 2\n",
        "lorad_constrained_answers_total{model_name=\"llama\",engine=\"0\"} 6\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn answers_of_a_hot_model_to_any_small_schema_parse_and_validate() {
    use crate::schemas::{accepts, schema};
    use proptest::{
        strategy::{Strategy, ValueTree},
        test_runner::TestRunner,
    };

    let server = server();
    let mut runner = TestRunner::deterministic();
    let schemas: Vec<Value> =
        (0..24).map(|_| schema().new_tree(&mut runner).expect("a schema").current()).collect();
    let ask = async |(seed, schema): (usize, &Value)| {
        let body = hot(json!({"prompt": "value: ", "guided_json": schema}), seed as u64);
        server.post("/v1/completions", &body).await.ok()
    };
    let answers = futures_util::future::join_all(schemas.iter().enumerate().map(ask)).await;
    let mut whole = 0;
    for (schema, answer) in schemas.iter().zip(&answers) {
        if answer["choices"][0]["finish_reason"] == "length" {
            continue;
        }
        let value = serde_json::from_str(text(answer)).expect("JSON");
        assert!(accepts(schema, &value), "{} of {schema}", text(answer));
        whole += 1;
    }
    assert!(whole >= 20, "only {whole} answers had room");
}

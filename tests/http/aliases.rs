//! Model names that stand for several adapters: splits, shadows, guards, and the way back.
use crate::client::{Answer, Server, adapter_files};
use futures_util::future::join_all;
use lorad::adapter::AdapterFiles;
use reqwest::{
    StatusCode,
    multipart::{Form, Part},
};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::sleep;

fn server() -> Server {
    Server::golden("llama")
}

async fn put(server: &Server, alias: &str, form: &Value) -> Answer {
    Answer::of(server.request("PUT", &format!("/admin/aliases/{alias}")).json(form)).await
}

/// Two targets in these shares.
fn split(first: (&str, u32), second: (&str, u32)) -> Value {
    json!({"targets": [{"model": first.0, "weight": first.1}, {"model": second.0, "weight": second.1}]})
}

fn only(model: &str) -> Value {
    json!({"targets": [{"model": model}]})
}

fn with(mut form: Value, field: &str, value: Value) -> Value {
    form[field] = value;
    form
}

/// A greedy completion's body with these fields besides.
fn body(model: &str, fields: Value) -> Value {
    let mut body = json!({"model": model, "prompt": [5, 6, 7], "max_tokens": 6, "temperature": 0,
                          "ignore_eos": true});
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    body.as_object_mut().expect("an object").extend(fields);
    body
}

async fn ask(server: &Server, model: &str, fields: Value) -> Answer {
    server.post("/v1/completions", &body(model, fields)).await
}

fn text(answer: &Answer) -> String {
    answer.ok()["choices"][0]["text"].as_str().expect("text").to_owned()
}

/// What `layers` and `all-linear` say.
async fn both(server: &Server) -> [String; 2] {
    let mut texts = Vec::new();
    for model in ["layers", "all-linear"] {
        texts.push(text(&ask(server, model, json!({})).await));
    }
    assert_ne!(texts[0], texts[1]);
    texts.try_into().expect("two")
}

async fn metric(server: &Server, name: &str, labels: &[(&str, &str)]) -> f64 {
    let text = server.get("/metrics").await.text;
    let has = |line: &&str| {
        let label = |(key, value): &(&str, &str)| line.contains(&format!("{key}=\"{value}\""));
        line.starts_with(name) && labels.iter().all(label)
    };
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    text.lines().filter(has).filter_map(value).sum()
}

/// Waits until a metric is at least this.
async fn reaches(server: &Server, name: &str, labels: &[(&str, &str)], least: f64) {
    for _ in 0..600 {
        if metric(server, name, labels).await >= least {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} {labels:?} stays below {least}");
}

/// The golden adapter with weights that are finite and far too large.
fn exploding() -> Form {
    let files = adapter_files("llama", "layers");
    let AdapterFiles::Peft { config, weights } = files else { panic!("PEFT's form") };
    let tensors = SafeTensors::deserialize(&weights).expect("safetensors");
    let huge: Vec<_> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let values = view.data().len() / 4;
            let bytes: Vec<u8> = (0..values).flat_map(|_| 1e30_f32.to_le_bytes()).collect();
            (name, view.dtype(), view.shape().to_vec(), bytes)
        })
        .collect();
    let views = huge.iter().map(|(name, dtype, shape, bytes)| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("bytes fit"))
    });
    let weights = safetensors::serialize(views, None).expect("safetensors");
    Form::new().part("config", Part::bytes(config.to_vec())).part("weights", Part::bytes(weights))
}

async fn publish(server: &Server, name: &str, form: Form) -> Answer {
    let request = server.request("PUT", &format!("/admin/adapters/{name}"));
    Answer::of(request.multipart(form)).await
}

#[tokio::test]
async fn a_canary_gets_its_share_and_the_answer_names_the_alias() {
    let server = server();
    let [stable, canary] = both(&server).await;
    let form = with(split(("layers", 60), ("all-linear", 40)), "sticky", json!({"field": "user"}));
    let created = put(&server, "chat", &form).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    assert_eq!(created.json()["durable"], true, "this server has a store");
    let mut counts = [0; 2];
    for user in 0..60 {
        let user = json!({"user": format!("user-{user}")});
        let answer = ask(&server, "chat", user.clone()).await;
        assert_eq!(answer.ok()["model"], "chat");
        let said = text(&answer);
        let at = [&stable, &canary].iter().position(|text| **text == said).expect("one of both");
        counts[at] += 1;
        let served = answer.headers["x-lorad-adapter"].to_str().expect("text").to_owned();
        assert!(served.starts_with(["layers@", "all-linear@"][at]), "{served}");
        assert_eq!(text(&ask(&server, "chat", user).await), said, "a user stays");
    }
    assert!(counts[0] > counts[1] && counts[1] > 8, "{counts:?}");
    let entry = server.get("/admin/aliases/chat").await.ok();
    let observed = entry["observed"].as_array().expect("a list");
    let requests: u64 = observed.iter().map(|of| of["requests"].as_u64().expect("a count")).sum();
    assert_eq!(requests, 120);
    let labels = [("alias", "chat"), ("target", "layers")];
    let counted = metric(&server, "lorad_alias_requests_total", &labels).await;
    assert_eq!(counted as usize, 2 * counts[0]);
}

#[tokio::test]
async fn a_header_makes_sticky_in_every_dialect_and_nothing_does_not() {
    let server = server();
    let possible = both(&server).await;
    let form = with(split(("layers", 1), ("all-linear", 1)), "sticky", json!({"header": "X-User"}));
    put(&server, "chat", &form).await;
    let user = json!([{"role": "user", "content": "one two"}]);
    let lorax =
        json!({"inputs": "one two", "parameters": {"adapter_id": "chat", "max_new_tokens": 2}});
    let mut targets = BTreeSet::new();
    for caller in ["a", "b", "c", "d", "e", "f"] {
        let asked = async |path: &str, body: Value| {
            let request = server.request("POST", path).header("x-user", caller).json(&body);
            let answer = Answer::of(request).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
            let served = answer.headers["x-lorad-adapter"].to_str().expect("text").to_owned();
            served.split('@').next().expect("a name").to_owned()
        };
        let target = asked("/v1/completions", body("chat", json!({}))).await;
        let chat = json!({"model": "chat", "messages": user, "max_tokens": 2});
        assert_eq!(asked("/v1/chat/completions", chat.clone()).await, target);
        assert_eq!(asked("/v1/chat/completions", with(chat, "stream", json!(true))).await, target);
        assert_eq!(asked("/generate", lorax.clone()).await, target);
        assert_eq!(asked("/generate_stream", lorax.clone()).await, target);
        let mixed =
            json!({"prompt": [5], "max_tokens": 1, "adapters": [{"name": "chat", "weight": 0.5}]});
        assert_eq!(asked("/v1/completions", mixed).await, target);
        targets.insert(target);
    }
    let answers = join_all((0..60).map(|_| ask(&server, "chat", json!({})))).await;
    let said: BTreeSet<_> = answers.iter().map(text).collect();
    assert_eq!(said, possible.into_iter().collect(), "one of 2^59 runs is one-sided");
    assert_eq!(targets.len(), 2, "six callers");
}

#[tokio::test]
async fn the_base_and_one_version_can_be_targets() {
    let server = server();
    let base = text(&ask(&server, "llama", json!({})).await);
    let entry = server.get("/admin/adapters/layers").await.ok();
    let pinned = format!("layers@{}", entry["version"].as_str().expect("a version"));
    put(&server, "plain", &only("llama")).await;
    put(&server, "pinned", &only(&pinned)).await;
    let plain = ask(&server, "plain", json!({})).await;
    assert_eq!((text(&plain), plain.ok()["model"].as_str()), (base, Some("plain")));
    assert!(!plain.headers.contains_key("x-lorad-adapter"));
    let expected = text(&ask(&server, "layers", json!({})).await);
    assert_eq!(text(&ask(&server, "pinned", json!({})).await), expected);
    let mixed = json!({"adapters": ["layers", "plain"], "model": "llama"});
    assert_eq!(text(&ask(&server, "llama", mixed).await), expected);
    let twice = ask(&server, "pinned", json!({"adapters": ["layers"]})).await;
    assert_eq!(twice.error(400)["reason"], "exclusive_fields");
    for target in server.get("/admin/aliases").await.ok()["aliases"].as_array().expect("a list") {
        let named = target["targets"][0]["model"].as_str().expect("a model");
        assert!([pinned.as_str(), "llama"].contains(&named), "{target}");
    }
}

#[tokio::test]
async fn a_shadow_changes_nothing_but_metrics() {
    let server = server();
    put(&server, "chat", &only("layers")).await;
    let chat = body("chat", json!({"logprobs": 2, "n": 2}));
    let alone = server.post("/v1/completions", &chat).await.ok();
    put(&server, "chat", &with(only("layers"), "shadow", json!("all-linear"))).await;
    put(&server, "same", &with(only("layers"), "shadow", json!("llama"))).await;
    for (alias, result) in [("chat", "different"), ("same", "different")] {
        let answer =
            server.post("/v1/completions", &with(chat.clone(), "model", json!(alias))).await;
        assert_eq!(answer.ok()["choices"], alone["choices"]);
        assert_eq!(
            answer.ok()["usage"],
            with(
                alone["usage"].clone(),
                "prompt_tokens_details",
                answer.ok()["usage"]["prompt_tokens_details"].clone()
            )
        );
        let labels = [("alias", alias), ("result", result)];
        reaches(&server, "lorad_shadow_compared_total", &labels, 1.0).await;
        for (name, label) in [
            ("lorad_shadow_requests_total", ("outcome", "done")),
            ("lorad_shadow_first_token_seconds_count", ("of", "shadow")),
            ("lorad_shadow_first_token_seconds_count", ("of", "answer")),
        ] {
            reaches(&server, name, &[("alias", alias), label], 1.0).await;
        }
    }
    // The same content says the same.
    let files = adapter_files("llama", "layers");
    let [(_, config), (_, weights)] = files.named()[..] else { unreachable!("PEFT's form") };
    let part = |bytes: &[u8]| Part::bytes(bytes.to_vec());
    let form = Form::new().part("config", part(config)).part("weights", part(weights));
    publish(&server, "copy", form).await;
    put(&server, "same", &with(only("layers"), "shadow", json!("copy"))).await;
    let stream = with(body("same", json!({})), "stream", json!(true));
    assert_eq!(
        server.post("/v1/completions", &stream).await.events().last().expect("events"),
        "[DONE]"
    );
    reaches(&server, "lorad_shadow_compared_total", &[("alias", "same"), ("result", "same")], 1.0)
        .await;
}

#[tokio::test]
async fn a_shadow_that_fails_fails_nobody() {
    let server = server();
    publish(&server, "huge", exploding()).await.json();
    put(&server, "chat", &with(only("layers"), "shadow", json!("huge"))).await;
    let expected = text(&ask(&server, "layers", json!({})).await);
    for _ in 0..3 {
        assert_eq!(text(&ask(&server, "chat", json!({})).await), expected);
    }
    reaches(&server, "lorad_shadow_requests_total", &[("outcome", "failed")], 1.0).await;
    assert_eq!(metric(&server, "lorad_alias_errors_total", &[("alias", "chat")]).await, 0.0);
}

#[tokio::test]
async fn a_flip_under_load_fails_no_request_and_one_call_takes_it_back() {
    let server = server();
    let possible = both(&server).await;
    put(&server, "chat", &only("layers")).await;
    let flips = async {
        for round in 0..12 {
            let target = ["all-linear", "layers"][round % 2];
            assert_eq!(put(&server, "chat", &only(target)).await.ok()["outcome"], "replaced");
        }
    };
    let load = join_all((0..6).map(async |_| {
        for _ in 0..12 {
            let said = text(&ask(&server, "chat", json!({})).await);
            assert!(possible.contains(&said), "neither target says {said}");
        }
    }));
    tokio::join!(flips, load);
    assert_eq!(text(&ask(&server, "chat", json!({})).await), possible[0], "the last flip won");
    let back = server.post("/admin/aliases/chat/rollback", &json!({})).await.ok();
    assert_eq!(back["outcome"], "rolled_back");
    assert_eq!(text(&ask(&server, "chat", json!({})).await), possible[1], "at once");
}

#[tokio::test]
async fn a_guard_takes_back_a_canary_whose_answers_are_not_finite() {
    let server = server();
    publish(&server, "huge", exploding()).await.json();
    let expected = text(&ask(&server, "layers", json!({})).await);
    put(&server, "chat", &only("layers")).await;
    let guard = json!({"max_non_finite": 0, "max_error_rate": 0.5});
    let form = with(split(("layers", 1), ("huge", 1)), "guard", guard);
    assert_eq!(put(&server, "chat", &form).await.ok()["outcome"], "replaced");
    let mut failed = 0;
    for _ in 0..60 {
        let answer = ask(&server, "chat", json!({})).await;
        if answer.status == StatusCode::OK {
            assert_eq!(text(&answer), expected);
            continue;
        }
        assert_eq!(answer.error(500)["reason"], "non_finite_output");
        failed += 1;
    }
    assert_eq!(failed, 1, "the first one is the last one");
    reaches(&server, "lorad_alias_changes_total", &[("action", "flipped_back")], 1.0).await;
    let entry = server.get("/admin/aliases/chat").await.ok();
    assert_eq!(entry["targets"], json!([{"model": "layers", "weight": 1}]));
    assert_eq!((&entry["action"], &entry["changed_by"]), (&json!("flipped_back"), &json!("guard")));
    let reason = entry["reason"].as_str().expect("a reason");
    assert!(reason.contains("`huge`") && reason.contains("not finite"), "{reason}");
    let labels = [("alias", "chat"), ("target", "huge"), ("reason", "non_finite")];
    assert_eq!(metric(&server, "lorad_alias_errors_total", &labels).await, 1.0);
    assert_eq!(entry["previous"]["targets"], form["targets"]);
    let events = server.get("/admin/events?name=chat").await.ok();
    let last = &events["events"][0];
    assert_eq!((&last["actor"], &last["action"]), (&json!("guard"), &json!("alias_flipped_back")));
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let server = server();
    let one = |target: Value| json!({"targets": [{"model": "layers", "weight": 1}, target]});
    for (form, status, param, reason) in [
        (json!({}), 400, "body", "malformed_body"),
        (json!({"targets": []}), 400, "targets", "invalid_alias"),
        (json!({"targets": {}}), 400, "targets", "malformed_body"),
        (
            one(json!({"model": "nope", "weight": 1})),
            400,
            "targets[1].model",
            "alias_target_unknown",
        ),
        (one(json!({"model": "llama", "weight": "1"})), 400, "targets[1].weight", "malformed_body"),
        (one(json!({"model": "llama"})), 400, "targets[1].weight", "invalid_alias"),
        (with(only("layers"), "shadow", json!("nope")), 400, "shadow", "alias_target_unknown"),
        (
            with(only("layers"), "sticky", json!({"cookie": "a"})),
            400,
            "sticky.cookie",
            "malformed_body",
        ),
        (with(only("layers"), "stiky", json!({})), 400, "stiky", "malformed_body"),
        (
            with(only("layers"), "guard", json!({"max_errors": 1})),
            400,
            "guard.max_errors",
            "malformed_body",
        ),
        (with(only("layers"), "guard", json!({})), 400, "guard", "invalid_alias"),
    ] {
        let error = put(&server, "chat", &form).await.error(status);
        let told = error["message"].as_str().expect("text");
        assert!(
            told.contains(param.split('[').next().expect("text")) || param == "body",
            "{error}"
        );
        assert_eq!((&error["param"], &error["reason"]), (&json!(param), &json!(reason)), "{form}");
    }
    for (alias, status) in [("a%20b", 400), ("..%2Fa", 400), ("llama", 409), ("layers", 409)] {
        put(&server, alias, &only("layers")).await.error(status);
    }
    for (method, path) in [
        ("GET", "/admin/aliases/chat"),
        ("DELETE", "/admin/aliases/chat"),
        ("POST", "/admin/aliases/chat/rollback"),
    ] {
        let error = Answer::of(server.request(method, path)).await.error(404);
        assert_eq!(error["reason"], "alias_not_found");
    }
    assert_eq!(server.get("/admin/aliases").await.ok(), json!({"aliases": []}));
}

#[tokio::test]
async fn conditions_guard_against_overwriting_what_one_has_not_seen() {
    let server = server();
    let change = async |method: &str, condition: (&str, &str), form: Option<Value>| {
        let request =
            server.request(method, "/admin/aliases/chat").header(condition.0, condition.1);
        let request = if let Some(form) = form { request.json(&form) } else { request };
        Answer::of(request).await
    };
    let none = ("if-none-match", "*");
    let first = change("PUT", none, Some(only("layers"))).await;
    assert_eq!(first.status, StatusCode::CREATED);
    change("PUT", none, Some(only("all-linear"))).await.error(412);
    let etag = first.headers["etag"].to_str().expect("text").to_owned();
    let replaced = change("PUT", ("if-match", &etag), Some(only("all-linear"))).await;
    assert_eq!(replaced.ok()["outcome"], "replaced");
    let lost = change("PUT", ("if-match", &etag), Some(only("layers"))).await.error(412);
    let current = replaced.ok()["revision"].as_str().expect("a revision").to_owned();
    assert!(lost["message"].as_str().expect("text").contains(&current));
    change("DELETE", ("if-match", &etag), None).await.error(412);
    change("PUT", ("if-match", "\"nonsense\""), Some(only("layers"))).await.error(400);
    let again =
        change("PUT", ("if-match", &format!("\"{current}\"")), Some(only("all-linear"))).await;
    assert_eq!(again.ok()["outcome"], "unchanged");
    let entry = server.get("/admin/aliases/chat").await;
    assert_eq!(entry.headers["etag"], again.headers["etag"]);
    let gone = change("DELETE", ("if-match", &format!("\"{current}\"")), None).await.ok();
    assert_eq!(gone["outcome"], "deleted");
    ask(&server, "chat", json!({})).await.error(404);
}

#[tokio::test]
async fn an_alias_is_listed_among_the_models() {
    let server = server();
    put(&server, "chat", &split(("all-linear", 1), ("layers", 9))).await;
    let models = server.get("/v1/models").await.ok();
    let cards = models["data"].as_array().expect("a list");
    let card = cards.iter().find(|card| card["id"] == "chat").expect("the alias");
    assert_eq!((&card["root"], &card["parent"]), (&json!("all-linear"), &json!("llama")));
    assert_eq!(&server.get("/v1/models/chat").await.ok(), card);
}

#[tokio::test]
async fn names_are_kept_apart_and_targets_are_kept() {
    let server = server();
    let possible = both(&server).await;
    put(&server, "chat", &split(("layers", 1), ("all-linear", 1))).await;
    let files = adapter_files("llama", "layers");
    let [(_, config), (_, weights)] = files.named()[..] else { unreachable!("PEFT's form") };
    let part = |bytes: &[u8]| Part::bytes(bytes.to_vec());
    let form = Form::new().part("config", part(config)).part("weights", part(weights));
    let refused = publish(&server, "chat", form).await;
    assert!(refused.status.is_client_error(), "{}", refused.text);
    assert!(refused.text.contains("alias"), "{}", refused.text);

    let retire = async |query: &str| {
        Answer::of(server.request("DELETE", &format!("/admin/adapters/layers{query}"))).await
    };
    let refused = retire("").await.error(409);
    assert!(refused["message"].as_str().expect("text").contains("`chat`"), "{refused}");
    assert_eq!(retire("?force=maybe").await.error(400)["param"], "query");
    retire("?force=true").await.ok();
    for _ in 0..12 {
        assert_eq!(text(&ask(&server, "chat", json!({})).await), possible[1]);
    }
    let last = server.request("DELETE", "/admin/adapters/all-linear?force=true");
    Answer::of(last).await.ok();
    let error = ask(&server, "chat", json!({})).await.error(404);
    assert_eq!(
        (&error["param"], &error["reason"]),
        (&json!("model"), &json!("alias_target_not_found"))
    );
    let told = error["message"].as_str().expect("text");
    assert!(told.contains("`chat`") && told.contains('`'), "{told}");
}

#[tokio::test]
async fn others_private_adapters_are_no_targets_of_theirs() {
    let server = server();
    let possible = both(&server).await;
    put(&server, "chat", &split(("layers", 1), ("all-linear", 1))).await;
    put(&server, "secret", &only("layers")).await;
    let terms = json!({"terms": {"keys": ["07".repeat(32)]}});
    let private = server.request("PATCH", "/admin/adapters/layers").json(&terms);
    Answer::of(private).await.ok();
    for _ in 0..12 {
        assert_eq!(text(&ask(&server, "chat", json!({})).await), possible[1]);
    }
    let error = ask(&server, "secret", json!({})).await.error(404);
    assert_eq!(error["reason"], "model_not_found");
    let listed = async |name: &str| {
        let body = json!({"prompt": "a", "adapters": [name]});
        server.post("/v1/completions", &body).await.error(404).to_string()
    };
    assert_eq!(listed("secret").await, listed("nobody").await.replace("nobody", "secret"));
    let models = server.get("/v1/models").await.ok();
    let mut ids = models["data"].as_array().expect("a list").iter().map(|card| &card["id"]);
    assert!(ids.clone().any(|id| id == "chat") && !ids.any(|id| id == "secret"));
    server.get("/v1/models/secret").await.error(404);
}

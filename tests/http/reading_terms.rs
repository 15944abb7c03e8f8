//! What a model that reads can be asked for, by whom and how often.
use crate::client::{Answer, Server};
use serde_json::{Value, json};

#[tokio::test]
async fn a_model_says_what_it_is_for() {
    let server = Server::golden("bert_seqcls");
    let info = server.get("/info").await.ok();
    assert_eq!(info["model_type"]["classifier"]["id2label"]["1"], "newsworthy");
    assert_eq!(info["model_type"]["classifier"]["label2id"]["very newsworthy"], 2);
    assert_eq!(
        (&info["model_pipeline_tag"], &info["auto_truncate"]),
        (&json!("text-classification"), &json!(false))
    );
    assert_eq!(info["max_input_length"], 160);
    let tasks = async |name: &str| {
        let card = server.get(&format!("/v1/models/{name}")).await.ok();
        (card["tasks"].clone(), card["labels"].clone())
    };
    let names = json!(["not newsworthy", "newsworthy", "very newsworthy"]);
    assert_eq!(tasks("bert_seqcls").await, (json!(["embed", "classify"]), names));
    assert_eq!(tasks("two-labels").await, (json!(["embed", "classify"]), json!(["no", "yes"])));
    assert_eq!(tasks("token-labels").await.0, json!(["embed", "token_classify"]));
    let server = Server::golden("bert_embed");
    let info = server.get("/info").await.ok();
    assert_eq!(info["model_type"], json!({"embedding": {"pooling": "mean"}}));
}

#[tokio::test]
async fn what_a_model_is_not_for_is_refused_by_name() {
    let server = Server::golden("bert_embed");
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "a", "max_tokens": 1})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "a"}]})),
    ] {
        let error = server.post(path, &body).await.error(400);
        assert_eq!(
            (&error["reason"], &error["param"]),
            (&json!("model_does_not_generate"), &json!("model"))
        );
    }
    let classify = async |adapter: Value| {
        server.post("/classify", &json!({"input": "a", "model": adapter})).await
    };
    assert_eq!(classify(Value::Null).await.error(400)["reason"], "no_classification_head");
    assert_eq!(classify(json!("query-value")).await.error(400)["reason"], "no_classification_head");
    assert!(classify(json!("labels")).await.ok()["data"][0]["label"].is_string());
    let tei = server.post("/predict", &json!({"inputs": "a"})).await;
    assert_eq!((tei.status.as_u16(), &tei.json()["error_type"]), (424, &json!("Backend")));

    let server = Server::golden("llama");
    let error = server.post("/v1/embeddings", &json!({"input": "a"})).await.error(400);
    assert_eq!(error["reason"], "model_does_not_embed");
}

#[tokio::test]
async fn a_long_text_is_refused_by_its_place_or_cut() {
    let server = Server::golden("bert_seqcls");
    let long = "rain ".repeat(400);
    let body = |more: Value| {
        let mut body = json!({"input": ["Rain.", long]});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
        body
    };
    let error = server.post("/classify", &body(json!({}))).await.error(400);
    assert_eq!(
        (&error["reason"], &error["param"]),
        (&json!("context_length_exceeded"), &json!("input[1]"))
    );
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("maximum context length is 160"))
    );
    let cut =
        server.post("/v1/embeddings", &body(json!({"truncate_prompt_tokens": -1}))).await.ok();
    assert!(cut["usage"]["prompt_tokens"].as_u64().is_some_and(|tokens| tokens > 160));
    let short = json!({"input": long, "truncate_prompt_tokens": 7, "truncation_side": "left"});
    assert_eq!(server.post("/classify", &short).await.ok()["usage"]["prompt_tokens"], 7);
    let tei = json!({"inputs": long});
    let refused = server.post("/embed", &tei).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error_type"]),
        (422, &json!("Validation"))
    );
    let tei = json!({"inputs": long, "truncate": true, "truncation_direction": "left"});
    assert_eq!(server.post("/embed", &tei).await.headers["x-compute-tokens"], "160");
}

#[tokio::test]
async fn a_thousand_texts_are_one_request() {
    let server = Server::golden("bert_embed");
    let texts: Vec<_> = (0..1000).map(|at| format!("rain {at}")).collect();
    let answer = server.post("/v1/embeddings", &json!({"input": texts})).await.ok();
    let data = answer["data"].as_array().expect("a list");
    assert_eq!(data.len(), 1000);
    let alone = server.post("/v1/embeddings", &json!({"input": "rain 731"})).await.ok();
    assert_eq!(data[731]["embedding"], alone["data"][0]["embedding"], "alone as in company");
}

#[tokio::test]
async fn aliases_limits_and_private_adapters_hold_for_reading_too() {
    let flags = ["--api-key", "known", "--admin-key", "admin"];
    let server = Server::golden_with("bert_seqcls", &flags);
    let ask = async |method: &str, path: &str, key: &str, body: Value| {
        Answer::of(server.request(method, path).bearer_auth(key).json(&body)).await
    };
    let classify = async |key: &str, model: &str| {
        ask("POST", "/classify", key, json!({"model": model, "input": "Rain."})).await
    };
    classify("nobody", "two-labels").await.error(401);

    let alias = json!({"targets": [{"model": "two-labels"}], "shadow": "five-labels"});
    assert!(ask("PUT", "/admin/aliases/desk", "admin", alias).await.status.is_success());
    let answer = classify("known", "desk").await;
    let served = answer.headers["x-lorad-adapter"].to_str().expect("text").to_owned();
    assert!(served.starts_with("two-labels@"), "{served}");
    assert_eq!(
        (&answer.ok()["model"], &answer.ok()["data"][0]["num_classes"]),
        (&json!("desk"), &json!(2))
    );
    let metrics = server.get("/metrics").await.text;
    let counted =
        |line: &&str| line.starts_with("lorad_alias_requests_total") && line.contains("two-labels");
    assert!(metrics.lines().find(counted).is_some_and(|line| line.ends_with(" 1")), "{metrics}");

    let terms = json!({"terms": {"requests_per_minute": 1}});
    let patched = ask("PATCH", "/admin/adapters/norms", "admin", terms).await;
    assert!(patched.status.is_success(), "{}", patched.text);
    classify("known", "norms").await.ok();
    let refused = classify("known", "norms").await;
    assert_eq!(refused.error(429)["reason"], "adapter_rate_limited");
    let tei = json!({"inputs": "Rain.", "adapter_id": "norms"});
    let tei = ask("POST", "/predict", "known", tei).await;
    assert_eq!((tei.status.as_u16(), &tei.json()["error_type"]), (429, &json!("Overloaded")));

    let private = json!({"terms": {"keys": ["ab".repeat(32)]}});
    let patched = ask("PATCH", "/admin/adapters/dora", "admin", private).await;
    assert!(patched.status.is_success(), "{}", patched.text);
    classify("known", "dora").await.error(404);
    classify("admin", "dora").await.ok();
}

#[tokio::test]
async fn a_base_that_generates_classifies_beside_it() {
    let server = Server::golden("llama_tied");
    let card = server.get("/v1/models/labels").await.ok();
    assert_eq!(card["tasks"], json!(["classify"]), "{card}");
    let said = json!({"prompt": "one two", "max_tokens": 8, "temperature": 0, "ignore_eos": true});
    let classified = json!({"model": "labels", "input": ["one two", "three"]});
    let alone = (
        server.post("/v1/completions", &said).await.ok()["choices"].clone(),
        server.post("/classify", &classified).await.ok()["data"].clone(),
    );
    assert_eq!(
        alone.1[0]["probs"].as_array().map(Vec::len),
        card["labels"].as_array().map(Vec::len)
    );
    let both = (0..8).map(async |_| {
        tokio::join!(server.post("/v1/completions", &said), server.post("/classify", &classified))
    });
    for (said, classified) in futures_util::future::join_all(both).await {
        assert_eq!((&said.ok()["choices"], &classified.ok()["data"]), (&alone.0, &alone.1));
    }
    let error =
        server.post("/v1/completions", &json!({"prompt": "a", "model": "labels"})).await.error(400);
    assert_eq!(error["reason"], "adapter_does_not_generate");
}

#[tokio::test]
async fn a_shadow_reads_the_same_and_its_decisions_are_compared() {
    let server = Server::golden("bert_seqcls");
    for (alias, target, shadow) in
        [("same", "norms", "norms"), ("other", "two-labels", "five-labels")]
    {
        // A version by its content is another target than the name.
        let card = server.get(&format!("/v1/models/{shadow}")).await.ok();
        let form = json!({"targets": [{"model": target}], "shadow": card["root"]});
        let put = server.request("PUT", &format!("/admin/aliases/{alias}")).json(&form);
        assert!(Answer::of(put).await.status.is_success());
    }
    for (alias, result) in [("same", "same"), ("other", "different")] {
        let body = json!({"model": alias, "input": ["Rain.", "Snow."]});
        server.post("/classify", &body).await.ok();
        let is_told = |line: &str| {
            line.starts_with("lorad_shadow_compared_total")
                && line.contains(&format!("alias=\"{alias}\""))
                && line.contains(&format!("result=\"{result}\""))
        };
        let mut tries = 0;
        while !server.get("/metrics").await.text.lines().any(is_told) {
            assert!(tries < 600, "{alias} is never compared");
            tries += 1;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

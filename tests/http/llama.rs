//! llama.cpp's default scales: what requests get that name no adapter.
use crate::client::Server;
use reqwest::StatusCode;
use serde_json::{Value, json};

async fn listed(server: &Server) -> Vec<Value> {
    server.get("/lora-adapters").await.ok().as_array().expect("a list").clone()
}

async fn number(server: &Server, name: &str) -> u64 {
    let listed = listed(server).await;
    let entry = listed.iter().find(|entry| entry["path"] == name).expect("the adapter");
    entry["id"].as_u64().expect("a number")
}

async fn says(server: &Server, fields: Value) -> (Value, Value) {
    let mut body = json!({"prompt": [5, 6, 7], "max_tokens": 6, "temperature": 0, "logprobs": 0});
    body.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
    let answer = server.post("/v1/completions", &body).await.ok();
    let choice = &answer["choices"][0];
    (choice["text"].clone(), choice["logprobs"]["token_logprobs"].clone())
}

#[tokio::test]
async fn scales_are_the_mix_of_requests_that_name_nothing_and_of_no_others() {
    let server = Server::golden("llama");
    let (one, two) = (number(&server, "layers").await, number(&server, "all-linear").await);
    let base = says(&server, json!({})).await;
    let alone = says(&server, json!({"model": "all-linear"})).await;
    // Sums have an order.
    let mut mix = [(one, 0.5), (two, 2.0)];
    mix.sort_by_key(|(id, _)| *id);
    let mix = mix.map(|(id, scale)| json!({"id": id, "scale": scale}));
    let mixed = says(&server, json!({"lora": mix})).await;
    assert_ne!(base, mixed);

    // As llama.cpp's page does it: the list that it was given, with other scales.
    let mut all = listed(&server).await;
    for entry in &mut all {
        let id = entry["id"].as_u64();
        entry["scale"] = json!(if id == Some(one) {
            0.5
        } else if id == Some(two) {
            2.0
        } else {
            0.0
        });
    }
    let set = server.post("/lora-adapters", &all.clone().into()).await;
    assert_eq!((set.status, set.json()), (StatusCode::OK, json!({"success": true})));
    assert_eq!(listed(&server).await, all);

    assert_eq!(says(&server, json!({})).await, mixed);
    assert_eq!(says(&server, json!({"model": "all-linear"})).await, alone);
    assert_eq!(says(&server, json!({"lora": []})).await, base);
    let named = says(&server, json!({"adapters": ["all-linear"]})).await;
    assert_eq!(named, alone);

    // What is left out has no scale.
    server.post("/lora-adapters", &json!([{"id": two, "scale": 1}])).await.ok();
    assert_eq!(says(&server, json!({})).await, alone);
    server.request("DELETE", "/admin/adapters/all-linear").send().await.expect("an answer");
    assert_eq!(says(&server, json!({})).await, base);
    server.post("/lora-adapters", &json!([])).await.ok();
    assert!(listed(&server).await.iter().all(|entry| entry["scale"] == 0.0));
}

#[tokio::test]
async fn wrong_scales_change_nothing() {
    let server = Server::golden("llama");
    let one = number(&server, "layers").await;
    server.post("/lora-adapters", &json!([{"id": one, "scale": 0.25}])).await.ok();
    let before = listed(&server).await;
    for (body, status) in [
        (json!({"id": one, "scale": 1}), 400),
        (json!([{"id": one, "scale": 1}, {"id": 777, "scale": 1}]), 404),
        (json!([{"id": one, "scale": "1"}]), 400),
    ] {
        server.post("/lora-adapters", &body).await.error(status);
    }
    let form = server.request("POST", "/lora-adapters").body("[]").send().await.expect("an answer");
    assert_eq!(form.status(), StatusCode::BAD_REQUEST);
    assert_eq!(listed(&server).await, before);
}

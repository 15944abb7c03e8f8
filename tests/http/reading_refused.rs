//! What is wrong with a request to read is told by its path, in the form of whoever sent it.
use crate::client::{Script, Server, scripted};
use lorad::http::HttpConfig;
use serde_json::{Value, json};

fn server() -> Server {
    Server::start(scripted(Script::Echo, HttpConfig { max_texts: 3, ..HttpConfig::default() }))
}

#[tokio::test]
async fn openai_s_and_vllm_s_bodies_are_refused_by_the_path_of_what_is_wrong() {
    let server = server();
    for (path, body, status, param) in [
        ("/v1/embeddings", json!({}), 400, "input"),
        ("/v1/embeddings", json!({"input": ""}), 400, "input"),
        ("/v1/embeddings", json!({"input": []}), 400, "input"),
        ("/v1/embeddings", json!({"input": ["a", ""]}), 400, "input[1]"),
        ("/v1/embeddings", json!({"input": [[1], [-1]]}), 400, "input[1][0]"),
        ("/v1/embeddings", json!({"input": {"a": 1}}), 400, "input"),
        ("/v1/embeddings", json!({"input": ["a", "b", "c", "d"]}), 400, "input"),
        (
            "/v1/embeddings",
            json!({"input": "a", "encoding_format": "int8"}),
            400,
            "encoding_format",
        ),
        ("/v1/embeddings", json!({"input": "a", "dimensions": "all"}), 400, "dimensions"),
        ("/v1/embeddings", json!({"input": "a", "model": "nope"}), 404, "model"),
        ("/v1/embeddings", json!({"input": "a", "adapter_id": "nope"}), 404, "adapter_id"),
        ("/v1/embeddings", json!({"input": "a", "adapter_id": 1}), 400, "adapter_id"),
        (
            "/v1/embeddings",
            json!({"input": "a", "model": "a", "adapter_id": "b"}),
            400,
            "adapter_id",
        ),
        ("/v1/embeddings", json!({"messages": []}), 501, "messages"),
        ("/v1/embeddings", json!({"input": "a", "embed_dtype": "float16"}), 501, "embed_dtype"),
        ("/v1/embeddings", json!({"input": "a", "priority": -1}), 501, "priority"),
        (
            "/v1/embeddings",
            json!({"input": "a", "truncate_prompt_tokens": 0}),
            400,
            "truncate_prompt_tokens",
        ),
        ("/v1/embeddings", json!({"input": "a", "truncation_side": "up"}), 400, "truncation_side"),
        ("/classify", json!({}), 400, "input"),
        ("/classify", json!({"input": [1.5]}), 400, "input[0]"),
        ("/score", json!({"text_1": "a"}), 400, "text_2"),
        ("/v1/score", json!({"queries": ["a", "b"], "documents": ["c"]}), 400, "documents"),
        ("/score", json!({"text_1": "a", "text_2": [{"image": "b"}]}), 400, "text_2[0]"),
        ("/rerank", json!({"documents": ["a"]}), 400, "query"),
        ("/rerank", json!({"query": "a"}), 400, "documents"),
        ("/v1/rerank", json!({"query": "a", "documents": []}), 400, "documents"),
        (
            "/v2/rerank",
            json!({"query": "a", "documents": ["b"], "max_tokens_per_doc": 9}),
            501,
            "max_tokens_per_doc",
        ),
        ("/rerank", json!({"query": "a", "documents": ["b"], "top_n": -1}), 400, "top_n"),
    ] {
        let answer = server.post(path, &body).await;
        let error = answer.error(status);
        assert_eq!(error["param"], param, "{path} {body}: {error}");
    }
}

#[tokio::test]
async fn tei_s_bodies_are_refused_in_its_form() {
    let server = server();
    for (path, body, status, kind, says) in [
        ("/embed", json!({}), 422, "Validation", "`inputs` is missing"),
        ("/embed", json!({"inputs": []}), 400, "Empty", "`inputs` cannot be empty"),
        ("/embed", json!({"inputs": ["a", "b", "c", "d"]}), 422, "Validation", "limit of 3"),
        (
            "/embed",
            json!({"inputs": "a", "truncation_direction": "Up"}),
            422,
            "Validation",
            "truncation_direction",
        ),
        ("/embed", json!({"inputs": "a", "model": "nope"}), 404, "Validation", "`nope`"),
        ("/embed_all", json!({"inputs": [[]]}), 400, "Empty", "`inputs[0]`"),
        (
            "/embed_all",
            json!({"inputs": "a", "prompt_name": "query"}),
            422,
            "Validation",
            "prompt_name",
        ),
        ("/embed_sparse", json!({"inputs": "a"}), 422, "Validation", "/embed"),
        ("/predict", json!({"inputs": ["a", "b", "c"]}), 422, "Validation", "pair"),
        ("/predict", json!({"inputs": [["a"], []]}), 422, "Validation", "`inputs[1]`"),
        ("/predict", json!({"inputs": "a", "raw_scores": 1}), 422, "Validation", "raw_scores"),
        ("/rerank", json!({"query": "a", "texts": []}), 400, "Empty", "`texts`"),
        ("/rerank", json!({"texts": ["a"]}), 422, "Validation", "query"),
        (
            "/similarity",
            json!({"inputs": {"source_sentence": "a", "sentences": []}}),
            400,
            "Empty",
            "sentences",
        ),
        ("/similarity", json!({"inputs": {"source_sentence": "a"}}), 422, "Validation", "inputs"),
        (
            "/similarity",
            json!({"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {"truncate": 1}}),
            422,
            "Validation",
            "parameters.truncate",
        ),
    ] {
        let answer = server.post(path, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {}", answer.text);
        let error = answer.json();
        assert_eq!(error["error_type"], kind, "{path} {body}");
        assert!(error["error"].as_str().is_some_and(|text| text.contains(says)), "{error}");
        assert_eq!(error.as_object().map(serde_json::Map::len), Some(2), "nothing else");
    }
}

#[tokio::test]
async fn a_body_decides_whose_form_an_error_has() {
    let server = server();
    let lorax = |error: &Value| error["error_type"] == "validation";
    let tei = |error: &Value| error["error_type"] == "Empty" || error["error_type"] == "Validation";
    let openai = |error: &Value| error["error"]["code"].is_number();
    for (path, body, is_so) in [
        ("/embed", json!({"inputs": "", "parameters": null}), &lorax as &dyn Fn(&Value) -> bool),
        ("/embed", json!({"inputs": "", "stream": false}), &lorax),
        ("/embed", json!({"inputs": ""}), &tei),
        ("/classify", json!({"inputs": ""}), &lorax),
        ("/classify", json!({"inputs": ["a"]}), &lorax),
        ("/classify", json!({"input": ""}), &openai),
        ("/classify_batch", json!({"inputs": "a"}), &lorax),
        ("/rerank", json!({"query": "a", "texts": []}), &tei),
        ("/rerank", json!({"query": "a", "documents": []}), &openai),
    ] {
        let answer = server.post(path, &body).await;
        assert!(answer.status.is_client_error(), "{path} {body}: {}", answer.text);
        assert!(is_so(&answer.json()), "{path} {body}: {}", answer.text);
    }
}

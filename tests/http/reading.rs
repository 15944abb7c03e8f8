//! Texts that are read, in every dialect's shape, against transformers' and PEFT's numbers.
use crate::client::{Answer, Server, directory};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::fs;

/// A line of a base's `golden.json` for a lone text, and its numbers.
struct Golden {
    text: String,
    tokens: usize,
    labels: Vec<String>,
    numbers: Vec<f32>,
}

/// What `adapter` makes of the first text that there is of this kind; `tensor` names the numbers.
fn golden(base: &str, adapter: Option<&str>, (kind, tensor): (&str, &str)) -> Golden {
    let text = fs::read(directory(base).join("golden.json")).expect("golden.json");
    let lines: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    let fits = |line: &&Value| {
        line["adapter"].as_str() == adapter && line["kind"] == kind && line["pair"].is_null()
    };
    let line = lines.iter().find(fits).expect("a line");
    let file = directory(base).join(line["file"].as_str().expect("a file"));
    let bytes = fs::read(file).expect("tensors");
    let tensors = SafeTensors::deserialize(&bytes).expect("tensors");
    let tensor = tensors.tensor(line[tensor].as_str().expect("a name")).expect("numbers");
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    Golden {
        text: line["text"].as_str().expect("a text").to_owned(),
        tokens: line["ids"].as_array().expect("ids").len(),
        labels: serde_json::from_value(line["labels"].clone()).unwrap_or_default(),
        numbers: tensor.data().chunks(4).map(number).collect(),
    }
}

fn numbers(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).expect("numbers")
}

fn assert_near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-3, "{found} is not {expected}");
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

const EMBEDDING: (&str, &str) = ("embedding", "embedding");
const LABELS: (&str, &str) = ("sequence", "probabilities");

#[tokio::test]
async fn embeddings_are_openai_s_as_numbers_and_as_base64() {
    let server = Server::golden("bert_embed");
    let expected = golden("bert_embed", None, EMBEDDING);
    let body = json!({"model": "bert_embed", "input": [expected.text, "Rain, again."]});
    let answer = server.post("/v1/embeddings", &body).await.ok();
    assert_eq!(keys(&answer), ["id", "object", "created", "model", "data", "usage"]);
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("bert_embed")));
    assert_eq!(keys(&answer["data"][1]), ["index", "object", "embedding"]);
    assert_eq!(answer["data"][1]["index"], 1);
    assert_eq!(answer["data"][1]["object"], "embedding");
    assert_near(&numbers(&answer["data"][0]["embedding"]), &expected.numbers);
    let usage = &answer["usage"];
    assert_eq!(usage["prompt_tokens"], usage["total_tokens"]);

    let mut body = json!({"input": expected.text, "encoding_format": "base64"});
    let alone = server.post("/v1/embeddings", &body).await.ok();
    assert_eq!(alone["usage"]["prompt_tokens"], expected.tokens);
    let text = alone["data"][0]["embedding"].as_str().expect("base64").to_owned();
    assert_eq!(text.len(), (expected.numbers.len() * 4).div_ceil(3) * 4);
    body["encoding_format"] = "float".into();
    let floats = server.post("/v1/embeddings", &body).await.ok();
    let first = numbers(&floats["data"][0]["embedding"])[0].to_le_bytes();
    assert_eq!(decoded(&text)[..4], first, "the same numbers");

    let ids = json!({"input": [[2, 77, 275, 30, 49, 3]], "add_special_tokens": false});
    assert_eq!(server.post("/v1/embeddings", &ids).await.ok()["usage"]["prompt_tokens"], 6);
}

/// The bytes of base64.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let group = |group: &[u8]| {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 6 | u32::from(digit(*byte)));
        bits.to_be_bytes()[1..].to_vec()
    };
    text.as_bytes().chunks(4).flat_map(group).collect()
}

#[tokio::test]
async fn an_adapter_is_named_by_model_id_or_header() {
    let server = Server::golden("bert_embed");
    let expected = golden("bert_embed", Some("query-value"), EMBEDDING);
    let ask = async |fields: Value, header: Option<&str>| {
        let mut body = json!({"input": expected.text});
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("one").clone());
        let mut request = server.request("POST", "/v1/embeddings").json(&body);
        if let Some(name) = header {
            request = request.header("x-adapter-id", name);
        }
        Answer::of(request).await
    };
    for (fields, header) in [
        (json!({"model": "query-value"}), None),
        (json!({"adapter_id": "query-value"}), None),
        (json!({"model": "bert_embed", "adapter_id": "query-value"}), None),
        (json!({"adapters": ["query-value"]}), None),
        (json!({}), Some("query-value")),
        (json!({"model": "query-value"}), Some("query-value")),
        (json!({"model": "bert_embed"}), Some("query-value")),
    ] {
        let answer = ask(fields.clone(), header).await;
        assert_near(&numbers(&answer.ok()["data"][0]["embedding"]), &expected.numbers);
        let served = answer.headers["x-lorad-adapter"].to_str().expect("text");
        assert!(served.starts_with("query-value@"), "{fields}: {served}");
    }
    let both = ask(json!({"model": "query-value"}), Some("dora")).await;
    assert_eq!(both.error(400)["param"], "x-adapter-id");
    assert_eq!(ask(json!({}), Some("nope")).await.error(404)["param"], "x-adapter-id");
    let base = ask(json!({"adapter_id": "__base_model__"}), None).await;
    assert!(!base.headers.contains_key("x-lorad-adapter"));
}

#[tokio::test]
async fn adapters_with_heads_of_their_own_are_asked_at_the_same_time() {
    let server = Server::golden("bert_seqcls");
    let asked = [None, Some("query-value"), Some("two-labels"), Some("five-labels"), Some("norms")];
    let server = &server;
    let each = asked.map(|adapter| async move {
        let expected = golden("bert_seqcls", adapter, LABELS);
        let body = json!({"model": adapter, "input": [expected.text, "Somebody went home."]});
        (server.post("/classify", &body).await, expected)
    });
    for (answer, expected) in futures_util::future::join_all(each).await {
        let answer = answer.ok();
        assert_eq!(keys(&answer), ["id", "object", "created", "model", "data", "usage"]);
        let item = &answer["data"][0];
        assert_eq!(keys(item), ["index", "label", "probs", "num_classes"]);
        let probs = numbers(&item["probs"]);
        assert_near(&probs, &expected.numbers);
        assert_eq!(item["num_classes"], expected.labels.len());
        let best = (0..probs.len()).max_by(|a, b| probs[*a].total_cmp(&probs[*b]));
        assert_eq!(item["label"], expected.labels[best.expect("labels")]);
    }
    let raw = json!({"input": "Rain.", "use_activation": false});
    let raw = server.post("/classify", &raw).await.ok();
    let expected = golden("bert_seqcls", None, ("sequence", "scores"));
    assert_near(&numbers(&raw["data"][0]["probs"]), &expected.numbers);
}

#[tokio::test]
async fn predictions_are_bare_for_one_text_and_in_a_list_for_several() {
    let server = Server::golden("bert_seqcls");
    let expected = golden("bert_seqcls", None, LABELS);
    let one = server.post("/predict", &json!({"inputs": expected.text})).await;
    for name in ["x-compute-tokens", "x-compute-time", "x-queue-time", "x-inference-time"] {
        assert!(one.headers.contains_key(name), "{name}");
    }
    let one = one.ok();
    let list = one.as_array().expect("a list");
    assert!(list.iter().all(|item| keys(item) == ["score", "label"]));
    let mut sorted = expected.numbers.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    assert_near(
        &list.iter().map(|item| numbers(&json!([item["score"]]))[0]).collect::<Vec<_>>(),
        &sorted,
    );

    let batch = json!({"inputs": [[expected.text], ["Rain.", "Sun."]]});
    let batch = server.post("/predict", &batch).await.ok();
    assert_eq!((&batch[0], batch[1].as_array().map(Vec::len)), (&one, Some(3)));
    let pair = server.post("/predict", &json!({"inputs": ["Rain.", "Sun."]})).await.ok();
    assert_eq!(batch[1], pair);
    let five = json!({"inputs": "Rain.", "adapter_id": "five-labels"});
    assert_eq!(server.post("/predict", &five).await.ok().as_array().map(Vec::len), Some(5));
}

#[tokio::test]
async fn tei_s_embeddings_are_bare_lists_and_lorax_s_an_object() {
    let server = Server::golden("bert_embed");
    let expected = golden("bert_embed", None, EMBEDDING);
    let tei = server.post("/embed", &json!({"inputs": expected.text})).await.ok();
    assert_eq!(tei.as_array().map(Vec::len), Some(1));
    assert_near(&numbers(&tei[0]), &expected.numbers);
    let two = server.post("/embed", &json!({"inputs": [expected.text, "Sun."]})).await.ok();
    assert_eq!(two.as_array().map(Vec::len), Some(2));
    let long = server.post("/embed", &json!({"inputs": "Sun.", "normalize": false})).await.ok();
    let length = numbers(&long[0]).iter().map(|number| number * number).sum::<f32>();
    assert!((length - 1.0).abs() > 1e-3, "{length}");
    let each = server.post("/embed_all", &json!({"inputs": expected.text})).await.ok();
    assert_eq!(each[0].as_array().map(Vec::len), Some(expected.tokens));

    let lorax =
        json!({"inputs": expected.text, "parameters": {"adapter_id": null}, "stream": false});
    let lorax = server.post("/embed", &lorax).await;
    assert_eq!(lorax.headers["x-prompt-tokens"], expected.tokens.to_string());
    assert_eq!(keys(&lorax.ok()), ["embeddings"]);
    assert_near(&numbers(&lorax.ok()["embeddings"]), &expected.numbers);
    let adapted = golden("bert_embed", Some("query-value"), EMBEDDING);
    let body = json!({"inputs": adapted.text, "parameters": {"adapter_id": "query-value"}});
    let answer = server.post("/embed", &body).await;
    assert_eq!(answer.headers["x-adapter-id"], "query-value");
    assert_near(&numbers(&answer.ok()["embeddings"]), &adapted.numbers);

    let compared =
        json!({"inputs": {"source_sentence": "Rain.", "sentences": ["Rain.", "Sun and snow."]}});
    let cosines = numbers(&server.post("/similarity", &compared).await.ok());
    assert!((cosines[0] - 1.0).abs() < 1e-5 && cosines[1] < 0.9999, "{cosines:?}");
}

#[tokio::test]
async fn documents_are_ranked_by_a_head_or_by_likeness() {
    let texts = ["It was closed early.", "Rain.", "They've written."];
    for base in ["cross_encoder", "bert_embed"] {
        let server = Server::golden(base);
        let body = json!({"query": "Who closed the bridge?", "documents": texts});
        let vllm = server.post("/rerank", &body).await.ok();
        assert_eq!(keys(&vllm), ["id", "model", "usage", "results"]);
        assert_eq!(keys(&vllm["results"][0]), ["index", "document", "relevance_score"]);
        let results = vllm["results"].as_array().expect("results");
        let order: Vec<_> = results.iter().map(|one| one["index"].as_u64().expect("one")).collect();
        let scores: Vec<_> = results.iter().map(|one| one["relevance_score"].as_f64()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
        let best = usize::try_from(order[0]).expect("a place");
        assert_eq!(results[0]["document"], json!({"text": texts[best]}));
        let top = json!({"query": "Who closed the bridge?", "documents": [{"text": texts[0]}, texts[1], texts[2]],
                         "top_n": 1, "return_documents": false});
        let top = server.post("/v2/rerank", &top).await.ok();
        assert_eq!(keys(&top["results"][0]), ["index", "relevance_score"]);
        assert_eq!(top["results"].as_array().map(Vec::len), Some(1));
        let tei = json!({"query": "Who closed the bridge?", "texts": texts, "return_text": true});
        let tei = server.post("/rerank", &tei).await.ok();
        assert_eq!(keys(&tei[0]), ["index", "text", "score"]);
        assert_eq!(
            (&tei[0]["index"], &tei[0]["score"]),
            (&json!(best), &results[0]["relevance_score"])
        );
        let score = json!({"text_1": "Who closed the bridge?", "text_2": texts});
        let score = server.post("/score", &score).await.ok();
        assert_eq!(keys(&score["data"][0]), ["index", "object", "score"]);
        assert_eq!(score["data"][best]["score"], results[0]["relevance_score"]);
    }
}

#[tokio::test]
async fn what_is_found_stands_where_it_is_in_the_text() {
    let server = Server::golden("bert_tokcls");
    let text = "Grüße aus Köln, von Anna und 40000 anderen.";
    let body = json!({"inputs": text, "parameters": {"adapter_id": "own-labels"}, "stream": false});
    let found = server.post("/classify", &body).await.ok();
    let entities = found.as_array().expect("a list");
    assert!(!entities.is_empty(), "nothing to look at");
    for entity in entities {
        assert_eq!(keys(entity), ["entity_group", "score", "word", "start", "end"]);
        let place =
            |end: &str| usize::try_from(entity[end].as_u64().expect("a place")).expect("it");
        let (start, end) = (place("start"), place("end"));
        let there: String = text.chars().skip(start).take(end - start).collect();
        assert_eq!(entity["word"], there);
        assert_eq!(entity["entity_group"], "ORG");
    }
    let batch = json!({"inputs": [text, "Rain."], "parameters": {"adapter_id": "own-labels"}});
    let batch = server.post("/classify_batch", &batch).await.ok();
    assert_eq!((&batch[0], batch.as_array().map(Vec::len)), (&found, Some(2)));
    let vllm = json!({"input": text, "model": "own-labels"});
    let vllm = server.post("/classify", &vllm).await.ok();
    assert_eq!((&vllm["data"][0]["entities"], &vllm["data"][0]["label"]), (&found, &Value::Null));
    let tei = server.post("/predict", &json!({"inputs": "Rain."})).await;
    assert_eq!((tei.status.as_u16(), &tei.json()["error_type"]), (424, &json!("Backend")));
}

#[tokio::test]
async fn a_classifier_of_texts_finds_the_text_itself() {
    let server = Server::golden("bert_seqcls");
    let found = server.post("/classify", &json!({"inputs": "Grüße."})).await.ok();
    let [entity] = &found.as_array().expect("a list")[..] else { panic!("{found}") };
    assert_eq!(
        (&entity["word"], &entity["start"], &entity["end"]),
        (&json!("Grüße."), &json!(0), &json!(6))
    );
    let same = server.post("/classify", &json!({"input": "Grüße."})).await.ok();
    assert_eq!(entity["entity_group"], same["data"][0]["label"]);
}

#[tokio::test]
async fn tokens_have_places_where_a_list_is_asked_for() {
    let server = Server::golden("bert_embed");
    let text = "Rain in Köln";
    let lists = server.post("/tokenize", &json!({"inputs": [text, "Rain"]})).await.ok();
    let first = lists[0].as_array().expect("tokens");
    assert_eq!(keys(&first[0]), ["id", "text", "special", "start", "stop"]);
    assert_eq!((&first[0]["special"], &first[0]["start"]), (&json!(true), &Value::Null));
    for token in first.iter().filter(|token| token["special"] == false) {
        let place = |end: &str| usize::try_from(token[end].as_u64().expect("a place")).expect("it");
        let (start, stop) = (place("start"), place("stop"));
        let there: String = text.chars().skip(start).take(stop - start).collect();
        assert_eq!(token["text"], there);
    }
    let ids: Vec<_> = first.iter().map(|token| token["id"].clone()).collect();
    let texts = server.post("/decode", &json!({"ids": [ids, ids]})).await.ok();
    let decoded = texts[1].as_str().expect("a text");
    assert!(decoded.contains("rain") && !decoded.contains('['), "{decoded}");
    let whole = json!({"ids": ids, "skip_special_tokens": false});
    let whole = server.post("/decode", &whole).await.ok();
    assert!(whole[0].as_str().is_some_and(|text| text.contains("[CLS]")), "{whole}");
    let lorax = server.post("/tokenize", &json!({"inputs": text})).await.ok();
    assert_eq!(keys(&lorax[0]), ["id", "text", "start", "stop"]);
    for (body, kind) in [(json!({"ids": []}), "Empty"), (json!({"ids": [99999]}), "Validation")] {
        assert_eq!(server.post("/decode", &body).await.json()["error_type"], kind, "{body}");
    }
}

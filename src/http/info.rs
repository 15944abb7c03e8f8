//! `GET /info`: what LoRAX, TGI and text-embeddings-inference say of a model and its limits.
use super::AppState;
use crate::generation::{Abilities, HeadKind, Labels, ModelCard, Pooling};
use axum::{Json, extract::State};
use serde_json::{Map, Value, json};

/// Every limit in every spelling.
pub(super) async fn info(State(app): State<AppState>) -> Json<Value> {
    let model = app.generator.model();
    let most_input = longest_input(model);
    let engine = app.generator.snapshot();
    let cache = engine.kv_blocks * engine.block_size;
    Json(json!({
        "model_id": model.name,
        "model_sha": null,
        "model_dtype": model.precision,
        "model_device_type": model.device,
        "model_pipeline_tag": pipeline_tag(&model.abilities),
        "model_type": model_type(&model.abilities),
        "served_model_name": model.name,
        "max_concurrent_requests": app.config.max_requests,
        "max_best_of": app.config.max_prompts,
        "max_stop_sequences": 4,
        "max_input_length": most_input,
        "max_input_tokens": most_input,
        "max_total_tokens": model.max_context,
        "waiting_served_ratio": 0.0,
        "max_batch_total_tokens": cache,
        "max_batch_tokens": cache,
        "max_batch_requests": null,
        "max_waiting_tokens": 0,
        "validation_workers": 1,
        "tokenization_workers": 1,
        "auto_truncate": app.generator.encode_config().auto_truncate,
        "eager_prefill": true,
        "max_client_batch_size": if model.abilities.generates { 1 } else { app.config.max_texts },
        "router": "lorad",
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
        "request_logger_url": null,
    }))
}

/// A text that is to be continued leaves room for a token.
fn longest_input(model: &ModelCard) -> usize {
    if model.abilities.generates {
        return model.max_context.saturating_sub(1);
    }
    let own = model.abilities.embedding.as_ref().and_then(|embedding| embedding.max_tokens);
    own.map_or(model.max_context, |own| own.min(model.max_context))
}

fn pipeline_tag(abilities: &Abilities) -> &'static str {
    match &abilities.labels {
        _ if abilities.generates => "text-generation",
        Some(Labels { kind: HeadKind::Sequence, .. }) => "text-classification",
        Some(Labels { kind: HeadKind::Token, .. }) => "token-classification",
        None => "feature-extraction",
    }
}

/// TEI's: what the base is for. Null for one that generates, which it does not know.
fn model_type(abilities: &Abilities) -> Value {
    match (&abilities.labels, &abilities.embedding) {
        _ if abilities.generates => Value::Null,
        (Some(labels), _) => {
            let kind = if labels.names.len() == 1 { "reranker" } else { "classifier" };
            let named = labels.names.iter().enumerate();
            let id2label: Map<_, _> =
                named.clone().map(|(id, name)| (id.to_string(), json!(name))).collect();
            let label2id: Map<_, _> = named.map(|(id, name)| (name.clone(), json!(id))).collect();
            json!({kind: {"id2label": id2label, "label2id": label2id}})
        }
        (None, Some(embedding)) => {
            let pooling = match embedding.pooling {
                Pooling::First => "cls",
                Pooling::Mean => "mean",
                Pooling::Last => "last_token",
            };
            json!({"embedding": {"pooling": pooling}})
        }
        (None, None) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{EmbeddingSetup, Reading};
    use std::collections::BTreeMap;

    fn reads(pooling: Option<Pooling>, labels: &[&str]) -> Abilities {
        let embedding = pooling.map(|pooling| EmbeddingSetup {
            pooling,
            normalize: true,
            dimensions: 4,
            shortens: false,
            max_tokens: None,
            prompts: BTreeMap::new(),
            default_prompt: None,
        });
        let names = labels.iter().map(|&name| name.to_owned()).collect();
        let labels = Labels { kind: HeadKind::Sequence, names, reading: Reading::OneOf };
        let labels = Some(labels).filter(|labels| !labels.names.is_empty());
        Abilities { generates: false, embedding, labels }
    }

    #[test]
    fn a_base_is_what_its_head_makes_of_it() {
        let embeds = reads(Some(Pooling::First), &[]);
        assert_eq!(model_type(&embeds), json!({"embedding": {"pooling": "cls"}}));
        assert_eq!(pipeline_tag(&embeds), "feature-extraction");
        let classifies = reads(Some(Pooling::Mean), &["no", "yes"]);
        let expected = json!({"classifier": {"id2label": {"0": "no", "1": "yes"},
                                             "label2id": {"no": 0, "yes": 1}}});
        assert_eq!(model_type(&classifies), expected);
        assert_eq!(pipeline_tag(&classifies), "text-classification");
        assert!(model_type(&reads(None, &["score"]))["reranker"].is_object());
        assert_eq!(model_type(&Abilities::default()), Value::Null);
    }
}

//! Every field a PEFT LoRA config may have, and what becomes of it.
use crate::adapter::{AdapterError, AdapterLimits, format::tensors::shown};
use serde_json::{Map, Value};

/// What a field's presence means here.
enum Rule {
    /// Read by `config.rs`.
    Read,
    /// Says how the adapter was trained or stored; the trained result does not depend on it.
    Ignored,
    /// Changes the computation in a way that is not served: only its neutral value passes.
    Neutral(&'static str),
    /// How the factors were first filled: some ways also change the base's weights.
    Initialisation,
}

use Rule::{Ignored, Initialisation, Neutral, Read};

/// `peft.LoraConfig` of 0.21 and the fields that earlier versions wrote. The text says what the feature is.
const FIELDS: &[(&str, Rule)] = &[
    ("alora_invocation_tokens", Neutral("activated LoRA")),
    ("alpha_pattern", Read),
    ("arrow_config", Neutral("Arrow routing between adapters")),
    ("auto_mapping", Ignored),
    ("base_model_name_or_path", Read),
    ("bias", Neutral("an adapter with trained biases")),
    ("corda_config", Ignored),
    ("enable_lora", Neutral("LoRA on parts of a fused layer")),
    ("ensure_weight_tying", Ignored),
    ("eva_config", Ignored),
    ("exclude_modules", Read),
    ("fan_in_fan_out", Neutral("a layer with transposed weights")),
    ("inference_mode", Ignored),
    ("init_lora_weights", Initialisation),
    ("kasa_config", Neutral("KaSA, which changes the base's weights,")),
    ("layer_replication", Neutral("a model with repeated layers")),
    ("layers_pattern", Read),
    ("layers_to_transform", Read),
    ("loftq_config", Ignored),
    ("lora_alpha", Read),
    ("lora_bias", Neutral("a bias on LoRA's second factor")),
    ("lora_dropout", Ignored),
    ("lora_ga_config", Ignored),
    ("megatron_config", Neutral("Megatron's parallel layers")),
    ("megatron_core", Ignored),
    ("merge_weights", Ignored),
    ("modules_to_save", Neutral("an adapter with whole trained layers")),
    ("monteclora_config", Neutral("Monte Carlo LoRA")),
    ("peft_type", Read),
    ("peft_version", Ignored),
    ("qalora_group_size", Ignored),
    ("r", Read),
    ("rank_pattern", Read),
    ("revision", Ignored),
    ("runtime_config", Ignored),
    ("target_modules", Read),
    ("target_parameters", Neutral("LoRA on bare parameters")),
    ("task_type", Read),
    ("trainable_token_indices", Neutral("an adapter with trained token embeddings")),
    ("use_bdlora", Neutral("block-diagonal LoRA")),
    ("use_dora", Neutral("DoRA")),
    ("use_qalora", Neutral("QALoRA")),
    ("use_rslora", Read),
    ("velora_config", Neutral("VeLoRA")),
];

/// Initialisations that leave the base's weights as they are.
const PLAIN_INITIALISATIONS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

/// Checks every field; gives back the unknown ones that the limits let pass.
///
/// # Errors
/// When a field is unknown, or asks for what is not served. The message names the field and its value.
pub(super) fn check(
    config: &Map<String, Value>,
    limits: &AdapterLimits,
) -> Result<Vec<String>, AdapterError> {
    let mut ignored = Vec::new();
    for (name, value) in config {
        let rule = FIELDS.iter().find(|(field, _)| field == name).map(|(_, rule)| rule);
        let neutral = is_neutral(name, value);
        match rule {
            Some(Neutral(feature)) if !neutral => {
                return Err(refused(name, value, &format!("{feature} is not served")));
            }
            Some(Initialisation) if !is_plain_initialisation(value) => {
                return Err(refused(name, value, CHANGED_BASE));
            }
            None if !neutral && limits.allow_unknown_adapter_fields => ignored.push(name.clone()),
            None if !neutral => return Err(refused(name, value, UNKNOWN)),
            Some(Read | Ignored | Neutral(_) | Initialisation) | None => {}
        }
    }
    Ok(ignored)
}

const CHANGED_BASE: &str = "this initialisation changes the base's weights, so the adapter belongs to a changed base; \
                            save it with PEFT's path_initial_model_for_weight_conversion";
const UNKNOWN: &str = "this build does not know the field and cannot tell whether it changes the answers; remove it if \
                       it does not, or start the server with --allow-unknown-adapter-fields";

fn refused(name: &str, value: &Value, reason: &str) -> AdapterError {
    let name: String = name.chars().take(80).collect();
    AdapterError::unsupported(format!(
        "adapter_config.json has `{}` = {}: {reason}",
        name.escape_debug(),
        shown(value)
    ))
}

fn is_neutral(name: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => name == "bias" && text == "none",
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn is_plain_initialisation(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => true,
        Value::String(text) => PLAIN_INITIALISATIONS.contains(&text.as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check_one(name: &str, value: Value) -> Result<Vec<String>, String> {
        let config = Map::from_iter([(name.to_owned(), value)]);
        check(&config, &AdapterLimits::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn features_that_are_not_served_are_refused_by_field_and_value() {
        let cases = [
            ("use_dora", json!(true), "DoRA"),
            ("bias", json!("lora_only"), "lora_only"),
            ("modules_to_save", json!(["lm_head"]), "lm_head"),
            ("layer_replication", json!([[0, 2]]), "[[0,2]]"),
            ("init_lora_weights", json!("pissa_niter_4"), "pissa_niter_4"),
            ("init_lora_weights", json!("olora"), "olora"),
            ("trainable_token_indices", json!([1]), "token"),
            ("fan_in_fan_out", json!(true), "transposed"),
            ("some_new_field", json!({"x": 1}), "--allow-unknown-adapter-fields"),
        ];
        for (name, value, reason) in cases {
            let error = check_one(name, value).expect_err(name);
            assert!(error.contains(name) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn neutral_values_pass() {
        for (name, value) in [
            ("use_dora", json!(false)),
            ("bias", json!("none")),
            ("modules_to_save", json!(null)),
            ("loftq_config", json!({"loftq_bits": 4})),
            ("init_lora_weights", json!("gaussian")),
            ("init_lora_weights", json!(false)),
            ("lora_dropout", json!(0.1)),
            ("some_new_field", json!(null)),
        ] {
            assert_eq!(check_one(name, value), Ok(vec![]), "{name}");
        }
    }

    #[test]
    fn unknown_fields_pass_where_the_operator_says_so() {
        let config = Map::from_iter([("new".to_owned(), json!(1))]);
        let limits = AdapterLimits { allow_unknown_adapter_fields: true, ..Default::default() };
        assert_eq!(check(&config, &limits).expect("allowed"), ["new"]);
    }
}

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
    ("alora_invocation_tokens", Read),
    ("alpha_pattern", Read),
    ("arrow_config", Neutral("Arrow routing between adapters")),
    ("auto_mapping", Ignored),
    ("base_model_name_or_path", Read),
    ("bias", Read),
    ("corda_config", Ignored),
    ("enable_lora", Neutral("LoRA on parts of a fused layer")),
    ("ensure_weight_tying", Read),
    ("eva_config", Ignored),
    ("exclude_modules", Read),
    // PEFT switches it off on every layer that a model served here has.
    ("fan_in_fan_out", Ignored),
    // Labels stand in no config that PEFT writes: lorad puts them there, or whoever wants them in the adapter.
    ("id2label", Read),
    ("inference_mode", Ignored),
    ("init_lora_weights", Initialisation),
    ("kasa_config", Neutral("KaSA, which changes the base's weights,")),
    ("label2id", Read),
    ("layer_replication", Neutral("a model with repeated layers")),
    ("layers_pattern", Read),
    ("layers_to_transform", Read),
    ("loftq_config", Ignored),
    ("lora_alpha", Read),
    ("lora_bias", Read),
    ("lora_dropout", Ignored),
    ("lora_ga_config", Ignored),
    ("megatron_config", Neutral("Megatron's parallel layers")),
    ("megatron_core", Ignored),
    ("merge_weights", Ignored),
    ("modules_to_save", Read),
    ("monteclora_config", Neutral("Monte Carlo LoRA")),
    ("num_labels", Read),
    ("peft_type", Read),
    ("peft_version", Ignored),
    ("problem_type", Read),
    ("qalora_group_size", Ignored),
    ("r", Read),
    ("rank_pattern", Read),
    ("revision", Ignored),
    ("runtime_config", Ignored),
    ("target_modules", Read),
    ("target_parameters", Neutral("LoRA on bare parameters")),
    ("task_type", Read),
    ("trainable_token_indices", Read),
    ("use_bdlora", Neutral("block-diagonal LoRA")),
    ("use_dora", Read),
    ("use_qalora", Neutral("QALoRA")),
    ("use_rslora", Read),
    ("velora_config", Neutral("VeLoRA")),
];

/// Initialisations that leave the base's weights as they are.
const PLAIN_INITIALISATIONS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

/// Checks every field; gives back the unknown ones that are ignored, as PEFT ignores them.
///
/// # Errors
/// When a field asks for what is not served, or is unknown and looks as if it did. The message names the field and its
/// value.
pub(super) fn check(
    config: &Map<String, Value>,
    limits: &AdapterLimits,
) -> Result<Vec<String>, AdapterError> {
    let mut ignored = Vec::new();
    for (name, value) in config {
        let rule = FIELDS.iter().find(|(field, _)| field == name).map(|(_, rule)| rule);
        let neutral = is_neutral(value);
        match rule {
            Some(Neutral(feature)) if !neutral => {
                return Err(refused(name, value, &format!("{feature} is not served")));
            }
            Some(Initialisation) if !is_plain_initialisation(value) => {
                return Err(refused(name, value, advice(value)));
            }
            None if switches(name, value) && !limits.allow_unknown_adapter_fields => {
                return Err(refused(name, value, UNKNOWN));
            }
            None if !neutral => ignored.push(name.clone()),
            Some(Read | Ignored | Neutral(_) | Initialisation) | None => {}
        }
    }
    Ok(ignored)
}

const CHANGED_BASE: &str = "this initialisation changes the base's weights, so the adapter belongs to a changed base; \
                            convert it with PEFT's save_pretrained(…, path_initial_model_for_weight_conversion=…), \
                            which makes plain LoRA over the unchanged base of it";
const QUANTISED_BASE: &str = "LoftQ trains over a base that it has rounded; save that base (LoftQ's own or \
                              replace_lora_weights_loftq), serve it, and set `init_lora_weights` to true";
const UNKNOWN: &str = "this build does not know the field, and it looks like a feature that is switched on; remove it \
                       if the answers do not depend on it, or start the server with --allow-unknown-adapter-fields";

/// How to make plain LoRA of it.
fn advice(initialisation: &Value) -> &'static str {
    if initialisation == "loftq" { QUANTISED_BASE } else { CHANGED_BASE }
}

/// PEFT names what changes the computation in these two ways, and its tensors by names of their own, which no file
/// passes with.
fn switches(name: &str, value: &Value) -> bool {
    (name.starts_with("use_") || name.ends_with("_config")) && !is_neutral(value)
}

fn refused(name: &str, value: &Value, reason: &str) -> AdapterError {
    let name: String = name.chars().take(80).collect();
    AdapterError::unsupported(format!(
        "adapter_config.json has `{}` = {}: {reason}",
        name.escape_debug(),
        shown(value)
    ))
}

fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}

fn is_plain_initialisation(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => true,
        Value::String(text) => PLAIN_INITIALISATIONS.contains(&text.to_ascii_lowercase().as_str()),
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
            ("use_qalora", json!(true), "QALoRA"),
            ("layer_replication", json!([[0, 2]]), "[[0,2]]"),
            ("target_parameters", json!(["experts"]), "bare parameters"),
            (
                "init_lora_weights",
                json!("pissa_niter_4"),
                "path_initial_model_for_weight_conversion",
            ),
            ("init_lora_weights", json!("olora"), "path_initial_model_for_weight_conversion"),
            ("init_lora_weights", json!("loftq"), "LoftQ"),
            ("use_wavelets", json!(true), "--allow-unknown-adapter-fields"),
            ("wavelet_config", json!({"levels": 2}), "--allow-unknown-adapter-fields"),
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
            ("fan_in_fan_out", json!(true)),
            ("init_lora_weights", json!("gaussian")),
            ("init_lora_weights", json!(false)),
            ("lora_dropout", json!(0.1)),
            ("some_new_field", json!(null)),
            ("use_wavelets", json!(false)),
            ("wavelet_config", json!({})),
        ] {
            assert_eq!(check_one(name, value), Ok(vec![]), "{name}");
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_said() {
        let name = || vec!["some_new_field".to_owned()];
        assert_eq!(check_one("some_new_field", json!({"x": 1})), Ok(name()));
        let config = Map::from_iter([("use_wavelets".to_owned(), json!(true))]);
        let limits = AdapterLimits { allow_unknown_adapter_fields: true, ..Default::default() };
        assert_eq!(check(&config, &limits).expect("allowed"), ["use_wavelets"]);
    }
}

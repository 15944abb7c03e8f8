//! Decoders, read from `config.json`.

use super::super::{ARCHITECTURES, Spec, read_spec};
use crate::model::spec::{ArchSpec, AttentionBias, Head, HeadNorm, RopeScaling, Window};
use serde_json::{Value, json};

fn config(architecture: &str, more: Value) -> Value {
    let mut config = json!({
        "architectures": [architecture], "hidden_act": "silu", "hidden_size": 64,
        "intermediate_size": 128, "max_position_embeddings": 256, "num_attention_heads": 4,
        "num_hidden_layers": 3, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
        "vocab_size": 320,
    });
    let Value::Object(more) = more else { unreachable!("the tests write objects") };
    config.as_object_mut().unwrap().extend(more);
    config
}

fn spec(architecture: &str, more: Value) -> ArchSpec {
    match read_spec(&config(architecture, more)).unwrap().1 {
        Spec::Decoder(spec) => spec,
        Spec::Encoder(_) => panic!("{architecture} is a decoder"),
    }
}

fn refusal(architecture: &str, more: Value) -> String {
    read_spec(&config(architecture, more)).unwrap_err().to_string()
}

#[test]
fn both_generations_mean_the_same() {
    let llama3 = |key: &str| {
        json!({key: "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64})
    };
    let old = json!({"rope_theta": 5e5, "rope_scaling": llama3("type"), "torch_dtype": "float16"});
    let mut parameters = llama3("rope_type");
    parameters["rope_theta"] = json!(5e5);
    let new = json!({"rope_parameters": parameters, "dtype": "float16"});
    assert_eq!(spec("LlamaForCausalLM", old), spec("LlamaForCausalLM", new));
}

#[test]
fn every_family_has_its_own_biases_and_norms() {
    let qwen2 = spec("Qwen2ForCausalLM", json!({"tie_word_embeddings": true}));
    assert_eq!(qwen2.attention.bias, AttentionBias::Qkv);
    assert_eq!(qwen2.head, Head::Tied);
    let qwen3 = spec("Qwen3ForCausalLM", json!({"head_dim": 32, "attention_bias": true}));
    assert_eq!(qwen3.attention.head_norm, HeadNorm::Rms);
    assert_eq!(qwen3.attention.bias, AttentionBias::All);
    assert_eq!(qwen3.attention.head_dim, 32);
    let llama = spec("LlamaForCausalLM", json!({}));
    assert_eq!(llama.attention.bias, AttentionBias::None);
    assert_eq!(llama.rope.scaling, RopeScaling::None);
    assert_eq!(llama.attention.head_dim, 16);
}

#[test]
fn windows_follow_each_familys_rule() {
    let mistral = |more| spec("MistralForCausalLM", more).attention.window;
    assert_eq!(mistral(json!({"sliding_window": 8})), Window::Every(8));
    assert_eq!(mistral(json!({"sliding_window": null})), Window::None);
    assert_eq!(mistral(json!({})), Window::Every(4096));
    let qwen = |more| spec("Qwen2ForCausalLM", more).attention.window;
    let unused = json!({"sliding_window": 8, "use_sliding_window": false, "max_window_layers": 1});
    assert_eq!(qwen(unused), Window::None);
    let from_one = json!({"sliding_window": 8, "use_sliding_window": true, "max_window_layers": 1});
    let layers = Window::Layers { tokens: 8, slides: vec![false, true, true] };
    assert_eq!(qwen(from_one), layers);
    assert_eq!((layers.at(0), layers.at(2)), (None, Some(8)));
    let named = json!({"sliding_window": 8, "use_sliding_window": true, "layer_types":
        ["full_attention", "sliding_attention", "full_attention"]});
    assert_eq!(qwen(named), Window::Layers { tokens: 8, slides: vec![false, true, false] });
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    let cases = [
        ("GPT2LMHeadModel", json!({}), "GPT2LMHeadModel"),
        ("LlamaForCausalLM", json!({"hidden_act": "relu"}), "hidden_act"),
        ("LlamaForCausalLM", json!({"sliding_window": 8}), "sliding_window"),
        ("LlamaForCausalLM", json!({"num_key_value_heads": 3}), "num_key_value_heads"),
        ("LlamaForCausalLM", json!({"num_attention_heads": 6}), "num_attention_heads"),
        ("LlamaForCausalLM", json!({"head_dim": 15}), "head_dim"),
        ("LlamaForCausalLM", json!({"num_hidden_layers": 4_000_000_000_u64}), "num_hidden_layers"),
        ("LlamaForCausalLM", json!({"rms_norm_eps": null}), "rms_norm_eps"),
        ("LlamaForCausalLM", json!({"rope_scaling": {"type": "yarn", "factor": 4}}), "yarn"),
        ("LlamaForCausalLM", json!({"rope_scaling": {"type": "dynamic"}}), "dynamic"),
        ("LlamaForCausalLM", json!({"rope_parameters": {"rope_type": "longrope"}}), "longrope"),
        ("LlamaForCausalLM", json!({"rope_scaling": {"type": "linear"}}), "rope_scaling.factor"),
        ("LlamaForCausalLM", json!({"quantization_config": {"bits": 4}}), "quantization_config"),
        ("LlamaForCausalLM", json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        ("Qwen2ForCausalLM", json!({"use_sliding_window": true}), "sliding_window"),
        ("Qwen2ForCausalLM", json!({"layer_types": ["full_attention"]}), "layer_types"),
        ("Qwen2ForCausalLM", json!({"num_key_value_heads": null}), "num_key_value_heads"),
        ("Qwen3ForCausalLM", json!({"head_dim": 16, "num_experts": 8}), "num_experts"),
    ];
    for (architecture, more, named) in cases {
        let message = refusal(architecture, more);
        assert!(message.contains(named), "`{named}` is not in: {message}");
    }
}

#[test]
fn no_value_of_any_key_panics() {
    let odd = [
        json!(0),
        json!(1),
        json!(-1),
        json!(0.5),
        json!(1e308),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!(true),
        json!([]),
        json!([1]),
        json!(["full_attention"]),
        json!({}),
        json!({"factor": 0}),
    ];
    let keys = [
        "head_dim",
        "hidden_size",
        "layer_types",
        "max_position_embeddings",
        "max_window_layers",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "sliding_window",
        "use_sliding_window",
        "vocab_size",
        "intermediate_size",
        "hidden_act",
        "architectures",
    ];
    for (name, ..) in ARCHITECTURES {
        for (key, value) in keys.iter().flat_map(|key| odd.iter().map(move |value| (key, value))) {
            let read = read_spec(&config(name, json!({*key: value})));
            assert!(read.is_ok() || read.is_err_and(|error| !error.to_string().is_empty()));
        }
    }
}

#[test]
fn no_shape_of_json_panics() {
    for config in [json!(null), json!([]), json!("x"), json!({"architectures": "LlamaForCausalLM"})]
    {
        assert!(read_spec(&config).is_err());
    }
}

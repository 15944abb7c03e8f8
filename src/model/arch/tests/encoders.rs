//! Encoders, and classifiers among decoders, read from `config.json`.
use super::super::{ARCHITECTURES, Spec, Top, read_spec};
use crate::{
    kernel::{Activation, Reach},
    lora::{HeadKind, Labels, Reading},
    model::{
        Pooling,
        spec::{ArchSpec, AttentionBias, Bias, EncoderSpec, Head, MlpShape, NormOrder, Positions},
    },
};
use serde_json::{Value, json};

/// As each family spells it.
fn config(architecture: &str, more: Value) -> Value {
    let mut config = if architecture.starts_with("DistilBert") {
        json!({"dim": 64, "hidden_dim": 128, "n_heads": 4, "n_layers": 3, "activation": "gelu"})
    } else {
        json!({"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
            "num_hidden_layers": 3})
    };
    let Value::Object(more) = more else { unreachable!("the tests write objects") };
    let object = config.as_object_mut().unwrap();
    object.extend([
        ("architectures".to_owned(), json!([architecture])),
        ("max_position_embeddings".to_owned(), json!(258)),
        ("vocab_size".to_owned(), json!(320)),
    ]);
    object.extend(more);
    config
}

fn spec(architecture: &str, more: Value) -> EncoderSpec {
    match read_spec(&config(architecture, more)).unwrap().1 {
        Spec::Encoder(spec) => spec,
        Spec::Decoder(_) => panic!("{architecture} is an encoder"),
    }
}

fn refusal(architecture: &str, more: Value) -> String {
    read_spec(&config(architecture, more)).unwrap_err().to_string()
}

fn labels(more: Value) -> Labels {
    spec("BertForSequenceClassification", more).labels.unwrap()
}

fn names(labels: &Labels) -> Vec<&str> {
    labels.names.iter().map(String::as_str).collect()
}

#[test]
fn every_family_has_its_own_norms_positions_and_head() {
    let bert = spec("BertModel", json!({"hidden_act": "gelu_new", "layer_norm_eps": 1e-6}));
    assert_eq!((bert.norms.order, bert.norms.bias), (NormOrder::After, Bias::All));
    assert_eq!((bert.mlp.shape, bert.mlp.activation), (MlpShape::Plain, Activation::GeluTanh));
    assert_eq!((bert.token_types, bert.dims.max_positions), (2, 258));
    assert_eq!(bert.attention.reach(1), Reach::Around(None));
    assert_eq!(bert.class_head.activation, Activation::Tanh);
    let roberta = spec("XLMRobertaModel", json!({"pad_token_id": 1, "type_vocab_size": 1}));
    assert_eq!(roberta.positions, Positions::Table { first: 2, padding: Some(1) });
    assert_eq!((roberta.token_types, roberta.dims.max_positions), (1, 256));
    let distilbert = spec("DistilBertModel", json!({"sinusoidal_pos_embds": true}));
    assert_eq!((distilbert.token_types, distilbert.labels), (0, None));
    assert_eq!(distilbert.class_head.activation, Activation::Relu);
    let more = json!({"classifier_pooling": "mean", "local_attention": 9, "mlp_bias": true,
        "attention_bias": false});
    let modern = spec("ModernBertModel", more);
    assert_eq!((modern.norms.order, modern.norms.bias), (NormOrder::Before, Bias::None));
    assert_eq!((modern.attention.bias, modern.mlp.bias), (AttentionBias::None, Bias::All));
    let reaches = [0, 1, 2].map(|layer| modern.attention.reach(layer));
    let near = Reach::Around(Some(4));
    assert_eq!(reaches, [Reach::Around(None), near, near]);
    assert_eq!(modern.class_head.pooling, Pooling::Mean);
}

#[test]
fn both_generations_of_a_modern_bert_mean_the_same() {
    let old = json!({"global_attn_every_n_layers": 2, "global_rope_theta": 8e4,
        "local_rope_theta": 2e4, "reference_compile": true});
    let kinds = ["full_attention", "sliding_attention", "full_attention"];
    let new = json!({"layer_types": kinds, "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 8e4},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}}});
    assert_eq!(spec("ModernBertModel", old), spec("ModernBertModel", new));
    let Positions::Rotary { whole, windowed } =
        spec("ModernBertModel", json!({"local_rope_theta": null})).positions
    else {
        panic!("its positions are rotary");
    };
    assert_eq!((whole.theta, windowed.theta), (160_000.0, 160_000.0));
}

#[test]
fn distilberts_sizes_have_two_names_that_must_agree() {
    let twice = json!({"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4});
    assert_eq!(spec("DistilBertModel", twice), spec("DistilBertModel", json!({})));
    assert!(refusal("DistilBertModel", json!({"hidden_size": 32})).contains("`dim`"));
}

#[test]
fn labels_have_names_and_a_reading() {
    let named = json!({"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}});
    let two = labels(named);
    assert_eq!((names(&two), two.reading), (vec!["no", "yes"], Reading::OneOf));
    assert_eq!(two.kind, HeadKind::Sequence);
    assert_eq!(names(&labels(json!({}))), ["LABEL_0", "LABEL_1"]);
    let one = labels(json!({"num_labels": 1}));
    assert_eq!((names(&one), one.reading), (vec!["LABEL_0"], Reading::Independent));
    let many = json!({"problem_type": "multi_label_classification"});
    assert_eq!(labels(many).reading, Reading::Independent);
    assert_eq!(labels(json!({"problem_type": "regression"})).reading, Reading::Raw);
    let tokens = spec("BertForTokenClassification", json!({})).labels.unwrap();
    assert_eq!((tokens.kind, tokens.reading), (HeadKind::Token, Reading::OneOf));
}

#[test]
fn a_cross_encoder_says_what_its_score_means() {
    let function = |name: &str| format!("torch.nn.modules.{name}");
    let identity = function("linear.Identity");
    let new = json!({"num_labels": 1,
        "sentence_transformers": {"activation_fn": identity, "version": "4.1.0"}});
    assert_eq!(labels(new).reading, Reading::Raw);
    let old = |labels: usize| json!({"num_labels": labels, "sbert_ce_default_activation_function": identity});
    assert_eq!(labels(old(1)).reading, Reading::Raw);
    assert_eq!(labels(old(3)).reading, Reading::OneOf);
    let sigmoid = json!({"num_labels": 1,
        "sentence_transformers": {"activation_fn": function("activation.Sigmoid")}});
    assert_eq!(labels(sigmoid).reading, Reading::Independent);
    let tanh = json!({"sentence_transformers": {"activation_fn": function("activation.Tanh")}});
    assert!(refusal("BertForSequenceClassification", tanh).contains("activation.Tanh"));
}

#[test]
fn a_decoder_may_classify_or_stand_alone() {
    let more = json!({"hidden_act": "silu", "rms_norm_eps": 1e-6, "num_key_value_heads": 2,
        "tie_word_embeddings": true, "id2label": {"0": "a", "1": "b", "2": "c"}});
    let spec = |architecture: &str| match read_spec(&config(architecture, more.clone())).unwrap().1
    {
        Spec::Decoder(spec) => spec,
        Spec::Encoder(_) => panic!("{architecture} is a decoder"),
    };
    let ArchSpec { head, labels, .. } = spec("Qwen2ForSequenceClassification");
    assert_eq!((head, names(&labels.unwrap())), (Head::None, vec!["a", "b", "c"]));
    let ArchSpec { head, labels, .. } = spec("LlamaModel");
    assert_eq!((head, labels), (Head::None, None));
    let ArchSpec { head, labels, .. } = spec("LlamaForCausalLM");
    assert_eq!((head, labels), (Head::Tied, None));
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    let cases = [
        ("BertModel", json!({"position_embedding_type": "relative_key"}), "relative_key"),
        ("BertModel", json!({"is_decoder": true}), "is_decoder"),
        ("BertModel", json!({"add_cross_attention": true}), "add_cross_attention"),
        ("BertModel", json!({"hidden_act": "quick_gelu"}), "quick_gelu"),
        ("BertModel", json!({"num_attention_heads": 5}), "num_attention_heads"),
        ("BertModel", json!({"hidden_size": null}), "hidden_size"),
        ("BertModel", json!({"embedding_size": 16}), "embedding_size"),
        ("RobertaModel", json!({"pad_token_id": 257}), "max_position_embeddings"),
        ("RobertaModel", json!({"pad_token_id": 320}), "pad_token_id"),
        ("DistilBertModel", json!({"activation": "mish"}), "activation"),
        ("ModernBertModel", json!({"classifier_pooling": "max"}), "classifier_pooling"),
        ("ModernBertModel", json!({"layer_types": ["full_attention"]}), "layer_types"),
        ("ModernBertModel", json!({"rope_scaling": {"type": "yarn"}}), "rope_scaling"),
        (
            "ModernBertModel",
            json!({"rope_parameters": {"rope_type": "default"}}),
            "rope_parameters",
        ),
        ("BertForSequenceClassification", json!({"id2label": {"1": "x"}}), "id2label"),
        ("BertForSequenceClassification", json!({"id2label": {}}), "id2label"),
        (
            "BertForSequenceClassification",
            json!({"id2label": {"0": "x"}, "num_labels": 2}),
            "num_labels",
        ),
        ("BertForSequenceClassification", json!({"problem_type": "ranking"}), "ranking"),
        ("BertForQuestionAnswering", json!({}), "BertForQuestionAnswering"),
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
        json!(u64::MAX),
        json!("x"),
        json!(true),
        json!([]),
        json!(["sliding_attention"]),
        json!({}),
        json!({"0": "a", "0x": 1}),
        json!({"full_attention": {"rope_type": "linear", "factor": 0}}),
    ];
    let keys = [
        "dim",
        "hidden_size",
        "n_heads",
        "num_attention_heads",
        "num_hidden_layers",
        "intermediate_size",
        "vocab_size",
        "max_position_embeddings",
        "type_vocab_size",
        "pad_token_id",
        "layer_norm_eps",
        "norm_eps",
        "local_attention",
        "global_attn_every_n_layers",
        "local_rope_theta",
        "layer_types",
        "rope_parameters",
        "id2label",
        "num_labels",
        "problem_type",
        "sentence_transformers",
        "classifier_activation",
    ];
    for (name, _, top) in ARCHITECTURES {
        for (key, value) in keys.iter().flat_map(|key| odd.iter().map(move |value| (key, value))) {
            if let Ok((_, spec)) = read_spec(&config(name, json!({*key: value}))) {
                let classifies = matches!(top, Top::Labels(_));
                assert_eq!(spec.lora_layout(true).class_head().unwrap().base.is_some(), classifies);
            }
        }
    }
}

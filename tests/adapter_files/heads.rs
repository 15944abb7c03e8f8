//! Classification heads: an adapter's own, and the base's with what an adapter changes of it.
use super::{
    made::{add_pair, close, flat, moved, named},
    made_encoders::{
        SMALL, adapter, add_head, bert_classifier, encoder, on_blocks, with_head, without_dense,
    },
    parse_on, refused_on,
};
use crate::adapter_maker::{Maker, base::MadeBase, small_layout, values};
use lorad::{
    adapter::{AdapterLimits, ConvertBase, to_gguf},
    lora::{
        ClassHead, ClassHeadShape, HeadKind, LoraWeights, ModuleNames, NormSite, Projection, Site,
    },
};
use serde_json::json;

fn weights(base: &MadeBase, maker: &Maker) -> LoraWeights {
    parse_on(base, maker).expect("served").weights
}

fn bert() -> MadeBase {
    encoder(ModuleNames::Bert, SMALL)
}

/// A decoder that continues texts and takes heads.
fn decoder() -> MadeBase {
    MadeBase::new(small_layout().with_class_head(ClassHeadShape {
        in_features: 8,
        biased: false,
        kinds: &[HeadKind::Sequence],
        base: None,
        has_dense: true,
    }))
}

fn check(cases: &[(String, &str)]) {
    for (error, reason) in cases {
        assert!(error.contains(reason), "`{reason}` is not in: {error}");
        assert!(error.len() < 800, "{error}");
    }
}

#[test]
fn a_roberta_head_has_two_layers_and_the_first_is_replaced_whole() {
    let base = without_dense(encoder(ModuleNames::Roberta, SMALL));
    let mut maker = adapter(Some("SEQ_CLS"), &["query", "dense"])
        .with("modules_to_save", json!(["classifier"]));
    for (path, size) in [
        ("attention.self.query", [8, 8]),
        ("attention.output.dense", [8, 8]),
        ("intermediate.dense", [8, 12]),
        ("output.dense", [12, 8]),
    ] {
        on_blocks(&mut maker, "roberta.encoder.layer.", path, size);
    }
    add_head(&mut maker, "classifier.out_proj", 5);
    let error = refused_on(&base, &maker);
    assert!(error.contains("modules_to_save=[\"classifier\", …]"), "{error}");
    maker.set(&named("classifier.dense", "weight"), &[8, 8], &values(64, 20));
    let error = refused_on(&base, &maker);
    assert!(error.contains("has no bias beside it"), "{error}");
    maker.set(&named("classifier.dense", "bias"), &[8], &values(8, 21));
    for copy in ["modules_to_save.default.dense.bias", "original_module.dense.bias"] {
        maker.set(&named("classifier", copy), &[8], &values(8, 21));
    }
    let weights = weights(&base, &maker);
    let dense = weights.at(Site::HeadDense).expect("the first layer");
    assert_eq!(flat(&dense.trained.as_ref().expect("whole").weight), values(64, 20));
    assert_eq!(flat(dense.gain.as_ref().expect("a gain")), [0.0; 8]);
    assert_eq!(flat(dense.shift.as_ref().expect("a shift")), values(8, 21));
    assert_eq!(weights.class_head().expect("the second").weight.dims(), [5, 8]);
    // Over a base that has the first layer its bias goes with the weight.
    let same = encoder(ModuleNames::Roberta, SMALL);
    let over = parse_on(&same, &maker).expect("served").weights;
    let shift = over.at(Site::HeadDense).and_then(|delta| delta.shift.as_ref()).map(flat);
    assert_eq!(shift, Some(values(8, 21)));
}

#[test]
fn the_layers_before_a_head_may_be_trained_whole() {
    let mut distil = adapter(Some("SEQ_CLS"), &["q_lin"]);
    distil = distil.with("modules_to_save", json!(["classifier", "score"]));
    on_blocks(&mut distil, "distilbert.transformer.layer.", "attention.q_lin", [8, 8]);
    add_head(&mut distil, "classifier", 2);
    distil.set(&named("pre_classifier", "weight"), &[8, 8], &values(64, 20));
    distil.set(&named("pre_classifier", "bias"), &[8], &values(8, 21));
    let base = without_dense(encoder(ModuleNames::DistilBert, SMALL));
    assert!(weights(&base, &distil).at(Site::HeadDense).is_some_and(|d| d.trained.is_some()));
    let mut modern = adapter(Some("TOKEN_CLS"), &["Wqkv"])
        .with("modules_to_save", json!(["head", "classifier"]));
    on_blocks(&mut modern, "model.layers.", "attn.Wqkv", [8, 24]);
    add_head(&mut modern, "classifier", 2);
    modern.set(&named("head.dense", "weight"), &[8, 8], &values(64, 20));
    let base = without_dense(encoder(ModuleNames::ModernBert, SMALL));
    let error = refused_on(&base, &modern);
    assert!(error.contains("(head.norm)"), "{error}");
    modern.set(&named("head.norm", "weight"), &[8], &values(8, 22));
    let weights = weights(&base, &modern);
    assert!(weights.at(Site::HeadDense).is_some_and(|delta| delta.trained.is_some()));
    assert!(weights.norms().any(|(norm, _)| norm == NormSite::Head));
}

#[test]
fn a_decoders_head_is_a_score_without_a_bias() {
    let mut maker = Maker::new(1).with("task_type", json!("SEQ_CLS"));
    let error = refused_on(&decoder(), &maker);
    assert!(error.contains("SEQ_CLS") && error.contains("modules_to_save=[\"score\"]"), "{error}");
    maker.set(&named("score", "weight"), &[2, 8], &values(16, 80));
    let weights = weights(&decoder(), &maker);
    assert!(weights.class_head().expect("a head").bias.is_none());
    assert!(weights.at(Site::block(0, Projection::Q)).is_some());
    maker.set(&named("score", "bias"), &[2], &values(2, 80));
    assert!(refused_on(&decoder(), &maker).contains("has none in this model"));
}

fn labelled() -> MadeBase {
    with_head(bert(), &["no", "yes", "very"], HeadKind::Sequence)
}

fn own_head(weights: &LoraWeights) -> &ClassHead {
    weights.class_head().expect("a head")
}

#[test]
fn without_a_head_of_its_own_an_adapter_has_the_bases() {
    let base = labelled();
    let mut maker = bert_classifier(3);
    maker.tensors.retain(|name, _| !name.contains("classifier"));
    let parsed = parse_on(&base, &maker).expect("served");
    assert!(parsed.weights.class_head().is_none());
    assert_eq!(parsed.describe().expect("numbers").labels, ["no", "yes", "very"]);
    let named = maker.clone().with("id2label", json!({"0": "a", "1": "b", "2": "c"}));
    let weights = weights(&base, &named);
    assert_eq!(&*own_head(&weights).labels.names, ["a", "b", "c"]);
    let kept = flat(&own_head(&weights).weight);
    assert_eq!(kept, flat(&base.head.as_ref().expect("a head").weight));
    let error = refused_on(&bert(), &maker);
    assert!(error.contains("no `classifier.weight`") && error.contains("SEQ_CLS"), "{error}");
    maker.tensors.retain(|name, _| !name.contains("classifier"));
    let tokens = maker.with("task_type", json!("TOKEN_CLS"));
    assert!(refused_on(&base, &tokens).contains("TOKEN_CLS"));
}

#[test]
fn a_pair_on_the_bases_head_is_merged_into_a_whole_one() {
    let base = labelled();
    let mut maker = adapter(None, &["query", "classifier"]);
    on_blocks(&mut maker, "bert.encoder.layer.", "attention.self.query", [8, 8]);
    let error = refused_on(&bert(), &{
        let mut maker = maker.clone();
        add_pair(&mut maker, "classifier", [2, 8, 3], 11);
        maker.with("task_type", json!("SEQ_CLS"))
    });
    assert!(error.contains("no such head of its own"), "{error}");
    add_pair(&mut maker, "classifier", [2, 8, 3], 11);
    let merged = weights(&base, &maker);
    let own = base.head.as_ref().expect("a head");
    let rows = moved(&flat(&own.weight), &values(16, 11), &values(6, 12), 2, 2.0);
    close(&flat(&own_head(&merged).weight), &rows.concat());
    assert_eq!(flat(own_head(&merged).bias.as_ref().expect("a bias")), values(3, 71));
    assert_eq!(&*own_head(&merged).labels.names, ["no", "yes", "very"]);
    // DoRA, and a bias of its own.
    let mut maker = maker.with("use_dora", json!(true)).with("bias", json!("lora_only"));
    for layer in 0..2 {
        let path = format!("bert.encoder.layer.{layer}.attention.self.query");
        maker.set(&named(&path, "lora_magnitude_vector"), &[8], &[2.0; 8]);
        maker.set(&named(&path, "base_layer.bias"), &[8], &values(8, 3));
    }
    maker.set(&named("classifier", "lora_magnitude_vector"), &[3], &[2.0, 3.0, 4.0]);
    maker.set(&named("classifier", "base_layer.bias"), &[3], &values(3, 4));
    let merged = weights(&base, &maker);
    let scaled = rows.iter().zip([2.0, 3.0, 4.0]).flat_map(|(row, m)| {
        let norm = row.iter().map(|w| w * w).sum::<f64>().sqrt();
        row.iter().map(move |w| w * m / norm)
    });
    close(&flat(&own_head(&merged).weight), &scaled.collect::<Vec<_>>());
    assert_eq!(flat(own_head(&merged).bias.as_ref().expect("a bias")), values(3, 4));
}

#[test]
fn heads_that_do_not_fit_are_refused_by_name() {
    let mut wide = bert_classifier(3);
    wide.set(&named("classifier", "weight"), &[3, 9], &values(27, 80));
    let mut no_bias = bert_classifier(3);
    no_bias.tensors.remove(&named("classifier", "bias"));
    let mut long_bias = bert_classifier(3);
    long_bias.set(&named("classifier", "bias"), &[4], &values(4, 80));
    let mut both = bert_classifier(3).with("modules_to_save", json!(null));
    both = both.with("target_modules", json!(["query", "value", "classifier"]));
    add_pair(&mut both, "classifier", [2, 8, 3], 11);
    let unsaid = bert_classifier(3).with("task_type", json!(null));
    let embeds = bert_classifier(3).with("task_type", json!("FEATURE_EXTRACTION"));
    let score = {
        let mut maker = bert_classifier(3);
        maker.set(&named("score", "weight"), &[3, 8], &values(24, 80));
        maker
    };
    let roberta = {
        let mut maker = adapter(Some("TOKEN_CLS"), &["query"]);
        on_blocks(&mut maker, "roberta.encoder.layer.", "attention.self.query", [8, 8]);
        add_head(&mut maker, "classifier.out_proj", 3);
        maker
    };
    check(&[
        (refused_on(&bert(), &wide), "reads 8 numbers"),
        (refused_on(&bert(), &no_bias), "has no bias beside it"),
        (refused_on(&bert(), &long_bias), "[4]; this model"),
        (refused_on(&bert(), &both), "whole weight beside"),
        (refused_on(&bert(), &unsaid), "no `task_type`"),
        (refused_on(&bert(), &embeds), "FEATURE_EXTRACTION does not have"),
        (refused_on(&bert(), &score), "`score`"),
        (refused_on(&encoder(ModuleNames::Roberta, SMALL), &roberta), "another base"),
    ]);
}

#[test]
fn tasks_that_the_base_is_not_for_are_refused_by_name() {
    let generative = Maker::new(1);
    let tokens = generative.clone().with("task_type", json!("TOKEN_CLS"));
    let sequence = generative.clone().with("task_type", json!("SEQ_CLS"));
    let asked = generative.clone().with("task_type", json!("QUESTION_ANS"));
    let headless = MadeBase::new(small_layout());
    check(&[
        (
            refused_on(&bert(), &bert_classifier(2).with("task_type", json!("CAUSAL_LM"))),
            "does not continue them",
        ),
        (refused_on(&decoder(), &tokens), "not tokens"),
        (refused_on(&headless, &sequence), "takes no classification heads"),
        (refused_on(&decoder(), &asked), "QUESTION_ANS"),
    ]);
}

#[test]
fn no_gguf_file_holds_a_head() {
    let mut maker = Maker::new(1).with("task_type", json!("SEQ_CLS"));
    maker.set(&named("score", "weight"), &[2, 8], &values(16, 80));
    let base = ConvertBase { class: "LlamaForCausalLM", layout: decoder().layout };
    let error = to_gguf(&maker.files(), &base, "a", None, &AdapterLimits::default());
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("SEQ_CLS") && error.contains("GGUF"), "{error}");
}

//! What is read from an encoder's directory, and how what is wrong with one is named.
use crate::{
    copies::{Copy, Tensors, assert_says},
    harness::repository,
};
use lorad::{
    lora::{FrozenBase, HeadKind, Reading, Site},
    model::{EmbeddingFacts, ModelSource, Pooling, outline},
};
use safetensors::Dtype;
use serde_json::json;
use std::fs;

const POOLING: &str = "1_Pooling/config.json";

fn copy(base: &str) -> Copy {
    Copy::of(&repository("tests/golden").join(base))
}

fn fingerprint(copy: &Copy) -> [u8; 32] {
    copy.load(None).weights.fingerprint().unwrap()
}

/// Every tensor's name, changed.
fn rename(tensors: &mut Tensors, new: impl Fn(&str) -> String) {
    *tensors = std::mem::take(tensors).into_iter().map(|(name, t)| (new(&name), t)).collect();
}

#[test]
fn both_generations_of_transformers_spell_the_same_model() {
    let mut seen = 0;
    for base in fs::read_dir(repository("tests/golden")).unwrap() {
        let base = base.unwrap().path();
        for other in ["config.transformers4.json", "config.transformers5.json"] {
            if !base.join(other).is_file() {
                continue;
            }
            seen += 1;
            let (one, two) = (Copy::of(&base), Copy::of(&base));
            two.write("config.json", one.read(other));
            let (one, two) = (one.load(None), two.load(None));
            let what = base.display();
            let prints = [&one, &two].map(|model| model.weights.fingerprint().unwrap());
            assert_eq!(prints[0], prints[1], "{what}");
            let layouts = [&one, &two].map(|model| format!("{:?}", model.lm.lora_layout()));
            assert_eq!(layouts[0], layouts[1], "{what}");
            assert_eq!(one.embedding, two.embedding, "{what}");
        }
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn tensors_may_stand_with_the_prefix_or_without_it() {
    let with = copy("bert_seqcls");
    let without = copy("bert_seqcls");
    without.change_tensors(|tensors| rename(tensors, |name| name.replacen("bert.", "", 1)));
    assert_eq!(fingerprint(&with), fingerprint(&without));
}

#[test]
fn what_old_versions_saved_beside_the_weights_is_left_out() {
    let old = copy("bert_seqcls");
    old.change_tensors(|tensors| {
        rename(tensors, |name| {
            let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
            name.replace("LayerNorm.bias", "LayerNorm.beta")
        });
        let positions = (Dtype::I64, vec![1, 2], vec![0; 16]);
        tensors.insert("bert.embeddings.position_ids".into(), positions);
        let guess = (Dtype::F32, vec![1], vec![0; 4]);
        tensors.insert("cls.predictions.bias".into(), guess);
    });
    assert_eq!(fingerprint(&old), fingerprint(&copy("bert_seqcls")));
}

#[test]
fn a_tensor_too_many_or_too_few_is_named() {
    let more = copy("roberta_seqcls");
    more.change_tensors(|tensors| {
        tensors.insert("classifier.third.weight".into(), (Dtype::F32, vec![1], vec![0; 4]));
    });
    assert_says(&more.error(), &["classifier.third.weight", "no place"]);
    for (base, name) in [
        ("bert_seqcls", "bert.pooler.dense.weight"),
        ("bert_seqcls", "classifier.weight"),
        ("roberta_seqcls", "classifier.out_proj.bias"),
        ("distilbert_seqcls", "pre_classifier.weight"),
        ("modernbert_seqcls", "head.dense.weight"),
        ("modernbert_seqcls", "model.final_norm.weight"),
        ("llama_seqcls", "score.weight"),
    ] {
        let less = copy(base);
        less.change_tensors(|tensors| assert!(tensors.remove(name).is_some(), "{name}"));
        assert_says(&less.error(), &[name, "missing"]);
    }
}

#[test]
fn a_layer_that_the_checkpoint_lacks_is_said_to_be_missing_and_is_zeros() {
    for (base, has_dense) in [
        ("bert_seqcls", true),
        ("bert_mlm", false),
        ("bert_tokcls", false),
        ("roberta_mlm", false),
        ("modernbert_mlm", true),
        ("modernbert_embed", false),
        ("llama_seqcls", true),
    ] {
        let directory = repository("tests/golden").join(base);
        let model = Copy::of(&directory).load(None);
        let layout = model.weights.layout();
        assert_eq!(layout.class_head().unwrap().has_dense, has_dense, "{base}");
        let outlined = outline(&ModelSource::Directory(directory)).unwrap().layout;
        assert_eq!(format!("{outlined:?}"), format!("{layout:?}"), "{base}");
        if has_dense {
            continue;
        }
        let width = layout.shape(Site::HeadDense).unwrap().in_features;
        let rows = model.weights.weight_rows(Site::HeadDense, 0..width).unwrap();
        assert!(rows.iter().all(|weight| weight.to_bits() == 0), "{base}");
    }
}

#[test]
fn a_bases_head_is_there_for_adapters_that_change_it() {
    let model = copy("bert_tokcls").load(None);
    let head = model.weights.class_head().unwrap();
    assert_eq!(head.labels.kind, HeadKind::Token);
    assert_eq!(head.weight.dims(), [head.labels.names.len(), model.facts.hidden]);
    assert_eq!(model.weights.layout().class_head().unwrap().base.as_ref(), Some(&head.labels));
    let cross = copy("cross_encoder").load(None);
    assert_eq!(cross.weights.class_head().unwrap().labels.reading, Reading::Independent);
    assert!(copy("bert_embed").load(None).weights.class_head().is_none());
}

fn facts(copy: &Copy) -> EmbeddingFacts {
    copy.load(None).embedding.expect("an encoder embeds")
}

#[test]
fn the_makers_say_how_their_model_embeds() {
    let bert = facts(&copy("bert_embed"));
    assert_eq!((bert.pooling, bert.normalize, bert.dimensions), (Pooling::Mean, true, 32));
    assert_eq!((bert.max_tokens, bert.shortens), (Some(128), false));
    assert!(bert.prompts.is_empty());
    let modern = facts(&copy("modernbert_embed"));
    assert_eq!(modern.prompts["query"], "search_query: ");
    let plain = facts(&copy("bert_seqcls"));
    assert_eq!((plain.pooling, plain.normalize, plain.max_tokens), (Pooling::Mean, true, None));
    assert_eq!(copy("llama_seqcls").load(None).embedding, None);
}

#[test]
fn a_pooling_has_two_spellings_and_a_setting_above_them() {
    let copy = copy("bert_embed");
    copy.write(POOLING, json!({"embedding_dimension": 32, "pooling_mode": "cls"}).to_string());
    assert_eq!(facts(&copy).pooling, Pooling::First);
    copy.write(POOLING, json!({"pooling_mode_lasttoken": true}).to_string());
    assert_eq!(facts(&copy).pooling, Pooling::Last);
    copy.write(POOLING, json!({"pooling_mode": "max"}).to_string());
    assert_says(&copy.error(), &[POOLING, "`max`", "--pooling"]);
    assert_eq!(copy.load(Some(Pooling::Mean)).embedding.unwrap().pooling, Pooling::Mean);
    copy.change("modules.json", |modules| drop(modules.as_array_mut().unwrap().pop()));
    copy.write(POOLING, json!({"pooling_mode": "mean"}).to_string());
    assert!(!facts(&copy).normalize);
}

#[test]
fn a_decoder_embeds_by_its_last_token_alone() {
    let decoder = copy("llama_tied");
    assert_eq!(decoder.load(None).embedding, None);
    assert_eq!(decoder.load(Some(Pooling::Last)).embedding.unwrap().pooling, Pooling::Last);
    let modules = repository("tests/golden/bert_embed/modules.json");
    decoder.write("modules.json", fs::read(modules).unwrap());
    fs::create_dir_all(decoder.path().join("1_Pooling")).unwrap();
    decoder.write(POOLING, json!({"pooling_mode": "mean"}).to_string());
    assert_says(&decoder.error(), &["pooling", "last"]);
    decoder.write(POOLING, json!({"pooling_mode": "lasttoken"}).to_string());
    assert_eq!(facts(&decoder).pooling, Pooling::Last);
}

#[test]
fn prompts_and_shorter_embeddings_come_from_the_settings() {
    let copy = copy("bert_embed");
    let settings = json!({"prompts": {"query": "q: "}, "default_prompt_name": "query",
        "truncate_dim": 16});
    copy.write("config_sentence_transformers.json", settings.to_string());
    let read = facts(&copy);
    assert_eq!((read.default_prompt.as_deref(), read.dimensions), (Some("query"), 16));
    assert!(read.shortens);
    copy.change("config_sentence_transformers.json", |settings| {
        settings["default_prompt_name"] = json!("document");
    });
    assert_says(&copy.error(), &["\"document\"", "default prompt"]);
    copy.change("config_sentence_transformers.json", |settings| *settings = json!({}));
    copy.change("config.json", |config| config["matryoshka_dimensions"] = json!([8, 32]));
    let read = facts(&copy);
    assert_eq!((read.dimensions, read.shortens), (32, true));
}

#[test]
fn ways_to_embed_that_are_not_served_are_refused_by_name() {
    let refusal = |file: &str, change: fn(&mut serde_json::Value)| {
        let copy = copy("bert_embed");
        copy.change(file, change);
        copy.error()
    };
    let dense = refusal("modules.json", |modules| {
        modules[2]["type"] = json!("sentence_transformers.models.Dense");
    });
    assert_says(&dense, &["modules.json", "Dense"]);
    let words = refusal("modules.json", |modules| {
        modules[0]["type"] = json!("sentence_transformers.models.WordEmbeddings");
    });
    assert_says(&words, &["WordEmbeddings"]);
    let outside = refusal("modules.json", |modules| modules[1]["path"] = json!("../x"));
    assert_says(&outside, &["../x"]);
    let wide = refusal(POOLING, |settings| settings["word_embedding_dimension"] = json!(64));
    assert_says(&wide, &["64", "32"]);
    let two = refusal(POOLING, |settings| settings["pooling_mode_cls_token"] = json!(true));
    assert_says(&two, &["cls+mean"]);
    let long = refusal("config_sentence_transformers.json", |s| s["truncate_dim"] = json!(64));
    assert_says(&long, &["truncate_dim"]);
}

#[test]
fn lower_case_must_be_the_tokenizers_own() {
    let copy = copy("bert_embed");
    copy.change("sentence_bert_config.json", |settings| settings["do_lower_case"] = json!(true));
    copy.change("tokenizer.json", |tokenizer| {
        tokenizer["normalizer"] = json!({"type": "Lowercase"});
    });
    assert_eq!(facts(&copy).max_tokens, Some(128));
    copy.change("tokenizer.json", |tokenizer| tokenizer["normalizer"] = json!(null));
    assert_says(&copy.error(), &["do_lower_case", "normalizer"]);
}

//! Adapters of encoders: every family's paths, with and without what they stand below.
use super::{
    made::{add_pair, close, flat, moved, named},
    made_encoders::{
        SMALL, Size, adapter, add_head, bert_classifier, encoder, on_blocks, with_head,
        without_dense,
    },
    parse_files, parse_on, refused_on,
};
use crate::adapter_maker::{Maker, base::MadeBase, values};
use lorad::{
    adapter::{
        AdapterDescription, AdapterFiles, AdapterLimits,
        format::{self, ParsedAdapter},
    },
    lora::{FrozenBase, HeadKind, LoraWeights, ModuleNames, NormSite, Projection, Site},
};
use serde_json::json;
use std::path::{Path, PathBuf};

fn weights(base: &MadeBase, maker: &Maker) -> LoraWeights {
    parse_on(base, maker).expect("served").weights
}

fn fixtures() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
    let given = std::env::var_os("LORAD_TEST_FIXTURES").map_or(beside, PathBuf::from);
    given.join("tiny/bert_seqcls").is_dir().then_some(given)
}

fn read(directory: &Path, base: &dyn FrozenBase) -> Result<ParsedAdapter, String> {
    let files = AdapterFiles::read(directory, &AdapterLimits::default()).expect("read");
    parse_files(&files, base)
}

#[test]
fn bert_adapters_that_peft_wrote_are_read() {
    let Some(fixtures) = fixtures() else { return };
    let tiny: Size = [2, 64, 128, 480];
    let names = ["not newsworthy", "newsworthy", "very newsworthy"];
    let base = with_head(encoder(ModuleNames::Bert, tiny), &names, HeadKind::Sequence);
    for (adapter, sites, norm_biases) in
        [("a", 4, 0), ("b", 13, 0), ("bias_all", 13, 5), ("bias_lora_only", 4, 0)]
    {
        let found = fixtures.join("tiny/bert_seqcls/adapters").join(adapter);
        let parsed = read(&found, &base).unwrap_or_else(|error| panic!("{adapter}: {error}"));
        assert_eq!(parsed.weights.len(), sites, "{adapter}");
        assert_eq!(parsed.weights.norm_biases().count(), norm_biases, "{adapter}");
        let about = parsed.describe().expect("numbers");
        assert_eq!((about.head, about.task.as_deref()), (Some([3, 64]), Some("SEQ_CLS")));
        assert_eq!(about.labels, names);
    }
    let base = encoder(ModuleNames::Bert, tiny);
    for (adapter, sites) in [("a", 4), ("b", 10)] {
        let found = fixtures.join("tiny/bert_embed/adapters").join(adapter);
        let parsed = read(&found, &base).unwrap_or_else(|error| panic!("{adapter}: {error}"));
        assert_eq!(parsed.weights.len(), sites, "{adapter}");
        assert!(parsed.weights.class_head().is_none());
    }
    let base = encoder(ModuleNames::Bert, [6, 384, 1536, 30522]);
    let parsed = read(&fixtures.join("adapters/minilm-newsworthiness"), &base).expect("served");
    let head = parsed.weights.class_head().expect("a head");
    assert_eq!(&*head.labels.names, ["LABEL_0", "LABEL_1", "LABEL_2"]);
}

fn about(maker: &Maker) -> AdapterDescription {
    format::check(&maker.files(), None, &AdapterLimits::default()).expect("whole")
}

#[test]
fn every_family_is_known_by_its_own_paths() {
    let cases: [(ModuleNames, &str, &str, &str, Site); 4] = [
        (
            ModuleNames::Bert,
            "bert.encoder.layer.",
            "attention.self.query",
            "classifier",
            Site::block(1, Projection::Q),
        ),
        (
            ModuleNames::Roberta,
            "roberta.encoder.layer.",
            "attention.output.dense",
            "classifier.out_proj",
            Site::block(1, Projection::O),
        ),
        (
            ModuleNames::DistilBert,
            "distilbert.transformer.layer.",
            "attention.q_lin",
            "classifier",
            Site::block(1, Projection::Q),
        ),
        (
            ModuleNames::ModernBert,
            "model.layers.",
            "attn.Wo",
            "classifier",
            Site::block(1, Projection::O),
        ),
    ];
    for (names, blocks, path, head, site) in cases {
        let mut maker = adapter(Some("SEQ_CLS"), &[path]);
        on_blocks(&mut maker, blocks, path, [8, 8]);
        add_head(&mut maker, head, 4);
        let weights = weights(&encoder(names, SMALL), &maker);
        assert!(weights.at(site).is_some_and(|delta| delta.low_rank.is_some()), "{names:?}");
        let head = weights.class_head().expect("a head");
        assert_eq!(head.weight.dims(), [4, 8]);
        assert_eq!(flat(&head.weight), values(32, 80));
        // Without a model the same family is found by the names alone.
        let about = about(&maker);
        assert_eq!((about.projections[0].module.as_ref(), about.labels.len()), (path, 4));
    }
}

#[test]
fn a_config_means_paths_as_its_file_has_them() {
    let base = encoder(ModuleNames::Bert, SMALL);
    let path = "attention.self.query";
    for (blocks, task) in
        [("encoder.layer.", "FEATURE_EXTRACTION"), ("bert.encoder.layer.", "FEATURE_EXTRACTION")]
    {
        let regex = format!(r"{}\d+\.attention\.self\.query", blocks.replace('.', r"\."));
        let mut maker = adapter(Some(task), &[]).with("target_modules", json!(regex));
        on_blocks(&mut maker, blocks, path, [8, 8]);
        assert_eq!(weights(&base, &maker).len(), 2, "{blocks}");
        let whole = format!("{blocks}0.{path}");
        let mut maker = adapter(None, &[&whole])
            .with("rank_pattern", json!({"layer.0.attention.self.query": 3}));
        add_pair(&mut maker, &whole, [3, 8, 8], 9);
        assert_eq!(weights(&base, &maker).len(), 1, "{blocks}");
    }
    let mut maker = adapter(Some("FEATURE_EXTRACTION"), &["query"]);
    on_blocks(&mut maker, "encoder.layer.", path, [8, 8]);
    let one = maker.clone().with("layers_to_transform", json!([1]));
    assert!(refused_on(&base, &one).contains("does not select"));
    maker.tensors.retain(|name, _| name.contains("layer.1."));
    assert_eq!(weights(&base, &maker.with("layers_to_transform", json!([1]))).len(), 1);
}

#[test]
fn a_headless_file_is_for_embeddings() {
    let base = encoder(ModuleNames::Bert, SMALL);
    let mut maker = adapter(Some("SEQ_CLS"), &["query"]);
    on_blocks(&mut maker, "encoder.layer.", "attention.self.query", [8, 8]);
    let error = refused_on(&base, &maker);
    assert!(
        error.contains("without its head") && error.contains("`base_model.model.bert.`"),
        "{error}"
    );
    let mut mixed = adapter(Some("FEATURE_EXTRACTION"), &["query", "key"]);
    on_blocks(&mut mixed, "encoder.layer.", "attention.self.query", [8, 8]);
    add_pair(&mut mixed, "bert.encoder.layer.0.attention.self.key", [2, 8, 8], 1);
    let error = refused_on(&base, &mixed);
    assert!(error.contains("some do not"), "{error}");
}

#[test]
fn all_linear_layers_of_a_classifier_are_those_before_its_head() {
    let base = encoder(ModuleNames::Bert, SMALL);
    let mut maker = bert_classifier(3).with("target_modules", json!("all-linear"));
    let error = refused_on(&base, &maker);
    assert!(error.contains("9 layers that have no tensors"), "{error}");
    for (path, size) in [
        ("attention.self.key", [8, 8]),
        ("attention.output.dense", [8, 8]),
        ("intermediate.dense", [8, 12]),
        ("output.dense", [12, 8]),
    ] {
        on_blocks(&mut maker, "bert.encoder.layer.", path, size);
    }
    let error = refused_on(&base, &maker);
    assert!(error.contains("1 layers that have no tensors (bert.pooler.dense)"), "{error}");
    add_pair(&mut maker, "bert.pooler.dense", [2, 8, 8], 4);
    assert_eq!(weights(&base, &maker).len(), 13);
    // A model that labels tokens has no pooler.
    let mut tokens = maker.clone().with("task_type", json!("TOKEN_CLS"));
    assert!(refused_on(&base, &tokens).contains("TOKEN_CLS does not have"));
    tokens.tensors.retain(|name, _| !name.contains("pooler"));
    let head = weights(&base, &tokens).class_head().expect("a head").labels.kind;
    assert_eq!(head, HeadKind::Token);
}

#[test]
fn biases_of_norms_replace_the_bases() {
    let base = encoder(ModuleNames::Bert, SMALL);
    let mut maker = adapter(Some("FEATURE_EXTRACTION"), &["query"]);
    maker = maker.with("modules_to_save", json!(["attention.output.LayerNorm"]));
    on_blocks(&mut maker, "encoder.layer.", "attention.self.query", [8, 8]);
    let norm = |layer: usize| format!("encoder.layer.{layer}.attention.output.LayerNorm");
    for layer in 0..2 {
        maker.set(&named(&norm(layer), "weight"), &[8], &values(8, 30));
    }
    let error = refused_on(&base, &maker);
    assert!(error.contains("has no bias beside it"), "{error}");
    for layer in 0..2 {
        maker.set(&named(&norm(layer), "bias"), &[8], &values(8, 31));
    }
    let weights = weights(&base, &maker);
    let found: Vec<_> = weights.norm_biases().map(|(norm, bias)| (norm, flat(bias))).collect();
    assert_eq!(found[0], (NormSite::Attention(0), values(8, 31)));
    assert_eq!((weights.norms().count(), found.len()), (2, 2));
    // Norms that have no bias take none.
    let mut maker = adapter(Some("FEATURE_EXTRACTION"), &["Wqkv"]);
    on_blocks(&mut maker, "layers.", "attn.Wqkv", [8, 24]);
    maker.set(&named("final_norm", "bias"), &[8], &values(8, 31));
    let error = refused_on(&encoder(ModuleNames::ModernBert, SMALL), &maker);
    assert!(error.contains("bias of a layer that has none"), "{error}");
}

#[test]
fn all_biases_are_those_of_norms_and_of_the_layer_before_the_head_too() {
    let base = encoder(ModuleNames::Bert, SMALL);
    let mut maker = bert_classifier(3).with("bias", json!("all"));
    let sites: Vec<_> = base.layout.sites().collect();
    for (site, shape) in sites {
        let path = ModuleNames::Bert.linear(site).expect("a path");
        let paired = path.ends_with("query") || path.ends_with("value");
        let ending = if paired { "base_layer.bias" } else { "bias" };
        maker.set(&named(&path, ending), &[shape.out_features], &values(shape.out_features, 5));
    }
    for copy in ["modules_to_save.bias", "original_module.bias"] {
        maker.set(&named("classifier", copy), &[3], &values(3, 81));
    }
    let error = refused_on(&base, &maker);
    assert!(error.contains("5 layers") && error.contains("bert.embeddings.LayerNorm"), "{error}");
    for (norm, len) in base.layout.norms() {
        let path = ModuleNames::Bert.norm(norm).expect("a path");
        maker.set(&named(&path, "bias"), &[len], &values(len, 6));
    }
    let weights = weights(&base, &maker);
    assert_eq!((weights.len(), weights.norm_biases().count()), (13, 5));
    let shift = weights.at(Site::HeadDense).and_then(|delta| delta.shift.as_ref());
    let moved = values(8, 5).into_iter().zip(&base.biases[&Site::HeadDense]);
    close(
        &flat(shift.expect("a shift")),
        &moved.map(|(new, old)| f64::from(new - old)).collect::<Vec<_>>(),
    );
    maker.tensors.remove(&named("bert.pooler.dense", "bias"));
    let error = refused_on(&base, &maker);
    assert!(error.contains("bert.pooler.dense"), "{error}");
}

#[test]
fn tables_and_tokens_of_an_encoder_are_those_of_a_decoder() {
    let base = encoder(ModuleNames::ModernBert, SMALL);
    let table = "embeddings.tok_embeddings";
    let mut maker = adapter(Some("FEATURE_EXTRACTION"), &["tok_embeddings"]);
    maker.set(&named(table, "lora_embedding_A"), &[2, 16], &values(32, 5));
    maker.set(&named(table, "lora_embedding_B"), &[8, 2], &values(16, 6));
    assert!(weights(&base, &maker).embedding().is_some_and(|delta| delta.low_rank.is_some()));
    let base = encoder(ModuleNames::Bert, SMALL);
    let table = "bert.embeddings.word_embeddings";
    let rows = named(table, "token_adapter.trainable_tokens_delta");
    let mut maker = bert_classifier(2);
    maker.set(&rows, &[2, 8], &values(16, 7));
    for ids in [json!([9, 4]), json!({"word_embeddings": [9, 4]})] {
        let weights = weights(&base, &maker.clone().with("trainable_token_indices", ids));
        let trained = weights.embedding().and_then(|delta| delta.trained.as_ref()).expect("rows");
        assert_eq!(trained.ids.as_deref(), Some(&[4, 9][..]));
    }
    let positions = "bert.embeddings.position_embeddings";
    let mut maker =
        bert_classifier(2).with("target_modules", json!(["query", "value", "position_embeddings"]));
    maker.set(&named(positions, "lora_embedding_A"), &[2, 16], &values(32, 5));
    maker.set(&named(positions, "lora_embedding_B"), &[8, 2], &values(16, 6));
    let error = refused_on(&base, &maker);
    assert!(error.contains("position_embeddings") && error.contains("stay the base's"), "{error}");
}

#[test]
fn a_pair_before_the_head_is_scaled_to_its_magnitudes() {
    let base = encoder(ModuleNames::Bert, SMALL);
    let mut maker = adapter(Some("SEQ_CLS"), &["pooler.dense"]).with("use_dora", json!(true));
    let path = "bert.pooler.dense";
    add_pair(&mut maker, path, [2, 8, 8], 4);
    let magnitude: Vec<f32> = values(8, 9).iter().map(|m| m + 3.0).collect();
    maker.set(&named(path, "lora_magnitude_vector"), &[8], &magnitude);
    add_head(&mut maker, "classifier", 2);
    let weights = weights(&base, &maker);
    let delta = weights.at(Site::HeadDense).expect("a delta");
    let rows = moved(&base.weight(Site::HeadDense), &values(16, 4), &values(16, 5), 2, 2.0);
    let norms = rows.iter().map(|row| row.iter().map(|w| w * w).sum::<f64>().sqrt());
    let gain: Vec<_> = norms.zip(&magnitude).map(|(norm, m)| f64::from(*m) / norm).collect();
    close(&flat(delta.gain.as_ref().expect("a gain")), &gain);
}

#[test]
fn what_embeddings_are_not_made_of_is_left_out() {
    let mut maker = adapter(Some("FEATURE_EXTRACTION"), &["dense"]);
    for (path, size) in [
        ("attention.output.dense", [8, 8]),
        ("intermediate.dense", [8, 12]),
        ("output.dense", [12, 8]),
    ] {
        on_blocks(&mut maker, "encoder.layer.", path, size);
    }
    add_pair(&mut maker, "pooler.dense", [2, 8, 8], 4);
    let roberta = encoder(ModuleNames::Roberta, SMALL);
    let bert = encoder(ModuleNames::Bert, SMALL);
    for (base, sites) in [(&roberta, 6), (&bert, 7), (&without_dense(bert.clone()), 6)] {
        assert_eq!(weights(base, &maker).len(), sites);
    }
    maker.set(&named("pooler.dense", "lora_A.weight"), &[2, 8], &[f32::NAN; 16]);
    assert!(refused_on(&roberta, &maker).contains("NaN"));
}

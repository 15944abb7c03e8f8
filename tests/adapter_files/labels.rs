//! Names of labels: where they come from, and that they are part of the version.
use super::{
    made_encoders::{SMALL, bert_classifier, encoder, with_head},
    parse_files, parse_on, refused_on,
};
use crate::adapter_maker::{Maker, base::MadeBase};
use lorad::{
    adapter::{
        AdapterFiles, AdapterLimits,
        format::{CONFIG_FILE, WEIGHTS_FILE, split_labels},
    },
    lora::{ClassHeadShape, HeadKind, Labels, ModuleNames, Reading},
};
use serde_json::{Value, json};
use std::fs;

fn bert() -> MadeBase {
    encoder(ModuleNames::Bert, SMALL)
}

fn labels(base: &MadeBase, files: &AdapterFiles) -> Labels {
    let parsed = parse_files(files, base).expect("served");
    parsed.weights.class_head().expect("a head").labels.clone()
}

fn names(found: &Labels) -> Vec<&str> {
    found.names.iter().map(String::as_str).collect()
}

fn of(fields: &[(&str, Value)]) -> Maker {
    fields.iter().fold(bert_classifier(3), |maker, (name, value)| maker.with(name, value.clone()))
}

#[test]
fn a_config_names_labels_in_either_way() {
    for fields in [
        vec![("id2label", json!({"0": "no", "2": "very", "1": "yes"}))],
        vec![("label2id", json!({"very": 2, "no": 0, "yes": 1}))],
        vec![
            ("id2label", json!({"0": "no", "1": "yes", "2": "very"})),
            ("label2id", json!({"very": 2, "no": 0, "yes": 1})),
            ("num_labels", json!(3)),
        ],
    ] {
        let found = labels(&bert(), &of(&fields).files());
        assert_eq!(names(&found), ["no", "yes", "very"]);
        assert_eq!((found.reading, found.kind), (Reading::OneOf, HeadKind::Sequence));
    }
}

#[test]
fn what_nobody_names_has_the_bases_names_or_numbers() {
    let base = with_head(bert(), &["a", "b", "c"], HeadKind::Sequence);
    assert_eq!(names(&labels(&base, &bert_classifier(3).files())), ["a", "b", "c"]);
    assert_eq!(names(&labels(&base, &bert_classifier(2).files())), ["LABEL_0", "LABEL_1"]);
    let tokens = with_head(bert(), &["a", "b", "c"], HeadKind::Token);
    assert_eq!(names(&labels(&tokens, &bert_classifier(3).files()))[0], "LABEL_0");
}

#[test]
fn scores_are_read_as_the_problem_says() {
    for (problem, reading) in [
        ("single_label_classification", Reading::OneOf),
        ("multi_label_classification", Reading::Independent),
        ("regression", Reading::Raw),
    ] {
        let found = labels(&bert(), &of(&[("problem_type", json!(problem))]).files());
        assert_eq!(found.reading, reading, "{problem}");
    }
    let alone = |count| labels(&bert(), &bert_classifier(count).files()).reading;
    assert_eq!((alone(1), alone(2)), (Reading::Independent, Reading::OneOf));
    // Training keeps the base's way, whatever the labels are.
    let mut base = with_head(bert(), &["a", "b", "c"], HeadKind::Sequence);
    let head = base.layout.class_head().expect("heads").clone();
    let own = Labels { reading: Reading::Independent, ..head.base.clone().expect("labels") };
    base.layout = base.layout.with_class_head(ClassHeadShape { base: Some(own), ..head });
    let over = |maker: &Maker| labels(&base, &maker.files()).reading;
    assert_eq!(over(&bert_classifier(2)), Reading::Independent);
    assert_eq!(over(&bert_classifier(2).with("task_type", json!("TOKEN_CLS"))), Reading::OneOf);
}

#[test]
fn labels_that_do_not_fit_are_refused_by_name() {
    for (fields, reason) in [
        (vec![("id2label", json!({"0": "no", "1": "yes"}))], "2 labels"),
        (vec![("num_labels", json!(5))], "5 labels"),
        (vec![("id2label", json!({"0": "no", "1": "yes", "3": "x"}))], "each once"),
        (vec![("id2label", json!(["no"]))], "`id2label`"),
        (vec![("id2label", json!({}))], "`id2label`"),
        (vec![("label2id", json!({"a": 0, "b": 0, "c": 1}))], "`label2id`"),
        (vec![("label2id", json!({"a": 0, "b": 9, "c": 1}))], "`label2id`"),
        (vec![("num_labels", json!(0))], "`num_labels`"),
        (vec![("problem_type", json!("ranking"))], "`problem_type`"),
        (vec![("id2label", json!({"0": "a", "1": "a", "2": "b"}))], "comes twice"),
        (vec![("id2label", json!({"0": "a", "1": " ", "2": "b"}))], "is empty"),
        (vec![("id2label", json!({"0": "a", "1": "x\u{7}", "2": "b"}))], "control characters"),
        (
            vec![
                ("id2label", json!({"0": "a", "1": "b", "2": "c"})),
                ("label2id", json!({"a": 0})),
            ],
            "contradict",
        ),
        (
            vec![("id2label", json!({"0": "a", "1": "b", "2": "c"})), ("num_labels", json!(2))],
            "names for 3 labels",
        ),
    ] {
        let error = refused_on(&bert(), &of(&fields));
        assert!(error.contains(reason), "`{reason}` is not in: {error}");
    }
    let generative = Maker::new(1).with("id2label", json!({"0": "a"}));
    let base = MadeBase::new(crate::adapter_maker::small_layout());
    assert!(refused_on(&base, &generative).contains("scores none"));
}

#[test]
fn given_names_are_part_of_the_version() {
    let files =
        of(&[("label2id", json!({"a": 0, "b": 1, "c": 2})), ("num_labels", json!(3))]).files();
    let given = split_labels("no, yes ,very");
    let labelled = files.clone().with_labels(&given).expect("names");
    assert_eq!(names(&labels(&bert(), &labelled)), ["no", "yes", "very"]);
    assert_ne!(labelled.version(), files.version());
    let again = labelled.clone().with_labels(&given).expect("names");
    assert_eq!(again.version(), labelled.version());
    let other = files.clone().with_labels(&split_labels("no,yes,maybe")).expect("names");
    assert_ne!(other.version(), labelled.version());
    let few = files.clone().with_labels(&split_labels("no,yes")).expect("names");
    let error = parse_files(&few, &bert()).expect_err("refused");
    assert!(error.contains("2 labels") && error.contains("scores 3"), "{error}");
    for wrong in [split_labels("a,,b"), split_labels("a,a,b"), Vec::new()] {
        assert!(files.clone().with_labels(&wrong).is_err(), "{wrong:?}");
    }
    let gguf = AdapterFiles::Gguf(b"GGUF".as_slice().into());
    let error = gguf.with_labels(&given).expect_err("refused").to_string();
    assert!(error.contains("GGUF"), "{error}");
    // The order of what else is in the config decides, and stays.
    let patterned =
        bert_classifier(3).with("rank_pattern", json!({"value": 2, "query": 2, ".*": 9}));
    let patterned = patterned.files().with_labels(&given).expect("names");
    assert!(parse_files(&patterned, &bert()).is_ok());
}

#[test]
fn names_come_from_the_models_config_beside_the_adapter() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |maker: &Maker, model: Option<&str>| {
        for (name, bytes) in maker.files().named() {
            fs::write(directory.path().join(name), bytes).expect("written");
        }
        let path = directory.path().join("config.json");
        match model {
            Some(text) => fs::write(path, text).expect("written"),
            None => drop(fs::remove_file(path)),
        }
        AdapterFiles::read(directory.path(), &AdapterLimits::default())
    };
    let model = r#"{"id2label": {"0": "no", "1": "yes", "2": "very"}, "problem_type": "multi_label_classification"}"#;
    let plain = write(&bert_classifier(3), None).expect("read");
    let found = write(&bert_classifier(3), Some(model)).expect("read");
    let read = labels(&bert(), &found);
    assert_eq!((names(&read), read.reading), (vec!["no", "yes", "very"], Reading::Independent));
    assert_ne!(found.version(), plain.version());
    let own = of(&[("id2label", json!({"0": "a", "1": "b", "2": "c"}))]);
    let found = write(&own, Some(model)).expect("read");
    assert_eq!(found.version(), own.files().version());
    // Nothing there is the adapter's unless it is a classifier's.
    let embeds = bert_classifier(3).with("task_type", json!("FEATURE_EXTRACTION"));
    let found = write(&embeds, Some("broken")).expect("read");
    assert_eq!(found.version(), embeds.files().version());
    let error = write(&bert_classifier(3), Some("broken")).expect_err("refused").to_string();
    assert!(error.contains("`config.json` beside the adapter"), "{error}");
    let two = r#"{"id2label": {"0": "no", "1": "yes"}}"#;
    let found = write(&bert_classifier(3), Some(two)).expect("read");
    assert!(parse_files(&found, &bert()).expect_err("refused").contains("2 labels"));
    assert!(
        directory.path().join(CONFIG_FILE).exists() && directory.path().join(WEIGHTS_FILE).exists()
    );
}

#[test]
fn a_description_says_what_is_scored() {
    let maker = of(&[("id2label", json!({"0": "no", "1": "yes", "2": "very"}))]);
    let about = parse_on(&bert(), &maker).expect("served").describe().expect("numbers");
    assert_eq!((about.task.as_deref(), about.head), (Some("SEQ_CLS"), Some([3, 8])));
    assert_eq!(about.trained_modules, ["classifier"]);
    let text = serde_json::to_value(&about).expect("JSON");
    // A description that was written before adapters had heads.
    let mut former = text.clone();
    for field in ["task", "labels", "head"] {
        former.as_object_mut().expect("an object").remove(field);
    }
    let read: lorad::adapter::AdapterDescription = serde_json::from_value(former).expect("read");
    assert!(read.labels.is_empty() && read.head.is_none() && read.task.is_none());
    assert_eq!(
        serde_json::from_value::<lorad::adapter::AdapterDescription>(text).expect("read"),
        about
    );
}

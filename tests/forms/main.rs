//! Forms of answers without a model: whatever tokens are chosen among the allowed ones, the text is right.
mod fuzz;
mod schemas;
mod service;
mod walk;

use lorad::{generation::AnswerForm, telemetry::Metrics};
use proptest::prelude::*;
use schemas::{accepts, schema};
use serde_json::{Value, json};
use service::Forms;
use std::sync::LazyLock;
use walk::{Noise, count};

/// Longer than any answer of a small schema.
const ENOUGH: usize = 2000;

static BYTE_LEVEL: LazyLock<Forms> =
    LazyLock::new(|| Forms::of(include_bytes!("../golden/llama/tokenizer.json")));

/// `\u{2581}` stands for a space, and a text begins with one; special tokens are 0 and 1, bytes begin at 2.
static SENTENCE_PIECE: LazyLock<Forms> = LazyLock::new(|| {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    let mut pieces: Vec<String> = vec!["<s>".into(), "</s>".into()];
    pieces.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    pieces.extend(
        ["\u{2581}", "a", "é", "\u{2581}a", "true", "null", "\"", "{\"", "\":", "\u{2581}\""]
            .map(String::from),
    );
    let vocab: serde_json::Map<String, Value> =
        pieces.into_iter().zip((0_u32..).map(Value::from)).collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [special(0, "<s>"), special(1, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]},
        "model": {"type": "BPE", "byte_fallback": true, "fuse_unk": true, "vocab": vocab, "merges": []},
    });
    Forms::of(tokenizer.to_string().as_bytes())
});

fn both() -> [&'static Forms; 2] {
    [&BYTE_LEVEL, &SENTENCE_PIECE]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_is_chosen_parses_and_validates(schema in schema(), seed: u64) {
        for forms in both() {
            let mut form = forms.compile(AnswerForm::JsonSchema(schema.clone())).expect("a schema");
            let walked = forms.walk(&mut form, &mut Noise(seed), ENOUGH).expect("a way");
            prop_assert!(walked.is_whole, "{} of {schema}", walked.text);
            let value = serde_json::from_str(&walked.text);
            let value: Value = value.map_err(|error| TestCaseError::fail(format!("{error}: {walked:?}")))?;
            prop_assert!(accepts(&schema, &value), "{} of {schema}", walked.text);
        }
    }

    #[test]
    fn a_choice_is_one_of_the_choices(
        choices in prop::collection::vec("[a-c\"\\\\\\n é€🚀|/]{1,5}", 1..6),
        seed: u64,
    ) {
        for forms in both() {
            let mut form = forms.compile(AnswerForm::Choice(choices.clone())).expect("choices");
            let walked = forms.walk(&mut form, &mut Noise(seed), ENOUGH).expect("a way");
            prop_assert!(walked.is_whole && choices.contains(&walked.text), "{walked:?} of {choices:?}");
        }
    }

    #[test]
    fn the_answers_of_one_request_do_not_know_each_other(schema in schema(), seed: u64) {
        let mut forms = BYTE_LEVEL.compile_all(AnswerForm::JsonSchema(schema), 3).expect("a schema");
        let mut alone = forms.pop().expect("three");
        let alone = BYTE_LEVEL.walk(&mut alone, &mut Noise(seed), ENOUGH).expect("a way").text;
        // One step of each in turn.
        let mut noises = [Noise(seed), Noise(!seed)];
        let mut taken = [Vec::new(), Vec::new()];
        let mut running = [true, true];
        while running[0] {
            for index in 0..2 {
                if !running[index] {
                    continue;
                }
                let (allowed, may_end) = BYTE_LEVEL.allowed(&mut forms[index]).expect("a way");
                if allowed.is_empty() || (may_end && noises[index].below(3) == 0) {
                    running[index] = false;
                    continue;
                }
                let id = allowed[noises[index].below(allowed.len())];
                taken[index].push(id);
                running[index] = !forms[index].accept(id).expect("allowed");
            }
        }
        let text = BYTE_LEVEL.text(std::mem::take(&mut taken[0]));
        prop_assert_eq!(text, alone);
    }
}

#[test]
fn expressions_and_grammars_are_matched_from_end_to_end() {
    let gbnf = "root ::= \"[\" item (\",\" item)* \"]\"\nitem ::= [0-9]{1,2} | root";
    let lark = "start: \"[\" item (\",\" item)* \"]\"\nitem: /[0-9]{1,2}/ | start";
    let is_list = |text: &str| {
        let value: Result<Value, _> = serde_json::from_str(text);
        value.is_ok() || text.contains('0')
    };
    for forms in both() {
        for seed in 0..30 {
            let walk = |form| {
                let mut form = forms.compile(form).expect("a form");
                forms.walk(&mut form, &mut Noise(seed), 300).expect("a way")
            };
            let word = walk(AnswerForm::Regex("^(ab|a é|[x-z]{3})$".into())).text;
            let is_word = ["ab", "a é"].contains(&word.as_str())
                || (word.len() == 3 && word.chars().all(|c| ('x'..='z').contains(&c)));
            assert!(is_word, "{word}");
            for grammar in [gbnf, lark] {
                let walked = walk(AnswerForm::Grammar(grammar.into()));
                assert!(!walked.is_whole || is_list(&walked.text), "{walked:?}");
            }
            let object = walk(AnswerForm::JsonObject);
            if object.is_whole {
                match serde_json::from_str::<Value>(&object.text) {
                    Ok(value) => assert!(value.is_object(), "{object:?}"),
                    // JSON's numbers have no largest; this reader's have.
                    Err(error) => assert!(error.to_string().contains("out of range"), "{object:?}"),
                }
            }
        }
    }
}

#[test]
fn special_tokens_are_no_text_and_a_grammar_gets_those_that_it_names() {
    for (forms, name) in [(&*BYTE_LEVEL, "<|im_end|>"), (&*SENTENCE_PIECE, "</s>")] {
        let special = forms.ids(name);
        assert_eq!(special.len(), 1, "{name}");
        for form in [
            AnswerForm::Regex(r"[\s\S]{1,30}".into()),
            AnswerForm::Choice(vec![name.into()]),
            AnswerForm::JsonSchema(json!({"const": name})),
        ] {
            let mut form = forms.compile(form).expect("a form");
            for _ in 0..3 {
                let (allowed, _) = forms.allowed(&mut form).expect("a way");
                assert!(
                    !allowed.is_empty() && !allowed.contains(&special[0]),
                    "{name}: {allowed:?}"
                );
                form.accept(allowed[0]).expect("allowed");
            }
        }
        let mut form =
            forms.compile(AnswerForm::Grammar(format!("start: \"a\" {name}"))).expect("a form");
        let (first, _) = forms.allowed(&mut form).expect("a way");
        form.accept(first[0]).expect("allowed");
        assert_eq!(forms.allowed(&mut form).expect("a way").0, special);
    }
}

#[test]
fn ids_that_are_no_tokens_are_never_allowed() {
    for forms in both() {
        let mut form = forms.compile(AnswerForm::Regex(r"[\s\S]*".into())).expect("a form");
        let (allowed, may_end) = forms.allowed(&mut form).expect("a way");
        let beyond = (forms.vocab - 13) as u32;
        assert!(may_end && allowed.iter().all(|id| *id < beyond), "{allowed:?}");
    }
}

#[test]
fn json_within_a_grammar_has_bounded_space_too() {
    let grammar =
        r#"start: "call " %json {"type": "array", "items": {"type": "null"}, "maxItems": 3}"#;
    for seed in 0..60 {
        let mut form = BYTE_LEVEL.compile(AnswerForm::Grammar(grammar.into())).expect("a form");
        let walked = BYTE_LEVEL.walk(&mut form, &mut Noise(seed), ENOUGH).expect("a way");
        assert!(walked.is_whole, "{walked:?}");
        let longest = walked.text.split(|c: char| !c.is_whitespace()).map(str::len).max();
        assert!(longest.is_some_and(|longest| longest <= 25), "{walked:?}");
    }
}

/// Forms of their own, and their counters.
fn counted() -> (Forms, impl Fn(&str) -> u64) {
    let metrics = Metrics::new("x");
    let tokenizer = include_bytes!("../golden/llama/tokenizer.json");
    (Forms::counted(tokenizer, metrics.clone()), move |counter: &str| count(&metrics, counter))
}

#[test]
fn a_form_is_compiled_once_and_the_latest_ones_are_kept() {
    let (forms, count) = counted();
    let compile = |index: usize| {
        forms
            .compile(AnswerForm::Choice(vec![format!("choice {index}")]))
            .map(drop)
            .expect("a form");
    };
    compile(0);
    compile(0);
    assert_eq!((count("compiles"), count("cache_hits")), (1, 1));
    (1..=128).for_each(&compile);
    compile(128);
    assert_eq!((count("compiles"), count("cache_hits")), (129, 2));
    compile(0);
    assert_eq!(count("compiles"), 130, "128 came after it");
    let wrong = || forms.compile(AnswerForm::Regex("(".into())).map(drop).expect_err("wrong");
    assert_eq!(wrong().to_string(), wrong().to_string());
    assert_eq!(count("compiles"), 131, "a refusal is known too");
}

#[test]
fn those_who_want_one_form_at_one_time_wait_for_one_compilation() {
    let (forms, count) = counted();
    let many: Vec<String> = (0..1000).map(|index| format!("choice {index}")).collect();
    assert_eq!(forms.compile_at_once(&AnswerForm::Choice(many), 8), 8);
    assert_eq!((count("compiles"), count("cache_hits")), (1, 7));
}

#[test]
fn an_ambiguous_grammar_gives_up_early_and_a_long_schema_does_not() {
    for grammar in [
        "start: s\ns: s s s | s s | \"a\" | \"\"",
        "start: s\ns: s s s | s s | /[a-z]/ | \"\"",
        "root ::= root root | \"a\"",
    ] {
        let mut form = BYTE_LEVEL.compile(AnswerForm::Grammar(grammar.into())).expect("a form");
        let mut taken = 0;
        let gave_up = loop {
            let Some((allowed, _)) = BYTE_LEVEL.allowed(&mut form) else { break true };
            if taken == 200 || form.accept(*allowed.last().expect("never at its end")).is_err() {
                break taken < 200;
            }
            taken += 1;
        };
        assert!(gave_up, "{grammar}");
    }
    let properties: serde_json::Map<String, Value> =
        (0..300).map(|index| (format!("property {index}"), json!({"type": "integer"}))).collect();
    let long = json!({"type": "object", "properties": properties, "additionalProperties": false});
    for seed in 0..3 {
        let composed = AnswerForm::Composed(format!("start: \"call \" %json {long}"));
        for form in [AnswerForm::JsonSchema(long.clone()), composed] {
            let mut form = BYTE_LEVEL.compile(form).expect("a form");
            assert!(BYTE_LEVEL.walk(&mut form, &mut Noise(seed), 300).is_some());
        }
    }
}

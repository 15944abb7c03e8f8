//! Whatever a client sends as a form, the compiler answers, soon, and what it takes can be followed.
use super::{BYTE_LEVEL, SENTENCE_PIECE, walk::Noise};
use lorad::{
    error::{Classified, ErrorKind},
    generation::AnswerForm,
};
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// Far more than the limits promise: a slow machine is no failure.
const SOON: Duration = Duration::from_secs(20);

/// The first byte chooses the kind of form and the tokenizer; the rest is the form.
fn compile(bytes: &[u8]) {
    let (kind, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let text = String::from_utf8_lossy(rest).into_owned();
    let form = match kind % 5 {
        0 => AnswerForm::Regex(text),
        1 => AnswerForm::Choice(text.split('\n').map(str::to_owned).collect()),
        2 => AnswerForm::Grammar(text),
        3 => AnswerForm::Grammar(format!("root ::= {text}")),
        _ => match serde_json::from_str(&text) {
            Ok(schema) => AnswerForm::JsonSchema(schema),
            Err(_) => return,
        },
    };
    let forms = if kind & 128 == 0 { &BYTE_LEVEL } else { &SENTENCE_PIECE };
    let began = Instant::now();
    match forms.compile(form) {
        Ok(mut form) => {
            let mut noise = Noise(rest.len() as u64);
            // It may give up, when it becomes too complex.
            let _walked = forms.walk(&mut form, &mut noise, 40);
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
            assert_eq!(error.param(), Some("field"));
            assert!(
                ["invalid_grammar", "grammar_too_complex"].contains(&error.code()),
                "{error:?}"
            );
            assert!(error.to_string().chars().count() < 420, "{error}");
        }
    }
    assert!(began.elapsed() < SOON, "{:?}", String::from_utf8_lossy(bytes));
}

fn joined(parts: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(parts), 0..24).prop_map(|parts| parts.concat())
}

fn expression() -> impl Strategy<Value = String> {
    joined(&[
        "a", "é", "(", ")", "[", "]", "[^", "-", "{2}", "{1000}", "{0,}", "*", "+", "?", "|", ".",
        "\\", "\\d", "\\w", "\\b", "\\p{L}", "(?i)", "(?=", "(?:", "/", "\"", "\n", "^", "$", "&",
        "~",
    ])
}

fn grammar() -> impl Strategy<Value = String> {
    joined(&[
        "start",
        ": ",
        "a",
        "A",
        "\n",
        "\"x\"",
        "/y/",
        " | ",
        "(",
        ")",
        "*",
        "+",
        "?",
        "{2,3}",
        "~ 2..3",
        "%json {\"type\": \"null\"}",
        "%json",
        "%ignore ",
        "%import common.INT",
        "%lark { start: \"z\" }",
        "%regex {\"substring_words\": \"a b\"}",
        "%llguidance {}",
        "<[2]>",
        "<|im_end|>",
        "[stop=\"\"]",
        "[max_tokens=3]",
        "[lazy]",
        "[capture]",
        "::_",
        " & ",
        "-> ",
        "#",
        "//",
        "..",
        "@a",
        "%if true ",
    ])
}

fn gbnf() -> impl Strategy<Value = String> {
    joined(&[
        "root", "a", " ::= ", "\n", "\"x\"", "[a-z]", "[^\"]", " | ", "(", ")", "*", "+", "?",
        "{2}", "{1,}", ".", "#", "\\", "\"\"", " ",
    ])
}

fn schema() -> impl Strategy<Value = String> {
    joined(&[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"type\":",
        "\"object\"",
        "\"string\"",
        "\"array\"",
        "\"integer\"",
        "\"properties\":",
        "\"items\":",
        "\"$ref\":",
        "\"#\"",
        "\"#/$defs/a\"",
        "\"$defs\":",
        "\"a\":",
        "\"anyOf\":",
        "\"allOf\":",
        "\"oneOf\":",
        "\"enum\":",
        "\"const\":",
        "\"pattern\":",
        "\"a*\"",
        "\"minimum\":",
        "\"maxLength\":",
        "1",
        "-1",
        "1e99",
        "true",
        "null",
        "{\"type\":\"null\"}",
        "[{}]",
        "\"format\":",
        "\"date\"",
        "\"required\":[\"a\"]",
        "\"x-guidance\":",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        compile(&bytes);
    }

    #[test]
    fn anything_like_an_expression(text in expression(), high: bool) {
        compile(&[&[if high { 130 } else { 0 }], text.as_bytes()].concat());
    }

    #[test]
    fn anything_like_a_grammar(text in grammar(), with_start: bool) {
        let start = if with_start { "start: \"s\" " } else { "" };
        compile(&[&[2], start.as_bytes(), text.as_bytes()].concat());
    }

    #[test]
    fn anything_like_gbnf(text in gbnf()) {
        compile(&[&[3], text.as_bytes()].concat());
    }

    #[test]
    fn anything_like_a_schema(text in schema()) {
        compile(&[&[4], text.as_bytes()].concat());
        let object = format!("{{\"type\":\"object\",{text}}}");
        compile(&[&[4], object.as_bytes()].concat());
    }
}

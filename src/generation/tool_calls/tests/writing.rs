//! Grammars with calls: what they say, and what llguidance lets through.
use super::{
    ToolCallFormat::{Hermes, Json, Llama3, Mistral},
    *,
};
use llguidance::{Matcher, ParserFactory, api::TopLevelGrammar, toktrie::ApproximateTokEnv};
use serde_json::json;

fn calls(format: ToolCallFormat) -> ToolCalls {
    ToolCalls { format, parallel: true, marks: Marks::default() }
}

fn functions(strict: bool) -> [ToolFunction; 2] {
    let place = json!({"type": "string", "maxLength": 9});
    let schema = json!({"type": ["object", "null"], "properties": {"place": place}, "required": ["place"],
                        "additionalProperties": false});
    [
        ToolFunction { name: "get_weather".into(), parameters: Some(schema), strict },
        ToolFunction { name: "add".into(), parameters: None, strict: false },
    ]
}

fn text(form: AnswerForm) -> String {
    let AnswerForm::Composed(grammar) = form else { panic!("calls are a grammar") };
    grammar
}

/// Follows grammars over a vocabulary of single bytes.
struct Judge(ParserFactory);

impl Judge {
    fn new() -> Self {
        let mut factory =
            ParserFactory::new_simple(&ApproximateTokEnv::single_byte_env()).expect("tokens");
        factory.quiet();
        Self(factory)
    }

    /// Whether `said` may be a whole answer.
    fn allows(&self, form: &AnswerForm, said: &str) -> bool {
        let grammar = TopLevelGrammar::from_lark(text(form.clone()));
        let parser = self.0.create_parser(grammar);
        let mut matcher = Matcher::new(Ok(parser.unwrap_or_else(|error| panic!("{error:#}"))));
        let bytes: Vec<u32> = said.bytes().map(u32::from).collect();
        let taken = matcher.try_consume_tokens(&bytes).expect("a grammar");
        taken == bytes.len() && (matcher.is_stopped() || matcher.is_accepting().expect("a grammar"))
    }
}

#[test]
fn required_calls_are_allowed_and_nothing_else() {
    let (judge, good) = (Judge::new(), ("get_weather", r#"{"place": "Ulm"}"#));
    for format in ALL {
        let (one, several) = (
            calls(format).required(&functions(false), true),
            calls(format).required(&functions(false), false),
        );
        let free = ("add", r#"{"a": [1, null], "b": {}}"#);
        for (made, is_one) in [
            (&[good][..], true),
            (&[free], true),
            (&[("add", "{}")], true),
            (&[good, free, good], false),
        ] {
            let said = written(format, made);
            assert_eq!(judge.allows(&one, &said), is_one, "{said}");
            assert!(judge.allows(&several, &said), "{said}");
        }
        for made in [
            &[("get_weather", "{}")][..],
            &[("get_weather", r#"{"place": "somewhere else"}"#)],
            &[("get_weather", r#"{"place": "Ulm", "more": 1}"#)],
            &[("add", "3")],
            &[("add", "null")],
            &[("multiply", "{}")],
            &[good, ("add", "[]")],
        ] {
            assert!(!judge.allows(&several, &written(format, made)), "{format:?} {made:?}");
        }
        for said in ["", "Hello", "{}", "<tool_call>", "[]"] {
            assert!(!judge.allows(&several, said), "{format:?} {said}");
        }
        assert!(!judge.allows(&several, &format!("{} more", written(format, &[good]))));
    }
}

#[test]
fn what_is_allowed_is_read_back() {
    let made = [("get_weather", r#"{"place": "Köln"}"#), ("add", r#"{"a": -1.5e3}"#)];
    for format in ALL {
        let said = written(format, &made);
        assert!(Judge::new().allows(&calls(format).required(&functions(false), false), &said));
        assert_eq!(read(format, wanted(true), &[&said]).calls.len(), 2, "{said}");
    }
}

#[test]
fn one_call_is_all_where_the_template_takes_one() {
    let single = ToolCalls { parallel: false, ..calls(Llama3) };
    let said = written(Llama3, &[("add", "{}"), ("add", "{}")]);
    assert!(!Judge::new().allows(&single.required(&functions(false), false), &said));
}

#[test]
fn strict_functions_obey_their_schemas_amid_any_text() {
    let judge = Judge::new();
    for format in ALL {
        let form = calls(format).strict(&functions(true), false).expect("one is strict");
        let good = written(format, &[("get_weather", r#"{"place": "Ulm"}"#)]);
        let bad = written(format, &[("get_weather", r#"{"place": 3}"#)]);
        let free = written(format, &[("add", r#"{"place": 3}"#)]);
        for said in ["", "Hello.", " \n", "a {b} [c] <d>\n", &good, &free] {
            assert!(judge.allows(&form, said), "{format:?} {said}");
        }
        assert!(!judge.allows(&form, &bad), "{bad}");
        let Some(lead) = format.shape().lead else { continue };
        let lead = if format == Llama3 { lead } else { "" };
        for (call, is_good) in [(&good, true), (&free, true), (&bad, false)] {
            let said = format!("Well, {{so}}:\n{lead}{call}");
            assert_eq!(judge.allows(&form, &said), is_good, "{said}");
        }
    }
    assert!(calls(Hermes).strict(&functions(false), false).is_none());
}

#[test]
fn a_strict_answer_may_call_again_unless_one_call_is_all() {
    let (judge, call) = (Judge::new(), written(Hermes, &[("add", "{}")]));
    let [several, one] =
        [false, true].map(|only_one| calls(Hermes).strict(&functions(true), only_one));
    let (several, one) = (several.expect("strict"), one.expect("strict"));
    for said in [format!("a {call} b {call}"), format!("{call}\n{call}\n"), format!("{call} b")] {
        assert!(judge.allows(&several, &said) && !judge.allows(&one, &said), "{said}");
    }
    assert!(judge.allows(&one, &format!("a {call}")));
}

#[test]
fn an_answer_may_be_calls_or_else_json_of_its_schema() {
    let (judge, schema) = (
        Judge::new(),
        json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}),
    );
    for format in ALL {
        let either = calls(format).or_else(
            &functions(false),
            false,
            &AnswerForm::JsonSchema(schema.clone()),
        );
        let either = either.expect("JSON");
        for (said, is_good) in [
            ("{\"n\": 3}", true),
            ("{\"n\": \"3\"}", false),
            ("Hello", false),
            (&written(format, &[("add", "{}")]), true),
            (&written(format, &[("get_weather", "{}")]), false),
        ] {
            assert_eq!(judge.allows(&either, said), is_good, "{format:?} {said}");
        }
        let object = calls(format).or_else(&functions(false), false, &AnswerForm::JsonObject);
        assert!(judge.allows(&object.expect("JSON"), "{\"any\": [1]}"));
        let word = AnswerForm::Choice(vec!["yes".into()]);
        assert_eq!(calls(format).or_else(&functions(false), false, &word), None);
    }
}

#[test]
fn marks_that_steer_the_model_are_tokens() {
    let marks = Marks { lead: Some(5), tail: Some(6) };
    let first_lines = |format, lines: usize| {
        let calls = ToolCalls { marks, ..calls(format) };
        let grammar = text(calls.strict(&functions(true), true).expect("strict"));
        (
            text(calls.required(&functions(true), true)).lines().take(1).collect::<String>(),
            grammar.lines().take(lines).collect::<Vec<_>>().join("\n"),
        )
    };
    let (required, strict) = first_lines(Hermes, 3);
    assert_eq!(required, r#"start: <[5]> "\n" call "\n" <[6]>"#);
    let expected =
        "start: said \"\\n\" call \"\\n\" <[6]> | TEXT?\nsaid: TEXT? <[5]>\nTEXT: /(.|\\n)+/";
    assert_eq!(strict, expected);
    let (required, _) = first_lines(Mistral, 3);
    assert_eq!(required, r#"start: <[5]> " "? "[" call "]""#);
}

#[test]
fn each_function_has_its_own_arguments() {
    let grammar = text(calls(Json).required(&functions(false), true));
    let style =
        r#""x-guidance":{"whitespace_flexible":false,"item_separator":", ","key_separator":": "}"#;
    let expected = [
        "start: call".to_owned(),
        "call: f0 | f1".to_owned(),
        r#"f0: "{" "\"name\"" ": " "\"get_weather\"" ", " "\"arguments\"" ": " f0_arguments "}""#
            .to_owned(),
        format!(
            r#"f0_arguments: %json {{"type":"object","properties":{{"place":{{"type":"string","maxLength":9}}}},"required":["place"],"additionalProperties":false,{style}}}"#
        ),
        r#"f1: "{" "\"name\"" ": " "\"add\"" ", " "\"arguments\"" ": " f1_arguments "}""#
            .to_owned(),
        format!(r#"f1_arguments: %json {{"type":"object",{style}}}"#),
    ];
    assert_eq!(grammar.lines().collect::<Vec<_>>(), expected);
}

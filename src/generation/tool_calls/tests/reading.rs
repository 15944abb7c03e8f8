//! Answers as models write them, whole and broken.
use super::{
    ToolCallFormat::{Hermes, Json, Llama3, Mistral},
    *,
};

fn whole(format: ToolCallFormat, text: &str) -> Read {
    let whole = read(format, wanted(false), &[text]);
    assert_eq!(read(format, wanted(true), &[text]), whole, "a stream says the same");
    whole
}

fn calls(calls: &[(&str, &str)]) -> Vec<(String, String)> {
    calls.iter().map(|(name, arguments)| ((*name).to_owned(), (*arguments).to_owned())).collect()
}

#[test]
fn one_call_and_several_are_read_in_every_format() {
    let one = [("get_weather", r#"{"place": "Köln", "days": [1, -2.5e3]}"#)];
    let two = [one[0], ("add", "{}")];
    for format in ALL {
        for made in [&one[..], &two[..]] {
            let read = whole(format, &written(format, made));
            let expected = Read { content: String::new(), calls: calls(made) };
            assert_eq!(read, expected, "{format:?}");
        }
    }
}

#[test]
fn what_is_said_before_and_after_calls_is_content() {
    let read = whole(
        Hermes,
        "Let me see.\n\n<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>\nDone.",
    );
    assert_eq!(read.content, "Let me see.\nDone.");
    assert_eq!(read.calls, calls(&[("add", "{}")]));
    let read = whole(Mistral, "Yes: [TOOL_CALLS] [{\"name\":\"add\",\"arguments\":{}}] ok");
    assert_eq!((read.content.as_str(), read.calls.len()), ("Yes: ok", 1));
    let read = whole(Llama3, "Hm. <|python_tag|>{\"name\": \"add\", \"parameters\": {}}");
    assert_eq!((read.content.as_str(), read.calls.len()), ("Hm.", 1));
}

#[test]
fn arguments_are_as_the_model_wrote_them() {
    let arguments = "{ \"a\" :1e2,\"b\":\"\\u00e9\\\"}\", \"c\": {\"d\": []}\n}";
    for format in ALL {
        assert_eq!(
            whole(format, &written(format, &[("add", arguments)])).calls,
            calls(&[("add", arguments)])
        );
    }
}

#[test]
fn both_names_for_arguments_any_order_and_an_id_are_read() {
    for object in [
        r#"{"name": "add", "parameters": {"a": 1}}"#,
        r#"{"arguments": {"a": 1}, "name": "add"}"#,
        r#"{"type": "function", "id": 7, "name": "add", "arguments": {"a": 1}}"#,
        r#"{"name": "add", "arguments": {"a": 1}, "id": "abcdefghi"}"#,
    ] {
        let expected = calls(&[("add", r#"{"a": 1}"#)]);
        assert_eq!(whole(Json, object).calls, expected, "{object}");
        assert_eq!(whole(Mistral, &format!("[TOOL_CALLS] [{object}]")).calls, expected);
        assert_eq!(whole(Hermes, &format!("<tool_call>{object}</tool_call>")).calls, expected);
        assert_eq!(whole(Llama3, &format!("<|python_tag|>{object}")).calls, expected);
    }
}

#[test]
fn a_call_without_arguments_has_none() {
    assert_eq!(whole(Json, r#"{"name": "add"}"#).calls, calls(&[("add", "{}")]));
}

#[test]
fn marks_at_the_end_may_be_missing() {
    let object = r#"{"name": "add", "arguments": {}}"#;
    for text in [
        format!("<tool_call>\n{object}"),
        format!("<tool_call>\n{object}\n"),
        format!("<tool_call>\n{object}\n</tool_"),
    ] {
        assert_eq!(
            whole(Hermes, &text),
            Read { content: String::new(), calls: calls(&[("add", "{}")]) }
        );
    }
    assert_eq!(whole(Mistral, &format!("[TOOL_CALLS][{object}")).calls.len(), 1);
    let twice = format!("<tool_call>{object}<tool_call>{object}</tool_call>");
    assert_eq!(whole(Hermes, &twice).calls.len(), 2);
}

#[test]
fn what_is_no_call_is_given_back_byte_by_byte() {
    for (format, text) in [
        (Hermes, "<tool_call>\n{\"name\": \"unknown\", \"arguments\": {}}\n</tool_call>"),
        (Hermes, "<tool_call>\nget_weather\n</tool_call>"),
        (Hermes, " <tool_call>\n{\"name\": \"add\", \"arguments\": 3}\n</tool_call>"),
        (Hermes, "a <tool_call> {\"name\": \"add\", \"arguments\": \"{}\"}</tool_call> b\n"),
        (Hermes, "<tool_call>{\"arguments\": {}}</tool_call>"),
        (Hermes, "<tool_call>{\"name\": \"add\", \"name\": \"add\"}</tool_call>"),
        (Hermes, "<tool_call>"),
        (Hermes, "\n\n<tool_call>\n"),
        (Hermes, "<tool_call>{\"name\": \"add\""),
        (Hermes, "</tool_call> <tool_cal> < {\"name\": \"add\"}"),
        (Llama3, "{\"answer\": 42}"),
        (Llama3, "{\"name\": \"Ada\", \"born\": 1815}"),
        (Llama3, "Sure: {\"name\": \"add\", \"parameters\": {}}"),
        (Llama3, "<|python_tag|>print(1)"),
        (Mistral, "[TOOL_CALLS] {\"name\": \"add\", \"arguments\": {}}"),
        (Mistral, "[TOOL_CALLS][]"),
        (Mistral, "[1, 2]"),
        (Json, "[]"),
        (Json, "[1, 2]"),
        (Json, "[{\"name\": \"unknown\"}]"),
        (Json, "  \n"),
        (Json, ""),
        (Json, "{"),
    ] {
        let expected = Read { content: text.to_owned(), calls: Vec::new() };
        assert_eq!(whole(format, text), expected, "{format:?}");
    }
}

#[test]
fn a_call_is_found_after_one_that_was_none() {
    let good = "<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>";
    let bad = "<tool_call>\n{\"name\": \"nope\", \"arguments\": {}}\n</tool_call>";
    let read = whole(Hermes, &format!("{bad}\n{good}"));
    assert_eq!(read, Read { content: bad.to_owned(), calls: calls(&[("add", "{}")]) });
    let read = whole(Hermes, &format!("<tool_call>\n{{\"name\": {good}"));
    assert_eq!((read.content.as_str(), read.calls.len()), ("<tool_call>\n{\"name\": ", 1));
}

#[test]
fn a_list_that_breaks_off_keeps_its_calls() {
    let text = "[TOOL_CALLS][{\"name\": \"add\", \"arguments\": {}}, {\"name\": \"nope\"}]";
    let read = whole(Mistral, text);
    assert_eq!(read.calls, calls(&[("add", "{}")]));
    assert_eq!(read.content, ", {\"name\": \"nope\"}]");
}

#[test]
fn json_that_breaks_is_content_of_a_whole_answer_and_ends_the_call_of_a_stream() {
    let text = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": one}}\n</tool_call>";
    let given_back = Read { content: text.to_owned(), calls: Vec::new() };
    assert_eq!(read(Hermes, wanted(false), &[text]), given_back);
    let told = Read { content: "one}}\n</tool_call>".into(), calls: calls(&[("add", "{\"a\": ")]) };
    assert_eq!(read(Hermes, wanted(true), &[text]), told);
}

#[test]
fn a_call_that_the_end_cuts_off_is_told_as_far_as_it_came() {
    for format in ALL {
        let text = written(format, &[("add", "{\"a\": [1, 2")]);
        let cut = text.rfind('2').expect("there") + 1;
        assert_eq!(whole(format, &text[..cut]).calls, calls(&[("add", "{\"a\": [1, 2")]));
    }
}

#[test]
fn the_only_call_ends_the_answer() {
    for format in ALL {
        let text = written(format, &[("add", "{}"), ("add", "{\"a\": 1}")]);
        for streamed in [false, true] {
            let wanted = CallsWanted { only_one: true, ..wanted(streamed) };
            let expected = Read { content: String::new(), calls: calls(&[("add", "{}")]) };
            assert_eq!(read(format, wanted, &[&format!("{text} more")]), expected, "{format:?}");
        }
    }
}

#[test]
fn a_stream_tells_the_function_first_and_then_each_piece_of_its_arguments() {
    let mut parser = CallParser::new(Hermes, wanted(true));
    let mut told = Vec::new();
    for piece in [
        "Hm",
        ". <tool",
        "_call>\n{\"name\": \"a",
        "dd\", \"arguments\": {",
        "\"a\": 1",
        "0}}\n</tool_",
        "call>",
    ] {
        told.push(parser.push(piece));
    }
    told.push(parser.finish());
    let argument = |text: &str| CallEvent::Arguments { call: 0, text: text.into() };
    let expected = [
        vec![CallEvent::Content("Hm".into())],
        vec![CallEvent::Content(".".into())],
        vec![],
        vec![CallEvent::Begins { call: 0, name: "add".into() }, argument("{")],
        vec![argument("\"a\": 1")],
        vec![argument("0}")],
        vec![],
        vec![],
    ];
    assert_eq!(told, expected);
}

#[test]
fn text_that_cannot_become_a_call_comes_at_once() {
    let mut parser = CallParser::new(Llama3, wanted(true));
    assert_eq!(parser.push("{\"n"), []);
    assert_eq!(parser.push("o"), []);
    assert_eq!(parser.push("\":"), [CallEvent::Content("{\"no\":".into())]);
    assert_eq!(parser.push("1}"), [CallEvent::Content("1}".into())]);
}

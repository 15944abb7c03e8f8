//! The same answer however it is cut, and nothing that falls over.
use super::*;
use proptest::prelude::*;

fn format() -> impl Strategy<Value = ToolCallFormat> {
    prop::sample::select(ALL.to_vec())
}

/// Text that is nearly a call.
fn nearly() -> impl Strategy<Value = String> {
    let parts = [
        "<tool_call>",
        "</tool_call>",
        "<tool",
        "_call>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[",
        "]",
        "{",
        "}",
        "\"name\"",
        "\"arguments\"",
        "\"parameters\"",
        "\"id\"",
        ":",
        ",",
        ";",
        "\"add\"",
        "\"get_weather\"",
        "\"x\"",
        "{}",
        "{\"a\": [1, \"b\"]}",
        " ",
        "\n",
        "é",
        "1",
        "true",
        "\\",
        "\"",
        "{\"name\": \"add\", \"arguments\": {",
        "{\"name\": \"add\", \"parameters\": {\"a\": \"é\"}}",
        "Hello",
    ];
    prop::collection::vec(prop::sample::select(parts.to_vec()), 0..14)
        .prop_map(|parts| parts.concat())
}

/// `text` in pieces that end where the cuts fall.
fn cut(text: &str, mut cuts: Vec<prop::sample::Index>) -> Vec<&str> {
    let mut ends: Vec<usize> = cuts.drain(..).map(|cut| cut.index(text.len() + 1)).collect();
    ends.push(text.len());
    ends.sort_unstable();
    let mut begin = 0;
    let mut pieces = Vec::new();
    for end in ends.into_iter().filter(|end| text.is_char_boundary(*end)) {
        pieces.push(&text[begin..end]);
        begin = end;
    }
    pieces
}

/// The characters that are no white space.
fn letters(text: &str) -> String {
    text.chars().filter(|character| !character.is_whitespace()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_cut_gives_what_the_whole_gives(
        format in format(),
        text in nearly(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        streamed: bool,
        only_one: bool,
    ) {
        let wanted = CallsWanted { only_one, ..wanted(streamed) };
        let pieces = cut(&text, cuts);
        prop_assert_eq!(pieces.concat(), text.clone());
        prop_assert_eq!(read(format, wanted.clone(), &pieces), read(format, wanted, &[&text]));
    }

    #[test]
    fn an_answer_without_calls_is_given_back_whole(
        format in format(), text in nearly(), streamed: bool,
    ) {
        let read = read(format, wanted(streamed), &[&text]);
        if read.calls.is_empty() {
            prop_assert_eq!(read.content, text);
        } else {
            prop_assert!(letters(&text).len() >= letters(&read.content).len());
        }
    }

    #[test]
    fn calls_among_text_are_found_and_the_text_is_kept(
        format in format(),
        before in "[a-z]{1,8}",
        place in "[^\\\\\"\\x00-\\x1f]{0,9}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
    ) {
        let arguments = serde_json::json!({"place": place}).to_string();
        let call = written(format, &[("get_weather", &arguments), ("add", "{}")]);
        let text = match format.shape().lead {
            Some(lead) if format.shape().bare => format!("{before}{lead}{call}"),
            Some(_) => format!("{before}{call}"),
            None => call,
        };
        let read = read(format, wanted(true), &cut(&text, cuts));
        let expected = [("get_weather".to_owned(), arguments), ("add".to_owned(), "{}".to_owned())];
        prop_assert_eq!(read.calls, expected);
        let said = if format.shape().lead.is_some() { before } else { String::new() };
        prop_assert_eq!(read.content, said);
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200), lead: bool) {
        fuzz(&bytes, lead);
    }
}

/// Reads whatever comes, in pieces whose lengths are its own bytes.
fn fuzz(bytes: &[u8], lead: bool) {
    let text = String::from_utf8_lossy(bytes);
    for format in ALL {
        let mark = format.shape().lead.filter(|_| lead).unwrap_or_default();
        let text = format!("{mark}{{\"name\": \"add\", \"arguments\": {text}");
        let cuts = bytes.iter().map(|byte| usize::from(*byte) % (text.len() + 1));
        let mut ends: Vec<usize> = cuts.filter(|end| text.is_char_boundary(*end)).collect();
        ends.push(text.len());
        ends.sort_unstable();
        let mut begin = 0;
        let mut pieces = Vec::new();
        for end in ends {
            pieces.push(&text[begin..end]);
            begin = end;
        }
        assert_eq!(read(format, wanted(true), &pieces), read(format, wanted(true), &[&text]));
    }
}

#[test]
fn long_runs_of_space_and_marks_take_no_time_to_speak_of() {
    for text in
        [" ".repeat(50_000), "<tool_call>".repeat(5_000), "<tool_call>{\"name\":".repeat(3_000)]
    {
        let pieces: Vec<&str> = text.split_inclusive(['>', ' ']).collect();
        for format in ALL {
            assert_eq!(read(format, wanted(true), &pieces).content, text);
        }
    }
}

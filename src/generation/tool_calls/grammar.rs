//! Answers with calls as a grammar: Lark as llguidance writes it.
use super::{
    Marks, ToolFunction,
    format::{List, Shape},
    schema::{arguments, as_written},
};
use serde_json::Value;
use std::fmt::Write;

/// Text of any kind, and text that cannot begin a call without being announced.
const ANY: &str = r"(.|\n)+";
const BEGINS_NO_OBJECT: &str = r"[ \n\r\t]+|[ \n\r\t]*[^{ \n\r\t](.|\n)*";
const BEGINS_NO_OBJECT_OR_LIST: &str = r"[ \n\r\t]+|[ \n\r\t]*[^{\[ \n\r\t](.|\n)*";

/// Writes a format's grammars. Names of functions must be of letters, digits, `_`, `.` and `-`.
pub(super) struct Writer<'a> {
    pub(super) shape: &'static Shape,
    /// No text is the same as a token that steers the model.
    pub(super) marks: Marks,
    pub(super) functions: &'a [ToolFunction],
    /// One call and no more.
    pub(super) only_one: bool,
}

impl Writer<'_> {
    /// Nothing but calls.
    pub(super) fn required(&self) -> String {
        let mut grammar = format!("start: {}\n", self.calls());
        self.functions(|_| true, &mut grammar);
        grammar
    }

    /// Calls, or JSON of this schema.
    pub(super) fn or_json(&self, schema: &Value) -> String {
        let answer = as_written(schema.clone());
        let mut grammar =
            format!("start: calls | answer\ncalls: {}\nanswer: %json {answer}\n", self.calls());
        self.functions(|_| true, &mut grammar);
        grammar
    }

    /// Any text with any calls, of which those of strict functions obey their schemas.
    pub(super) fn strict(&self) -> String {
        let body = self.body();
        let mut grammar = match (self.lead(), self.shape.bare) {
            (Some(lead), false) => {
                let said = self.said(&lead, ANY);
                let start = if self.only_one {
                    format!("said {body} | TEXT?")
                } else {
                    format!("(said {body})* TEXT?")
                };
                format!("start: {start}\n{said}")
            }
            (Some(lead), true) => {
                let said = self.said(&lead, BEGINS_NO_OBJECT);
                format!("start: {body} | said {body} | TEXT?\n{said}")
            }
            (None, _) => {
                format!("start: {} | TEXT?\nTEXT: /{BEGINS_NO_OBJECT_OR_LIST}/\n", self.calls())
            }
        };
        self.functions(|function| function.strict, &mut grammar);
        grammar
    }

    /// What begins an answer of calls alone.
    fn calls(&self) -> String {
        let body = self.body();
        match (self.lead(), self.shape.tail) {
            // What begins an answer needs no lead.
            _ if self.shape.bare => body,
            (Some(lead), Some(_)) if !self.only_one => {
                format!("{lead} {body} (\"\\n\" {lead} {body})*")
            }
            (lead, _) => format!("{} {body}", lead.unwrap_or_default()),
        }
    }

    /// What follows a lead. Templates put calls on lines of their own where they close them.
    fn body(&self) -> String {
        let list = "\"[\" call (\", \" call)* \"]\"";
        let tail = self.shape.tail.map(|tail| term(tail, self.marks.tail));
        match (self.shape.list, self.only_one, tail, self.shape.separator) {
            (List::Always, true, ..) => "\" \"? \"[\" call \"]\"".to_owned(),
            (List::Always, false, ..) => format!("\" \"? {list}"),
            (List::Maybe, false, ..) => format!("(call | {list})"),
            (List::Never, _, Some(tail), _) => format!("\"\\n\" call \"\\n\" {tail}"),
            (List::Never, false, None, Some(separator)) => {
                format!("call ({} call)*", quoted(&format!("{separator} ")))
            }
            (List::Never | List::Maybe, ..) => "call".to_owned(),
        }
    }

    fn lead(&self) -> Option<String> {
        self.shape.lead.map(|lead| term(lead, self.marks.lead))
    }

    /// The rules of text before a lead, with the lead, and of text alone.
    fn said(&self, lead: &str, text: &str) -> String {
        match (self.marks.lead, self.shape.lead) {
            (None, Some(mark)) => {
                let mark = regex_escaped(mark);
                format!("said[lazy]: /({text})?{mark}/\nTEXT: /{text}/\n")
            }
            _ => format!("said: TEXT? {lead}\nTEXT: /{text}/\n"),
        }
    }

    /// The rule `call`, and two for each function; arguments obey the schema where `obeys`.
    fn functions(&self, obeys: impl Fn(&ToolFunction) -> bool, to: &mut String) {
        let rules: Vec<String> = (0..self.functions.len()).map(|at| format!("f{at}")).collect();
        let key = self.shape.arguments;
        let mut write = |line: std::fmt::Arguments<'_>| {
            // A string takes all that is written to it.
            let _ = to.write_fmt(line);
        };
        write(format_args!("call: {}\n", rules.join(" | ")));
        for (rule, function) in rules.iter().zip(self.functions) {
            // In pieces as JSON's own: a longer one would be preferred to an answer that begins alike.
            let name = format!("\"{}\"", function.name);
            let key = format!("\"{key}\"");
            let head = ["{", "\"name\"", ": ", &name, ", ", &key, ": "].map(quoted).join(" ");
            let schema = function.parameters.as_ref().filter(|_| obeys(function));
            write(format_args!("{rule}: {head} {rule}_arguments \"}}\"\n"));
            write(format_args!("{rule}_arguments: %json {}\n", arguments(schema)));
        }
    }
}

/// A terminal that is this mark.
fn term(mark: &str, token: Option<u32>) -> String {
    token.map_or_else(|| quoted(mark), |id| format!("<[{id}]>"))
}

/// A terminal that is this text.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A mark within a regular expression between slashes.
fn regex_escaped(mark: &str) -> String {
    let escape = |c: char| if r"[](){}|.*+?^$\/".contains(c) { vec!['\\', c] } else { vec![c] };
    mark.chars().flat_map(escape).collect()
}

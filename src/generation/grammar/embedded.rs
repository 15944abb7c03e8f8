//! JSON schemas within Lark grammars.
use super::source::bound_space;
use serde_json::{Deserializer, Value};

const KEYWORD: &str = "%json";

/// The same grammar, in whose `%json` parts space is as bounded as in a schema that stands alone.
pub(super) fn with_bounded_space(lark: &str) -> String {
    let mut out = String::with_capacity(lark.len());
    let mut rest = lark;
    while let Some(at) = rest.find(['"', '/', '#', '%']) {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        let (kept, after) = match schema(found) {
            Some((schema, after)) => {
                out.push_str(KEYWORD);
                out.push(' ');
                out.push_str(&schema.to_string());
                ("", after)
            }
            None => found.split_at(skipped(found)),
        };
        out.push_str(kept);
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The schema behind a keyword, and what follows it.
fn schema(text: &str) -> Option<(Value, &str)> {
    let after = text.strip_prefix(KEYWORD)?;
    let mut values = Deserializer::from_str(after).into_iter::<Value>();
    let mut schema = values.next()?.ok()?;
    if let Value::Object(fields) = &mut schema {
        bound_space(fields);
    }
    Some((schema, &after[values.byte_offset()..]))
}

/// Bytes of the string, the expression, the comment or the sign that `text` begins with.
fn skipped(text: &str) -> usize {
    let line = || text.find('\n').unwrap_or(text.len());
    match text.as_bytes() {
        [b'#', ..] | [b'/', b'/', ..] => line(),
        [quote @ (b'"' | b'/'), inside @ ..] => {
            let mut is_escaped = false;
            let end = inside.iter().position(|byte| {
                let is_end = byte == quote && !is_escaped;
                is_escaped = *byte == b'\\' && !is_escaped;
                is_end
            });
            end.map_or(text.len(), |end| end + 2)
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn schemas_get_bounds_wherever_they_stand_and_nothing_else_changes() {
        let lark = "start: \"%json {}\" call // %json {}\ncall: /%json\\/{}/ %json {\"type\": \"null\"} \"x\"\n\
            own: %json {\"x-guidance\": {\"whitespace_flexible\": false}}\nany: %json true # %json {}";
        let bounded = with_bounded_space(lark);
        let (before, after) = bounded.split_once(" %json {\"type\":\"null\",").expect("the schema");
        assert_eq!(before, "start: \"%json {}\" call // %json {}\ncall: /%json\\/{}/");
        assert!(after.contains("whitespace_pattern"), "{after}");
        assert!(
            after
                .contains("} \"x\"\nown: %json {\"x-guidance\":{\"whitespace_flexible\":false}}\n")
        );
        assert!(after.ends_with("any: %json true # %json {}"), "{after}");
    }

    proptest! {
        #[test]
        fn any_text_without_a_schema_comes_back(text in "[a%/\"#\\\\\n:é {}json]{0,40}") {
            prop_assume!(!text.contains(KEYWORD));
            prop_assert_eq!(with_bounded_space(&text), text);
        }
    }
}

//! How much of a form a request may bring.
use serde_json::Value;
use std::io;

/// Longest schema, grammar, and all choices together, bytes.
pub const MAX_FORM_BYTES: usize = 64 << 10;
/// Deepest schema.
pub const MAX_SCHEMA_DEPTH: usize = 32;

/// Whether lists and objects stand at most `levels` deep in each other.
pub fn is_flat(value: &Value, levels: usize) -> bool {
    let inside = |value| is_flat(value, levels - 1);
    match value {
        Value::Array(values) => levels > 0 && values.iter().all(inside),
        Value::Object(fields) => levels > 0 && fields.values().all(inside),
        _ => true,
    }
}

/// Bytes of `value` as JSON without white space, which is not written down.
pub fn json_bytes(value: &Value) -> usize {
    let mut count = Count(0);
    // Writing to a counter does not fail, and a value's keys are texts.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_are_those_of_the_text() {
        for value in [json!(null), json!({"a": [1, "é\n"], "b": {}}), json!(-1.5)] {
            assert_eq!(json_bytes(&value), value.to_string().len(), "{value}");
        }
    }

    #[test]
    fn levels_are_counted_in_lists_and_objects_alike() {
        let value = json!({"a": [{"b": 1}]});
        assert!(is_flat(&value, 3) && !is_flat(&value, 2));
        assert!(is_flat(&json!(1), 0) && !is_flat(&json!([]), 0));
    }
}

//! Numbers and texts of the server as people read them.
use chrono::DateTime;
use indicatif::{BinaryBytes, HumanCount};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// Digits of a version in tables.
const SHORT: usize = 12;

/// On one line, and without what a terminal would take for an order.
pub(super) fn clean(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().map(plain).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A field as text; a dash where there is none.
pub(super) fn text(of: &Value, field: &str) -> String {
    match of.get(field) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => clean(text),
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(other) => clean(&other.to_string()),
    }
}

/// A list of texts or numbers; a dash where there is none.
pub(super) fn joined(of: &Value, field: &str) -> String {
    let entries = of.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let shown = entries.iter().map(|entry| match entry {
        Value::String(text) => clean(text),
        other => clean(&other.to_string()),
    });
    match shown.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "-".to_owned(),
        list => list,
    }
}

/// The beginning of a version.
pub(super) fn short(version: &str) -> String {
    clean(version).chars().take(SHORT).collect()
}

/// `1.5 MiB`; a dash where there is no number.
pub(super) fn bytes(of: &Value, field: &str) -> String {
    let bytes = of.get(field).and_then(Value::as_u64);
    bytes.map_or_else(|| "-".to_owned(), |bytes| BinaryBytes(bytes).to_string())
}

/// `12,345`; a dash where there is no number.
pub(super) fn count(of: &Value, field: &str) -> String {
    let count = of.get(field).and_then(Value::as_u64);
    count.map_or_else(|| "-".to_owned(), |count| HumanCount(count).to_string())
}

/// A norm with four digits that count.
pub(super) fn norm(of: &Value, field: &str) -> String {
    match of.get(field).and_then(Value::as_f64) {
        Some(norm) if norm == 0.0 || (1e-3..1e5).contains(&norm.abs()) => format!("{norm:.4}"),
        Some(norm) => format!("{norm:.3e}"),
        None => "-".to_owned(),
    }
}

/// Seconds since 1970 as a date and a time.
pub(super) fn date(of: &Value, field: &str) -> String {
    let time = seconds(of, field).and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    time.map_or_else(|| "-".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// How long ago seconds since 1970 are; `never` where there are none.
pub(super) fn ago(of: &Value, field: &str, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    let Some(age) = seconds(of, field).map(|then| (now - then).max(0)) else {
        return "never".to_owned();
    };
    match age {
        0..60 => format!("{age} s ago"),
        60..3600 => format!("{} min ago", age / 60),
        3600..86_400 => format!("{} h ago", age / 3600),
        _ => format!("{} d ago", age / 86_400),
    }
}

fn seconds(of: &Value, field: &str) -> Option<i64> {
    of.get(field)?.as_f64().map(|seconds| seconds as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn fields_are_shown_as_people_read_them() {
        let of = json!({"a": "x\u{1b}[0m\ny", "b": null, "c": 3, "d": 1_572_864, "e": [1, "two"],
                        "f": 12_345, "g": 0.000_012, "h": 1_700_000_000, "i": true, "j": 2.5});
        assert_eq!(text(&of, "a"), "x [0m y");
        assert_eq!((text(&of, "b"), text(&of, "none")), ("-".to_owned(), "-".to_owned()));
        assert_eq!((text(&of, "c"), text(&of, "i")), ("3".to_owned(), "yes".to_owned()));
        assert_eq!(bytes(&of, "d"), "1.50 MiB");
        assert_eq!((joined(&of, "e"), joined(&of, "b")), ("1, two".to_owned(), "-".to_owned()));
        assert_eq!(count(&of, "f"), "12,345");
        assert_eq!((norm(&of, "g"), norm(&of, "j")), ("1.200e-5".to_owned(), "2.5000".to_owned()));
        assert_eq!(date(&of, "h"), "2023-11-14 22:13:20 UTC");
        assert_eq!(short(&"ab".repeat(32)), "abababababab");
    }

    #[test]
    fn times_are_told_from_now() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let told = |at: u64| ago(&json!({"at": at}), "at", now);
        assert_eq!(told(999_995), "5 s ago");
        assert_eq!(told(1_000_000 - 120), "2 min ago");
        assert_eq!(told(1_000_000 - 7300), "2 h ago");
        assert_eq!(told(1_000_000 - 200_000), "2 d ago");
        assert_eq!(told(2_000_000), "0 s ago");
        assert_eq!(ago(&json!({"at": null}), "at", now), "never");
    }
}

//! Aliases as people read them.
use super::{
    table::{Side, pairs, table},
    words::{clean, count, date, short, text},
};
use serde_json::Value;

/// All of them.
pub(super) fn listed(page: &Value) -> String {
    let aliases = page["aliases"].as_array().map(Vec::as_slice).unwrap_or_default();
    if aliases.is_empty() {
        return "the server has no aliases".to_owned();
    }
    let columns = [("ALIAS", Side::Left), ("TARGETS", Side::Left), ("CHANGED", Side::Left)];
    let row = |alias: &Value| vec![text(alias, "name"), targets(alias), date(alias, "changed_at")];
    table(&columns, &aliases.iter().map(row).collect::<Vec<_>>())
}

/// One of them, with what its targets have answered lately.
pub(super) fn shown(alias: &Value) -> String {
    let mut rows = vec![("alias", text(alias, "name")), ("targets", targets(alias))];
    if let Some(outcome) = alias.get("outcome").and_then(Value::as_str) {
        rows.push(("outcome", clean(&outcome.replace('_', " "))));
    }
    for field in ["sticky", "guard"] {
        if alias[field].is_object() {
            rows.push((field, fields(&alias[field])));
        }
    }
    if alias["shadow"].is_string() {
        rows.push(("shadow", model(&text(alias, "shadow"))));
    }
    if alias["previous"].is_object() {
        rows.push(("before", targets(&alias["previous"])));
    }
    if alias["reason"].is_string() {
        rows.push(("why", text(alias, "reason")));
    }
    rows.push(("changed", date(alias, "changed_at")));
    let observed = observed(alias);
    if observed.is_empty() { pairs(&rows) } else { format!("{}\n\n{observed}", pairs(&rows)) }
}

/// `rate=90 rate@0123456789ab=10`
fn targets(alias: &Value) -> String {
    let entries = alias["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let shown = entries.iter().map(|entry| match &entry["weight"] {
        Value::Null => model(&text(entry, "model")),
        weight => format!("{}={weight}", model(&text(entry, "model"))),
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// With a short version.
fn model(text: &str) -> String {
    match text.split_once('@') {
        Some((name, version)) => format!("{name}@{}", short(version)),
        None => text.to_owned(),
    }
}

/// `max error rate 0.05, min requests 20`
fn fields(of: &Value) -> String {
    let fields = of.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let shown = fields.map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        clean(&format!("{} {value}", name.replace('_', " ")))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn observed(alias: &Value) -> String {
    let entries = alias["observed"].as_array().map(Vec::as_slice).unwrap_or_default();
    let columns = [
        ("TARGET", Side::Left),
        ("SHARE", Side::Right),
        ("REQUESTS", Side::Right),
        ("ERRORS", Side::Right),
        ("NOT FINITE", Side::Right),
    ];
    let row = |entry: &Value| {
        let share =
            entry["share"].as_f64().map_or("-".to_owned(), |s| format!("{:.1}%", s * 100.0));
        let model = model(&text(entry, "model"));
        let [requests, errors] = ["requests", "errors"].map(|field| count(entry, field));
        vec![model, share, requests, errors, count(entry, "non_finite")]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    if rows.is_empty() { String::new() } else { table(&columns, &rows) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_alias_is_shown_as_it_would_be_written() {
        let alias = json!({
            "name": "support", "changed_at": 1_700_000_000, "outcome": "replaced",
            "targets": [{"model": "rate", "weight": 90},
                        {"model": format!("rate@{}", "ab".repeat(32)), "weight": 10}],
            "sticky": {"header": "x-user"}, "shadow": null,
            "guard": {"max_error_rate": 0.05, "min_requests": 20},
            "previous": {"targets": [{"model": "rate", "weight": 1}]},
            "observed": [{"model": "rate", "share": 0.9, "requests": 12, "errors": 0,
                          "non_finite": 0}],
        });
        let expected = "\
alias    support
targets  rate=90 rate@abababababab=10
outcome  replaced
sticky   header x-user
guard    max error rate 0.05, min requests 20
before   rate=1
changed  2023-11-14 22:13:20 UTC

TARGET  SHARE  REQUESTS  ERRORS  NOT FINITE
rate    90.0%        12       0           0";
        assert_eq!(shown(&alias), expected);
        let list = listed(&json!({"aliases": [alias]}));
        assert!(list.contains("support  rate=90 rate@abababababab=10"), "{list}");
        assert_eq!(listed(&json!({"aliases": []})), "the server has no aliases");
    }
}

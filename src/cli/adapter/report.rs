//! What a server says of an adapter, as a page.
use super::{
    table::{Side, pairs, table},
    words::{bytes, clean, count, date, joined, norm, short, text},
};
use serde_json::Value;

/// The answer to a publication.
pub(super) fn publication(report: &Value) -> String {
    let outcome = match report.get("outcome").and_then(Value::as_str) {
        Some("created") => "created: the name is new",
        Some("replaced") => "replaced: new requests get it",
        Some("unchanged") => "unchanged: the server has this very content",
        Some("valid") => "valid: nothing was published",
        _ => "done",
    };
    let mut rows = vec![("name", text(report, "name")), ("version", version(report))];
    if let Some(previous) = report.get("previous").and_then(Value::as_str) {
        rows.push(("previous", short(previous)));
    }
    rows.push(("outcome", outcome.to_owned()));
    rows.extend(task(report));
    rows.push(("rank", text(report, "rank")));
    rows.push(("changes", changes(report)));
    rows.push(("bytes", sizes(report)));
    rows.push(("norm of delta", norm(report, "delta_norm")));
    rows.push(("kept", kept(report).to_owned()));
    if !list(report, "ignored_fields").is_empty() {
        rows.push(("ignored", joined(report, "ignored_fields")));
    }
    if let Some(probe) = report.get("probe").filter(|probe| probe.is_object()) {
        rows.push(("base says", text(probe, "base")));
        rows.push(("adapter says", text(probe, "adapter")));
    }
    let mut page = pairs(&rows);
    for part in [projections(report), warnings(report)] {
        if !part.is_empty() {
            page = format!("{page}\n\n{part}");
        }
    }
    page
}

/// The first digits of a version.
pub(super) fn version(of: &Value) -> String {
    short(of.get("version").and_then(Value::as_str).unwrap_or("-"))
}

/// What it was trained for, and the labels that it scores.
pub(super) fn task(of: &Value) -> Vec<(&'static str, String)> {
    let task = of.get("task").filter(|task| task.is_string()).map(|_| ("task", text(of, "task")));
    let labels = !list(of, "labels").is_empty();
    let labels = labels.then(|| ("labels", joined(of, "labels")));
    task.into_iter().chain(labels).collect()
}

/// `48 linear layers in 24 blocks, 552,960 parameters`
pub(super) fn changes(of: &Value) -> String {
    let (sites, layers) = (count(of, "sites"), count(of, "layers"));
    let parameters = match of.get("parameters") {
        Some(Value::Number(_)) => format!(", {} parameters", count(of, "parameters")),
        _ => String::new(),
    };
    format!("{sites} linear layers in {layers} blocks{parameters}")
}

/// In memory and in files.
pub(super) fn sizes(of: &Value) -> String {
    match of.get("file_bytes") {
        Some(Value::Number(_)) => {
            format!("{} in memory, {} in files", bytes(of, "bytes"), bytes(of, "file_bytes"))
        }
        _ => format!("{} in memory", bytes(of, "bytes")),
    }
}

/// Whether a restart loses it.
pub(super) fn kept(of: &Value) -> &'static str {
    match of.get("durable").and_then(Value::as_bool) {
        Some(true) => "over restarts",
        _ => "until the server stops: it has no --adapters",
    }
}

/// The versions that a name has had.
pub(super) fn history(page: &Value) -> String {
    let columns = [
        ("VERSION", Side::Left),
        ("SINCE", Side::Left),
        ("BY", Side::Left),
        ("FROM", Side::Left),
        ("TIER", Side::Left),
        ("", Side::Left),
    ];
    let row = |entry: &Value| {
        let is_current = entry.get("current").and_then(Value::as_bool) == Some(true);
        let by = match text(entry, "by") {
            none if none.is_empty() => "-".to_owned(),
            by => by,
        };
        vec![
            version(entry),
            date(entry, "published_at"),
            by,
            source(entry),
            text(entry, "tier"),
            if is_current { "current" } else { "" }.to_owned(),
        ]
    };
    let rows: Vec<_> = list(page, "versions").iter().map(row).collect();
    if rows.is_empty() { String::new() } else { table(&columns, &rows) }
}

/// Where files came from.
pub(super) fn source(of: &Value) -> String {
    let source = of.get("source").unwrap_or(&Value::Null);
    match source.get("kind").and_then(Value::as_str) {
        Some("upload") => "an upload".to_owned(),
        Some("drop_in") => "the store, put there by others".to_owned(),
        Some("embedded") => "the program".to_owned(),
        Some("hub") => text(source, "reference"),
        _ => "-".to_owned(),
    }
}

fn projections(report: &Value) -> String {
    let columns = [
        ("layer", Side::Left),
        ("blocks", Side::Right),
        ("rank", Side::Right),
        ("parameters", Side::Right),
        ("norm of delta", Side::Right),
    ];
    let row = |entry: &Value| {
        vec![
            text(entry, "module"),
            count(entry, "layers"),
            joined(entry, "ranks"),
            count(entry, "parameters"),
            norm(entry, "delta_norm"),
        ]
    };
    let rows: Vec<_> = list(report, "projections").iter().map(row).collect();
    if rows.is_empty() { String::new() } else { table(&columns, &rows) }
}

fn warnings(report: &Value) -> String {
    let warnings = list(report, "warnings").iter().filter_map(Value::as_str);
    warnings.map(|text| format!("warning: {}", clean(text))).collect::<Vec<_>>().join("\n")
}

fn list<'a>(of: &'a Value, field: &str) -> &'a [Value] {
    of.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_is_a_page_with_its_norms_and_warnings() {
        let report = json!({
            "name": "pirate", "version": "ab".repeat(32), "outcome": "replaced",
            "previous": "cd".repeat(32), "durable": true, "rank": 8, "bytes": 2048,
            "file_bytes": 1024, "sites": 4, "layers": 2, "parameters": 4096, "delta_norm": 1.5,
            "projections": [{"module": "q_proj", "layers": 2, "ranks": [4, 8], "parameters": 2048,
                             "delta_norm": 0.75}],
            "ignored_fields": ["eva_config"], "warnings": ["its base is\nanother"],
            "probe": {"base": "Hello", "adapter": "Ahoy"},
        });
        let expected = "\
name           pirate
version        abababababab
previous       cdcdcdcdcdcd
outcome        replaced: new requests get it
rank           8
changes        4 linear layers in 2 blocks, 4,096 parameters
bytes          2.00 KiB in memory, 1.00 KiB in files
norm of delta  1.5000
kept           over restarts
ignored        eva_config
base says      Hello
adapter says   Ahoy

layer   blocks  rank  parameters  norm of delta
q_proj       2  4, 8       2,048         0.7500

warning: its base is another";
        assert_eq!(publication(&report), expected);
    }

    #[test]
    fn a_history_marks_what_is_current() {
        let page = json!({"versions": [
            {"version": "ab".repeat(32), "published_at": 1_700_000_000, "by": "", "current": true,
             "source": {"kind": "hub", "reference": "hf://org/name"}, "tier": "device"},
            {"version": "cd".repeat(32), "published_at": 1_600_000_000, "by": "admin",
             "source": {"kind": "upload"}, "current": false, "tier": "disk"},
        ]});
        let text = history(&page);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].ends_with("hf://org/name  device  current"), "{text}");
        assert!(lines[2].starts_with("cdcdcdcdcdcd  2020-09-13 12:26:40 UTC  admin"), "{text}");
        assert_eq!(history(&json!({})), "");
    }
}

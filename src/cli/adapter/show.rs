//! `lorad adapter show`: all that a server knows of one adapter.
use super::{
    client::Server,
    error::CommandError,
    output::Output,
    report::{changes, history, kept, sizes, source, task},
    table::pairs,
    words::{ago, clean, count, date, joined, text},
};
use serde_json::Value;
use std::time::SystemTime;

/// Which.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// Which adapter
    #[arg(value_name = "NAME")]
    name: String,
}

/// Its page.
pub(super) async fn run(server: &Server, args: &ShowArgs) -> Result<Output, CommandError> {
    let page = server.json(server.get(&["admin", "adapters", &args.name])).await?;
    Ok(Output::new(shown(&page, SystemTime::now()), page))
}

/// The page for people.
pub(super) fn shown(page: &Value, now: SystemTime) -> String {
    let mut rows = vec![
        ("name", text(page, "name")),
        ("version", text(page, "version")),
        ("published", date(page, "published_at")),
        ("from", source(page)),
        ("kept", kept(page).to_owned()),
        ("tier", text(page, "tier")),
        ("leases", count(page, "leases")),
        ("kind", text(page, "kind")),
    ];
    rows.extend(task(page));
    rows.extend([
        ("rank", format!("{}, alpha {}", text(page, "rank"), text(page, "alpha"))),
        ("changes", changes(page)),
        ("target modules", modules(page)),
        ("bytes", sizes(page)),
        ("terms", terms(&page["terms"])),
        ("usage", usage(&page["usage"], now)),
        ("id", format!("{} (llama.cpp's `lora`)", text(page, "number"))),
    ]);
    match history(page) {
        none if none.is_empty() => pairs(&rows),
        history => format!("{}\n\n{history}", pairs(&rows)),
    }
}

fn modules(page: &Value) -> String {
    match page.get("target_modules") {
        Some(Value::Array(_)) => joined(page, "target_modules"),
        _ => text(page, "target_modules"),
    }
}

/// The terms that are not the usual ones.
pub(super) fn terms(terms: &Value) -> String {
    let Some(terms) = terms.as_object() else { return "-".to_owned() };
    let shown = terms.iter().filter_map(|(name, value)| match (name.as_str(), value) {
        (_, Value::Null | Value::Bool(false)) => None,
        ("pin", _) => Some("pinned".to_owned()),
        ("share", value) if value.as_f64() == Some(1.0) => None,
        ("keys", Value::Array(keys)) => Some(format!("for the owners of {} keys", keys.len())),
        (name, value) => {
            Some(format!("{} {}", clean(&name.replace('_', " ")), clean(&value.to_string())))
        }
    });
    match shown.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "the usual ones".to_owned(),
        list => list,
    }
}

fn usage(usage: &Value, now: SystemTime) -> String {
    if !usage.is_object() {
        return "-".to_owned();
    }
    format!(
        "{} requests, {} prompt tokens, {} generated tokens, {} errors; last used {}",
        count(usage, "requests"),
        count(usage, "prompt_tokens"),
        count(usage, "generated_tokens"),
        count(usage, "errors"),
        ago(usage, "last_used", now),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_terms_that_are_not_the_usual_ones_are_told() {
        let usual = json!({"pin": false, "share": 1.0});
        assert_eq!(terms(&usual), "the usual ones");
        let own = json!({"pin": true, "share": 2.5, "max_requests": 4, "keys": ["a", "b"]});
        assert_eq!(terms(&own), "pinned, share 2.5, max requests 4, for the owners of 2 keys");
    }

    #[test]
    fn a_page_shows_what_the_server_says_and_dashes_for_what_it_does_not() {
        let page = json!({"name": "a", "version": "ab".repeat(32), "rank": 4, "alpha": 8.0});
        let text = shown(&page, SystemTime::now());
        assert!(text.contains(&"ab".repeat(32)) && text.contains("4, alpha 8.0"), "{text}");
        assert!(text.contains("tier            -"), "{text}");
    }
}

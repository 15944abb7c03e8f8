//! `lorad adapter list`: every adapter of a server, page by page.
use super::{
    client::Server,
    error::CommandError,
    output::Output,
    report::version,
    table::{Side, table},
    words::{ago, bytes, count, text},
};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::time::SystemTime;

/// Adapters of a request.
const PAGE: &str = "1000";

/// Which of them.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only names that begin so
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Only what lies there now
    #[arg(long, value_name = "TIER")]
    tier: Option<Tier>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Tier {
    /// In an adapter slot
    Device,
    /// In host memory
    Host,
    /// In the store only
    Disk,
}

/// All of them, however many pages they take.
pub(super) async fn run(server: &Server, args: &ListArgs) -> Result<Output, CommandError> {
    let (mut adapters, mut after) = (Vec::new(), None);
    let total = loop {
        let query = query(args, after.as_deref());
        let page = server.json(server.get(&["admin", "adapters"]).query(&query)).await?;
        adapters.extend(page["adapters"].as_array().cloned().unwrap_or_default());
        let next = page["next"].as_str().map(str::to_owned);
        // A page that does not move on would come for ever.
        if next.is_none() || next == after {
            break page["total"].clone();
        }
        after = next;
    };
    let text = shown(&adapters, &total, SystemTime::now());
    Ok(Output::new(text, json!({"adapters": adapters, "total": total})))
}

fn query(args: &ListArgs, after: Option<&str>) -> Vec<(&'static str, String)> {
    let tier = args.tier.map(|tier| match tier {
        Tier::Device => "device",
        Tier::Host => "host",
        Tier::Disk => "disk",
    });
    let given = [("prefix", args.prefix.as_deref()), ("tier", tier), ("after", after)];
    let given = given.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned())));
    given.chain([("limit", PAGE.to_owned())]).collect()
}

fn shown(adapters: &[Value], total: &Value, now: SystemTime) -> String {
    if adapters.is_empty() {
        return match total.as_u64() {
            Some(total) if total > 0 => format!("none of the server's {total} adapters"),
            _ => "the server has no adapters".to_owned(),
        };
    }
    let columns = [
        ("NAME", Side::Left),
        ("VERSION", Side::Left),
        ("TASK", Side::Left),
        ("RANK", Side::Right),
        ("SIZE", Side::Right),
        ("TIER", Side::Left),
        ("REQUESTS", Side::Right),
        ("LAST USED", Side::Left),
    ];
    let row = |entry: &Value| {
        vec![
            text(entry, "name"),
            version(entry),
            text(entry, "task"),
            text(entry, "rank"),
            bytes(entry, "bytes"),
            text(entry, "tier"),
            count(&entry["usage"], "requests"),
            ago(&entry["usage"], "last_used", now),
        ]
    };
    table(&columns, &adapters.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_list_is_a_table_of_what_operators_ask_for() {
        let adapters = [
            json!({"name": "pirate", "version": "ab".repeat(32), "task": "CAUSAL_LM", "rank": 8,
                   "bytes": 1_048_576, "tier": "device", "usage": {"requests": 1200, "last_used": 940}}),
            json!({"name": "a", "version": "cd".repeat(32), "rank": 16, "bytes": 512,
                   "tier": "disk", "usage": {"requests": 0, "last_used": null}}),
        ];
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let expected = "\
NAME    VERSION       TASK       RANK      SIZE  TIER    REQUESTS  LAST USED
pirate  abababababab  CAUSAL_LM     8  1.00 MiB  device     1,200  1 min ago
a       cdcdcdcdcdcd  -            16     512 B  disk           0  never";
        assert_eq!(shown(&adapters, &json!(2), now), expected);
        assert_eq!(shown(&[], &json!(3), now), "none of the server's 3 adapters");
        assert_eq!(shown(&[], &json!(0), now), "the server has no adapters");
    }

    #[test]
    fn a_page_is_asked_for_after_the_one_before() {
        let args = ListArgs { prefix: Some("p".into()), tier: Some(Tier::Host) };
        let expected = [("prefix", "p"), ("tier", "host"), ("after", "pb"), ("limit", PAGE)];
        let expected = expected.map(|(name, value)| (name, value.to_owned()));
        assert_eq!(query(&args, Some("pb")), expected);
    }
}

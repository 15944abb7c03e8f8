//! `lorad adapter terms`: on which terms an adapter is served.
use super::{client::Server, error::CommandError, output::Output, show};
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::str::FromStr;

/// What changes; what is not named stays.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TermsArgs {
    /// Which adapter
    #[arg(value_name = "NAME")]
    name: String,
    /// Keep it in host memory and, once there, in its adapter slot
    #[arg(long, overrides_with = "no_pin")]
    pin: bool,
    /// Let it go when others need the room
    #[arg(long, overrides_with = "pin")]
    no_pin: bool,
    /// Its part of the machine when several adapters want all of it; the usual one is 1
    #[arg(long, value_name = "NUMBER")]
    share: Option<f64>,
    /// Most requests at one time, or none for no limit
    #[arg(long, value_name = "COUNT|none")]
    max_requests: Option<Limit>,
    /// Most requests that start in a minute, or none for no limit
    #[arg(long, value_name = "COUNT|none")]
    requests_per_minute: Option<Limit>,
    /// Versions that are kept, the current one included, or none for as many as the server keeps
    #[arg(long, value_name = "COUNT|none")]
    keep_versions: Option<Limit>,
}

/// A number, or none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Limit(Option<u64>);

impl FromStr for Limit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("none", _) => Ok(Self(None)),
            (_, Ok(0) | Err(_)) => Err("must be a number of 1 or more, or none"),
            (_, Ok(count)) => Ok(Self(Some(count))),
        }
    }
}

/// Changes what is named; with nothing named, says what there is.
pub(super) async fn run(server: &Server, args: &TermsArgs) -> Result<Output, CommandError> {
    let (path, changes) = (["admin", "adapters", &args.name], changes(args));
    let request = if changes.is_empty() {
        server.get(&path)
    } else {
        server.request(Method::PATCH, &path).json(&json!({"terms": changes}))
    };
    let page = server.json(request).await?;
    let text = format!("{}: {}", args.name, show::terms(&page["terms"]));
    let terms = json!({"name": args.name, "terms": page["terms"]});
    Ok(Output::new(text, terms))
}

fn changes(args: &TermsArgs) -> Map<String, Value> {
    let limit = |limit: Option<Limit>| limit.map(|Limit(count)| json!(count));
    let pin = (args.pin || args.no_pin).then(|| json!(args.pin));
    let given = [
        ("pin", pin),
        ("share", args.share.map(|share| json!(share))),
        ("max_requests", limit(args.max_requests)),
        ("requests_per_minute", limit(args.requests_per_minute)),
        ("keep_versions", limit(args.keep_versions)),
    ];
    given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TermsArgs,
    }

    fn read(flags: &[&str]) -> Result<Value, clap::Error> {
        let line = Line::try_parse_from(["terms", "a"].iter().chain(flags))?;
        Ok(changes(&line.args).into())
    }

    #[test]
    fn only_what_is_named_changes_and_none_takes_a_limit_away() {
        assert_eq!(read(&[]).expect("valid"), json!({}));
        let flags = ["--pin", "--share", "2", "--max-requests", "4", "--keep-versions", "none"];
        let expected = json!({"pin": true, "share": 2.0, "max_requests": 4, "keep_versions": null});
        assert_eq!(read(&flags).expect("valid"), expected);
        assert_eq!(read(&["--pin", "--no-pin"]).expect("the last counts"), json!({"pin": false}));
        for wrong in ["0", "-1", "many", ""] {
            assert!(read(&[&format!("--requests-per-minute={wrong}")]).is_err(), "{wrong}");
        }
    }
}

//! `lorad adapter split`: aliases, and what part of their requests goes where.
use super::{
    alias, client::Server, confirm::confirm, error::CommandError, output::Output, versions,
    words::clean,
};
use reqwest::Method;
use serde_json::{Map, Value, json};

/// Which alias, and what it is to do.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SplitArgs {
    /// Which alias; without one all are listed
    #[arg(value_name = "ALIAS")]
    alias: Option<String>,
    /// What answers, and its part: rate=90 rate@0123abcd=10; the weight of an only target may be left out
    #[arg(value_name = "TARGET=WEIGHT", conflicts_with_all = ["rollback", "rm"])]
    targets: Vec<String>,
    /// Requests with equal values of this header get the same target
    #[arg(long, value_name = "HEADER", requires = "targets", conflicts_with = "sticky_field")]
    sticky_header: Option<String>,
    /// Requests with equal values of this text field of the body get the same target
    #[arg(long, value_name = "FIELD", requires = "targets")]
    sticky_field: Option<String>,
    /// An adapter whose answers are computed too, compared and not returned
    #[arg(long, value_name = "NAME", requires = "targets")]
    shadow: Option<String>,
    /// Go back by itself when a larger part of a target's requests fails, 0 to 1
    #[arg(long, value_name = "RATE", requires = "targets")]
    max_error_rate: Option<f64>,
    /// Go back by itself after more answers that are not a number
    #[arg(long, value_name = "COUNT", requires = "targets")]
    max_non_finite: Option<u64>,
    /// Requests that a target has before its errors count
    #[arg(long, value_name = "COUNT", requires = "targets")]
    min_requests: Option<u64>,
    /// Undo the last change of the alias; the same again redoes it
    #[arg(long, requires = "alias", conflicts_with = "rm")]
    rollback: bool,
    /// Remove the alias
    #[arg(long, requires = "alias")]
    rm: bool,
    /// Do not ask before --rm
    #[arg(long, short, requires = "rm")]
    yes: bool,
}

/// Lists, shows, sets, rolls back or removes.
pub(super) async fn run(server: &Server, args: &SplitArgs) -> Result<Output, CommandError> {
    let Some(name) = &args.alias else {
        let page = server.json(server.get(&["admin", "aliases"])).await?;
        return Ok(Output::new(alias::listed(&page), page));
    };
    let path = ["admin", "aliases", name];
    if args.rm {
        confirm(args.yes, &format!("Remove the alias {name}?"))?;
        let answer = server.json(server.request(Method::DELETE, &path)).await?;
        return Ok(Output::new(format!("{name} is no alias any more"), answer));
    }
    let request = if args.rollback {
        server.request(Method::POST, &["admin", "aliases", name, "rollback"])
    } else if args.targets.is_empty() {
        server.get(&path)
    } else {
        server.request(Method::PUT, &path).json(&form(server, args).await?)
    };
    let page = server.json(request).await?;
    Ok(Output::new(alias::shown(&page), page))
}

/// The alias as the API takes it.
async fn form(server: &Server, args: &SplitArgs) -> Result<Value, CommandError> {
    let mut targets = Vec::new();
    for text in &args.targets {
        let (model, weight) = target(text)?;
        let mut entry = json!({"model": whole(server, model).await?});
        if let Some(weight) = weight {
            entry["weight"] = number(weight);
        }
        targets.push(entry);
    }
    let mut form = Map::new();
    form.insert("targets".into(), targets.into());
    let sticky = match (&args.sticky_header, &args.sticky_field) {
        (Some(header), _) => Some(json!({"header": header})),
        (None, Some(field)) => Some(json!({"field": field})),
        (None, None) => None,
    };
    let shadow = match &args.shadow {
        Some(model) => Some(json!(whole(server, model).await?)),
        None => None,
    };
    let given = [("sticky", sticky), ("shadow", shadow), ("guard", guard(args))];
    form.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Ok(form.into())
}

fn guard(args: &SplitArgs) -> Option<Value> {
    let given = [
        ("max_error_rate", args.max_error_rate.map(|rate| json!(rate))),
        ("max_non_finite", args.max_non_finite.map(|count| json!(count))),
        ("min_requests", args.min_requests.map(|count| json!(count))),
    ];
    let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let guard: Map<String, Value> = given.collect();
    (!guard.is_empty()).then(|| guard.into())
}

/// `NAME[@VERSION][=WEIGHT]`
fn target(text: &str) -> Result<(&str, Option<f64>), CommandError> {
    let (model, weight) = match text.rsplit_once('=') {
        Some((model, weight)) => (model, Some(weight)),
        None => (text, None),
    };
    let weight = weight.map(str::parse::<f64>).transpose();
    match weight {
        Ok(weight) if !model.is_empty() && weight.is_none_or(f64::is_finite) => Ok((model, weight)),
        _ => Err(CommandError::usage(format!(
            "`{}` is no target: write NAME=WEIGHT or NAME@VERSION=WEIGHT, as in rate=90",
            clean(text)
        ))),
    }
}

/// Whole numbers as such: 90, not 90.0.
fn number(weight: f64) -> Value {
    if weight.fract() == 0.0 && weight.abs() < 1e15 { json!(weight as i64) } else { json!(weight) }
}

/// With a whole version.
async fn whole(server: &Server, model: &str) -> Result<String, CommandError> {
    match versions::split_version(model) {
        (name, Some(version)) => {
            Ok(format!("{name}@{}", versions::whole(server, name, version).await?))
        }
        (_, None) => Ok(model.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_weights_after_their_names() {
        assert_eq!(target("rate=90").expect("valid"), ("rate", Some(90.0)));
        assert_eq!(target("rate@0123abcd=0.5").expect("valid"), ("rate@0123abcd", Some(0.5)));
        assert_eq!(target("org/base").expect("valid"), ("org/base", None));
        for wrong in ["=90", "rate=", "rate=many", "rate=inf", ""] {
            assert!(matches!(target(wrong), Err(CommandError::Usage(_))), "{wrong}");
        }
        assert_eq!(number(90.0).to_string(), "90");
        assert_eq!(number(0.5).to_string(), "0.5");
    }
}

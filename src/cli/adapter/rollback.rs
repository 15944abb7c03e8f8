//! `lorad adapter rollback`: a name means a former version again.
use super::{
    client::Server, error::CommandError, how::PolicyArgs, output::Output, versions, words::short,
};
use reqwest::{Method, header};
use serde_json::{Value, json};

/// What goes back, and to what.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RollbackArgs {
    /// Which adapter
    #[arg(value_name = "NAME")]
    name: String,
    /// Which version: its digits, or the first 8 or more of them [default: the one before the current one]
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Only from this version
    #[arg(long, value_name = "VERSION")]
    if_version: Option<String>,
    #[command(flatten)]
    policy: PolicyArgs,
}

/// The same again is to be where one was.
pub(super) async fn run(server: &Server, args: &RollbackArgs) -> Result<Output, CommandError> {
    let query = args.policy.query()?;
    let body = match &args.to {
        Some(version) => json!({"version": versions::whole(server, &args.name, version).await?}),
        None => json!({}),
    };
    let path = ["admin", "adapters", &args.name, "rollback"];
    let mut request = server.request(Method::POST, &path).query(&query).json(&body);
    if let Some(version) = &args.if_version {
        let version = versions::whole(server, &args.name, version).await?;
        request = request.header(header::IF_MATCH, format!("\"{version}\""));
    }
    let answer = server.json(request).await?;
    Ok(Output::new(told(&args.name, &answer), answer))
}

fn told(name: &str, answer: &Value) -> String {
    let digits = |field: &str| answer.get(field).and_then(Value::as_str).map(short);
    let version = digits("version").unwrap_or_default();
    match digits("previous") {
        Some(previous) => format!("{name} is at {version} again, no more at {previous}"),
        None => format!("{name} is at {version} already"),
    }
}

//! `lorad adapter push`: an adapter into a running server.
use super::{
    client::Server, error::CommandError, how::PolicyArgs, output::Output, report, send,
    source::PushSource, versions,
};
use reqwest::{Method, RequestBuilder, header};
use std::time::Duration;

/// What to publish, as what.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PushArgs {
    /// What requests call it
    #[arg(value_name = "NAME")]
    name: String,
    /// A directory as PEFT's `save_pretrained` writes it, a GGUF file, a tar, tar.gz or zip of one, or `hf://ORG/NAME@REVISION`,
    /// which the server fetches
    #[arg(value_name = "PATH")]
    path: String,
    /// Replace only this version: its digits, or the first 8 or more of them
    #[arg(long, value_name = "VERSION", conflicts_with = "create")]
    if_version: Option<String>,
    /// Publish only if the name is free
    #[arg(long)]
    create: bool,
    /// Check everything and publish nothing
    #[arg(long)]
    dry_run: bool,
    /// Let base and adapter answer once before it is published; an answer that is empty or not a number refuses it
    #[arg(long)]
    probe: bool,
    /// What they answer to
    #[arg(long, value_name = "TEXT", requires = "probe")]
    probe_prompt: Option<String>,
    /// What the adapter's answer must contain
    #[arg(long, value_name = "TEXT", requires = "probe")]
    probe_expect: Option<String>,
    /// Names of the labels that the adapter scores, in the order of its head's rows, with commas between them; by default
    /// those of its `adapter_config.json` or of the `config.json` beside it
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    labels: Vec<String>,
    #[command(flatten)]
    policy: PolicyArgs,
}

/// Publishes, or says what would be.
pub(super) async fn run(
    server: &Server,
    args: &PushArgs,
    quiet: bool,
) -> Result<Output, CommandError> {
    let query = query(args)?;
    let source = PushSource::find(&args.path)?;
    let expected = match &args.if_version {
        Some(version) => Some(versions::whole(server, &args.name, version).await?),
        None => None,
    };
    if source.bytes() > 0 {
        knock(server, &args.name).await?;
    }
    let path = ["admin", "adapters", &args.name];
    let request = server.transfer(Method::PUT, &path).query(&query);
    let request = conditions(request, args.create, expected);
    let bar = match &source {
        PushSource::Reference(_) => send::bar(None, quiet),
        _ => send::bar(Some(source.bytes()), quiet),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    let request = send::with_body(request, &source, &bar).await?;
    let answer = server.json(request).await;
    bar.finish_and_clear();
    let report = answer?;
    Ok(Output::new(report::publication(&report), report))
}

/// A door that stays shut is better found before the files are sent: while they are, its answer may get lost.
async fn knock(server: &Server, name: &str) -> Result<(), CommandError> {
    match server.json(server.get(&["admin", "adapters", name])).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

fn query(args: &PushArgs) -> Result<Vec<(&'static str, String)>, CommandError> {
    let mut query = args.policy.query()?;
    let switches = [("dry_run", args.dry_run), ("probe", args.probe)];
    query.extend(switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name, "true".into())));
    query.extend((!args.labels.is_empty()).then(|| ("labels", args.labels.join(","))));
    let texts = [("probe_prompt", &args.probe_prompt), ("probe_expect", &args.probe_expect)];
    query.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
    Ok(query)
}

fn conditions(request: RequestBuilder, create: bool, expected: Option<String>) -> RequestBuilder {
    match expected {
        Some(version) => request.header(header::IF_MATCH, format!("\"{version}\"")),
        None if create => request.header(header::IF_NONE_MATCH, "*"),
        None => request,
    }
}

//! `lorad adapter rm`: a name out of service.
use super::{
    client::Server, confirm::confirm, error::CommandError, how::PolicyArgs, output::Output,
    report::version, versions, words::count,
};
use reqwest::{Method, header};

/// What goes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// Which adapter
    #[arg(value_name = "NAME")]
    name: String,
    /// Only at this version: its digits, or the first 8 or more of them
    #[arg(long, value_name = "VERSION")]
    if_version: Option<String>,
    /// Even while an alias sends requests to it
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    policy: PolicyArgs,
}

/// Its versions go from the store too.
pub(super) async fn run(server: &Server, args: &RemoveArgs) -> Result<Output, CommandError> {
    let mut query = args.policy.query()?;
    query.extend(args.force.then(|| ("force", "true".to_owned())));
    let path = ["admin", "adapters", &args.name];
    let page = server.json(server.get(&path)).await?;
    let (at, requests) = (version(&page), count(&page["usage"], "requests"));
    let question = format!(
        "Take {} ({at}, {requests} requests so far) out of service, with all its versions?",
        args.name
    );
    confirm(args.yes, &question)?;
    let mut request = server.request(Method::DELETE, &path).query(&query);
    if let Some(version) = &args.if_version {
        let version = versions::whole(server, &args.name, version).await?;
        request = request.header(header::IF_MATCH, format!("\"{version}\""));
    }
    let answer = server.json(request).await?;
    Ok(Output::new(format!("{} is retired; it was at {}", args.name, version(&answer)), answer))
}

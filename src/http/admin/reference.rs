//! Publishing by reference: the body says where an adapter's files are, and the server gets them.
use crate::{
    adapter::{Source, store::hub},
    http::{
        ApiError, AppState,
        json::{JsonBody, read_bytes},
        upload::{Came, Upload},
    },
};
use axum::extract::Request;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReferenceBody {
    source: String,
    labels: Option<Vec<String>>,
}

/// The adapter that the body names, when it is from where one may be.
///
/// # Errors
/// 403 for a source outside `--adapter-sources`; else as the source has it.
pub(super) async fn fetched(app: &AppState, request: Request) -> Result<Upload, ApiError> {
    let body = read_bytes(request, app).await?;
    let ReferenceBody { source, labels } = JsonBody::parse(&body)?.read()?;
    let allowed = &app.config.adapter_sources;
    if !is_allowed(&source, allowed) {
        return Err(ApiError::source_not_allowed(allowed));
    }
    let limits = app.registry.limits().clone();
    app.uploads
        .read_by(move || {
            let found = hub::fetch(&source, &limits)?;
            let source = Source::Hub { reference: source, commit: found.commit };
            let files = match labels {
                Some(names) => found.files.with_labels(&names)?,
                None => found.files,
            };
            Ok(Came { files, warnings: Vec::new(), source })
        })
        .await
}

/// Whether `source` lies under one of these prefixes: `hf://org` is not `hf://organisation/…`.
pub(in crate::http) fn is_allowed(source: &str, prefixes: &[String]) -> bool {
    let is_under = |prefix: &String| match source.strip_prefix(prefix.as_str()) {
        None => false,
        Some(rest) => prefix.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '@']),
    };
    !source.split('/').any(|part| part == "..") && prefixes.iter().any(is_under)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_under_a_prefix_is_allowed() {
        let under = |prefix: &str, source: &str| is_allowed(source, &[prefix.to_owned()]);
        assert!(under("hf://", "hf://org/name@main"));
        assert!(under("hf://org", "hf://org/name"));
        assert!(under("hf://org/name", "hf://org/name@abc"));
        for (prefix, source) in [
            ("hf://org", "hf://organisation/name"),
            ("hf://org/", "hf://other/name"),
            ("hf://", "http://169.254.169.254/"),
            ("hf://", "/etc/passwd"),
            ("hf://org/", "hf://org/../other/name"),
        ] {
            assert!(!under(prefix, source), "{source} under {prefix}");
        }
        assert!(!is_allowed("hf://org/name", &[]));
    }
}

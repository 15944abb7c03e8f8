//! A version is tried before a name means it.
use super::report::both;
use crate::{
    adapter::AdapterLease,
    error::{Classified, ErrorKind},
    generation::Probe,
    http::{ApiError, AppState},
};
use serde_json::Value;

/// What a probe continues where the request does not say.
const PROMPT: &str = "The capital of France is";
/// Longest prompt or expected text, bytes.
const MAX_BYTES: usize = 8192;
/// Longest part of an answer that an error shows, characters.
const SHOWN: usize = 120;

/// A probe that a request asks for.
pub(super) struct Asked {
    prompt: String,
    expect: Option<String>,
}

impl Asked {
    /// A prompt or an expectation asks for a probe too.
    pub(super) fn of(
        probe: Option<bool>,
        prompt: Option<String>,
        expect: Option<String>,
    ) -> Result<Option<Self>, ApiError> {
        let given = [("probe_prompt", &prompt), ("probe_expect", &expect)];
        let given = given.into_iter().find(|(_, text)| text.is_some());
        let field = given.map(|(field, _)| field);
        for (field, text) in [("probe_prompt", &prompt), ("probe_expect", &expect)] {
            if text.as_ref().is_some_and(|text| text.is_empty() || text.len() > MAX_BYTES) {
                let message = format!("`{field}` must have 1 to {MAX_BYTES} bytes");
                return Err(ApiError::invalid(field, message));
            }
        }
        match (probe, field) {
            (Some(false), Some(field)) => {
                Err(ApiError::invalid(field, format!("`{field}` goes with `probe=true`")))
            }
            (None | Some(false), None) => Ok(None),
            _ => Ok(Some(Self { prompt: prompt.unwrap_or_else(|| PROMPT.into()), expect })),
        }
    }
}

/// Both texts, when the version has passed.
pub(super) async fn tried(
    app: &AppState,
    lease: AdapterLease,
    asked: &Asked,
) -> Result<Value, ApiError> {
    let probe = app.generator.probe(lease, &asked.prompt).await?;
    match &probe.adapter {
        // Not the adapter's fault.
        Err(error) if error.kind() != ErrorKind::Internal => {
            let Err(error) = probe.adapter else { return Err(ApiError::internal("probe")) };
            Err(error.into())
        }
        Err(_) => Err(refused(&probe, "it has no answer to the probe: its output is not a number")),
        Ok(text) if text.trim().is_empty() => {
            Err(refused(&probe, "its answer to the probe is empty"))
        }
        Ok(text) => match &asked.expect {
            Some(expect) if !text.contains(expect.as_str()) => {
                let (text, expect) = (shown(text), shown(expect));
                let reason = format!("its answer to the probe is `{text}`, without `{expect}`");
                Err(refused(&probe, &reason))
            }
            _ => Ok(both(&probe)),
        },
    }
}

fn refused(probe: &Probe, reason: &str) -> ApiError {
    let message = format!("the adapter was not published: {reason}");
    ApiError::probe_failed(message).with_detail("probe", both(probe))
}

fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN).collect();
    cut.escape_debug().to_string()
}

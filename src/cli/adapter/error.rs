//! Why a command failed, and with which exit status.
use super::words::clean;
use serde_json::Value;
use std::process::ExitCode;

/// Longest part of an answer that is no error object.
const MAX_SHOWN: usize = 300;

/// See each variant.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// The command line asks for nothing that there is.
    #[error("{0}")]
    Usage(String),
    /// The server says no.
    #[error("{}", told(*status, message, code.as_deref(), param.as_deref()))]
    Refused {
        status: u16,
        message: String,
        /// The server's stable name of the failure.
        code: Option<String>,
        /// What of the request is wrong.
        param: Option<String>,
    },
    /// Nobody answers.
    #[error(
        "{url} does not answer: {cause}; is the server running there? --url or LORAD_URL says where it is"
    )]
    Unreachable { url: String, cause: String },
    /// Everything else.
    #[error("{0}")]
    Failed(String),
}

impl CommandError {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// An answer that is no success.
    pub(super) fn refused(status: u16, body: &str) -> Self {
        let json: Value = serde_json::from_str(body).unwrap_or_default();
        let error = json.get("error").unwrap_or(&json);
        let text = |field: &str| error.get(field).and_then(Value::as_str).map(clean);
        let shown = || match body.trim() {
            "" => "the server says nothing".to_owned(),
            body => clean(body).chars().take(MAX_SHOWN).collect(),
        };
        Self::Refused {
            status,
            message: text("message").unwrap_or_else(shown),
            code: text("reason").or_else(|| text("code")),
            param: text("param"),
        }
    }

    /// Whether there is no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

fn told(status: u16, message: &str, code: Option<&str>, param: Option<&str>) -> String {
    let code = code.map(|code| format!(" {code}")).unwrap_or_default();
    let param = param.map(|param| format!(", at {param}")).unwrap_or_default();
    let advice = match status {
        401 | 403 if code.contains("key") => "; say --key, --key-file or LORAD_ADMIN_KEY",
        _ => "",
    };
    format!("{message} ({status}{code}{param}){advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_servers_message_with_its_code_and_param() {
        let body = r#"{"error": {"message": "`share` must be more", "code": 400, "param": "share",
                       "reason": "invalid_adapter_terms"}}"#;
        let line = CommandError::refused(400, body).to_string();
        assert_eq!(line, "`share` must be more (400 invalid_adapter_terms, at share)");
        let named = r#"{"error": {"message": "no", "code": "invalid_api_key", "param": null}}"#;
        let line = CommandError::refused(401, named).to_string();
        assert!(line.starts_with("no (401 invalid_api_key); say --key"), "{line}");
    }

    #[test]
    fn what_is_no_error_object_is_shown_on_one_line_and_cannot_write_to_the_terminal() {
        let line = CommandError::refused(502, "<h1>\nBad\u{1b}[2J gateway</h1>").to_string();
        assert_eq!(line, "<h1> Bad [2J gateway</h1> (502)");
        assert_eq!(CommandError::refused(500, "").to_string(), "the server says nothing (500)");
        let long = CommandError::refused(500, &"x".repeat(5000)).to_string();
        assert!(long.len() < 400);
    }
}

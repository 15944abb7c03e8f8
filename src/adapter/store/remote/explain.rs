//! What went wrong with a store far away, in words for the one who runs the server, and never with a secret.
use super::connect::Kind;
use crate::adapter::{AdapterError, store::cause::first_cause};
use object_store::Error;
use reqwest::Url;

/// A store's address as it may be shown.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) kind: Kind,
    shown: String,
}

impl Address {
    pub(super) fn new(kind: Kind, url: &Url) -> Self {
        let mut url = url.clone();
        // Only fails where a URL has no place for them.
        let _ = url.set_password(None);
        if kind != Kind::Azure {
            let _ = url.set_username("");
        }
        url.set_query(None);
        url.set_fragment(None);
        Self { kind, shown: url.to_string() }
    }

    /// Why something could not be done, and what to do.
    pub(super) fn failed(&self, action: &str, path: &str, error: &Error) -> AdapterError {
        let what = if path.is_empty() { String::new() } else { format!(" `{path}`") };
        AdapterError::Unreachable(format!(
            "the adapter store {} failed: could not {action}{what}: {}; {}",
            self.shown,
            first_cause(error),
            self.advice(error)
        ))
    }

    /// Why nothing can be written.
    pub(super) fn read_only(&self, why: &str) -> AdapterError {
        AdapterError::ReadOnly(format!("the adapter store {} is read-only: {why}", self.shown))
    }

    pub(super) fn wrong_path(&self, path: &str) -> AdapterError {
        AdapterError::invalid(format!("`{path}` is not the path of an object in {}", self.shown))
    }

    fn advice(&self, error: &Error) -> String {
        let variables = match self.kind {
            Kind::S3 => "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT",
            Kind::Google => "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS",
            Kind::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
            Kind::Web | Kind::Memory => "the address",
        };
        match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. }
                if self.kind != Kind::Web =>
            {
                format!("check {variables}, and that they may list, read, write and delete there")
            }
            Error::NotFound { .. } => format!("check its name, and {variables}"),
            Error::NotImplemented { .. } | Error::NotSupported { .. } => {
                "use another kind of store".to_owned()
            }
            _ if self.kind == Kind::Web => {
                "check the address; to be listed, a web server must answer PROPFIND (WebDAV)"
                    .to_owned()
            }
            _ => format!("check {variables} and the network, then try again"),
        }
    }
}

/// Whether it is not an object but the whole bucket that is missing: then nothing is known about objects.
pub(super) fn is_no_bucket(error: &Error) -> bool {
    let text = error.to_string();
    ["NoSuchBucket", "ContainerNotFound"].iter().any(|code| text.contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let url: Url = "https://me:secret@host/adapters?sig=secret".parse().expect("a URL");
        let address = Address::new(Kind::Web, &url);
        let source = "for https://host/x?sig=secret failed".into();
        let error = Error::Generic { store: "HTTP", source };
        let shown = address.failed("read", "x", &error).to_string();
        assert!(shown.contains("https://host/adapters") && !shown.contains("secret"), "{shown}");
        assert!(!shown.contains("me@"), "{shown}");
    }
}

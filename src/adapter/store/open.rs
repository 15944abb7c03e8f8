//! Which store a text means.
use super::{DirectoryObjects, Objects, remote::RemoteObjects};
use crate::adapter::AdapterError;
use reqwest::Url;
use std::{path::Path, sync::Arc};

/// What a store may be.
const KNOWN: &str = "a directory, file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, \
                     http://HOST/PATH or https://HOST/PATH";

/// Opens the store that `text` means: a directory, or a URL. Blocks, and may not be called on an async thread.
///
/// # Errors
/// When it means none, cannot be used as one or does not answer; the message says what to do.
pub fn open(text: &str) -> Result<Arc<dyn Objects>, AdapterError> {
    let Some((scheme, _)) = text.split_once("://") else {
        if text.is_empty() {
            return Err(AdapterError::invalid(format!("an adapter store is {KNOWN}, not nothing")));
        }
        return Ok(Arc::new(DirectoryObjects::open(Path::new(text))?));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "file" => {
            let path = Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
            let path = path.ok_or_else(|| wrong("that is no path on this machine"))?;
            Ok(Arc::new(DirectoryObjects::open(&path)?))
        }
        "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss" | "http" | "https" | "memory" => {
            let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
            Ok(Arc::new(RemoteObjects::open(&url)?))
        }
        "hf" => Err(AdapterError::invalid(
            "a repository on the hub is one adapter, not a store of many: publish it by its reference",
        )),
        // The rest of the text may hold a password.
        other => Err(wrong(&format!("`{}://` is unknown", other.escape_debug()))),
    }
}

fn wrong(why: &str) -> AdapterError {
    AdapterError::invalid(format!("this is no adapter store: {why}; a store is {KNOWN}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_store_says_what_one_is() {
        for text in ["", "ftp://host/x", "s4://bucket", "file://x/y z", "http://"] {
            let error = open(text).expect_err("no store").to_string();
            assert!(error.contains("s3://BUCKET/PREFIX"), "{text}: {error}");
        }
        let error = open("s3://bucket/x?secret").expect_err("a query").to_string();
        assert!(error.contains("environment") && !error.contains("secret"), "{error}");
        let error = open("hf://org/name").expect_err("the hub").to_string();
        assert!(error.contains("reference"), "{error}");
    }

    #[test]
    fn a_directory_is_a_path_or_a_file_url() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_str().expect("text");
        for text in [path.to_owned(), format!("file://{path}"), format!("FILE://{path}")] {
            assert_eq!(open(&text).expect("opened").directory(), Some(directory.path()));
        }
        assert!(open("memory://").expect("opened").directory().is_none());
    }
}

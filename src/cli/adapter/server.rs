//! Which server, and who asks.
use super::error::CommandError;
use crate::cli::healthcheck::authorities;
use reqwest::{ClientBuilder, Url};
use std::{fs, path::PathBuf};

/// The server to speak to.
#[derive(Clone, clap::Args)]
pub(super) struct ServerArgs {
    /// Where the server is
    #[arg(
        long,
        global = true,
        env = "LORAD_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8000"
    )]
    url: String,
    /// Admin key of the server
    #[arg(
        long,
        global = true,
        env = "LORAD_ADMIN_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    key: Option<String>,
    /// File whose first line is the admin key; it counts before --key
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Certificates of authorities to trust besides the system's, PEM
    #[arg(long, global = true, env = "LORAD_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Take any certificate: whoever sits between can read the key
    #[arg(long, global = true, conflicts_with = "ca")]
    insecure: bool,
}

impl std::fmt::Debug for ServerArgs {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerArgs").finish_non_exhaustive()
    }
}

impl ServerArgs {
    /// Where to send requests to.
    ///
    /// # Errors
    /// For what is no address of a server. The text never repeats what may be a password.
    pub(super) fn url(&self) -> Result<Url, CommandError> {
        let wrong = |why: &str| CommandError::usage(format!("--url {why}: write http://HOST:PORT"));
        let url = Url::parse(self.url.trim()).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return Err(wrong("is no http or https address"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("holds a password, which belongs into --key"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("has a query or a fragment"));
        }
        Ok(url)
    }

    /// Whom to trust.
    ///
    /// # Errors
    /// For a file without certificates.
    pub(super) fn trusting(&self, client: ClientBuilder) -> Result<ClientBuilder, CommandError> {
        if let Some(path) = &self.ca {
            let found = authorities(path).map_err(CommandError::failed)?;
            return Ok(client.tls_certs_merge(found));
        }
        // Without TLS nobody is trusted, and a system without authorities will do.
        let is_plain = self.url()?.scheme() == "http";
        Ok(client.tls_danger_accept_invalid_certs(self.insecure || is_plain))
    }

    /// What to show at the door, if anything.
    ///
    /// # Errors
    /// When the file cannot be read or is empty, and for a key that no header can hold.
    pub(super) fn key(&self) -> Result<Option<String>, CommandError> {
        let key = match &self.key_file {
            Some(path) => {
                let text = fs::read_to_string(path).map_err(|error| {
                    CommandError::failed(format!("{} cannot be read: {error}", path.display()))
                })?;
                let key = first_key(&text);
                Some(key.ok_or_else(|| {
                    CommandError::failed(format!("{} holds no key", path.display()))
                })?)
            }
            None => self.key.as_deref().and_then(first_key),
        };
        match key {
            Some(key) if !key.bytes().all(|c| c.is_ascii_graphic()) => {
                Err(CommandError::usage("the key has characters that no key has"))
            }
            key => Ok(key),
        }
    }
}

/// The server's variable and file may hold several keys, each of which opens the door.
fn first_key(text: &str) -> Option<String> {
    let keys = text.lines().flat_map(|line| line.split(',')).map(str::trim);
    let mut keys = keys.filter(|key| !key.is_empty() && !key.starts_with('#'));
    keys.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str, key: Option<&str>) -> ServerArgs {
        let key = key.map(str::to_owned);
        ServerArgs { url: url.into(), key, key_file: None, ca: None, insecure: false }
    }

    #[test]
    fn addresses_are_checked_and_passwords_are_not_repeated() {
        let url = |text: &str| args(text, None).url();
        assert_eq!(url("http://127.0.0.1:8000").expect("valid").as_str(), "http://127.0.0.1:8000/");
        assert_eq!(url("https://a.example/lorad ").expect("valid").path(), "/lorad");
        for wrong in ["", "localhost", "localhost:8000", "ftp://a", "http://", "http://a/?b=c"] {
            assert!(matches!(url(wrong), Err(CommandError::Usage(_))), "{wrong}");
        }
        let error = url("http://me:hidden@host").expect_err("a password").to_string();
        assert!(error.contains("--key") && !error.contains("hidden"), "{error}");
    }

    #[test]
    fn a_key_is_the_first_of_its_list_and_never_shown() {
        let key = |text| args("http://a", Some(text)).key();
        assert_eq!(key("one, two").expect("valid").as_deref(), Some("one"));
        assert_eq!(key(" \n").expect("valid"), None);
        assert_eq!(first_key("# admins\nsecret\n").as_deref(), Some("secret"));
        let error = key("a b").expect_err("a space").to_string();
        assert!(!error.contains("a b"), "{error}");
        assert!(!format!("{:?}", args("http://a", Some("hidden"))).contains("hidden"));
    }
}

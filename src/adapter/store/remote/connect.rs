//! From a URL and the environment to a client.
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, Result, RetryConfig,
    aws::AmazonS3Builder, azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder,
    http::HttpBuilder, memory::InMemory, path::Path,
};
use reqwest::{Url, header::HeaderValue};
use std::{env, sync::Arc, time::Duration};

/// Who answers behind a URL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    S3,
    Google,
    Azure,
    Web,
    Memory,
}

/// A failing network is told after about half a minute; until then it may come back.
const CONNECT_TIMEOUT: &str = "10 seconds";
const READ_TIMEOUT: &str = "30 seconds";
const RETRIES: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

impl Kind {
    pub(super) fn of(url: &Url) -> Option<Self> {
        match url.scheme() {
            "s3" | "s3a" => Some(Self::S3),
            "gs" => Some(Self::Google),
            "az" | "azure" | "abfs" | "abfss" => Some(Self::Azure),
            "http" | "https" => Some(Self::Web),
            "memory" => Some(Self::Memory),
            _ => None,
        }
    }

    /// How the names of its settings in the environment begin.
    pub(super) fn variables(self) -> Option<&'static str> {
        match self {
            Self::S3 => Some("AWS_"),
            Self::Google => Some("GOOGLE_"),
            Self::Azure => Some("AZURE_"),
            Self::Web | Self::Memory => None,
        }
    }
}

/// Settings as builders know them: ours, then those of the environment, which win.
fn settings(
    kind: Kind,
    variables: impl Iterator<Item = (String, String)>,
) -> Vec<(String, String)> {
    let ours = [
        (ClientConfigKey::ConnectTimeout, CONNECT_TIMEOUT),
        (ClientConfigKey::ReadTimeout, READ_TIMEOUT),
    ];
    let mut settings: Vec<_> =
        ours.iter().map(|(key, value)| (key.as_ref().to_owned(), (*value).to_owned())).collect();
    let prefix = kind.variables().unwrap_or_default();
    for (name, value) in
        variables.filter(|(name, _)| !prefix.is_empty() && name.starts_with(prefix))
    {
        let name = name.to_ascii_lowercase();
        // An endpoint that says http was meant to.
        if name.contains("endpoint") && value.starts_with("http://") {
            settings.push((ClientConfigKey::AllowHttp.as_ref().to_owned(), "true".to_owned()));
        }
        settings.push((name, value));
    }
    settings
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES,
        retry_timeout: RETRY_TIMEOUT,
    }
}

/// A whole transfer takes as long as it takes; each read of it has its time.
fn options() -> ClientOptions {
    let agent = HeaderValue::from_static(concat!("lorad/", env!("CARGO_PKG_VERSION")));
    ClientOptions::new().with_timeout_disabled().with_user_agent(agent)
}

macro_rules! build {
    ($builder:ty, $settings:expr, $url:expr) => {{
        let mut builder = <$builder>::new().with_client_options(options()).with_retry(retry());
        for (name, value) in $settings {
            // Others use variables that begin alike.
            if let Ok(key) = name.parse() {
                builder = builder.with_config(key, value);
            }
        }
        Arc::new(builder.with_url($url.as_str()).build()?)
    }};
}

/// The client, and where in it the objects lie.
pub(super) fn connect(
    kind: Kind,
    url: &Url,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let path = Path::from_url_path(url.path())?;
    let settings = settings(kind, variables);
    let client: Arc<dyn ObjectStore> = match kind {
        Kind::S3 => build!(AmazonS3Builder, settings, url),
        Kind::Google => build!(GoogleCloudStorageBuilder, settings, url),
        Kind::Azure => build!(MicrosoftAzureBuilder, settings, url),
        Kind::Memory => Arc::new(InMemory::new()),
        Kind::Web => {
            let mut base = url.clone();
            base.set_path("");
            let mut options = options().with_allow_http(true);
            for (name, value) in settings {
                options = options.with_config(name.parse()?, value);
            }
            let builder = HttpBuilder::new().with_url(base).with_client_options(options);
            Arc::new(builder.with_retry(retry()).build()?)
        }
    };
    Ok((client, path))
}

/// Those whose value is text.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_variables_are_settings() {
        let variables = [
            ("AWS_ENDPOINT", "http://localhost:9000"),
            ("AWS_READ_TIMEOUT", "5 seconds"),
            ("GOOGLE_BUCKET", "x"),
            ("REGION", "x"),
        ];
        let variables =
            || variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let found = settings(Kind::S3, variables());
        let values = |key: &str| -> Vec<_> {
            found
                .iter()
                .filter(|(name, _)| name.ends_with(key))
                .map(|(_, value)| value.as_str())
                .collect()
        };
        assert_eq!(values("aws_endpoint"), ["http://localhost:9000"]);
        assert_eq!(values("allow_http"), ["true"]);
        assert_eq!(values("read_timeout"), ["30 seconds", "5 seconds"], "the last one counts");
        assert_eq!(found.len(), 5);
        assert_eq!(settings(Kind::Web, variables()).len(), 2);
    }

    #[test]
    fn each_kind_of_url_leads_to_a_client_and_a_place_in_it() {
        let variables = [
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5"),
            ("GOOGLE_SKIP_SIGNATURE", "true"),
        ];
        for (text, kind, client, place) in [
            ("s3://bucket/pre/fix", Kind::S3, "bucket", "pre/fix"),
            ("s3a://bucket", Kind::S3, "bucket", ""),
            ("gs://bucket/pre/fix/", Kind::Google, "bucket", "pre/fix"),
            ("az://container/pre", Kind::Azure, "container", "pre"),
            ("abfs://container@account.dfs.core.windows.net/pre", Kind::Azure, "container", "pre"),
            ("https://host:8443/pre/fix", Kind::Web, "", "pre/fix"),
        ] {
            let url = text.parse().expect("a URL");
            assert_eq!(Kind::of(&url), Some(kind), "{text}");
            let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let (found, at) = connect(kind, &url, variables.into_iter()).expect("set up");
            assert_eq!(at.as_ref(), place, "{text}");
            assert!(found.to_string().contains(client), "{text}: {found}");
        }
    }
}

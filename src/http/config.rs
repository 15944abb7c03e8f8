//! The front door's settings.
use super::KeyFile;
use std::{net::IpAddr, path::PathBuf, time::Duration};

/// Ten years: more would end beyond what a clock can show.
const FOR_EVER: Duration = Duration::from_hours(10 * 365 * 24);

/// Where to listen, what to accept, and from whom.
#[derive(Clone, Debug, clap::Args)]
pub struct HttpConfig {
    /// Address to listen on; `127.0.0.1` keeps the server to this machine.
    #[arg(long, env = "LORAD_HOST", default_value = "0.0.0.0")]
    pub host: IpAddr,

    /// Port to listen on; 0 takes a free one and logs it.
    #[arg(long, env = "LORAD_PORT", default_value_t = 8000)]
    pub port: u16,

    /// Keys that clients send as `Authorization: Bearer KEY`; none leaves the API open.
    #[arg(
        long = "api-key",
        env = "LORAD_API_KEY",
        value_name = "KEY",
        value_delimiter = ',',
        value_parser = key,
        hide_env_values = true
    )]
    pub api_keys: Vec<String>,

    /// File with more such keys, one a line, `#` before remarks; read again when it changes.
    #[arg(
        long,
        env = "LORAD_API_KEY_FILE",
        value_name = "FILE",
        value_parser = KeyFile::read
    )]
    pub api_key_file: Option<KeyFile>,

    /// Keys for everything under /admin; without one, it answers to this machine alone.
    #[arg(
        long = "admin-key",
        env = "LORAD_ADMIN_KEY",
        value_name = "KEY",
        value_delimiter = ',',
        value_parser = key,
        hide_env_values = true
    )]
    pub admin_keys: Vec<String>,

    /// File with more admin keys, of the same form.
    #[arg(
        long,
        env = "LORAD_ADMIN_KEY_FILE",
        value_name = "FILE",
        value_parser = KeyFile::read
    )]
    pub admin_key_file: Option<KeyFile>,

    /// Largest JSON body, bytes.
    #[arg(long, env = "LORAD_MAX_BODY_BYTES", value_name = "BYTES", default_value_t = 8 << 20)]
    pub max_body_bytes: usize,

    /// Largest adapter upload, bytes; --max-adapter-bytes bounds the adapter in it.
    #[arg(long, env = "LORAD_MAX_UPLOAD_BYTES", value_name = "BYTES", default_value_t = 2 << 30)]
    pub max_upload_bytes: usize,

    /// What adapters may be published from by reference: beginnings of sources, with commas between them; `hf://` is the
    /// hub, `hf://org/` one organisation's part of it.
    #[arg(
        long,
        env = "LORAD_ADAPTER_SOURCES",
        value_name = "PREFIX",
        value_delimiter = ',',
        default_value = "hf://"
    )]
    pub adapter_sources: Vec<String>,

    /// Directories of this machine below which vLLM's `/v1/load_lora_adapter` may load what its clients name, with commas
    /// between them; none allows no path.
    #[arg(
        long,
        env = "LORAD_LORA_PATH_PREFIXES",
        value_name = "DIR",
        value_delimiter = ',',
        value_parser = whole_path
    )]
    pub lora_path_prefixes: Vec<PathBuf>,

    /// Most answers one request may ask for: its prompts times `n`.
    #[arg(long, env = "LORAD_MAX_PROMPTS", value_name = "COUNT", default_value_t = 128)]
    pub max_prompts: usize,

    /// Most texts one request may bring to be read: embedded, classified, scored.
    #[arg(long, env = "LORAD_MAX_TEXTS", value_name = "COUNT", default_value_t = 2048)]
    pub max_texts: usize,

    /// Requests worked on at once; more are answered 429.
    #[arg(long, env = "LORAD_MAX_REQUESTS", value_name = "COUNT", default_value_t = 1024)]
    pub max_requests: usize,

    /// Connections open at once; more are closed as they come.
    #[arg(long, env = "LORAD_MAX_CONNECTIONS", value_name = "COUNT", default_value_t = 4096)]
    pub max_connections: usize,

    /// Longest time for an answer that is not streamed, or for the head of one that is, seconds.
    #[arg(long, env = "LORAD_REQUEST_TIMEOUT", value_name = "SECONDS", default_value_t = 600)]
    pub request_timeout: u64,

    /// Longest wait for a request's head, and for the next piece of its body, seconds.
    #[arg(long, env = "LORAD_READ_TIMEOUT", value_name = "SECONDS", default_value_t = 10)]
    pub read_timeout: u64,

    /// Longest time that a streaming client may take nothing off the connection, seconds.
    #[arg(long, env = "LORAD_WRITE_TIMEOUT", value_name = "SECONDS", default_value_t = 30)]
    pub write_timeout: u64,

    /// Longest time that an HTTP/2 connection may go without a request, seconds, as --read-timeout is for HTTP/1.1; 0 waits for
    /// ever.
    #[arg(long, env = "LORAD_IDLE_TIMEOUT", value_name = "SECONDS", default_value_t = 300)]
    pub idle_timeout: u64,

    /// Longest time that a forward pass may take before /livez answers 503, seconds; 0 waits for ever.
    #[arg(long, env = "LORAD_STEP_TIMEOUT", value_name = "SECONDS", default_value_t = 300)]
    pub step_timeout: u64,

    /// Time that running requests get to finish after SIGTERM, seconds.
    #[arg(long, env = "LORAD_DRAIN_TIMEOUT", value_name = "SECONDS", default_value_t = 30)]
    pub drain_timeout: u64,

    /// Certificate chain, PEM: the server speaks TLS. Read again when it changes.
    #[arg(
        long,
        env = "LORAD_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key",
        visible_alias = "ssl-certfile"
    )]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key, PEM.
    #[arg(
        long,
        env = "LORAD_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert",
        visible_alias = "ssl-keyfile"
    )]
    pub tls_key: Option<PathBuf>,
}

impl HttpConfig {
    /// The time an answer may take.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout)
    }

    /// The time a piece of a request may take.
    pub fn read_timeout(&self) -> Duration {
        Duration::from_secs(self.read_timeout)
    }

    /// The time a piece of an answer may lie unread.
    pub fn write_timeout(&self) -> Duration {
        Duration::from_secs(self.write_timeout)
    }

    /// The time a connection may have nothing to do.
    pub fn idle_timeout(&self) -> Duration {
        match Duration::from_secs(self.idle_timeout) {
            Duration::ZERO => FOR_EVER,
            time => time.min(FOR_EVER),
        }
    }

    /// The time a step may take, if it is bounded.
    pub fn step_timeout(&self) -> Option<Duration> {
        (self.step_timeout > 0).then(|| Duration::from_secs(self.step_timeout))
    }

    /// The time a shutdown waits.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout)
    }
}

/// Clients name whole paths.
fn whole_path(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text.trim());
    if path.is_absolute() { Ok(path) } else { Err("a prefix must be a whole path, from / on") }
}

/// Files that keys come from often end with a line break. No key is no key, and must not open a door.
fn key(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("a key must not be empty; leave the setting out for none"),
        key => Ok(key.into()),
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::from([0, 0, 0, 0]),
            port: 8000,
            api_keys: Vec::new(),
            api_key_file: None,
            admin_keys: Vec::new(),
            admin_key_file: None,
            max_body_bytes: 8 << 20,
            max_upload_bytes: 2 << 30,
            adapter_sources: vec!["hf://".into()],
            lora_path_prefixes: Vec::new(),
            max_prompts: 128,
            max_texts: 2048,
            max_requests: 1024,
            max_connections: 4096,
            request_timeout: 600,
            read_timeout: 10,
            write_timeout: 30,
            idle_timeout: 300,
            step_timeout: 300,
            drain_timeout: 30,
            tls_cert: None,
            tls_key: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Command, FromArgMatches};

    #[test]
    fn no_flags_are_the_defaults() {
        let command = HttpConfig::augment_args(Command::new("serve"));
        let matches = command.try_get_matches_from(["serve"]).expect("no flags");
        let parsed = HttpConfig::from_arg_matches(&matches).expect("complete");
        assert_eq!(format!("{parsed:?}"), format!("{:?}", HttpConfig::default()));
    }

    #[test]
    fn no_time_to_be_idle_is_all_the_time() {
        let idle =
            |idle_timeout| HttpConfig { idle_timeout, ..HttpConfig::default() }.idle_timeout();
        assert_eq!((idle(0), idle(u64::MAX)), (FOR_EVER, FOR_EVER));
        assert_eq!(idle(300).as_secs(), 300);
    }

    #[test]
    fn several_keys_may_be_given() {
        let command = HttpConfig::augment_args(Command::new("serve"));
        let flags = ["serve", "--api-key", "a, b", "--api-key", "c\n"];
        let matches = command.try_get_matches_from(flags).expect("keys");
        let parsed = HttpConfig::from_arg_matches(&matches).expect("complete");
        assert_eq!(parsed.api_keys, ["a", "b", "c"]);
    }

    #[test]
    fn an_empty_key_is_refused_instead_of_opening_the_door() {
        for flag in ["--api-key=", "--api-key= ", "--admin-key=a,", "--admin-key=a, "] {
            let command = HttpConfig::augment_args(Command::new("serve"));
            assert!(command.try_get_matches_from(["serve", flag]).is_err(), "{flag}");
        }
    }
}

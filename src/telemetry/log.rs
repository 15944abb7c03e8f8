//! Where log lines go and what they look like.
use clap::builder::FalseyValueParser;
use std::io::{IsTerminal, stderr};
use tracing_subscriber::{
    EnvFilter, filter::ParseError, fmt, layer::SubscriberExt, util::TryInitError,
};
use tracing_subscriber::{Layer, Registry, util::SubscriberInitExt};

/// How to log. Prompts, answers, tokens and keys are never logged, at any level.
#[derive(Clone, Debug, clap::Args)]
pub struct LogConfig {
    /// Shape of a log line.
    #[arg(long, env = "LORAD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// The same as --log-format json
    #[arg(
        long,
        env = "LORAD_JSON_OUTPUT",
        conflicts_with = "log_format",
        value_parser = FalseyValueParser::new()
    )]
    pub json_output: bool,

    /// What to log: a level (error, warn, info, debug, trace) or a filter such as `warn,lorad=debug`.
    #[arg(long, env = "LORAD_LOG", value_name = "FILTER", default_value = "info")]
    pub log_level: String,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("--log-level is neither a level nor a filter: {0}")]
    Filter(#[from] ParseError),
    /// Somebody else logs already.
    #[error("logging has been set up before")]
    AlreadySetUp(#[from] TryInitError),
}

impl LogConfig {
    /// Starts logging to standard error, for the whole process.
    ///
    /// # Errors
    /// A filter that cannot be read, or a second call.
    pub fn init(&self) -> Result<(), LogError> {
        let filter = EnvFilter::try_new(&self.log_level)?;
        let lines = fmt::layer().with_writer(stderr).with_target(true);
        let format = if self.json_output { LogFormat::Json } else { self.log_format };
        let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
            LogFormat::Text => lines.with_ansi(stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        };
        Registry::default().with(lines.with_filter(filter)).try_init()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_an_error() {
        let config = LogConfig {
            log_format: LogFormat::Text,
            json_output: false,
            log_level: "lorad=loud".into(),
        };
        let error = config.init().expect_err("no such level");
        assert!(error.to_string().contains("--log-level"), "{error}");
    }
}

//! The settings of reading.
use clap::builder::FalseyValueParser;

/// What becomes of long texts, and how many of a request's are read at a time.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct EncodeConfig {
    /// Cut texts that are too long to be read, instead of refusing them; a request may say otherwise.
    #[arg(long, env = "LORAD_AUTO_TRUNCATE", value_parser = FalseyValueParser::new())]
    pub auto_truncate: bool,

    /// Texts of one request that wait or run at the same time; the rest follow.
    #[arg(skip = Self::default().window)]
    pub window: usize,
}

impl Default for EncodeConfig {
    fn default() -> Self {
        Self { auto_truncate: false, window: 128 }
    }
}

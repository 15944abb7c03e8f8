//! Settings of the adapter room.
use clap::{Args, builder::FalseyValueParser};
use std::path::PathBuf;

/// Where adapters come from and how large they may be.
#[derive(Args, Clone, Debug, Default)]
pub struct AdapterConfig {
    /// Serve every adapter in this directory, each sub-directory and each GGUF file under its own name; uploads are kept
    /// there
    #[arg(long, env = "LORAD_ADAPTERS", value_name = "DIR")]
    pub adapters: Option<PathBuf>,
    /// What is refused.
    #[command(flatten)]
    pub limits: AdapterLimits,
}

/// What an adapter may cost.
#[derive(Args, Clone, Debug)]
pub struct AdapterLimits {
    /// Largest rank an adapter may have at any layer
    #[arg(long, env = "LORAD_MAX_ADAPTER_RANK", value_name = "RANK", default_value_t = 256)]
    pub max_adapter_rank: usize,
    /// Largest adapter, config and weights together, in bytes
    #[arg(long, env = "LORAD_MAX_ADAPTER_BYTES", value_name = "BYTES", default_value_t = 1 << 30)]
    pub max_adapter_bytes: u64,
    /// Most adapters published at one time
    #[arg(long, env = "LORAD_MAX_ADAPTERS", value_name = "COUNT", default_value_t = 4096)]
    pub max_adapters: usize,
    /// Ignore even those unknown fields of `adapter_config.json` that look like a feature switched on (`use_…`,
    /// `…_config`), instead of refusing the adapter: its answers may then differ from those in training
    #[arg(
        long,
        env = "LORAD_ALLOW_UNKNOWN_ADAPTER_FIELDS",
        value_parser = FalseyValueParser::new()
    )]
    pub allow_unknown_adapter_fields: bool,
}

impl Default for AdapterLimits {
    fn default() -> Self {
        Self {
            max_adapter_rank: 256,
            max_adapter_bytes: 1 << 30,
            max_adapters: 4096,
            allow_unknown_adapter_fields: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        adapter: AdapterConfig,
    }

    #[test]
    fn the_command_line_and_the_library_have_the_same_defaults() {
        let line = Line::parse_from(["lorad"]);
        let (cli, library) = (line.adapter.limits, AdapterLimits::default());
        assert_eq!(format!("{cli:?}"), format!("{library:?}"));
    }
}

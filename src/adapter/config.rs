//! Settings of the adapter room.
use super::LoraModules;
use clap::{Args, builder::FalseyValueParser};

/// Where adapters come from and how large they may be.
#[derive(Args, Clone, Debug)]
pub struct AdapterConfig {
    /// Serve every adapter in this directory or bucket (`s3://`, `gs://`, `az://`, `https://`), each sub-directory and
    /// each GGUF file under its own name; uploads are kept there
    #[arg(long, env = "LORAD_ADAPTERS", value_name = "DIR or URL")]
    pub adapters: Option<String>,
    /// Versions of an adapter that are kept, the current one included, to roll back to
    #[arg(long, env = "LORAD_ADAPTER_VERSIONS", value_name = "COUNT", default_value_t = 5)]
    pub adapter_versions: usize,
    /// Host memory for adapters, in bytes: more adapters than it holds can be published, and those that are not asked for
    /// are let go, to be read again when they are
    #[arg(long, env = "LORAD_ADAPTER_MEMORY_BYTES", value_name = "BYTES", default_value_t = 4 << 30)]
    pub adapter_memory_bytes: u64,
    /// Most adapters in host memory, within --adapter-memory-bytes; 0 bounds their bytes alone
    #[arg(
        long,
        env = "LORAD_ADAPTER_MEMORY_COUNT",
        value_name = "COUNT",
        default_value_t = 0,
        visible_alias = "max-cpu-loras"
    )]
    pub adapter_memory_count: usize,
    /// Look every so many seconds for what others have written to the store of adapters; 0 never looks
    #[arg(
        long,
        env = "LORAD_ADAPTER_REFRESH_SECONDS",
        value_name = "SECONDS",
        default_value_t = 2.0
    )]
    pub adapter_refresh_seconds: f64,
    /// Adapters to publish at the start, as vLLM takes them: `name=path`, or JSON with `name` and `path`, several with blanks
    /// between them; a path is a directory, a GGUF file or a hub id
    #[arg(
        long,
        env = "LORAD_LORA_MODULES",
        value_name = "NAME=PATH",
        num_args = 1..,
        value_parser = LoraModules::parse
    )]
    pub lora_modules: Vec<LoraModules>,
    /// What is refused.
    #[command(flatten)]
    pub limits: AdapterLimits,
}

/// What an adapter may cost.
#[derive(Args, Clone, Debug)]
pub struct AdapterLimits {
    /// Largest rank an adapter may have at any layer
    #[arg(
        long,
        env = "LORAD_MAX_ADAPTER_RANK",
        value_name = "RANK",
        default_value_t = 256,
        visible_alias = "max-lora-rank"
    )]
    pub max_adapter_rank: usize,
    /// Largest adapter, config and weights together, in bytes
    #[arg(long, env = "LORAD_MAX_ADAPTER_BYTES", value_name = "BYTES", default_value_t = 1 << 30)]
    pub max_adapter_bytes: u64,
    /// Most adapters published at one time
    #[arg(long, env = "LORAD_MAX_ADAPTERS", value_name = "COUNT", default_value_t = 100_000)]
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

impl Default for AdapterConfig {
    fn default() -> Self {
        Self {
            adapters: None,
            adapter_versions: 5,
            adapter_memory_bytes: 4 << 30,
            adapter_memory_count: 0,
            adapter_refresh_seconds: 2.0,
            lora_modules: Vec::new(),
            limits: AdapterLimits::default(),
        }
    }
}

impl Default for AdapterLimits {
    fn default() -> Self {
        Self {
            max_adapter_rank: 256,
            max_adapter_bytes: 1 << 30,
            max_adapters: 100_000,
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
        let (cli, library) = (line.adapter, AdapterConfig::default());
        assert_eq!(format!("{cli:?}"), format!("{library:?}"));
    }
}

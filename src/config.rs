//! Every setting of `lorad serve`: each room's own, side by side, and what holds between them.
use crate::{
    adapter::AdapterConfig,
    engine::EngineConfig,
    generation::{EncodeConfig, ToolCallConfig},
    http::HttpConfig,
    kernel::KernelConfig,
    model::ModelConfig,
    telemetry::{LogConfig, MetricsConfig, TracesConfig},
};
use clap::ArgAction;

/// Flags and `LORAD_*` variables of `lorad serve`; a flag wins over its variable.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeConfig {
    /// The base model.
    #[command(flatten, next_help_heading = "Base model")]
    pub model: ModelConfig,
    /// The base's way with tools.
    #[command(flatten, next_help_heading = "Base model")]
    pub tool_calls: ToolCallConfig,
    /// The way with texts that are only read.
    #[command(flatten, next_help_heading = "Base model")]
    pub encode: EncodeConfig,
    /// The device.
    #[command(flatten, next_help_heading = "Device")]
    pub kernel: KernelConfig,
    /// The adapters.
    #[command(flatten, next_help_heading = "Adapters")]
    pub adapter: AdapterConfig,
    /// The batch and the KV cache.
    #[command(flatten, next_help_heading = "Batching and memory")]
    pub engine: EngineConfig,
    /// The listener.
    #[command(flatten, next_help_heading = "HTTP")]
    pub http: HttpConfig,
    /// The metrics.
    #[command(flatten, next_help_heading = "Metrics")]
    pub metrics: MetricsConfig,
    /// The traces.
    #[command(flatten, next_help_heading = "Traces")]
    pub traces: TracesConfig,
    /// The log.
    #[command(flatten, next_help_heading = "Log")]
    pub log: LogConfig,
    /// What others start vLLM with.
    #[command(flatten)]
    pub tolerated: Tolerated,
}

/// Arguments of vLLM that ask for what lorad does anyway, or for nothing that it has: command lines written for vLLM
/// keep them. What would change an answer is not among them.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Tolerated {
    /// Switches without an effect
    #[arg(
        long = "enable-lora",
        aliases = [
            "disable-log-requests",
            "disable-log-stats",
            "disable-uvicorn-access-log",
            "enable-chunked-prefill",
            "enable-log-requests",
            "enable-prefix-caching",
            "enable-request-id-headers",
            "enable-server-load-tracking",
            "enable-ssl-refresh",
            "enforce-eager",
            "no-enable-log-requests",
            "trust-remote-code",
        ],
        action = ArgAction::Count,
        hide = true
    )]
    pub switches: u8,
    /// Settings without an effect
    #[arg(
        long = "gpu-memory-utilization",
        aliases = ["lora-dtype", "swap-space", "uvicorn-log-level"],
        value_name = "VALUE",
        hide = true
    )]
    pub values: Vec<String>,
    /// Devices side by side: one
    #[arg(
        long = "tensor-parallel-size",
        aliases = ["pipeline-parallel-size", "data-parallel-size"],
        value_name = "1",
        value_parser = ["1"],
        hide = true
    )]
    pub devices: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Precision;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        config: ServeConfig,
    }

    fn read(line: &[&str]) -> Result<ServeConfig, clap::Error> {
        Ok(Line::try_parse_from(["serve"].iter().chain(line))?.config)
    }

    #[test]
    fn what_kserve_starts_vllm_with_starts_lorad() {
        let line = [
            "/mnt/models",
            "--served-model-name",
            "base",
            "dummy",
            "--port",
            "8000",
            "--enable-lora",
            "--disable-log-requests",
            "--max-loras=4",
            "--max-lora-rank=64",
            "--max-cpu-loras=9",
            "--max-num-seqs=7",
            "--max-num-batched-tokens=256",
            "--max-model-len=512",
            "--dtype=bfloat16",
            "--enable-ssl-refresh",
            "--gpu-memory-utilization=0.9",
            "--tensor-parallel-size=1",
            "--lora-modules",
            "sql=/mnt/lora/sql",
            r#"{"name": "chat", "path": "/mnt/lora/chat"}"#,
            "--lora-modules",
            "third=/mnt/lora/third",
            "--api-key=k",
        ];
        let config = read(&line).expect("a command line");
        assert_eq!(config.model.named().expect("one"), Some("/mnt/models"));
        assert_eq!(config.model.served_model_name, ["base", "dummy"]);
        assert_eq!(config.model.max_model_len, Some(512));
        assert_eq!(config.kernel.precision, Precision::Bf16);
        let (engine, adapter) = (config.engine, config.adapter);
        let sizes = (engine.adapter_slots, engine.max_sequences, engine.max_batched_tokens);
        assert_eq!(sizes, (4, 7, 256));
        assert_eq!((adapter.limits.max_adapter_rank, adapter.adapter_memory_count), (64, 9));
        let modules = adapter.lora_modules.iter().flat_map(|modules| &modules.0);
        let names: Vec<_> = modules.map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["sql", "chat", "third"]);
    }

    #[test]
    fn what_would_change_something_is_not_tolerated() {
        for line in [
            &["--tensor-parallel-size=2"][..],
            &["--max-loras=2", "--adapter-slots=3"],
            &["--lora-modules", "nothing"],
            &["--lora-modules"],
            &["--tls-cert", "c.pem"],
            &["--json-output", "--log-format=text"],
            &["--quantization=awq"],
            &["--dtype=half"],
        ] {
            assert!(read(line).is_err(), "{line:?}");
        }
    }
}

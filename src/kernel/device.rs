//! Which device a process computes on.
use super::{CandleOps, CpuKernels, KernelError, Kernels, KvChoice, Precision, Result};
use candle_core::{Device, utils};
use std::{fmt, num::NonZeroUsize, str::FromStr, sync::Arc, thread::available_parallelism};

/// Where and how the model is computed.
#[derive(Clone, Debug, clap::Args)]
pub struct KernelConfig {
    /// Device: auto, cpu, cuda, cuda:N or metal; auto takes a GPU if this build and this machine have one
    #[arg(long, env = "LORAD_DEVICE", default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// How base weights are kept and multiplied: auto, f32, bf16, int8 or int4 (the last two on the CPU, rounded at load;
    /// int4 keeps embedding and head at int8); auto is bf16 where the device is faster with it, else f32, and never
    /// rounds to integers
    #[arg(long, env = "LORAD_PRECISION", visible_alias = "dtype", default_value_t = Precision::Auto)]
    pub precision: Precision,
    /// How keys and values are kept: auto, f32, bf16 or int8 (on the CPU: half of bf16's bytes); auto is f32 where base
    /// weights are, else bf16
    #[arg(
        long,
        env = "LORAD_KV_PRECISION",
        visible_alias = "kv-cache-dtype",
        default_value_t = KvChoice::Auto
    )]
    pub kv_precision: KvChoice,
    /// CPU threads that compute; all cores this process may use unless set
    #[arg(long, env = "LORAD_THREADS")]
    pub threads: Option<NonZeroUsize>,
}

/// A device as the user names it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DeviceChoice {
    /// The first GPU if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this ordinal.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            ("metal", _) => Ok(Self::Metal),
            (_, Some(Ok(ordinal))) => Ok(Self::Cuda(ordinal)),
            _ => Err(format!("`{text}` is not a device; use auto, cpu, cuda, cuda:N or metal")),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

/// The kernels of the device asked for.
///
/// # Errors
/// When this build or this machine does not have it, or its driver fails.
pub fn open(config: &KernelConfig) -> Result<Arc<dyn Kernels>> {
    match config.device {
        DeviceChoice::Cuda(ordinal) => cuda(ordinal),
        DeviceChoice::Metal => metal(),
        DeviceChoice::Auto if utils::cuda_is_available() => or_cpu(cuda(0), config.threads),
        DeviceChoice::Auto if utils::metal_is_available() => or_cpu(metal(), config.threads),
        DeviceChoice::Cpu | DeviceChoice::Auto => cpu(config.threads),
    }
}

fn or_cpu(
    gpu: Result<Arc<dyn Kernels>>,
    threads: Option<NonZeroUsize>,
) -> Result<Arc<dyn Kernels>> {
    gpu.or_else(|error| {
        tracing::warn!(%error, "no usable GPU; computing on the CPU");
        cpu(threads)
    })
}

fn cpu(threads: Option<NonZeroUsize>) -> Result<Arc<dyn Kernels>> {
    let threads = threads.or_else(|| available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    Ok(Arc::new(CpuKernels::new(threads)?))
}

fn cuda(ordinal: usize) -> Result<Arc<dyn Kernels>> {
    if !utils::cuda_is_available() {
        return Err(not_built_in("cuda"));
    }
    // A stream of its own: the default stream is one a thread, and the thread that loads the model need not
    // be the one that runs it.
    let device = Device::new_cuda_with_stream(ordinal).map_err(|error| {
        KernelError::Unsupported(format!(
            "no CUDA device {ordinal}; check `nvidia-smi`, or use --device cpu: {error}"
        ))
    })?;
    Ok(Arc::new(CandleOps::new(device)))
}

fn metal() -> Result<Arc<dyn Kernels>> {
    if !utils::metal_is_available() {
        return Err(not_built_in("metal"));
    }
    Ok(Arc::new(CandleOps::new(Device::new_metal(0)?)))
}

fn not_built_in(feature: &str) -> KernelError {
    KernelError::Unsupported(format!(
        "this build has no {feature}: build with `--features {feature}`, or use --device cpu"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        kernel: KernelConfig,
    }

    #[test]
    fn every_device_is_named_as_it_is_shown() {
        let choices = [DeviceChoice::Auto, DeviceChoice::Cpu, DeviceChoice::Metal];
        for choice in choices.into_iter().chain([DeviceChoice::Cuda(0), DeviceChoice::Cuda(3)]) {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
    }

    #[test]
    fn unknown_devices_are_refused_by_name() {
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn the_command_line_has_defaults_and_refuses_no_threads() {
        let config = Cli::try_parse_from(["lorad"]).unwrap().kernel;
        assert_eq!((config.device, config.precision), (DeviceChoice::Auto, Precision::Auto));
        assert_eq!((config.threads, config.kv_precision), (None, KvChoice::Auto));
        assert!(Cli::try_parse_from(["lorad", "--threads", "0"]).is_err());
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_device_this_build_lacks_is_an_error_that_says_how_to_get_it() {
        let config = Cli::try_parse_from(["lorad", "--device", "cuda:1"]).unwrap().kernel;
        let error = open(&config).err().unwrap().to_string();
        assert!(error.contains("--features cuda"), "{error}");
    }
}

//! From flags to figures.
use super::{
    products::{Timing, time},
    report::Report,
    shapes::Shapes,
};
use crate::{
    bench::{BenchError, output::write_json, precision::every_precision},
    kernel::{self, DeviceChoice, KernelConfig, Kernels, KvChoice, Peaks, Precision},
    model::{self, ModelSource},
};
use std::{io::Write, num::NonZeroUsize, path::PathBuf, sync::Arc, thread::available_parallelism};

/// What to measure on this machine.
#[derive(Clone, Debug, clap::Args)]
pub struct MachineArgs {
    /// Base model whose products are timed: a directory, a GGUF file, a hub id, or `demo` for the embedded one
    /// [default: the shapes of SmolLM2-135M]
    #[arg(long, env = "LORAD_MODEL", value_name = "MODEL")]
    pub model: Option<String>,
    /// CPU threads that compute; all cores this process may use unless set
    #[arg(long, env = "LORAD_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Memory that is read to find the bandwidth, MiB; several times the caches
    #[arg(long, default_value_t = 1024, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    memory_mib: u32,
    /// How the weights are kept and multiplied [default: every way there is]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    precision: Option<Vec<Precision>>,
    /// Rows that a product has
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64,512", value_name = "LIST")]
    rows: Vec<NonZeroUsize>,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl MachineArgs {
    /// Measures, and writes the figures to `out` and the file asked for; `source` is `model` resolved.
    ///
    /// # Errors
    /// When the model's config cannot be read, a precision does not exist here, or the file cannot be written.
    pub fn run(&self, source: Option<&ModelSource>, out: &mut dyn Write) -> Result<(), BenchError> {
        let threads = self.threads.or_else(|| available_parallelism().ok());
        let (device, precision, kv_precision) =
            (DeviceChoice::Cpu, Precision::Auto, KvChoice::Auto);
        let config = KernelConfig { device, precision, kv_precision, threads };
        let kernels = kernel::open(&config)?;
        let shapes = match source {
            Some(source) => Shapes::of(source.name(), &model::layout(source)?),
            None => Shapes::smollm2(),
        };
        let bytes = self.memory_mib as usize * (1 << 20);
        let peaks = Peaks::measure(threads.map_or(1, NonZeroUsize::get), bytes)?;
        let products = self.products(&kernels, &shapes)?;
        let report = Report::new(kernels.describe(), &peaks, &shapes, &products);
        write!(out, "{report}")?;
        self.json.as_deref().map_or(Ok(()), |path| write_json(path, &report))
    }

    fn products(
        &self,
        kernels: &Arc<dyn Kernels>,
        shapes: &Shapes,
    ) -> Result<Vec<Timing>, BenchError> {
        let rows: Vec<usize> = self.rows.iter().map(|rows| rows.get()).collect();
        let mut timings = Vec::new();
        for precision in self.precision.clone().unwrap_or_else(every_precision) {
            for (what, shapes) in shapes.parts() {
                timings.extend(time(kernels.as_ref(), what, shapes, precision, &rows)?);
            }
        }
        Ok(timings)
    }
}

//! From flags to figures.
use super::{divergence::Divergence, reader::Reader, report::Report};
use crate::{
    bench::{
        BenchError,
        output::{read_text, write_json},
        precision::every_precision,
    },
    kernel::{self, DeviceChoice, KernelConfig, Kernels, KvChoice, KvPrecision, Precision},
    model::ModelSource,
};
use std::{io::Write, num::NonZeroUsize, path::PathBuf, sync::Arc};

/// The text that is read unless another is named; benches/README.md says where it comes from.
const TEXT: &str = include_str!("../../../benches/quality.txt");

/// What others are held against: base weights, and keys and values.
const EXACT: (Precision, KvPrecision) = (Precision::F32, KvPrecision::F32);

/// Which model, which precisions, which text.
#[derive(Clone, Debug, clap::Args)]
pub struct QualityArgs {
    /// Base model: a directory, a GGUF file, a hub id, or `demo` for the embedded one
    #[arg(long, env = "LORAD_MODEL", value_name = "MODEL")]
    pub model: String,
    /// Precisions to hold against f32 [default: every other there is]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    precision: Option<Vec<Precision>>,
    /// KV precisions, each beside every precision; auto is as exact as the base weights
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = "auto")]
    kv_precision: Vec<KvChoice>,
    /// Text to read [default: one that is built in]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Tokens that are read at a time, each time from an empty context
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    window: u32,
    /// CPU threads that compute; all cores this process may use unless set
    #[arg(long, env = "LORAD_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl QualityArgs {
    /// Reads the text in f32 and in each precision, and writes the figures to `out` and the file asked for; `source`
    /// is `model` resolved.
    ///
    /// # Errors
    /// When the model or the text cannot be read, the text is too short, or the file cannot be written.
    pub fn run(&self, source: &ModelSource, out: &mut dyn Write) -> Result<(), BenchError> {
        let kernels = self.kernels()?;
        let mut exact = Reader::open(source, &kernels, EXACT)?;
        let others = self.others().into_iter();
        let others = others.map(|precisions| Reader::open(source, &kernels, precisions));
        let mut others = others.collect::<Result<Vec<_>, _>>()?;
        let tokens = exact.tokens(&self.text()?)?;
        let window = (self.window as usize).min(exact.max_positions());
        let mut read = vec![Divergence::default(); others.len() + 1];
        for tokens in tokens.chunks(window).filter(|tokens| tokens.len() > 1) {
            let truth = exact.logits(tokens)?;
            read[0].add(&truth, &truth, tokens, exact.vocab());
            for (reader, sum) in others.iter_mut().zip(&mut read[1..]) {
                sum.add(&truth, &reader.logits(tokens)?, tokens, exact.vocab());
            }
        }
        if read[0].is_empty() {
            return Err(BenchError::Usage("the text is shorter than two tokens".to_owned()));
        }
        let readers = [&exact].into_iter().chain(&others);
        let report = Report::new(source.name(), window, readers.zip(&read));
        write!(out, "{report}")?;
        self.json.as_deref().map_or(Ok(()), |path| write_json(path, &report))
    }

    /// What is held against f32: every precision with every way to keep keys and values.
    fn others(&self) -> Vec<(Precision, KvPrecision)> {
        let precisions = self.precision.clone().unwrap_or_else(every_precision);
        let beside =
            |precision| self.kv_precision.iter().map(move |kv| (precision, kv.beside(precision)));
        precisions.into_iter().flat_map(beside).filter(|precisions| *precisions != EXACT).collect()
    }

    fn kernels(&self) -> Result<Arc<dyn Kernels>, BenchError> {
        let (device, precision) = (DeviceChoice::Auto, Precision::Auto);
        let (kv_precision, threads) = (KvChoice::Auto, self.threads);
        Ok(kernel::open(&KernelConfig { device, precision, kv_precision, threads })?)
    }

    fn text(&self) -> Result<String, BenchError> {
        self.text.as_deref().map_or(Ok(TEXT.to_owned()), read_text)
    }
}

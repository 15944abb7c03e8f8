//! Random adapters of a model's shape: enough to measure with, and no others.
use super::BenchError;
use crate::{
    lora::{LoraLayout, Projection, Site, SiteShape},
    model::{self, ModelSource},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, View, serialize_to_file};
use serde_json::json;
use std::{
    borrow::Cow,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// How many adapters, and of what size.
#[derive(Clone, Debug, clap::Args)]
pub struct AdaptersArgs {
    /// Directory that gets the adapters, as sub-directories a0, a1, …
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// How many
    #[arg(value_name = "COUNT")]
    count: usize,
    /// Their rank
    #[arg(value_name = "RANK", value_parser = clap::value_parser!(u32).range(1..=1024))]
    rank: u32,
    /// Base model they fit: a directory, a GGUF file, a hub id, or `demo` for the embedded one
    #[arg(long, env = "LORAD_MODEL", value_name = "MODEL")]
    pub model: String,
    /// Linear layers they change
    #[arg(long, value_delimiter = ',', value_name = "LIST",
        default_values = ["q", "k", "v", "o", "gate", "up", "down"])]
    targets: Vec<Target>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Target {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl From<Target> for Projection {
    fn from(target: Target) -> Self {
        match target {
            Target::Q => Self::Q,
            Target::K => Self::K,
            Target::V => Self::V,
            Target::O => Self::O,
            Target::Gate => Self::Gate,
            Target::Up => Self::Up,
            Target::Down => Self::Down,
        }
    }
}

impl AdaptersArgs {
    /// Writes the adapters; the same arguments write the same ones.
    ///
    /// # Errors
    /// When the model's config cannot be read, or a file cannot be written.
    pub fn run(&self, source: &ModelSource, out: &mut dyn Write) -> Result<(), BenchError> {
        let layout = model::layout(source)?;
        for index in 0..self.count {
            let directory = self.out.join(format!("a{index}"));
            self.write(&layout, &directory, index as u64).map_err(BenchError::file(&directory))?;
        }
        writeln!(out, "{} adapters of rank {} in {}", self.count, self.rank, self.out.display())?;
        Ok(())
    }

    fn write(&self, layout: &LoraLayout, directory: &Path, seed: u64) -> io::Result<()> {
        let projections: Vec<Projection> = self.targets.iter().copied().map(Into::into).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let chosen = |site: Site| projections.iter().any(|p| p.module_path() == site.module_path());
        let sites = layout.sites().filter(|(site, _)| chosen(*site));
        let tensors: Vec<(String, Factor)> =
            sites.flat_map(|(site, shape)| self.factors(site, shape, &mut rng)).collect();
        let modules: Vec<&str> =
            projections.iter().filter_map(|p| p.module_path().split('.').nth(1)).collect();
        let config = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": self.rank, "lora_alpha": 2 * self.rank,
            "target_modules": modules,
        });
        fs::create_dir_all(directory)?;
        fs::write(directory.join("adapter_config.json"), format!("{config:#}\n"))?;
        serialize_to_file(tensors, None, &directory.join("adapter_model.safetensors"))
            .map_err(io::Error::other)
    }

    /// `A` as PEFT starts it, `B` small: the answers stay finite, and differ from the base's.
    fn factors(&self, site: Site, shape: SiteShape, rng: &mut ChaCha8Rng) -> [(String, Factor); 2] {
        let rank = self.rank as usize;
        let width = (shape.in_features as f32).powf(-0.5);
        let name = |factor| format!("base_model.model.{site}.lora_{factor}.weight");
        [
            (name("A"), Factor::uniform([rank, shape.in_features], width, rng)),
            (name("B"), Factor::uniform([shape.out_features, rank], 0.01, rng)),
        ]
    }
}

/// An f32 matrix as the file holds it.
struct Factor {
    shape: [usize; 2],
    bytes: Vec<u8>,
}

impl Factor {
    fn uniform(shape: [usize; 2], width: f32, rng: &mut ChaCha8Rng) -> Self {
        let values = (0..shape[0] * shape[1]).map(|_| rng.random_range(-width..width));
        Self { shape, bytes: values.flat_map(f32::to_le_bytes).collect() }
    }
}

impl View for Factor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

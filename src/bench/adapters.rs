//! Random adapters of a model's shape: enough to measure with, and no others.
use super::BenchError;
use crate::{
    lora::{EmbeddingShape, LoraLayout, Projection, Site, SiteShape},
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
    /// What they are besides pairs at those layers
    #[arg(long, value_enum, default_value_t = Kind::Lora)]
    kind: Kind,
}

/// A member of the LoRA family.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Kind {
    /// Nothing else
    Lora,
    /// Magnitudes of their own at every layer (`DoRA`)
    Dora,
    /// A pair at the embedding too
    Embedding,
    /// A pair at the head too
    Head,
    /// A head and an embedding of their own (`modules_to_save`)
    Saved,
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
        let chosen = |site: Site| {
            let head = self.kind == Kind::Head && site == Site::Head;
            head || projections.iter().any(|p| p.module_path() == site.module_path())
        };
        let sites = layout.sites().filter(|(site, _)| chosen(*site));
        let mut tensors: Vec<(String, Factor)> =
            sites.flat_map(|(site, shape)| self.factors(site, shape, &mut rng)).collect();
        if let Some(table) = layout.embedding() {
            tensors.extend(self.tables(table, &mut rng));
        }
        let mut modules: Vec<&str> =
            projections.iter().filter_map(|p| p.module_path().split('.').nth(1)).collect();
        modules.extend(match self.kind {
            Kind::Head => Some("lm_head"),
            Kind::Embedding => Some("embed_tokens"),
            Kind::Lora | Kind::Dora | Kind::Saved => None,
        });
        let mut config = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": self.rank, "lora_alpha": 2 * self.rank,
            "target_modules": modules, "use_dora": self.kind == Kind::Dora,
        });
        if self.kind == Kind::Saved {
            config["modules_to_save"] = json!(["lm_head", "embed_tokens"]);
        }
        fs::create_dir_all(directory)?;
        fs::write(directory.join("adapter_config.json"), format!("{config:#}\n"))?;
        serialize_to_file(tensors, None, &directory.join("adapter_model.safetensors"))
            .map_err(io::Error::other)
    }

    /// `A` as PEFT starts it, `B` small: the answers stay finite, and differ from the base's.
    fn factors(&self, site: Site, shape: SiteShape, rng: &mut ChaCha8Rng) -> Vec<(String, Factor)> {
        let rank = self.rank as usize;
        let width = (shape.in_features as f32).powf(-0.5);
        let name = |factor| format!("base_model.model.{site}.{factor}");
        let mut factors = vec![
            (name("lora_A.weight"), Factor::around(0.0, &[rank, shape.in_features], width, rng)),
            (name("lora_B.weight"), Factor::around(0.0, &[shape.out_features, rank], 0.01, rng)),
        ];
        if self.kind == Kind::Dora {
            // About the norm of a row of such a weight.
            let magnitudes = Factor::around(2.0, &[shape.out_features], 1.0, rng);
            factors.push((name("lora_magnitude_vector"), magnitudes));
        }
        factors
    }

    /// What the kind has for each token.
    fn tables(&self, table: EmbeddingShape, rng: &mut ChaCha8Rng) -> Vec<(String, Factor)> {
        let EmbeddingShape { vocab, hidden, .. } = table;
        let (rank, embedding) = (self.rank as usize, EmbeddingShape::PATH);
        let mut named = |path: String, shape: &[usize], width: f32| {
            (format!("base_model.model.{path}"), Factor::around(0.0, shape, width, rng))
        };
        match self.kind {
            Kind::Lora | Kind::Dora | Kind::Head => Vec::new(),
            Kind::Embedding => vec![
                named(format!("{embedding}.lora_embedding_A"), &[rank, vocab], 0.1),
                named(format!("{embedding}.lora_embedding_B"), &[hidden, rank], 0.01),
            ],
            Kind::Saved => vec![
                named(format!("{}.weight", Site::Head), &[vocab, hidden], 0.1),
                named(format!("{embedding}.weight"), &[vocab, hidden], 0.1),
            ],
        }
    }
}

/// An f32 tensor as the file holds it.
struct Factor {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Factor {
    /// No further than `width` from `middle`.
    fn around(middle: f32, shape: &[usize], width: f32, rng: &mut ChaCha8Rng) -> Self {
        let count = shape.iter().product();
        let values = (0..count).map(|_| middle + rng.random_range(-width..width));
        Self { shape: shape.to_vec(), bytes: values.flat_map(f32::to_le_bytes).collect() }
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

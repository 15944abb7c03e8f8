//! What an adapter is, for people: answers of the admin routes and of `lorad inspect`.
use super::AdapterError;
use crate::lora::{Labels, LoraWeights, LowRank, ModuleNames, NormSite, Site, TrainedRows};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Facts that only the files know.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) kind: &'static str,
    /// What the base's modules are called.
    pub(super) names: ModuleNames,
    /// `task_type`
    pub(super) task: Option<&'static str>,
    /// What it scores.
    pub(super) labels: Option<Labels>,
    pub(super) alpha: f64,
    pub(super) rslora: bool,
    pub(super) dora: bool,
    /// Modules with a trained bias.
    pub(super) biases: usize,
    /// Trained numbers in the file.
    pub(super) parameters: usize,
    pub(super) target_modules: Value,
    pub(super) base_model: Option<String>,
    pub(super) ignored_fields: Vec<String>,
    pub(super) dtypes: Vec<String>,
    pub(super) file_bytes: u64,
}

/// A summary that does not hold the weights.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct AdapterDescription {
    /// `lora`.
    pub kind: Cow<'static, str>,
    /// `task_type`: `CAUSAL_LM`, `SEQ_CLS`, `TOKEN_CLS`, `FEATURE_EXTRACTION`; `None` where the config does not say.
    #[serde(default)]
    pub task: Option<Cow<'static, str>>,
    /// Names of the labels that it scores, in their order; none where it scores none.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Rows and columns of its own classification head; `None` where it has none.
    #[serde(default)]
    pub head: Option<[usize; 2]>,
    /// Distinct ranks, ascending; the last one is what `--max-adapter-rank` is compared with.
    pub ranks: Vec<usize>,
    /// The config's `lora_alpha`; `alpha_pattern` may say otherwise for some layers.
    pub alpha: f64,
    /// Scaling is `alpha / √rank` instead of `alpha / rank`.
    pub rslora: bool,
    /// Outputs are scaled to trained magnitudes (`DoRA`).
    pub dora: bool,
    /// As the config has it: a list, a regular expression or `all-linear`.
    pub target_modules: Value,
    /// Decoder blocks the adapter changes.
    pub layers: usize,
    /// Linear layers the adapter changes.
    pub sites: usize,
    /// Trained numbers: factors, magnitudes, biases, whole weights.
    pub parameters: usize,
    /// Bytes in memory, f32.
    pub bytes: usize,
    /// Bytes of the two files.
    pub file_bytes: u64,
    /// Element types in the file, as safetensors calls them.
    pub dtypes: Vec<String>,
    /// `base_model_name_or_path`: often a path of the machine that trained it. Shown, never opened.
    pub base_model: Option<String>,
    /// Whether that ends in the name of the model which is served; a hint, since people rename directories. `None`
    /// where one of the two is not known.
    pub base_matches: Option<bool>,
    /// Frobenius norm of all low-rank deltas together, scaling included, and where the base is known `DoRA`'s gain. 0
    /// means that the factors change nothing.
    pub delta_norm: f64,
    /// By kind of layer, in the order a block computes them.
    pub projections: Vec<ProjectionSummary>,
    /// Modules whose bias the adapter replaces or adds to.
    pub biases: usize,
    /// Modules whose weight is replaced, each once for all blocks: `lm_head`, `input_layernorm`.
    pub trained_modules: Vec<String>,
    /// Tokens whose rows of the embedding or the head are replaced.
    pub trained_tokens: Vec<u32>,
    /// Activated LoRA: the tokens from whose last occurrence on the adapter acts.
    pub invocation_tokens: Option<Vec<u32>>,
    /// Fields of the config that this build does not know, and ignores as PEFT does.
    pub ignored_fields: Vec<String>,
}

/// One kind of linear layer, over all blocks.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ProjectionSummary {
    /// `self_attn.q_proj`, `lm_head`, `model.embed_tokens`
    pub module: Cow<'static, str>,
    /// In how many blocks; 1 for what stands outside them.
    pub layers: usize,
    /// Distinct ranks, ascending.
    pub ranks: Vec<usize>,
    /// Numbers in the factors.
    pub parameters: usize,
    /// Frobenius norm of the deltas together.
    pub delta_norm: f64,
}

#[derive(Default)]
struct Tally {
    layers: usize,
    ranks: BTreeSet<usize>,
    parameters: usize,
    squared_norm: f64,
}

impl AdapterDescription {
    pub(super) fn new(facts: Facts, weights: &LoraWeights) -> Result<Self, AdapterError> {
        let mut tallies: BTreeMap<Site, Tally> = BTreeMap::new();
        for (site, pair) in weights.sites().filter_map(|(at, d)| Some((at, d.low_rank.as_ref()?))) {
            tallies.entry(kind(site)).or_default().add(pair)?;
        }
        let names = facts.names;
        let mut rows: Vec<_> =
            tallies.into_iter().map(|(site, tally)| tally.summary(linear(names, site))).collect();
        if let Some(pair) = weights.embedding().and_then(|delta| delta.low_rank.as_ref()) {
            let mut tally = Tally::default();
            tally.add(pair)?;
            rows.push(tally.summary(names.embedding().to_owned()));
        }
        let ranks: BTreeSet<_> = rows.iter().flat_map(|row| row.ranks.iter().copied()).collect();
        Ok(Self {
            kind: facts.kind.into(),
            task: facts.task.map(Cow::Borrowed),
            labels: facts.labels.map_or_else(Vec::new, |labels| labels.names.to_vec()),
            head: weights.class_head().and_then(|head| head.weight.dims2().ok()).map(Into::into),
            ranks: ranks.into_iter().collect(),
            alpha: facts.alpha,
            rslora: facts.rslora,
            dora: facts.dora,
            target_modules: facts.target_modules,
            layers: blocks(weights),
            sites: weights.len(),
            parameters: facts.parameters,
            bytes: weights.bytes(),
            file_bytes: facts.file_bytes,
            dtypes: facts.dtypes,
            base_model: facts.base_model,
            base_matches: None,
            delta_norm: rows.iter().map(|row| row.delta_norm.powi(2)).sum::<f64>().sqrt(),
            projections: rows,
            biases: facts.biases,
            trained_modules: trained_modules(weights, names),
            trained_tokens: trained_tokens(weights),
            invocation_tokens: weights.invocation().map(<[u32]>::to_vec),
            ignored_fields: facts.ignored_fields,
        })
    }

    /// Compares the base that the adapter was trained on with the one called `name`.
    #[must_use]
    pub(super) fn beside(mut self, name: &str) -> Self {
        self.base_matches = self.base_model.as_deref().map(|base| same_model(base, name));
        self
    }

    /// Largest rank of any layer.
    pub fn rank(&self) -> usize {
        self.ranks.last().copied().unwrap_or(0)
    }
}

impl Tally {
    fn add(&mut self, pair: &LowRank) -> Result<(), AdapterError> {
        self.layers += 1;
        self.ranks.insert(pair.rank());
        self.parameters += pair.rank() * (pair.in_features() + pair.out_features());
        self.squared_norm += squared_norm(pair)?;
        Ok(())
    }

    fn summary(self, module: String) -> ProjectionSummary {
        ProjectionSummary {
            module: module.into(),
            layers: self.layers,
            ranks: self.ranks.into_iter().collect(),
            parameters: self.parameters,
            delta_norm: self.squared_norm.sqrt(),
        }
    }
}

/// Whether the last segment of a path or hub id is this name, or this name without what follows a dot (a GGUF type).
fn same_model(base: &str, name: &str) -> bool {
    let last = |path: &str| {
        let path = path.trim_end_matches(['/', '\\']);
        path.rsplit(['/', '\\']).next().unwrap_or_default().to_ascii_lowercase()
    };
    let (base, name) = (last(base), last(name));
    let rest = name.strip_prefix(&base);
    !base.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// How many blocks have a changed linear layer or norm.
fn blocks(weights: &LoraWeights) -> usize {
    let linear = weights.sites().filter_map(|(site, _)| site.layer());
    let norms = weights.norms().chain(weights.norm_biases());
    let norms = norms.filter_map(|(norm, _)| norm.layer());
    linear.chain(norms).collect::<BTreeSet<_>>().len()
}

fn trained_modules(weights: &LoraWeights, names: ModuleNames) -> Vec<String> {
    let whole = |rows: &TrainedRows<Tensor>| rows.ids.is_none();
    let sites = weights.sites().filter(|(_, delta)| delta.trained.as_ref().is_some_and(whole));
    let sites = sites.map(|(site, _)| linear(names, site));
    let embedding = weights.embedding().filter(|delta| delta.trained.as_ref().is_some_and(whole));
    let embedding = embedding.map(|_| names.embedding().to_owned());
    let norms = weights.norms().map(|(at, _)| norm(names, at));
    let head = weights.class_head().map(|head| names.classifier(head.labels.kind).to_owned());
    let all = sites.chain(embedding).chain(norms).chain(head);
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

/// What the family calls the layer, in every block the same.
pub(super) fn linear(names: ModuleNames, site: Site) -> String {
    let found = match site {
        Site::Block { projection, .. } => names.projection(projection).map(str::to_owned),
        Site::Head | Site::HeadDense => names.linear(site),
    };
    found.unwrap_or_else(|| site.module_path().to_owned())
}

fn norm(names: ModuleNames, at: NormSite) -> String {
    let Some(path) = names.norm(at) else { return at.module_path().to_owned() };
    let Some(layer) = at.layer() else { return path };
    let block = format!("{}{}{layer}.", names.prefix(), names.blocks());
    path.strip_prefix(&block).map_or(path.clone(), str::to_owned)
}

fn trained_tokens(weights: &LoraWeights) -> Vec<u32> {
    let head = weights.at(Site::Head).and_then(|delta| delta.trained.as_ref());
    let embedding = weights.embedding().and_then(|delta| delta.trained.as_ref());
    let ids = head.into_iter().chain(embedding).filter_map(|rows| rows.ids.as_deref());
    ids.flatten().copied().collect::<BTreeSet<_>>().into_iter().collect()
}

/// The same layer of the first block, for all of them.
fn kind(site: Site) -> Site {
    match site {
        Site::Block { projection, .. } => Site::block(0, projection),
        Site::Head | Site::HeadDense => site,
    }
}

/// `‖bᵀa‖² = ⟨aaᵀ, bbᵀ⟩`: dot products of rows instead of the `[out, in]` delta. On this thread and in f64, which
/// holds the fourth power of every f32.
fn squared_norm(pair: &LowRank) -> Result<f64, AdapterError> {
    let refused = |error: &dyn fmt::Display| {
        AdapterError::invalid(format!("the norm of a pair cannot be computed: {error}"))
    };
    let values = |factor: &Tensor| {
        let values = factor.flatten_all().and_then(|factor| factor.to_vec1::<f32>());
        values.map_err(|error| refused(&error))
    };
    let (a, b) = pair.rows().map_err(|error| refused(&error))?;
    let (a, b) = (values(a)?, values(b)?);
    let rows = |r: usize| {
        let (wide, high) = (pair.in_features(), pair.out_features());
        (&a[r * wide..][..wide], &b[r * high..][..high])
    };
    let mut sum = 0.0;
    for r in 0..pair.rank() {
        let (a, b) = rows(r);
        sum += dot(a, a) * dot(b, b);
        // Both products are symmetric.
        for (other_a, other_b) in (0..r).map(rows) {
            sum += 2.0 * dot(a, other_a) * dot(b, other_b);
        }
    }
    Ok(f64::max(sum, 0.0))
}

/// Several sums side by side, which become vector registers.
fn dot(x: &[f32], y: &[f32]) -> f64 {
    const LANES: usize = 8;
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut sums = [0f64; LANES];
    for (x, y) in x.iter().zip(y) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += f64::from(*x) * f64::from(*y);
        }
    }
    let rest = x_rest.iter().zip(y_rest).map(|(x, y)| f64::from(*x) * f64::from(*y));
    sums.into_iter().chain(rest).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Some numbers between -2 and 2.
    fn factor(rank: usize, width: usize, seed: usize) -> Tensor {
        let value = |i: usize| ((i * 37 + seed) % 101) as f32 / 25.0 - 2.0;
        let values: Vec<f32> = (0..rank * width).map(value).collect();
        Tensor::from_vec(values, (rank, width), &Device::Cpu).expect("a factor")
    }

    #[test]
    fn the_norm_is_that_of_the_whole_delta() {
        for (rank, wide, high) in [(1, 1, 1), (2, 3, 2), (3, 8, 17), (5, 30, 16)] {
            let (a, b) = (factor(rank, wide, 3), factor(rank, high, 8));
            let delta = b.t().and_then(|b| b.matmul(&a)).and_then(|d| d.sqr()?.sum_all());
            let wanted = f64::from(delta.and_then(|d| d.to_scalar::<f32>()).expect("delta"));
            let norm = squared_norm(&LowRank::new(a, b).expect("a pair")).expect("norm");
            assert!((norm - wanted).abs() <= 1e-5 * wanted, "{norm} is not {wanted}");
        }
    }

    #[test]
    fn bases_are_compared_by_the_end_of_their_path() {
        for (base, name, same) in [
            ("HuggingFaceTB/SmolLM2-135M", "SmolLM2-135M", true),
            ("/mnt/models/smollm2-135m/", "SmolLM2-135M.Q4_1", true),
            ("D:\\models\\tiny", "tiny", true),
            ("HuggingFaceTB/SmolLM2-135M", "SmolLM2-135M-Instruct", false),
            ("", "tiny", false),
        ] {
            assert_eq!(same_model(base, name), same, "{base} and {name}");
        }
    }

    #[test]
    fn large_factors_have_a_norm() {
        let huge = Tensor::new(&[[3e38f32, -3e38]], &Device::Cpu).expect("a factor");
        let norm = squared_norm(&LowRank::new(huge.clone(), huge).expect("a pair")).expect("norm");
        assert!((norm / (2.0 * 3e38f64.powi(2)).powi(2) - 1.0).abs() < 1e-6, "{norm}");
    }
}

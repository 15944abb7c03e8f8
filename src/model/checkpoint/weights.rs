//! Takes a checkpoint apart, tensor by tensor, onto the device; in the end nothing may be left.
use super::Checkpoint;
use crate::{
    kernel::{Act, BaseWeight, KernelError, Kernels, Precision},
    lora::ModuleNames,
    model::ModelError,
};
use candle_core::{DType, Device, Tensor};
use indicatif::ProgressBar;
use std::{collections::BTreeSet, ops::Range, sync::Arc};

/// Buffers that old versions of `transformers` saved, by the ends of their names; the model computes them.
const COMPUTED: [&str; 3] =
    [".rotary_emb.inv_freq", "embeddings.position_ids", "embeddings.token_type_ids"];
/// Layer norms' weights and biases, and what the first BERTs were saved with.
const NORM_SPELLINGS: [(&str, &str); 2] =
    [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")];

/// A checkpoint on its way to the device.
pub(crate) struct Weights<'a> {
    checkpoint: &'a dyn Checkpoint,
    kernels: &'a dyn Kernels,
    precision: Precision,
    names: ModuleNames,
    progress: &'a ProgressBar,
    left: BTreeSet<String>,
    packed: Vec<Arc<BaseWeight>>,
    parameters: usize,
}

impl<'a> Weights<'a> {
    /// Nothing taken yet.
    pub(crate) fn new(
        checkpoint: &'a dyn Checkpoint,
        kernels: &'a dyn Kernels,
        (precision, names): (Precision, ModuleNames),
        progress: &'a ProgressBar,
    ) -> Self {
        let left: BTreeSet<_> = checkpoint.names().into_iter().collect();
        progress.set_length(left.len() as u64);
        let (packed, parameters) = (Vec::new(), 0);
        Self { checkpoint, kernels, precision, names, progress, left, packed, parameters }
    }

    /// An embedding `[vocab, hidden]` that is no head too, packed.
    pub(crate) fn lookup_table(
        &mut self,
        name: &str,
        vocab: usize,
        hidden: usize,
    ) -> Result<Arc<BaseWeight>, ModelError> {
        let table = self.take(name, &[vocab, hidden])?;
        let packed = self.kernels.pack_table(&table, self.precision.of_tables())?;
        Ok(self.keep(packed))
    }

    /// A head `[vocab, hidden]`, which may be the embedding too, packed.
    pub(crate) fn table(
        &mut self,
        name: &str,
        vocab: usize,
        hidden: usize,
    ) -> Result<Arc<BaseWeight>, ModelError> {
        let table = self.take(name, &[vocab, hidden])?;
        self.pack(&[table], self.precision.of_tables())
    }

    /// Weights `[out, in]` of the named lengths `out`, packed as one, the first on top.
    pub(crate) fn stack(
        &mut self,
        parts: &[(String, usize)],
        in_features: usize,
    ) -> Result<Arc<BaseWeight>, ModelError> {
        let parts = parts.iter().map(|(name, out)| self.take(name, &[*out, in_features]));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        self.pack(&parts, self.precision)
    }

    fn pack(
        &mut self,
        parts: &[Tensor],
        precision: Precision,
    ) -> Result<Arc<BaseWeight>, ModelError> {
        let packed = self.kernels.pack(parts, precision)?;
        Ok(self.keep(packed))
    }

    fn keep(&mut self, packed: BaseWeight) -> Arc<BaseWeight> {
        let packed = Arc::new(packed);
        self.packed.push(Arc::clone(&packed));
        packed
    }

    /// Norms' weights or biases of the named lengths, one after the other: `[1, sum of len]`, on the device and as
    /// read.
    pub(crate) fn joined(
        &mut self,
        parts: &[(String, usize)],
    ) -> Result<(Act, Vec<f32>), ModelError> {
        let mut joined = Vec::new();
        for (name, len) in parts {
            let tensor = self.take(name, &[*len])?;
            let values = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.to_vec1::<f32>());
            joined.extend(values.map_err(|error| self.wrong(name, error.to_string()))?);
        }
        Ok((self.kernels.upload(&joined, 1, joined.len())?, joined))
    }

    /// Some rows of a table `[rows, cols]`, unpacked, on the device; those before and after them are not kept.
    pub(crate) fn rows(
        &mut self,
        name: &str,
        (rows, cols): (usize, usize),
        kept: Range<usize>,
    ) -> Result<Act, ModelError> {
        let table = self.take(name, &[rows, cols])?;
        let part = table
            .narrow(0, kept.start, kept.len())
            .and_then(|part| part.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>());
        let values = part.map_err(|error| self.wrong(name, error.to_string()))?;
        Ok(self.kernels.upload(&values, kept.len(), cols)?)
    }

    /// A tensor as it is, f32, in host memory.
    pub(crate) fn host(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let tensor = self.take(name, shape)?;
        tensor.to_dtype(DType::F32).map_err(|error| self.wrong(name, error.to_string()))
    }

    /// A weight `[out, in]` of zeros, where the checkpoint has none and an adapter may bring one.
    pub(crate) fn zeros(
        &mut self,
        out_features: usize,
        in_features: usize,
    ) -> Result<Arc<BaseWeight>, ModelError> {
        let zeros = Tensor::zeros((out_features, in_features), DType::F32, &Device::Cpu);
        self.pack(&[zeros.map_err(KernelError::from)?], self.precision)
    }

    /// `[1, values.len()]` on the device.
    pub(crate) fn upload(&self, values: &[f32]) -> Result<Act, ModelError> {
        Ok(self.kernels.upload(values, 1, values.len())?)
    }

    /// The device's operations.
    pub(crate) fn kernels(&self) -> &'a dyn Kernels {
        self.kernels
    }

    /// Whether the checkpoint has a tensor of that name that is still to be taken.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Leaves out what the model has no use for: tensors whose names, with or without the family's prefix, begin so.
    pub(crate) fn skip(&mut self, beginnings: &[&str]) {
        let prefix = self.names.prefix();
        self.left.retain(|name| {
            !beginnings.iter().any(|beginning| {
                name.starts_with(beginning)
                    || beginning.strip_prefix(prefix).is_some_and(|bare| name.starts_with(bare))
            })
        });
    }

    /// Accepts that `copy` is stored beside the tensor it is tied to, as long as both are the same.
    pub(crate) fn skip_copy(&mut self, copy: &str, of: &str) -> Result<(), ModelError> {
        let Some(stored) = self.find(copy) else { return Ok(()) };
        self.left.remove(&stored);
        let (a, b) = (self.checkpoint.tensor(&stored)?, self.original(of)?);
        if same_values(a.as_ref(), b.as_ref()) {
            return Ok(());
        }
        let detail = format!(
            "differs from `{of}`, though config.json says `tie_word_embeddings`; set that to false to use both"
        );
        Err(self.wrong(copy, detail))
    }

    /// Ends the reading: every base weight, and how many parameters the model has.
    ///
    /// # Errors
    /// When the checkpoint holds tensors that nobody asked for: it is another model than its configuration says.
    pub(crate) fn finish(self) -> Result<(Vec<Arc<BaseWeight>>, usize), ModelError> {
        const NAMED: usize = 3;
        let computed = |name: &&String| COMPUTED.iter().any(|end| name.ends_with(end));
        let left: Vec<_> = self.left.iter().filter(|name| !computed(name)).collect();
        if left.is_empty() {
            return Ok((self.packed, self.parameters));
        }
        let names: Vec<_> = left.iter().take(NAMED).map(|name| name.as_str()).collect();
        let more = match left.len() {
            0..=NAMED => String::new(),
            all => format!(" (and {} more)", all - NAMED),
        };
        let detail =
            format!("{more} has no place in the architecture that config.json names; check both");
        Err(self.wrong(&names.join("`, `"), detail.trim_start()))
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let stored = self.find(name).unwrap_or_else(|| name.to_owned());
        let tensor = self.checkpoint.tensor(&stored)?.ok_or_else(|| self.missing(name))?;
        if tensor.dims() != shape {
            let detail = format!("has shape {:?}, config.json says {shape:?}", tensor.dims());
            return Err(self.wrong(name, detail));
        }
        self.left.remove(&stored);
        self.parameters += tensor.elem_count();
        self.progress.inc(1);
        Ok(tensor)
    }

    /// The spelling of `name` that is still to be taken.
    fn find(&self, name: &str) -> Option<String> {
        spellings(name, self.names).find(|name| self.left.contains(name))
    }

    fn original(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        let bare = name.strip_prefix(self.names.prefix()).unwrap_or(name);
        match self.checkpoint.tensor(name)? {
            None => self.checkpoint.tensor(bare),
            tensor => Ok(tensor),
        }
    }

    /// What is said of a tensor that must be there.
    pub(crate) fn missing(&self, name: &str) -> ModelError {
        self.wrong(name, "is missing; fetch the model again, or check config.json")
    }

    fn wrong(&self, name: &str, detail: impl Into<String>) -> ModelError {
        ModelError::Tensor {
            origin: self.checkpoint.origin().to_owned(),
            name: name.to_owned(),
            detail: detail.into(),
        }
    }
}

/// Whether a checkpoint that nothing was taken of has a tensor of that name.
pub(crate) fn holds(checkpoint: &dyn Checkpoint, names: ModuleNames, name: &str) -> bool {
    let held = checkpoint.names();
    spellings(name, names).any(|name| held.contains(&name))
}

/// How a tensor may be called: `transformers` saves a model with a head below the family's prefix, and one without as it
/// is.
fn spellings(name: &str, names: ModuleNames) -> impl Iterator<Item = String> {
    let bare = name.strip_prefix(names.prefix()).unwrap_or(name);
    [name, bare].into_iter().flat_map(|name| {
        let old = NORM_SPELLINGS
            .iter()
            .find_map(|(new, old)| Some(format!("{}{old}", name.strip_suffix(new)?)));
        [Some(name.to_owned()), old].into_iter().flatten()
    })
}

fn same_values(a: Option<&Tensor>, b: Option<&Tensor>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    let differing = || a.ne(b)?.to_dtype(DType::U32)?.max_all()?.to_scalar::<u32>();
    a.dims() == b.dims() && a.dtype() == b.dtype() && differing().is_ok_and(|differs| differs == 0)
}

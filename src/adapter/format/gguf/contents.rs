//! The tensors of an adapter, in the order of rows and under the names that `transformers` has for them.
use super::architecture::Architecture;
use crate::{
    adapter::{AdapterError, format::tensors::quoted},
    gguf::{GgufFile, Storage, TensorEntry, pairs_to_halves},
    lora::{EmbeddingShape, HeadCounts},
};
use candle_core::Tensor;
use std::collections::BTreeMap;

const A: &str = ".lora_a";
const B: &str = ".lora_b";
/// What llama.cpp's converter writes. Smaller blocks would make a small file a large adapter.
const TYPES: [Storage; 4] = [Storage::F32, Storage::F16, Storage::BF16, Storage::Q8_0];
/// A norm that was trained as a whole, as `mergekit-extract-lora` saves it.
const NORM: &str = "_norm.weight";

/// Everything an adapter holds, by the module's path in `transformers`.
#[derive(Debug)]
pub(super) struct Contents {
    /// Layers with a pair of factors.
    pub(super) pairs: BTreeMap<String, Pair>,
    /// Norms whose weight is replaced.
    pub(super) norms: BTreeMap<String, Tensor>,
    /// Whether rows of queries or keys are still in rotary pairs, for want of the number of heads.
    pub(super) rows_in_pairs: bool,
}

/// Both factors of a layer, as PEFT keeps them.
#[derive(Debug)]
pub(super) struct Pair {
    /// `[rank, in]`, for the embedding `[rank, vocab]`
    pub(super) a: Tensor,
    /// `[out, rank]`
    pub(super) b: Tensor,
}

impl Pair {
    pub(super) fn rank(&self) -> usize {
        self.a.dims()[0]
    }
}

/// A tensor with its name in the file.
type Named<'a> = (&'a str, &'a TensorEntry);

/// Reads all of them.
///
/// # Errors
/// When a tensor is unknown, lacks its other half, or has a shape that no factor has.
pub(super) fn read(
    file: &GgufFile,
    architecture: &Architecture,
    heads: Option<HeadCounts>,
) -> Result<Contents, AdapterError> {
    let mut contents =
        Contents { pairs: BTreeMap::new(), norms: BTreeMap::new(), rows_in_pairs: false };
    for (stem, halves) in sort(file)? {
        let module = |name| architecture.module(stem).ok_or_else(|| nowhere(name, architecture));
        match halves {
            Found::Norm(norm) => {
                contents.norms.insert(module(norm.0)?, tensor(file, norm)?);
            }
            Found::Halves(Some(a), Some(b)) => {
                let module = module(a.0)?;
                let mut pair = pair(file, &module, a, b)?;
                contents.rows_in_pairs |= !unpair(&mut pair, architecture, &module, heads)?;
                contents.pairs.insert(module, pair);
            }
            Found::Halves(Some((name, _)), None) => return Err(half(name, B)),
            Found::Halves(None, named) => {
                return Err(half(named.map_or(stem, |(name, _)| name), A));
            }
        }
    }
    if contents.pairs.is_empty() {
        return Err(file.wrong("has no LoRA tensors").into());
    }
    Ok(contents)
}

enum Found<'a> {
    Norm(Named<'a>),
    Halves(Option<Named<'a>>, Option<Named<'a>>),
}

/// By the name of the weight they change.
fn sort(file: &GgufFile) -> Result<BTreeMap<&str, Found<'_>>, AdapterError> {
    let mut found = BTreeMap::new();
    for (name, entry) in file.tensors() {
        let named: Named<'_> = (name, entry);
        let (stem, is_a) = match (name.strip_suffix(A), name.strip_suffix(B)) {
            (Some(stem), _) => (stem, true),
            (None, Some(stem)) => (stem, false),
            (None, None) if name.ends_with(NORM) => {
                found.insert(name.as_str(), Found::Norm(named));
                continue;
            }
            (None, None) => return Err(unexpected(name)),
        };
        if let Found::Halves(a, b) = found.entry(stem).or_insert(Found::Halves(None, None)) {
            *(if is_a { a } else { b }) = Some(named);
        }
    }
    Ok(found)
}

fn pair(file: &GgufFile, module: &str, a: Named<'_>, b: Named<'_>) -> Result<Pair, AdapterError> {
    let factors = Pair { a: matrix(file, a)?, b: matrix(file, b)? };
    // Rows of the embedding's first factor are looked up by token, so llama.cpp keeps them side by side.
    let a_turned = if module == EmbeddingShape::PATH {
        factors.a.t().and_then(|a| a.contiguous()).map_err(|error| unreadable(a.0, &error))?
    } else {
        factors.a
    };
    let (rank, other) = (a_turned.dims()[0], factors.b.dims()[1]);
    if rank != other {
        return Err(AdapterError::invalid(format!(
            "tensor {} has rank {rank}, {} has rank {other}: they are no pair",
            quoted(a.0),
            quoted(b.0)
        )));
    }
    Ok(Pair { a: a_turned, b: factors.b })
}

/// Two dimensions. Programs of llama.cpp leave the last one out where it is 1.
fn matrix(file: &GgufFile, named: Named<'_>) -> Result<Tensor, AdapterError> {
    let found = tensor(file, named)?;
    match *found.dims() {
        [rows, cols] if rows > 0 && cols > 0 => Ok(found),
        [cols] if cols > 0 => found.reshape((1, cols)).map_err(|error| unreadable(named.0, &error)),
        ref other => Err(AdapterError::invalid(format!(
            "tensor {} has shape {other:?}; a factor is a matrix",
            quoted(named.0)
        ))),
    }
}

/// Brings rows of queries and keys into `transformers`' order; `false` where nobody knows how.
fn unpair(
    pair: &mut Pair,
    architecture: &Architecture,
    module: &str,
    heads: Option<HeadCounts>,
) -> Result<bool, AdapterError> {
    let Some(count) = architecture.paired(module) else { return Ok(true) };
    let Some(heads) = heads.map(count) else { return Ok(false) };
    let rows = pair.b.dims()[0];
    // Other numbers of rows are those of another base, which whoever checks the shapes says better.
    if heads > 0 && rows.is_multiple_of(2 * heads) {
        let ordered = pairs_to_halves(&pair.b, heads);
        pair.b = ordered.map_err(|error| unreadable(module, &error))?;
    }
    Ok(true)
}

fn tensor(file: &GgufFile, (name, entry): Named<'_>) -> Result<Tensor, AdapterError> {
    if !TYPES.contains(&entry.storage) {
        let (stored, known) = (entry.storage, TYPES.map(|known| known.to_string()).join(", "));
        return Err(AdapterError::unsupported(format!(
            "tensor {} is {stored}; factors in {known} are read",
            quoted(name)
        )));
    }
    entry.read(file).map_err(|error| unreadable(name, &error))
}

fn unreadable(name: &str, error: &candle_core::Error) -> AdapterError {
    AdapterError::invalid(format!("tensor {} cannot be read: {error}", quoted(name)))
}

fn half(name: &str, missing: &str) -> AdapterError {
    AdapterError::invalid(format!(
        "tensor {} has no `{missing}` beside it: the file is incomplete, convert the adapter again",
        quoted(name)
    ))
}

fn unexpected(name: &str) -> AdapterError {
    AdapterError::unsupported(format!(
        "tensor {} is neither a `{A}`, a `{B}` nor a norm, which are what a GGUF adapter holds",
        quoted(name)
    ))
}

fn nowhere(name: &str, architecture: &Architecture) -> AdapterError {
    AdapterError::invalid(format!(
        "tensor {} is on a layer that no `{}` model has: was the adapter made for another base?",
        quoted(name),
        architecture.name
    ))
}

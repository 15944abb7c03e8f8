//! Tensors + config + layout → factors: every tensor used, every selected layer complete, every shape right.
use super::{
    config::LoraConfig,
    keys::{self, Factor},
};
use crate::{
    adapter::{
        AdapterError,
        format::tensors::{quoted, to_f32},
    },
    lora::{LoraLayout, LoraWeights, LowRank, Site, SiteShape},
};
use candle_core::{Device, Tensor};
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;

/// A tensor with its name, for messages.
type Named<'a> = (&'a str, &'a TensorView<'a>);

/// Both factors of a site as the file has them.
#[derive(Clone, Copy)]
struct Pair<'a> {
    /// `[rank, in]`
    a: Named<'a>,
    /// `[out, rank]`
    b: Named<'a>,
}

/// # Errors
/// When a tensor is unknown, of a wrong shape or not finite, or when a layer that the config selects has none.
pub(super) fn assemble(
    config: &LoraConfig,
    tensors: &BTreeMap<String, TensorView<'_>>,
    layout: Option<&LoraLayout>,
) -> Result<LoraWeights, AdapterError> {
    let pairs = pair_up(tensors)?;
    let inferred = pairs.iter().map(|(site, pair)| Ok((*site, pair.shape()?)));
    let inferred = inferred.collect::<Result<LoraLayout, AdapterError>>()?;
    let layout = layout.unwrap_or(&inferred);
    check_coverage(config, &pairs, layout)?;
    let built = pairs.iter().map(|(site, pair)| Ok((*site, build(config, *site, *pair, layout)?)));
    built.collect()
}

fn pair_up<'a>(
    tensors: &'a BTreeMap<String, TensorView<'_>>,
) -> Result<BTreeMap<Site, Pair<'a>>, AdapterError> {
    let (mut first, mut second) = (BTreeMap::new(), BTreeMap::new());
    for (name, view) in tensors {
        let (site, factor) = keys::parse(name)?;
        let side = match factor {
            Factor::A => &mut first,
            Factor::B => &mut second,
        };
        let named: Named<'a> = (name, view);
        if let Some((other, _)) = side.insert(site, named) {
            return Err(AdapterError::invalid(format!(
                "tensors {} and {} are the same factor",
                quoted(other),
                quoted(name)
            )));
        }
    }
    if first.is_empty() && second.is_empty() {
        return Err(AdapterError::invalid("adapter_model.safetensors has no tensors"));
    }
    if let Some((_, (name, _))) = second.iter().find(|(site, _)| !first.contains_key(site)) {
        return Err(half(name, "lora_A"));
    }
    let complete = |(site, a): (Site, Named<'a>)| match second.get(&site) {
        Some(b) => Ok((site, Pair { a, b: *b })),
        None => Err(half(a.0, "lora_B")),
    };
    first.into_iter().map(complete).collect()
}

fn half(name: &str, missing: &str) -> AdapterError {
    AdapterError::invalid(format!(
        "tensor {} has no {missing} beside it: the file is incomplete, save or upload it again",
        quoted(name)
    ))
}

impl Pair<'_> {
    /// The layer's shape as the factors have it.
    fn shape(&self) -> Result<SiteShape, AdapterError> {
        Ok(SiteShape { in_features: dims2(self.a)?[1], out_features: dims2(self.b)?[0] })
    }
}

fn dims2((name, view): Named<'_>) -> Result<[usize; 2], AdapterError> {
    match view.shape() {
        [rows, columns] if *rows > 0 && *columns > 0 => Ok([*rows, *columns]),
        other => Err(AdapterError::invalid(format!(
            "tensor {} has shape {other:?}; a factor is a matrix",
            quoted(name)
        ))),
    }
}

/// Tensors and config must agree on every layer, else the adapter is half an adapter.
fn check_coverage(
    config: &LoraConfig,
    pairs: &BTreeMap<Site, Pair<'_>>,
    layout: &LoraLayout,
) -> Result<(), AdapterError> {
    for (site, pair) in pairs {
        if layout.shape(*site).is_none() {
            return Err(AdapterError::invalid(format!(
                "tensor {} is on {site}, which the model does not have (it has {} layers): was the adapter made for \
                 another base?",
                quoted(pair.a.0),
                layout.layers()
            )));
        }
        if !config.targets.select(&keys::path(*site))? {
            return Err(AdapterError::invalid(format!(
                "tensor {} is on a layer that adapter_config.json does not select: PEFT would not load it; do the two \
                 files belong together?",
                quoted(pair.a.0)
            )));
        }
    }
    let mut missing = Vec::new();
    for (site, _) in layout.sites().filter(|(site, _)| !pairs.contains_key(site)) {
        if config.targets.select(&keys::path(site))? {
            missing.push(site.to_string());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(AdapterError::invalid(format!(
        "adapter_config.json selects {} layers that have no tensors ({}{}): the file is incomplete, or the adapter was \
         made for another base",
        missing.len(),
        missing[..missing.len().min(5)].join(", "),
        if missing.len() > 5 { ", …" } else { "" }
    )))
}

fn build(
    config: &LoraConfig,
    site: Site,
    pair: Pair<'_>,
    layout: &LoraLayout,
) -> Result<LowRank, AdapterError> {
    let path = keys::path(site);
    let rank = config.rank.at(&path)?;
    let shape = layout.shape(site).ok_or_else(|| AdapterError::invalid(format!("no {site}")))?;
    check_shape(pair.a, [rank, shape.in_features], "[rank, in]")?;
    check_shape(pair.b, [shape.out_features, rank], "[out, rank]")?;
    let a = to_f32(pair.a.0, pair.a.1)?;
    let b = to_f32(pair.b.0, pair.b.1)?;
    let b = scaled_transpose(&b, rank, config.scaling(&path, rank)?);
    if b.iter().any(|value| !value.is_finite()) {
        return Err(AdapterError::invalid(format!(
            "tensor {} times the scaling of lora_alpha is not finite",
            quoted(pair.b.0)
        )));
    }
    let matrix = |values, columns| Tensor::from_vec(values, (rank, columns), &Device::Cpu);
    let inner = |error: &dyn std::fmt::Display| {
        AdapterError::invalid(format!("the factors of {site} cannot be used: {error}"))
    };
    let a = matrix(a, shape.in_features).map_err(|error| inner(&error))?;
    let b = matrix(b, shape.out_features).map_err(|error| inner(&error))?;
    LowRank::new(a, b).map_err(|error| inner(&error))
}

fn check_shape(named: Named<'_>, wanted: [usize; 2], axes: &str) -> Result<(), AdapterError> {
    let found = dims2(named)?;
    if found == wanted {
        return Ok(());
    }
    Err(AdapterError::invalid(format!(
        "tensor {} has shape {found:?}; this model and adapter_config.json make it {wanted:?} ({axes}): was the \
         adapter made for another base, or with another r?",
        quoted(named.0)
    )))
}

/// `[out, rank]` → `[rank, out]`, times `scaling`.
fn scaled_transpose(b: &[f32], rank: usize, scaling: f32) -> Vec<f32> {
    let out = b.len() / rank;
    let mut transposed = vec![0.0; b.len()];
    for (row, values) in b.chunks_exact(rank).enumerate() {
        for (column, value) in values.iter().enumerate() {
            transposed[column * out + row] = value * scaling;
        }
    }
    transposed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b_is_turned_and_scaled() {
        assert_eq!(
            scaled_transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 2.0),
            [2.0, 6.0, 10.0, 4.0, 8.0, 12.0]
        );
    }
}

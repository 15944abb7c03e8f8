//! Bases and adapters of every part of the family, in memory.
use super::parse_on;
use crate::adapter_maker::{
    Maker,
    base::{MadeBase, VOCAB, whole},
    layout, small_layout, values,
};
use candle_core::Tensor;
use lorad::lora::{
    EmbeddingDelta, LinearDelta, LoraLayout, LoraWeights, Projection, Site, SiteShape,
};
use serde_json::json;

pub(crate) const Q: &str = "model.layers.0.self_attn.q_proj";
pub(crate) const Q_SITE: Site = Site::block(0, Projection::Q);
pub(crate) const TABLE: &str = "model.embed_tokens";

pub(crate) fn named(path: &str, ending: &str) -> String {
    format!("base_model.model.{path}.{ending}")
}

/// A base with a bias on every query projection.
pub(crate) fn biased() -> MadeBase {
    let mut base = MadeBase::new(small_layout());
    for layer in 0..2 {
        base.biases.insert(Site::block(layer, Projection::Q), values(8, 40 + layer as u32));
    }
    base
}

pub(crate) fn tied() -> MadeBase {
    MadeBase::new(whole(&layout(2, 8, 8, 4, 12), 2, 8, true))
}

/// One block that computes queries, keys and values as one, and gate and up.
pub(crate) fn fused() -> MadeBase {
    let shape = |(in_features, out_features)| SiteShape { in_features, out_features };
    let own = [
        (Projection::Qkv, (8, 16)),
        (Projection::O, (8, 8)),
        (Projection::GateUp, (8, 24)),
        (Projection::Down, (12, 8)),
    ];
    let own = own.into_iter().map(|(p, size)| (Site::block(0, p), shape(size)));
    let parts: Vec<_> = layout(1, 8, 8, 4, 12).sites().collect();
    MadeBase::new(whole(&own.collect::<LoraLayout>().with_parts(parts), 1, 8, false))
}

/// Pairs on `q_proj` and `down_proj` alone.
pub(crate) fn plain() -> Maker {
    Maker::new(1)
}

/// Nothing yet: pairs go where a test puts them.
pub(crate) fn empty(targets: &[&str]) -> Maker {
    let mut maker = plain().with("target_modules", json!(targets));
    maker.tensors.clear();
    maker
}

pub(crate) fn add_pair(
    maker: &mut Maker,
    path: &str,
    [rank, input, output]: [usize; 3],
    seed: u32,
) {
    maker.set(&named(path, "lora_A.weight"), &[rank, input], &values(rank * input, seed));
    maker.set(&named(path, "lora_B.weight"), &[output, rank], &values(output * rank, seed + 1));
}

pub(crate) fn add_embedding_pair(maker: &mut Maker, seed: u32) {
    maker.set(&named(TABLE, "lora_embedding_A"), &[2, VOCAB], &values(2 * VOCAB, seed));
    maker.set(&named(TABLE, "lora_embedding_B"), &[8, 2], &values(16, seed + 1));
}

pub(crate) fn weights(base: &MadeBase, maker: &Maker) -> LoraWeights {
    parse_on(base, maker).expect("served").weights
}

pub(crate) fn at(weights: &LoraWeights, site: Site) -> &LinearDelta<Tensor> {
    weights.at(site).unwrap_or_else(|| panic!("{site} is changed"))
}

pub(crate) fn table(weights: &LoraWeights) -> &EmbeddingDelta<Tensor> {
    weights.embedding().expect("the embedding is changed")
}

pub(crate) fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32")
}

pub(crate) fn close(found: &[f32], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        let slack = 1e-5 * wanted.abs().max(1.0);
        assert!((f64::from(*found) - wanted).abs() <= slack, "{found} is not {wanted}");
    }
}

/// `W + s·B·A` of a layer, `[out][in]`, from PEFT's factors.
pub(crate) fn moved(
    weight: &[f32],
    a: &[f32],
    b: &[f32],
    rank: usize,
    scaling: f64,
) -> Vec<Vec<f64>> {
    let wide = a.len() / rank;
    let row = |(row, weight): (usize, &[f32])| {
        let delta = |column: usize| -> f64 {
            let term = |r: usize| f64::from(b[row * rank + r]) * f64::from(a[r * wide + column]);
            (0..rank).map(term).sum()
        };
        let sum = |(column, w): (usize, &f32)| f64::from(*w) + scaling * delta(column);
        weight.iter().enumerate().map(sum).collect()
    };
    weight.chunks(wide).enumerate().map(row).collect()
}

pub(crate) fn norm(row: &[f64]) -> f64 {
    row.iter().map(|value| value * value).sum::<f64>().sqrt()
}

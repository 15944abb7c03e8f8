//! Every part of the LoRA family, read from files and held against the same computed by hand in f64.
use super::{
    made::{
        Q, Q_SITE, TABLE, add_embedding_pair, add_pair, at, biased, close, empty, flat, fused,
        moved, named, norm, plain, table, weights,
    },
    parse_on, refused_on,
};
use crate::adapter_maker::{
    base::{MadeBase, VOCAB},
    small_layout, values,
};
use candle_core::Tensor;
use lorad::{
    adapter::AdapterLimits,
    lora::{FrozenBase, LinearDelta, NormSite, Projection, Site},
};
use proptest::prelude::*;
use serde_json::json;

#[test]
fn dora_scales_outputs_to_their_magnitudes_and_leaves_the_bias() {
    let (base, mut maker) = (biased(), empty(&["q_proj"]).with("use_dora", json!(true)));
    let magnitude: Vec<f32> = values(8, 9).iter().map(|m| m + 3.0).collect();
    for layer in 0..2 {
        let path = format!("model.layers.{layer}.self_attn.q_proj");
        add_pair(&mut maker, &path, [2, 8, 8], 1);
        maker.set(&named(&path, "lora_magnitude_vector"), &[8], &magnitude);
    }
    let weights = weights(&base, &maker);
    let delta = at(&weights, Q_SITE);
    let (a, b) = (values(16, 1), values(16, 2));
    let rows = moved(&base.weight(Q_SITE), &a, &b, 2, 2.0);
    let gain: Vec<f64> =
        rows.iter().zip(&magnitude).map(|(row, m)| f64::from(*m) / norm(row)).collect();
    close(&flat(delta.gain.as_ref().expect("a gain")), &gain);
    let bias = &base.biases[&Q_SITE];
    let shift: Vec<_> = bias.iter().zip(&gain).map(|(b, g)| f64::from(*b) * (1.0 - g)).collect();
    close(&flat(delta.shift.as_ref().expect("a shift")), &shift);
    let folded = (0..2).flat_map(|r| (0..8).map(move |row| (r, row)));
    let folded: Vec<_> =
        folded.map(|(r, row)| f64::from(b[row * 2 + r]) * 2.0 * gain[row]).collect();
    close(&flat(delta.low_rank.as_ref().expect("a pair").rows().expect("rows").1), &folded);
}

#[test]
fn dora_of_an_embedding_scales_its_columns() {
    let base = MadeBase::new(small_layout());
    let mut maker = empty(&["embed_tokens"]).with("use_dora", json!(true));
    add_embedding_pair(&mut maker, 5);
    maker.set(&named(TABLE, "lora_magnitude_vector"), &[8], &values(8, 9));
    let weights = weights(&base, &maker);
    let turned: Vec<f32> = (0..8)
        .flat_map(|h| (0..VOCAB).map(move |v| (h, v)))
        .map(|(h, v)| base.embedding()[v * 8 + h])
        .collect();
    let columns = moved(&turned, &values(2 * VOCAB, 5), &values(16, 6), 2, 2.0);
    let gain: Vec<_> =
        columns.iter().zip(values(8, 9)).map(|(c, m)| f64::from(m) / norm(c)).collect();
    close(&flat(table(&weights).gain.as_ref().expect("a gain")), &gain);
}

#[test]
fn biases_replace_the_base_s_and_those_of_b_are_scaled() {
    let base = biased();
    let mut maker = plain().with("bias", json!("lora_only")).with("lora_bias", json!(true));
    for layer in 0..2 {
        let path = format!("model.layers.{layer}.self_attn.q_proj");
        maker.set(&named(&path, "base_layer.bias"), &[8], &values(8, 20));
        maker.set(&named(&path, "lora_B.bias"), &[8], &values(8, 21));
        let path = format!("model.layers.{layer}.mlp.down_proj");
        maker.set(&named(&path, "lora_B.bias"), &[8], &values(8, 22));
    }
    let parsed = parse_on(&base, &maker).expect("served");
    let shift = |site| flat(at(&parsed.weights, site).shift.as_ref().expect("a shift"));
    let parts = values(8, 20).into_iter().zip(values(8, 21)).zip(&base.biases[&Q_SITE]);
    let sum =
        |((new, b), old): ((f32, f32), &f32)| f64::from(new) - f64::from(*old) + 2.0 * f64::from(b);
    close(&shift(Q_SITE), &parts.map(sum).collect::<Vec<_>>());
    let wanted: Vec<_> = values(8, 22).iter().map(|b| 2.0 * f64::from(*b)).collect();
    close(&shift(Site::block(0, Projection::Down)), &wanted);
    assert!(at(&parsed.weights, Q_SITE).gain.is_none());
    assert_eq!(parsed.describe().expect("numbers").biases, 4);
}

#[test]
fn whole_modules_take_the_base_s_place() {
    let base = biased();
    let mut maker =
        empty(&["down_proj"]).with("modules_to_save", json!(["q_proj", "lm_head", "norm"]));
    for layer in 0..2 {
        add_pair(&mut maker, &format!("model.layers.{layer}.mlp.down_proj"), [2, 12, 8], 3);
        let path = format!("model.layers.{layer}.self_attn.q_proj");
        maker.set(&named(&path, "modules_to_save.default.weight"), &[8, 8], &values(64, 30));
        maker.set(&named(&path, "bias"), &[8], &values(8, 31));
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            maker.set(
                &named(&format!("model.layers.{layer}.{norm}"), "weight"),
                &[8],
                &values(8, 32),
            );
        }
    }
    maker.set(&named("model.norm", "weight"), &[8], &values(8, 33));
    maker.set(&named("lm_head", "weight"), &[VOCAB, 8], &values(8 * VOCAB, 34));
    maker.set(&named("lm_head", "original_module.weight"), &[VOCAB, 8], &[0.0; 8 * VOCAB]);
    let parsed = parse_on(&base, &maker).expect("served");
    let delta = at(&parsed.weights, Q_SITE);
    let trained = delta.trained.as_ref().expect("rows");
    assert_eq!((flat(&trained.weight), trained.ids.is_none()), (values(64, 30), true));
    assert_eq!(flat(delta.gain.as_ref().expect("a gain")), [0.0; 8]);
    assert_eq!(flat(delta.shift.as_ref().expect("a shift")), values(8, 31));
    let head = at(&parsed.weights, Site::Head).trained.as_ref().expect("rows");
    assert_eq!(flat(&head.weight), values(8 * VOCAB, 34));
    assert!(parsed.weights.embedding().is_none());
    let norms: Vec<_> = parsed.weights.norms().map(|(norm, weight)| (norm, flat(weight))).collect();
    assert_eq!(norms.len(), 5);
    assert!(norms.contains(&(NormSite::Final, values(8, 33))));
    let trained = [
        "input_layernorm",
        "lm_head",
        "model.norm",
        "post_attention_layernorm",
        "self_attn.q_proj",
    ];
    assert_eq!(parsed.describe().expect("numbers").trained_modules, trained);
}

#[test]
fn fused_layers_take_one_pair_or_pairs_for_their_parts() {
    let base = fused();
    let mut one = empty(&["qkv_proj", "down_proj"]);
    add_pair(&mut one, "model.layers.0.self_attn.qkv_proj", [2, 8, 16], 1);
    add_pair(&mut one, "model.layers.0.mlp.down_proj", [2, 12, 8], 1);
    assert!(at(&weights(&base, &one), Site::block(0, Projection::Qkv)).low_rank.is_some());
    let mut parts = empty(&["q_proj", "v_proj", "o_proj"]);
    add_pair(&mut parts, "model.layers.0.self_attn.q_proj", [2, 8, 8], 1);
    add_pair(&mut parts, "model.layers.0.self_attn.o_proj", [2, 8, 8], 3);
    assert!(refused_on(&base, &parts).contains("v_proj"), "half of what the config selects");
    add_pair(&mut parts, "model.layers.0.self_attn.v_proj", [2, 8, 4], 5);
    let found = weights(&base, &parts);
    assert_eq!(found.len(), 3);
    assert!(found.at(Site::block(0, Projection::V)).is_some());
    let mut both = parts.with("target_modules", json!(["q_proj", "v_proj", "o_proj", "qkv_proj"]));
    add_pair(&mut both, "model.layers.0.self_attn.qkv_proj", [2, 8, 16], 1);
    assert!(refused_on(&base, &both).contains("its part"));
    let apart = MadeBase::new(small_layout());
    assert!(refused_on(&apart, &one).contains("its own rows of lora_B"));
    // A list for another family of models: what this one does not have has no tensors.
    let mut others = empty(&["q_proj", "qkv_proj", "down_proj"]);
    others.tensors.clone_from(&one.tensors);
    assert_eq!(weights(&base, &others).len(), 2);
}

#[test]
fn an_activated_adapter_says_from_which_tokens_on() {
    let maker = plain().with("alora_invocation_tokens", json!([3, 7]));
    let parsed = parse_on(&MadeBase::new(small_layout()), &maker).expect("served");
    assert_eq!(parsed.weights.invocation(), Some([3, 7].as_slice()));
    assert_eq!(
        parsed.describe().expect("numbers").invocation_tokens.as_deref(),
        Some([3, 7].as_slice())
    );
    let none = weights(&MadeBase::new(small_layout()), &plain());
    assert_eq!(none.invocation(), None);
    let beyond = plain().with("alora_invocation_tokens", json!([16]));
    assert!(refused_on(&MadeBase::new(small_layout()), &beyond).contains("16 tokens"));
}

#[test]
fn inspection_of_every_part_needs_no_base() {
    let mut maker = empty(&["q_proj"]).with("use_dora", json!(true));
    for layer in 0..2 {
        let path = format!("model.layers.{layer}.self_attn.q_proj");
        add_pair(&mut maker, &path, [2, 8, 8], 1);
        maker.set(&named(&path, "lora_magnitude_vector"), &[8], &[1.0; 8]);
    }
    let far = u32::MAX;
    let mut maker = maker.with("trainable_token_indices", json!({"lm_head": [far]}));
    maker.set(&named("lm_head", "token_adapter.trainable_tokens_delta"), &[1, 8], &[1.0; 8]);
    let check = |layout| {
        lorad::adapter::format::check(&maker.files(), layout, &AdapterLimits::default())
            .map_err(|error| error.to_string())
    };
    let about = check(None).expect("whole");
    assert!(about.dora);
    assert_eq!((about.trained_tokens, about.parameters), (vec![far], 2 * (32 + 8) + 8));
    assert!(check(Some(biased().layout())).expect_err("no such token").contains("16 tokens"));
}

proptest! {
    #[test]
    fn what_is_served_is_the_dense_merge(
        seed in 0u32..1000, rank in 1usize..5, alpha in -8i32..9,
        [dora, rslora, bias, lora_bias] in any::<[bool; 4]>(),
    ) {
        let lora_bias = lora_bias && !dora;
        let mut maker = empty(&[Q])
            .with("r", json!(rank)).with("lora_alpha", json!(alpha))
            .with("use_dora", json!(dora)).with("use_rslora", json!(rslora))
            .with("lora_bias", json!(lora_bias))
            .with("bias", json!(if bias { "lora_only" } else { "none" }));
        add_pair(&mut maker, Q, [rank, 8, 8], seed);
        let (magnitude, new, of_b) = (values(8, seed + 2), values(8, seed + 3), values(8, seed + 4));
        if dora { maker.set(&named(Q, "lora_magnitude_vector"), &[8], &magnitude) }
        if bias { maker.set(&named(Q, "base_layer.bias"), &[8], &new) }
        if lora_bias { maker.set(&named(Q, "lora_B.bias"), &[8], &of_b) }
        let base = biased();
        let scaling = f64::from(alpha) / if rslora { (rank as f64).sqrt() } else { rank as f64 };
        let (a, b) = (values(rank * 8, seed), values(rank * 8, seed + 1));
        let mut dense = moved(&base.weight(Q_SITE), &a, &b, rank, scaling);
        for (row, m) in dense.iter_mut().zip(&magnitude).filter(|_| dora) {
            let gain = f64::from(*m) / norm(row);
            for w in row.iter_mut() {
                *w *= gain;
            }
        }
        let old = &base.biases[&Q_SITE];
        let kept = if bias { &new } else { old };
        let x = values(8, seed + 5);
        let input = |row: &[f64]| -> f64 { row.iter().zip(&x).map(|(w, x)| w * f64::from(*x)).sum() };
        let wanted: Vec<f64> = dense.iter().enumerate().map(|(at, row)| {
            let of_b = if lora_bias { scaling * f64::from(of_b[at]) } else { 0.0 };
            input(row) + f64::from(kept[at]) + of_b
        }).collect();
        let weights = weights(&base, &maker);
        let found = apply(at(&weights, Q_SITE), &base.weight(Q_SITE), old, &x);
        for (found, wanted) in found.iter().zip(&wanted) {
            prop_assert!((found - wanted).abs() <= 1e-3 * wanted.abs().max(10.0), "{found} {wanted}");
        }
    }
}

/// `gain ∘ (W·x + bias) + b·(a·x) + shift`
fn apply(delta: &LinearDelta<Tensor>, weight: &[f32], bias: &[f32], x: &[f32]) -> Vec<f64> {
    let dot = |row: &[f32]| -> f64 { row.iter().zip(x).map(|(w, x)| f64::from(w * x)).sum() };
    let pair = delta.low_rank.as_ref().expect("a pair");
    let (a, b) = (flat(pair.rows().expect("rows").0), flat(pair.rows().expect("rows").1));
    let inner: Vec<f64> = a.chunks(x.len()).map(dot).collect();
    let vector = |part: &Option<Tensor>| part.as_ref().map(flat);
    let (gain, shift) = (vector(&delta.gain), vector(&delta.shift));
    let row = |(at, row): (usize, &[f32])| {
        let gain = gain.as_ref().map_or(1.0, |gain| f64::from(gain[at]));
        let shift = shift.as_ref().map_or(0.0, |shift| f64::from(shift[at]));
        let terms = inner.iter().enumerate();
        let low: f64 = terms.map(|(r, inner)| f64::from(b[r * bias.len() + at]) * inner).sum();
        gain * (dot(row) + f64::from(bias[at])) + low + shift
    };
    weight.chunks(x.len()).enumerate().map(row).collect()
}

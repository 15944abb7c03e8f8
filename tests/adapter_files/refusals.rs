//! Parts of the family that do not go together, with the config, or with the base.
use super::{
    made::{Q, Q_SITE, TABLE, biased, empty, named, plain, weights},
    refused_on,
};
use crate::adapter_maker::{
    Maker,
    base::{MadeBase, VOCAB},
    small_layout, values,
};
use lorad::lora::Site;
use serde_json::{Value, json};

const K: &str = "model.layers.0.self_attn.k_proj";
const TOKENS: &str = "token_adapter.trainable_tokens_delta";
const TOKEN_FIELD: &str = "trainable_token_indices";

#[test]
fn copies_of_the_base_are_compared_with_it() {
    let base = MadeBase::new(small_layout());
    let mut maker = plain();
    let mut near = base.weight(Site::Head);
    for w in &mut near {
        *w *= 1.01;
    }
    maker.set(&named("lm_head", "base_layer.weight"), &[VOCAB, 8], &near);
    assert_eq!(weights(&base, &maker).len(), 4);
    maker.set(&named("lm_head", "base_layer.weight"), &[VOCAB, 8], &values(8 * VOCAB, 5));
    assert!(refused_on(&base, &maker).contains("not this base's"));
    maker.set(&named("lm_head", "base_layer.weight"), &[VOCAB + 1, 8], &values(8 * (VOCAB + 1), 5));
    assert!(refused_on(&base, &maker).contains("another base"));
}

/// The reason that the server gives for a sound adapter after `change`.
fn bent(change: &dyn Fn(&mut Maker)) -> String {
    let mut maker = plain();
    change(&mut maker);
    refused_on(&biased(), &maker)
}

fn field(maker: &mut Maker, name: &str, value: Value) {
    maker.config.insert(name.to_owned(), value);
}

/// A tensor of ones.
fn ones(maker: &mut Maker, name: &str, shape: &[usize]) {
    maker.set(name, shape, &vec![1.0; shape.iter().product()]);
}

fn check(cases: &[(String, &str)]) {
    for (error, reason) in cases {
        assert!(error.contains(reason), "`{reason}` is not in: {error}");
        assert!(error.len() < 800, "{error}");
    }
}

#[test]
fn tensors_that_the_config_does_not_ask_for_are_refused() {
    let key = named(K, "base_layer.bias");
    check(&[
        (bent(&|m| ones(m, &named(Q, "lora_magnitude_vector"), &[8])), "`use_dora` is not set"),
        (bent(&|m| ones(m, &named(Q, "lora_B.bias"), &[8])), "`lora_bias` is not set"),
        (bent(&|m| ones(m, &named(Q, "bias"), &[8])), "rename it"),
        (bent(&|m| ones(m, &key, &[4])), "rename it"),
        (bent(&|m| ones(m, &named(K, "bias"), &[4])), "has none in this model"),
        (bent(&|m| ones(m, &named(Q, "weight"), &[8, 8])), "whole weight beside"),
        (bent(&|m| ones(m, &named(K, "modules_to_save.weight"), &[4, 8])), "no plain `weight`"),
        (bent(&|m| ones(m, &named(TABLE, TOKENS), &[1, 8])), "no tokens in"),
        (bent(&|m| ones(m, &named(TABLE, "weight"), &[VOCAB + 2, 8])), "rows for 18 tokens"),
        (bent(&|m| ones(m, &named("model.norm", "bias"), &[8])), "bias of a layer that has none"),
        (
            bent(&|m| {
                ones(m, &named("lm_head", "lora_A.weight"), &[2, 8]);
                ones(m, &named("lm_head", "lora_B.weight"), &[VOCAB, 2]);
            }),
            "does not select",
        ),
    ]);
}

#[test]
fn tensors_that_the_config_asks_for_are_missed() {
    check(&[
        (bent(&|m| field(m, "use_dora", json!(true))), "has no lora_magnitude_vector"),
        (bent(&|m| field(m, "lora_bias", json!(true))), "has no lora_B.bias"),
        (bent(&|m| field(m, "bias", json!("lora_only"))), "has no base_layer.bias"),
        (bent(&|m| field(m, "modules_to_save", json!(["lm_head"]))), "`modules_to_save`"),
        (bent(&|m| field(m, TOKEN_FIELD, json!([1]))), "`trainable_token_indices`"),
    ]);
}

#[test]
fn tokens_that_cannot_be_meant_are_refused() {
    let rows = |ids: &[usize], value: f32| {
        bent(&|m| {
            field(m, TOKEN_FIELD, json!(ids));
            m.set(&named(TABLE, TOKENS), &[ids.len(), 8], &vec![value; ids.len() * 8]);
        })
    };
    let always = bent(&|m| {
        field(m, "alora_invocation_tokens", json!([1]));
        ones(m, &named("model.norm", "weight"), &[8]);
    });
    check(&[
        (rows(&[1, 1], 1.0), "twice"),
        (rows(&[VOCAB], 1.0), "16 tokens"),
        (rows(&[1], f32::NAN), "NaN"),
        (always, "alora_invocation_tokens"),
    ]);
}

#[test]
fn a_norm_of_zero_is_no_divisor() {
    let base = MadeBase::new(small_layout());
    let mut maker = empty(&[Q]).with("use_dora", json!(true)).with("lora_alpha", json!(2));
    // The pair is minus the base's first row, and nothing below it.
    let first: Vec<f32> = base.weight(Q_SITE)[..8].iter().map(|w| -w).collect();
    maker.set(&named(Q, "lora_A.weight"), &[2, 8], &[first, vec![0.0; 8]].concat());
    let mut b = vec![0.0; 16];
    b[0] = 1.0;
    maker.set(&named(Q, "lora_B.weight"), &[8, 2], &b);
    maker.set(&named(Q, "lora_magnitude_vector"), &[8], &[1.0; 8]);
    assert!(refused_on(&base, &maker).contains("not finite"));
}

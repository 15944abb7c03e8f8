//! What `adapter_config.json` of the same adapter would say.
use super::{contents::Contents, header::Header};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The config. With the base's number of blocks, an adapter on all of them says so by their names alone.
pub(super) fn config(
    header: &Header,
    contents: &Contents,
    blocks: Option<usize>,
) -> Map<String, Value> {
    let ranks: BTreeMap<&str, usize> =
        contents.pairs.iter().map(|(module, pair)| (module.as_str(), pair.rank())).collect();
    let rank = most_frequent(ranks.values().copied());
    // Without an alpha the scaling is 1, which PEFT says as an alpha that is the rank.
    let alphas: BTreeMap<&str, u64> = match header.alpha {
        0.0 => ranks.iter().map(|(module, rank)| (*module, *rank as u64)).collect(),
        _ => BTreeMap::new(),
    };
    let alpha = if header.alpha == 0.0 { json!(rank) } else { number(header.alpha) };
    let (targets, layers) = targets(ranks.keys().copied(), blocks);
    let norms: Vec<&String> = contents.norms.keys().collect();
    let mut config = json!({
        "alpha_pattern": pattern(&alphas, rank as u64),
        "base_model_name_or_path": header.base_model,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_to_transform": layers,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": (!norms.is_empty()).then_some(norms),
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": pattern(&ranks, rank),
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    });
    if !header.invocation.is_empty() {
        config["alora_invocation_tokens"] = json!(header.invocation);
    }
    match config {
        Value::Object(config) => config,
        _ => unreachable!("an object was written"),
    }
}

/// Whole numbers without a point, as people write them.
fn number(alpha: f32) -> Value {
    let whole = alpha as i64;
    if whole as f32 == alpha { json!(whole) } else { json!(f64::from(alpha)) }
}

fn most_frequent(values: impl Iterator<Item = usize>) -> usize {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(0, |(value, _)| value)
}

/// The layer's own name, which is the same in every block.
fn short(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

/// Values that are not the default: one line for a kind of layer where all of them agree, else one for each.
fn pattern<T: Copy + PartialEq>(values: &BTreeMap<&str, T>, default: T) -> Map<String, Value>
where
    Value: From<T>,
{
    let mut kinds: BTreeMap<&str, Vec<(&str, T)>> = BTreeMap::new();
    for (module, value) in values {
        kinds.entry(short(module)).or_default().push((module, *value));
    }
    let mut pattern = Map::new();
    for (kind, values) in kinds {
        let first = values[0].1;
        if values.iter().all(|(_, value)| *value == first) {
            pattern.extend((first != default).then(|| (kind.to_owned(), Value::from(first))));
            continue;
        }
        let others = values.into_iter().filter(|(_, value)| *value != default);
        pattern.extend(others.map(|(module, value)| (module.to_owned(), Value::from(value))));
    }
    pattern
}

/// `target_modules` and `layers_to_transform` that select these modules and no others.
fn targets<'a>(
    modules: impl Iterator<Item = &'a str>,
    blocks: Option<usize>,
) -> (Vec<&'a str>, Option<Vec<usize>>) {
    let mut kinds: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let (mut all, mut outside) = (Vec::new(), Vec::new());
    for module in modules {
        all.push(module);
        match layer(module) {
            Some(layer) => drop(kinds.entry(short(module)).or_default().insert(layer)),
            // PEFT takes a whole path whatever the layers say.
            None => outside.push(module),
        }
    }
    let mut sets = kinds.values();
    let layers = sets.next().cloned().unwrap_or_default();
    if sets.any(|other| *other != layers) {
        return (all, None);
    }
    let every = blocks.is_some_and(|blocks| (0..blocks).all(|layer| layers.contains(&layer)));
    let names = kinds.keys().copied().chain(outside).collect();
    let restricted = !every && !layers.is_empty();
    (names, restricted.then(|| layers.into_iter().collect()))
}

fn layer(module: &str) -> Option<usize> {
    module.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q0: &str = "model.layers.0.self_attn.q_proj";
    const Q1: &str = "model.layers.1.self_attn.q_proj";
    const V1: &str = "model.layers.1.self_attn.v_proj";

    #[test]
    fn targets_are_as_short_as_they_can_be() {
        let of = |modules: &[&'static str], blocks| targets(modules.iter().copied(), blocks);
        assert_eq!(of(&[Q0, Q1], Some(2)), (vec!["q_proj"], None));
        assert_eq!(of(&[Q0, Q1], Some(3)), (vec!["q_proj"], Some(vec![0, 1])));
        assert_eq!(of(&["lm_head", Q1], None), (vec!["q_proj", "lm_head"], Some(vec![1])));
        assert_eq!(of(&[Q0, Q1, V1], Some(2)), (vec![Q0, Q1, V1], None));
        assert_eq!(of(&["lm_head"], Some(2)), (vec!["lm_head"], None));
    }

    #[test]
    fn patterns_name_what_differs() {
        let ranks = BTreeMap::from([(Q0, 2_usize), (Q1, 2), (V1, 4)]);
        assert_eq!(json!(pattern(&ranks, 4)), json!({"q_proj": 2}));
        let ranks = BTreeMap::from([(Q0, 2_usize), (Q1, 4), (V1, 4)]);
        assert_eq!(json!(pattern(&ranks, 4)), json!({Q0: 2}));
    }

    #[test]
    fn alphas_are_written_as_people_do() {
        assert_eq!(number(16.0), json!(16));
        assert_eq!(number(0.5), json!(0.5));
    }
}

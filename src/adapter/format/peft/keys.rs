//! Tensor names of a PEFT LoRA file → site and factor.
use crate::{
    adapter::{AdapterError, format::tensors::quoted},
    lora::{Projection, Site},
};

/// PEFT's names for the two factors of a pair.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Factor {
    /// `[rank, in]`
    A,
    /// `[out, rank]`
    B,
}

const PREFIX: &str = "base_model.model.";

/// With the adapter's name in it as `state_dict` gives it, and without as `save_pretrained` writes it.
const ENDINGS: [(&str, Factor); 4] = [
    (".lora_A.weight", Factor::A),
    (".lora_A.default.weight", Factor::A),
    (".lora_B.weight", Factor::B),
    (".lora_B.default.weight", Factor::B),
];

/// Parts of names that belong to features which are not served, and what those are.
const FEATURES: [(&str, &str); 7] = [
    ("lora_magnitude_vector", "DoRA"),
    ("lora_embedding_", "LoRA on embeddings"),
    (".token_adapter.", "trained token embeddings"),
    ("lora_diag", "KaSA"),
    (".base_layer.weight", "LoRA on embeddings or on the output head"),
    ("lora_B.bias", "a bias on LoRA's second factor"),
    (".bias", "a trained bias"),
];

/// Path of a site in the `transformers` model, which configs and tensor names are written in.
pub(super) fn path(site: Site) -> String {
    site.to_string()
}

/// # Errors
/// When the name is not that of a factor of a linear layer inside a block.
pub(super) fn parse(name: &str) -> Result<(Site, Factor), AdapterError> {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return Err(AdapterError::invalid(format!(
            "tensor {} does not begin with `{PREFIX}`: PEFT would not load it; save the adapter with its \
             save_pretrained",
            quoted(name)
        )));
    };
    let split = |(ending, factor): &(&str, Factor)| Some((rest.strip_suffix(ending)?, *factor));
    let Some((module, factor)) = ENDINGS.iter().find_map(split) else {
        return Err(not_a_factor(name));
    };
    match parse_module(module) {
        Some(site) => Ok((site, factor)),
        None if module == "lm_head" => Err(AdapterError::unsupported(format!(
            "tensor {}: LoRA on the output head is not served",
            quoted(name)
        ))),
        None => Err(AdapterError::invalid(format!(
            "tensor {} is on `{}`, which the model does not have: was the adapter made for another base?",
            quoted(name),
            module.escape_debug().take(120).collect::<String>()
        ))),
    }
}

fn not_a_factor(name: &str) -> AdapterError {
    match FEATURES.iter().find(|(part, _)| name.contains(part)) {
        Some((_, feature)) => AdapterError::unsupported(format!(
            "tensor {} belongs to {feature}, which is not served",
            quoted(name)
        )),
        None => AdapterError::unsupported(format!(
            "tensor {} is not a LoRA factor; whole trained layers (modules_to_save) are not served",
            quoted(name)
        )),
    }
}

fn parse_module(module: &str) -> Option<Site> {
    let (layer, role) = module.strip_prefix("model.layers.")?.split_once('.')?;
    let projection = Projection::ALL.into_iter().find(|p| p.module_path() == role)?;
    let site = Site::block(layer.parse().ok()?, projection);
    // Rules out spellings such as `+1` and `01`, which would name a layer twice.
    (path(site) == module).then_some(site)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_factor_are_read() {
        let site = Site::block(7, Projection::Down);
        let name = |ending| format!("base_model.model.model.layers.7.mlp.down_proj.{ending}");
        assert_eq!(parse(&name("lora_A.weight")).expect("a factor"), (site, Factor::A));
        assert_eq!(parse(&name("lora_B.default.weight")).expect("a factor"), (site, Factor::B));
    }

    #[test]
    fn other_names_are_refused_with_the_reason() {
        for (name, reason) in [
            ("model.layers.0.mlp.down_proj.lora_A.weight", "does not begin with"),
            ("base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector", "DoRA"),
            ("base_model.model.model.layers.0.mlp.up_proj.lora_B.bias", "a bias on LoRA"),
            ("base_model.model.model.layers.0.mlp.up_proj.base_layer.bias", "a trained bias"),
            ("base_model.model.model.embed_tokens.lora_embedding_A", "embeddings"),
            ("base_model.model.lm_head.weight", "modules_to_save"),
            ("base_model.model.lm_head.lora_A.weight", "output head"),
            ("base_model.model.model.layers.01.mlp.up_proj.lora_A.weight", "another base"),
            ("base_model.model.model.layers.+1.mlp.up_proj.lora_A.weight", "another base"),
            ("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight", "another base"),
        ] {
            let error = parse(name).expect_err(name).to_string();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }
}

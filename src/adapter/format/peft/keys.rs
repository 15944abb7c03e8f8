//! Tensor names of a PEFT LoRA file → module and role.
use super::paths::Paths;
use crate::{
    adapter::{AdapterError, format::tensors::quoted},
    lora::ModuleNames,
};
use std::borrow::Cow;

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Role {
    /// `[rank, in]`
    A,
    /// `[out, rank]`
    B,
    /// `[out]`, added after `B` and scaled with it.
    BBias,
    /// `[rank, vocab]`
    EmbeddingA,
    /// `[hidden, rank]`
    EmbeddingB,
    /// `DoRA`'s magnitudes: `[out]`, `[hidden]` for an embedding.
    Magnitude,
    /// Rows of the table for some tokens: `[tokens, hidden]`. Called a delta, and is none.
    TokenRows,
    /// The whole weight, trained.
    Weight,
    /// A trained bias of a layer without a pair.
    Bias,
    /// A trained bias of a layer with a pair.
    TargetBias,
    /// A copy of the base's weight.
    BaseWeight,
    /// Another copy of the trained weight, as `bias="all"` leaves behind.
    SavedWeight,
    /// Another copy of the trained bias, as `bias="all"` leaves behind.
    SavedBias,
    /// A copy of the base's weight beside a trained one.
    OriginalWeight,
    /// A copy of the base's bias beside a trained one.
    OriginalBias,
}

const PREFIX: &str = "base_model.model.";
/// The name that training gives an adapter and that some savers leave in the keys.
const DEFAULT: &str = ".default";

/// What follows the module's path. Longer endings stand before the ones they end in.
const ENDINGS: [(&str, Role); 18] = [
    (".lora_A.weight", Role::A),
    (".lora_B.weight", Role::B),
    (".lora_B.bias", Role::BBias),
    (".lora_embedding_A.weight", Role::EmbeddingA),
    (".lora_embedding_A", Role::EmbeddingA),
    (".lora_embedding_B.weight", Role::EmbeddingB),
    (".lora_embedding_B", Role::EmbeddingB),
    (".lora_magnitude_vector.weight", Role::Magnitude),
    (".lora_magnitude_vector", Role::Magnitude),
    (".token_adapter.trainable_tokens_delta", Role::TokenRows),
    (".token_adapter.base_layer.weight", Role::BaseWeight),
    (".base_layer.weight", Role::BaseWeight),
    (".base_layer.bias", Role::TargetBias),
    (".modules_to_save.weight", Role::SavedWeight),
    (".modules_to_save.bias", Role::SavedBias),
    (".original_module.weight", Role::OriginalWeight),
    (".original_module.bias", Role::OriginalBias),
    (".weight", Role::Weight),
];

/// The module's path and what the tensor is to it.
///
/// # Errors
/// When the name is not that of a tensor which PEFT writes.
pub(super) fn split(name: &str) -> Result<(Cow<'_, str>, Role), AdapterError> {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return Err(AdapterError::invalid(format!(
            "tensor {} does not begin with `{PREFIX}`: PEFT would not load it; save the adapter with its \
             save_pretrained",
            quoted(name)
        )));
    };
    by_end(rest).ok_or_else(|| {
        AdapterError::unsupported(format!(
            "tensor {} is neither a LoRA factor nor anything else that PEFT writes for a LoRA adapter",
            quoted(name)
        ))
    })
}

/// The module's path and the role, by the end of the name.
fn by_end(rest: &str) -> Option<(Cow<'_, str>, Role)> {
    if let Some(found) = split_wrapped(rest) {
        return Some(found);
    }
    let plain = |(ending, role): &(&'static str, Role)| Some((rest.strip_suffix(ending)?, *role));
    let found = split_named(rest).or_else(|| ENDINGS.iter().find_map(plain));
    let found = found.or_else(|| Some((rest.strip_suffix(".bias")?, Role::Bias)));
    found.map(|(path, role)| (Cow::Borrowed(path), role))
}

/// Of a layer inside a module that was trained whole: `classifier.modules_to_save.dense.bias`.
fn split_wrapped(rest: &str) -> Option<(Cow<'_, str>, Role)> {
    let places = [
        // PEFT takes the adapter's name out of a key's end only.
        (".modules_to_save.default.", Role::SavedWeight, Role::SavedBias),
        (".modules_to_save.", Role::SavedWeight, Role::SavedBias),
        (".original_module.", Role::OriginalWeight, Role::OriginalBias),
    ];
    places.into_iter().find_map(|(place, weight, bias)| {
        let (module, inner) = rest.split_once(place)?;
        let (layer, leaf) = inner.rsplit_once('.')?;
        let role = match leaf {
            "weight" => weight,
            "bias" => bias,
            _ => return None,
        };
        (layer != "default").then(|| (Cow::Owned(format!("{module}.{layer}")), role))
    })
}

/// As [`by_end`], for a name that has the adapter's name in it, as `state_dict` gives it.
fn split_named(rest: &str) -> Option<(&str, Role)> {
    for (ending, role) in [
        (".modules_to_save.default.weight", Role::Weight),
        (".modules_to_save.default.bias", Role::Bias),
    ] {
        if let Some(path) = rest.strip_suffix(ending) {
            return Some((path, role));
        }
    }
    let (stem, leaf) = match rest.rsplit_once('.')? {
        (stem, "default") => (stem, ""),
        (stem, leaf) => (stem.strip_suffix(DEFAULT)?, leaf),
    };
    ENDINGS.iter().find_map(|(ending, role)| {
        let ending = match leaf {
            "" => ending,
            leaf => ending.strip_suffix(leaf)?.strip_suffix('.')?,
        };
        let of_adapter = ending.contains("lora_") || ending.contains("token_adapter");
        Some((stem.strip_suffix(ending).filter(|_| of_adapter)?, *role))
    })
}

/// Of a tensor on what no adapter of the family may change, in a file that is spelled like `paths`.
pub(super) fn unknown_module(name: &str, path: &str, paths: Paths) -> AdapterError {
    let prefix = paths.names.prefix();
    let flipped = Paths { bare: !paths.bare, ..paths };
    let advice = if flipped.parse(path).is_some() {
        format!(
            "some of the file's paths begin with `{prefix}` and some do not: save it again, from one model"
        )
    } else if path.ends_with("position_embeddings") || path.ends_with("token_type_embeddings") {
        "positions and kinds of text stay the base's here: leave it out of `target_modules` and `modules_to_save`".into()
    } else if paths.names == ModuleNames::Decoder && path.starts_with("classifier") {
        "a decoder's classification head is called `score`".into()
    } else {
        "was the adapter made for another base?".into()
    };
    AdapterError::invalid(format!(
        "tensor {} is on `{}`, which the model does not have or adapters may not change: {advice}",
        quoted(name),
        path.escape_debug().take(120).collect::<String>()
    ))
}

/// Of a file that was saved from a model without its head, and is for one with a head.
pub(super) fn headless(name: &str, paths: Paths) -> AdapterError {
    let prefix = paths.names.prefix();
    AdapterError::invalid(format!(
        "tensor {} was saved from a model without its head, and PEFT would not load it into one with a head: begin the \
         keys with `{PREFIX}{prefix}`, or say FEATURE_EXTRACTION in `task_type` if it is for embeddings",
        quoted(name)
    ))
}

#[cfg(test)]
mod tests {
    use super::super::module::Module;
    use super::*;
    use crate::lora::{NormSite, Projection, Site};

    fn parse(name: &str) -> Result<(Module, Role), AdapterError> {
        let (path, role) = split(name)?;
        let found = Paths::default().parse(&path);
        found
            .map(|module| (module, role))
            .ok_or_else(|| unknown_module(name, &path, Paths::default()))
    }

    #[test]
    fn every_spelling_of_a_role_is_read() {
        let down = Module::Linear(Site::block(7, Projection::Down));
        for (ending, role) in [
            ("lora_A.weight", Role::A),
            ("lora_A.default.weight", Role::A),
            ("lora_B.default.weight", Role::B),
            ("lora_B.bias", Role::BBias),
            ("lora_B.default.bias", Role::BBias),
            ("lora_magnitude_vector", Role::Magnitude),
            ("lora_magnitude_vector.weight", Role::Magnitude),
            ("lora_magnitude_vector.default", Role::Magnitude),
            ("lora_magnitude_vector.default.weight", Role::Magnitude),
            ("weight", Role::Weight),
            ("bias", Role::Bias),
            ("modules_to_save.default.weight", Role::Weight),
            ("modules_to_save.default.bias", Role::Bias),
            ("modules_to_save.bias", Role::SavedBias),
            ("original_module.bias", Role::OriginalBias),
            ("base_layer.weight", Role::BaseWeight),
            ("base_layer.bias", Role::TargetBias),
        ] {
            let name = format!("base_model.model.model.layers.7.mlp.down_proj.{ending}");
            assert_eq!(parse(&name).expect(ending), (down, role), "{ending}");
        }
        for (rest, module, role) in [
            ("model.embed_tokens.lora_embedding_A", Module::Embedding, Role::EmbeddingA),
            ("model.embed_tokens.lora_embedding_B.default", Module::Embedding, Role::EmbeddingB),
            (
                "model.embed_tokens.token_adapter.trainable_tokens_delta",
                Module::Embedding,
                Role::TokenRows,
            ),
            ("lm_head.weight", Module::HEAD, Role::Weight),
            ("model.norm.weight", Module::Norm(NormSite::Final), Role::Weight),
        ] {
            assert_eq!(parse(&format!("{PREFIX}{rest}")).expect(rest), (module, role), "{rest}");
        }
    }

    #[test]
    fn layers_of_a_module_that_was_saved_whole_are_told_from_its_copies() {
        for (rest, path, role) in [
            ("classifier.modules_to_save.dense.bias", "classifier.dense", Role::SavedBias),
            ("classifier.original_module.out_proj.bias", "classifier.out_proj", Role::OriginalBias),
            ("classifier.modules_to_save.default.dense.bias", "classifier.dense", Role::SavedBias),
            ("classifier.modules_to_save.default.weight", "classifier", Role::Weight),
            ("classifier.modules_to_save.bias", "classifier", Role::SavedBias),
            ("bert.pooler.dense.weight", "bert.pooler.dense", Role::Weight),
        ] {
            let name = format!("{PREFIX}{rest}");
            assert_eq!(split(&name).expect(rest), (Cow::Borrowed(path), role), "{rest}");
        }
    }

    #[test]
    fn other_names_are_refused_with_the_reason() {
        for (name, reason) in [
            ("model.layers.0.mlp.down_proj.lora_A.weight", "does not begin with"),
            ("base_model.model.layers.0.mlp.down_proj.lora_A.weight", "and some do not"),
            ("base_model.model.classifier.weight", "called `score`"),
            ("base_model.model.model.layers.0.mlp.up_proj.lora_A.other.weight", "another base"),
            ("base_model.model.model.layers.0.mlp.up_proj.lora_diag", "neither a LoRA factor"),
            ("base_model.model.model.layers.01.mlp.up_proj.lora_A.weight", "another base"),
            ("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight", "another base"),
        ] {
            let error = parse(name).expect_err(name).to_string();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }
}

//! What each tensor of a module needs beside it, and what it excludes.
use super::{
    extras::{Biases, Extras},
    keys::Role,
    module::{Module, lacks_dense},
    named::Named,
    parts::Parts,
};
use crate::{
    adapter::AdapterError,
    lora::{FrozenBase, LoraLayout, ModuleNames, Site},
};

/// The rules, as the config sets them.
pub(super) struct Roles<'a> {
    pub(super) extras: &'a Extras,
    /// `None`: whether norms and heads have a bias is not asked.
    pub(super) layout: Option<&'a LoraLayout>,
    /// `None`: whether a layer has a bias is not asked.
    pub(super) base: Option<&'a dyn FrozenBase>,
}

impl Roles<'_> {
    /// # Errors
    /// When a tensor is of no use to the module, excludes another, or lacks one beside it.
    pub(super) fn check(&self, module: Module, parts: &Parts<'_>) -> Result<(), AdapterError> {
        let (paired, extras) = (parts.pair().is_some(), self.extras);
        for (role, tensor) in parts.iter() {
            let problem = match role {
                _ if !belongs(role, module) => Some("is nothing that such a module has"),
                Role::Magnitude if !extras.dora => Some("is DoRA's, and `use_dora` is not set"),
                Role::BBias if !extras.lora_bias => {
                    Some("is a bias of lora_B, and `lora_bias` is not set")
                }
                Role::Magnitude | Role::BBias if !paired => {
                    Some("has no lora_A and lora_B beside it")
                }
                Role::Weight if paired => Some("is a whole weight beside lora_A and lora_B"),
                Role::Weight if parts.has(Role::TokenRows) => {
                    Some("is a whole weight beside rows of single tokens")
                }
                Role::TokenRows if paired && (module == Module::Embedding || extras.dora) => {
                    Some("is beside lora_A and lora_B of the same table")
                }
                Role::Bias if paired => Some(
                    "is on a layer with lora_A and lora_B, where PEFT reads `base_layer.bias` and drops this: rename \
                     it",
                ),
                Role::TargetBias if !paired => Some(
                    "is on a layer without lora_A and lora_B, where PEFT reads `bias` and drops this: rename it",
                ),
                Role::SavedWeight if !parts.has(Role::Weight) => {
                    Some("has no plain `weight` beside it")
                }
                Role::SavedBias if !parts.has(Role::Bias) => Some("has no plain `bias` beside it"),
                Role::Bias | Role::TargetBias if self.has_bias(module) == Some(false) => Some(
                    "is a bias of a layer that has none in this model: was the adapter made for another base?",
                ),
                _ => self.activated(role),
            };
            if let Some(problem) = problem {
                return Err(AdapterError::invalid(format!("tensor {tensor} {problem}")));
            }
        }
        self.check_complete(module, parts)
    }

    /// `None` where there is nothing to ask, or either may be.
    fn has_bias(&self, module: Module) -> Option<bool> {
        let layout = self.layout;
        match module {
            Module::HEAD_DENSE if layout.is_some_and(lacks_dense) => {
                (layout?.names() != ModuleNames::ModernBert).then_some(true)
            }
            Module::Linear(site) => Some(self.base?.bias(site).is_some()),
            Module::Norm(_) => Some(layout?.norms_have_biases()),
            Module::Classifier => Some(layout?.class_head()?.biased),
            Module::Embedding | Module::Pooler => None,
        }
    }

    /// In PEFT only pairs wait for the invocation tokens; the rest acts from the first token on.
    fn activated(&self, role: Role) -> Option<&'static str> {
        use Role::{Bias, TargetBias, TokenRows, Weight};
        let always = matches!(role, Bias | TargetBias | TokenRows | Weight);
        (always && !self.extras.invocation.is_empty())
            .then_some("acts on every token, beside `alora_invocation_tokens`, which is not served")
    }

    /// What the config says beside a pair or a weight must be there.
    fn check_complete(&self, module: Module, parts: &Parts<'_>) -> Result<(), AdapterError> {
        let (extras, pair) = (self.extras, parts.pair());
        let Some(tensor) = pair.map(|(a, _)| a).or_else(|| parts.get(Role::Weight)) else {
            return Ok(());
        };
        let biased = self.has_bias(module) == Some(true);
        let missing = match pair {
            Some(_) if extras.dora && !parts.has(Role::Magnitude) => "lora_magnitude_vector",
            Some(_) if extras.lora_bias && !parts.has(Role::BBias) => "lora_B.bias",
            Some(_) if extras.bias != Biases::None && biased && !parts.has(Role::TargetBias) => {
                "base_layer.bias"
            }
            None if biased && !parts.has(Role::Bias) => "bias",
            _ => return Ok(()),
        };
        Err(incomplete(tensor, missing))
    }
}

fn incomplete(tensor: Named<'_>, missing: &str) -> AdapterError {
    AdapterError::invalid(format!(
        "tensor {tensor} has no {missing} beside it, which adapter_config.json and the model ask for: the file is \
         incomplete, save or upload it again"
    ))
}

fn belongs(role: Role, module: Module) -> bool {
    use Role::{
        A, B, BBias, BaseWeight, Bias, EmbeddingA, EmbeddingB, Magnitude, OriginalBias, SavedBias,
        TargetBias, TokenRows,
    };
    match module {
        Module::Linear(Site::Head) => !matches!(role, EmbeddingA | EmbeddingB),
        Module::Linear(_) | Module::Pooler => !matches!(role, EmbeddingA | EmbeddingB | TokenRows),
        Module::Classifier => !matches!(role, EmbeddingA | EmbeddingB | TokenRows | BaseWeight),
        Module::Embedding => {
            !matches!(role, A | B | BBias | Bias | TargetBias | SavedBias | OriginalBias)
        }
        Module::Norm(_) => !matches!(
            role,
            A | B
                | BBias
                | EmbeddingA
                | EmbeddingB
                | Magnitude
                | TokenRows
                | BaseWeight
                | TargetBias
        ),
    }
}

//! What an adapter was trained for: `task_type`.
use super::module::Module;
use crate::{
    adapter::{AdapterError, format::tensors::shown},
    lora::{HeadKind, LoraLayout, ModuleNames, NormSite, Site},
};
use serde_json::Value;

/// The task types that are served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Task {
    /// None given.
    Unsaid,
    /// `CAUSAL_LM`
    Generate,
    /// `FEATURE_EXTRACTION`
    Embed,
    /// `SEQ_CLS` and `TOKEN_CLS`
    Classify(HeadKind),
}

const NAMED: [(&str, Task); 4] = [
    ("CAUSAL_LM", Task::Generate),
    ("FEATURE_EXTRACTION", Task::Embed),
    ("SEQ_CLS", Task::Classify(HeadKind::Sequence)),
    ("TOKEN_CLS", Task::Classify(HeadKind::Token)),
];

/// What PEFT calls the task of a head.
pub(super) fn task_type(kind: HeadKind) -> &'static str {
    match kind {
        HeadKind::Sequence => "SEQ_CLS",
        HeadKind::Token => "TOKEN_CLS",
    }
}

impl Task {
    /// # Errors
    /// When it is another.
    pub(super) fn read(value: &Value) -> Result<Self, AdapterError> {
        if value.is_null() {
            return Ok(Self::Unsaid);
        }
        let named = NAMED.iter().find(|(name, _)| value == name);
        named.map(|(_, task)| *task).ok_or_else(|| {
            let served: Vec<_> = NAMED.iter().map(|(name, _)| *name).collect();
            AdapterError::unsupported(format!(
                "adapter_config.json has `task_type` = {}: adapters of {} are served",
                shown(value),
                served.join(", ")
            ))
        })
    }

    /// As PEFT writes it.
    pub(super) fn name(self) -> Option<&'static str> {
        NAMED.iter().find(|(_, task)| *task == self).map(|(name, _)| *name)
    }

    /// # Errors
    /// When the model cannot do it.
    pub(super) fn check(self, layout: &LoraLayout) -> Result<(), AdapterError> {
        let problem = match (self, layout.class_head()) {
            (Self::Generate, _) if !layout.generates() => {
                "the model that is served reads texts and does not continue them: train an adapter of \
                 FEATURE_EXTRACTION, SEQ_CLS or TOKEN_CLS on it, or serve this one on the model that it was made for"
            }
            (Self::Classify(_), None) => {
                "the model that is served takes no classification heads: serve the adapter on the model that it was \
                 made for"
            }
            (Self::Classify(kind), Some(head)) if !head.kinds.contains(&kind) => match kind {
                HeadKind::Token => {
                    "the model that is served labels whole texts (SEQ_CLS), not tokens: label tokens with an encoder"
                }
                HeadKind::Sequence => {
                    "the model that is served labels tokens (TOKEN_CLS), not whole texts"
                }
            },
            _ => return Ok(()),
        };
        let name = self.name().unwrap_or_default();
        Err(AdapterError::unsupported(format!(
            "adapter_config.json has `task_type` = `\"{name}\"`, and {problem}"
        )))
    }

    /// Whether a model for this task has the module.
    pub(super) fn has(self, module: Module, names: ModuleNames) -> bool {
        use HeadKind::{Sequence, Token};
        let unsaid = self == Self::Unsaid;
        let labels = |kinds: &[HeadKind]| {
            unsaid || matches!(self, Self::Classify(kind) if kinds.contains(&kind))
        };
        match module {
            Module::HEAD => unsaid || self == Self::Generate,
            Module::Linear(Site::HeadDense) => match names {
                ModuleNames::Bert => self == Self::Embed || labels(&[Sequence]),
                ModuleNames::ModernBert => labels(&[Sequence, Token]),
                _ => labels(&[Sequence]),
            },
            Module::Norm(NormSite::Head) | Module::Classifier => labels(&[Sequence, Token]),
            Module::Pooler => unsaid || self == Self::Embed,
            Module::Linear(_) | Module::Embedding | Module::Norm(_) => true,
        }
    }

    /// Whether an adapter that selects the module must have something for it.
    pub(super) fn needs(self, module: Module, names: ModuleNames) -> bool {
        let of_heads = matches!(
            module,
            Module::Linear(Site::HeadDense) | Module::Norm(NormSite::Head) | Module::Classifier
        );
        self.has(module, names) && (!of_heads || matches!(self, Self::Classify(_)))
    }

    /// Whether its adapters are saved from a model without a head, whose modules stand below no prefix.
    pub(super) fn may_be_bare(self, names: ModuleNames, layout: Option<&LoraLayout>) -> bool {
        let generates = layout.is_none_or(LoraLayout::generates);
        match self {
            Self::Embed => true,
            Self::Unsaid => names != ModuleNames::Decoder || !generates,
            Self::Generate | Self::Classify(_) => false,
        }
    }
}

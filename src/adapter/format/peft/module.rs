//! What a path in the `transformers` model names.
use crate::lora::{EmbeddingShape, LoraLayout, NormSite, Projection, Site};
use std::fmt;

/// A module that an adapter may change. `Display` is its path, which configs and tensor names are written in.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Module {
    Linear(Site),
    Embedding,
    Norm(NormSite),
}

impl Module {
    pub(super) const HEAD: Self = Self::Linear(Site::Head);

    /// The module at `path`, whether or not some model has it.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let module = match path {
            EmbeddingShape::PATH => Self::Embedding,
            "lm_head" => Self::HEAD,
            "model.norm" => Self::Norm(NormSite::Final),
            _ => Self::in_block(path)?,
        };
        // Rules out spellings such as `+1` and `01`, which would name a layer twice.
        (module.to_string() == path).then_some(module)
    }

    fn in_block(path: &str) -> Option<Self> {
        let (layer, role) = path.strip_prefix("model.layers.")?.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        if let Some(projection) = Projection::ALL.into_iter().find(|p| p.module_path() == role) {
            return Some(Self::Linear(Site::block(layer, projection)));
        }
        let norms = [NormSite::Attention, NormSite::Query, NormSite::Key, NormSite::Mlp];
        let mut norms = norms.into_iter().map(|norm| Self::Norm(norm(layer)));
        norms.find(|norm| norm.to_string() == path)
    }

    /// Whether the model has it, as a layer of its own or as part of a fused one.
    pub(super) fn is_in(self, layout: &LoraLayout) -> bool {
        match self {
            Self::Linear(site) => layout.shape(site).is_some(),
            Self::Embedding => layout.embedding().is_some(),
            Self::Norm(norm) => layout.norm(norm).is_some(),
        }
    }

    /// Everything the model has under its own names.
    pub(super) fn all(layout: &LoraLayout) -> impl Iterator<Item = Self> + '_ {
        let linear = layout.sites().map(|(site, _)| Self::Linear(site));
        let embedding = layout.embedding().map(|_| Self::Embedding);
        linear.chain(embedding).chain(layout.norms().map(|(norm, _)| Self::Norm(norm)))
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear(site) => site.fmt(f),
            Self::Embedding => f.write_str(EmbeddingShape::PATH),
            Self::Norm(norm) => norm.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_is_found_by_its_path() {
        let linear = Projection::ALL.map(|p| Module::Linear(Site::block(12, p)));
        let norms = [NormSite::Attention(3), NormSite::Query(0), NormSite::Key(1)];
        let norms = norms.into_iter().chain([NormSite::Mlp(7), NormSite::Final]).map(Module::Norm);
        for module in linear.into_iter().chain(norms).chain([Module::HEAD, Module::Embedding]) {
            assert_eq!(Module::parse(&module.to_string()), Some(module));
        }
    }

    #[test]
    fn other_paths_name_nothing() {
        for path in [
            "model.layers.01.mlp.up_proj",
            "model.layers.+1.mlp.up_proj",
            "layers.1.mlp.up_proj",
            "transformer.h.0.attn.c_attn",
            "model.layers.1.mlp",
            "score",
            "",
        ] {
            assert_eq!(Module::parse(path), None, "{path}");
        }
    }
}

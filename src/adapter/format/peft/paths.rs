//! What the modules of a model are called in a file: by the names of its family, with or without what they stand below.
use super::{module::Module, task::Task};
use crate::lora::{HeadKind, LoraLayout, ModuleNames, NormSite, Projection, Site};

/// How one file spells paths. Configs and tensor names are written in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Paths {
    pub(super) names: ModuleNames,
    /// The file was saved from a model without a head: `encoder.layer.0…` instead of `bert.encoder.layer.0…`.
    pub(super) bare: bool,
    /// What the head, if any, gives labels to.
    pub(super) kind: HeadKind,
}

impl Default for Paths {
    fn default() -> Self {
        Self { names: ModuleNames::Decoder, bare: false, kind: HeadKind::Sequence }
    }
}

impl Paths {
    /// The spelling that most of these paths are of; without a layout every family's is tried.
    pub(super) fn find(paths: &[&str], layout: Option<&LoraLayout>, task: Task) -> Self {
        let families = layout.map_or(ModuleNames::ALL.to_vec(), |layout| vec![layout.names()]);
        let kinds = match task {
            Task::Classify(kind) => vec![kind],
            _ => vec![HeadKind::Sequence, HeadKind::Token],
        };
        let mut best = (0, Self { names: families[0], bare: false, kind: kinds[0] });
        for names in families {
            for (bare, kind) in
                [false, true].into_iter().flat_map(|b| kinds.iter().map(move |k| (b, *k)))
            {
                let spelling = Self { names, bare, kind };
                let known = paths.iter().filter(|path| spelling.parse(path).is_some()).count();
                if known > best.0 {
                    best = (known, spelling);
                }
            }
        }
        best.1
    }

    /// The path of a module.
    pub(super) fn of(self, module: Module) -> String {
        let names = self.names;
        let whole = match module {
            Module::Linear(site) => names.linear(site).unwrap_or_else(|| site.to_string()),
            Module::Embedding => names.embedding().to_owned(),
            Module::Norm(norm) => names.norm(norm).unwrap_or_else(|| norm.to_string()),
            Module::Classifier => names.classifier(self.kind).to_owned(),
            Module::Pooler => format!("{}pooler.dense", names.prefix()),
        };
        match whole.strip_prefix(names.prefix()) {
            Some(rest) if self.bare => rest.to_owned(),
            _ => whole,
        }
    }

    /// The module at `path`, whether or not some model has it.
    pub(super) fn parse(self, path: &str) -> Option<Module> {
        let outside = [
            Module::Embedding,
            Module::HEAD,
            Module::HEAD_DENSE,
            Module::Classifier,
            Module::Pooler,
            Module::Norm(NormSite::Embedding),
            Module::Norm(NormSite::Final),
            Module::Norm(NormSite::Head),
        ];
        let mut known = outside.into_iter().filter(|module| self.has(*module));
        known.find(|module| self.of(*module) == path).or_else(|| self.in_block(path))
    }

    /// Whether the family has the module.
    fn has(self, module: Module) -> bool {
        match module {
            Module::Linear(site) => self.names.linear(site).is_some(),
            Module::Norm(norm) => self.names.norm(norm).is_some(),
            Module::Pooler => self.names == ModuleNames::Roberta,
            Module::Embedding | Module::Classifier => true,
        }
    }

    fn in_block(self, path: &str) -> Option<Module> {
        let names = self.names;
        let rest = if self.bare { path } else { path.strip_prefix(names.prefix())? };
        let (number, role) = rest.strip_prefix(names.blocks())?.split_once('.')?;
        let layer: usize = number.parse().ok()?;
        // Rules out spellings such as `+1` and `01`, which would name a layer twice.
        if layer.to_string() != number {
            return None;
        }
        if let Some(found) =
            Projection::ALL.into_iter().find(|p| names.projection(*p) == Some(role))
        {
            return Some(Module::Linear(Site::block(layer, found)));
        }
        let norms = [NormSite::Attention, NormSite::Query, NormSite::Key, NormSite::Mlp];
        let mut norms = norms.into_iter().map(|norm| Module::Norm(norm(layer)));
        norms.find(|norm| self.has(*norm) && self.of(*norm) == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spellings() -> impl Iterator<Item = Paths> {
        let both = [HeadKind::Sequence, HeadKind::Token];
        let all =
            ModuleNames::ALL.into_iter().flat_map(move |names| both.map(|kind| (names, kind)));
        all.flat_map(|(names, kind)| [false, true].map(|bare| Paths { names, bare, kind }))
    }

    #[test]
    fn every_module_of_every_family_is_found_by_its_path() {
        for paths in spellings() {
            let linear = Projection::ALL.map(|p| Module::Linear(Site::block(12, p)));
            let norms = [NormSite::Attention(3), NormSite::Query(0), NormSite::Key(1)];
            let norms = norms.into_iter().chain([NormSite::Mlp(7), NormSite::Final]);
            let norms = norms.chain([NormSite::Embedding, NormSite::Head]).map(Module::Norm);
            let outside = [Module::HEAD, Module::HEAD_DENSE, Module::Embedding, Module::Classifier];
            let all = linear.into_iter().chain(norms).chain(outside).chain([Module::Pooler]);
            let mut found = 0;
            for module in all.filter(|module| match module {
                Module::Linear(site) => paths.names.linear(*site).is_some(),
                module => paths.has(*module),
            }) {
                assert_eq!(paths.parse(&paths.of(module)), Some(module), "{paths:?}");
                found += 1;
            }
            assert!(found > 8, "{paths:?}");
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
            "",
        ] {
            assert_eq!(Paths::default().parse(path), None, "{path}");
        }
    }

    #[test]
    fn the_spelling_is_the_one_most_paths_are_of() {
        let of = |paths: &[&str], task| Paths::find(paths, None, task);
        let query = "encoder.layer.0.attention.self.query";
        assert_eq!(
            of(&[query], Task::Embed),
            Paths { names: ModuleNames::Bert, bare: true, kind: HeadKind::Sequence }
        );
        let bert = of(&["classifier", &format!("bert.{query}")], Task::Classify(HeadKind::Token));
        assert_eq!(bert, Paths { names: ModuleNames::Bert, bare: false, kind: HeadKind::Token });
        let roberta = of(&["classifier", &format!("roberta.{query}")], Task::Unsaid);
        assert_eq!((roberta.names, roberta.kind), (ModuleNames::Roberta, HeadKind::Token));
        let modern = of(&["model.layers.1.attn.Wqkv"], Task::Unsaid);
        assert_eq!(modern.names, ModuleNames::ModernBert);
        assert_eq!(of(&["score"], Task::Unsaid).names, ModuleNames::Decoder);
    }
}

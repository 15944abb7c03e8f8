//! Tensors, config and model must agree on every module, else the adapter is half an adapter.
use super::{
    config::LoraConfig,
    extras::Biases,
    keys::Role,
    module::{Module, lacks_dense},
    named::Named,
    parts::{Modules, Parts},
    roles::Roles,
    task::Task,
    tied,
};
use crate::{
    adapter::AdapterError,
    lora::{FrozenBase, HeadKind, LoraLayout, Projection, Site},
};

/// What tensors are checked against. Without a layout only against the config.
pub(super) struct Coverage<'a> {
    pub(super) config: &'a LoraConfig,
    pub(super) layout: Option<&'a LoraLayout>,
    pub(super) base: Option<&'a dyn FrozenBase>,
}

impl Coverage<'_> {
    /// # Errors
    /// When a tensor is on a module that the model does not have or the config does not select, does not go with what
    /// else is there, or when a module that the config selects has none.
    pub(super) fn check(&self, modules: &Modules<'_>) -> Result<(), AdapterError> {
        let Self { config, layout, base } = *self;
        let roles = Roles { extras: &config.extras, layout, base };
        for (module, parts) in modules {
            parts.check_whole()?;
            self.check_exists(*module, parts)?;
            self.check_selected(*module, parts)?;
            roles.check(*module, parts)?;
        }
        let Some(layout) = self.layout else { return Ok(()) };
        self.check_fused(modules)?;
        self.check_missing(modules, layout)
    }

    fn check_exists(&self, module: Module, parts: &Parts<'_>) -> Result<(), AdapterError> {
        let Some(tensor) = first(parts) else { return Ok(()) };
        let (task, path) = (self.config.task, self.path(module));
        if !task.has(module, self.config.paths.names) {
            let name = task.name().unwrap_or_default();
            return Err(AdapterError::invalid(format!(
                "tensor {tensor} is on {path}, which a model for {name} does not have; does `task_type` of \
                 adapter_config.json say what the adapter was trained for?"
            )));
        }
        let Some(layout) = self.layout.filter(|layout| !module.is_in(layout)) else {
            return Ok(());
        };
        let advice = match module {
            // Nothing that such an adapter is for is computed from it.
            Module::HEAD_DENSE if !matches!(task, Task::Classify(_)) => return Ok(()),
            Module::Linear(site) if is_fused(site, layout) => {
                "it computes the parts of that layer apart: give each its own rows of lora_B, beside the same lora_A"
                    .to_owned()
            }
            _ => format!(
                "(it has {} layers): was the adapter made for another base?",
                layout.layers()
            ),
        };
        Err(AdapterError::invalid(format!(
            "tensor {tensor} is on {path}, which the model does not have; {advice}"
        )))
    }

    fn path(&self, module: Module) -> String {
        self.config.path(module)
    }

    fn check_selected(&self, module: Module, parts: &Parts<'_>) -> Result<(), AdapterError> {
        match parts.pair() {
            Some((tensor, _)) if !self.selects(module)? => Err(AdapterError::invalid(format!(
                "tensor {tensor} is on a layer that adapter_config.json does not select: PEFT would not load it; do \
                 the two files belong together?"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the config puts a pair on the module. A module that is trained whole gets none.
    fn selects(&self, module: Module) -> Result<bool, AdapterError> {
        let (task, extras) = (self.config.task, &self.config.extras);
        let in_all = match module {
            Module::Norm(_) => return Ok(false),
            Module::Embedding | Module::HEAD => false,
            Module::Classifier => task != Task::Classify(HeadKind::Sequence),
            Module::Linear(_) | Module::Pooler => true,
        };
        let path = self.path(module);
        if self.config.targets.select(&path, in_all)? {
            return Ok(!extras.bars(&path));
        }
        let other = match module {
            Module::Embedding => Module::HEAD,
            Module::HEAD => Module::Embedding,
            _ => return Ok(false),
        };
        let other = self.path(other);
        let tied = self.layout.is_none() || tied::is_tied(task, self.layout);
        let tied = extras.ensure_tying && tied;
        Ok(tied && self.config.targets.select(&other, false)? && !extras.bars(&other))
    }

    fn check_missing(
        &self,
        modules: &Modules<'_>,
        layout: &LoraLayout,
    ) -> Result<(), AdapterError> {
        let (mut pairs, mut whole) = (Vec::new(), Vec::new());
        let names = layout.names();
        for module in Module::all(layout).filter(|module| self.config.task.needs(*module, names)) {
            let parts = modules.get(&module);
            if !has_pair(parts) && self.selects(module)? && !covered_by_parts(module, modules) {
                pairs.push(module);
            }
            let weight = parts.is_some_and(|parts| parts.has(Role::Weight));
            if !weight && self.saves(module) {
                whole.push(module);
            }
        }
        pairs.extend(self.missing_parts(modules, layout)?);
        whole.extend(self.missing_rows(modules));
        let biases = self.missing_biases(modules, layout);
        self.absent("selects", &pairs)?;
        self.absent("has in `modules_to_save` or `trainable_token_indices`", &whole)?;
        self.absent("has `bias` = \"all\" and so selects", &biases)?;
        self.check_dense(modules, layout)
    }

    /// Whether `modules_to_save` asks for the module. PEFT's list of every classifier has heads that the model lacks, and
    /// where a head is missing the base's own serves.
    fn saves(&self, module: Module) -> bool {
        let (path, extras) = (self.path(module), &self.config.extras);
        match module {
            Module::HEAD_DENSE => extras.saves_by_choice(&path),
            _ => extras.saves(&path),
        }
    }

    /// What comes before the head is the base's, or else the adapter's whole: a delta alone would be one of nothing.
    fn check_dense(&self, modules: &Modules<'_>, layout: &LoraLayout) -> Result<(), AdapterError> {
        let (names, task) = (layout.names(), self.config.task);
        if !lacks_dense(layout) || !task.needs(Module::HEAD_DENSE, names) {
            return Ok(());
        }
        let whole = |module| modules.get(&module).is_some_and(|parts| parts.has(Role::Weight));
        if whole(Module::HEAD_DENSE) {
            return Ok(());
        }
        let path = self.path(Module::HEAD_DENSE);
        let saved = path.strip_prefix(names.prefix()).unwrap_or(&path);
        let saved = saved.split('.').next().unwrap_or(saved);
        Err(AdapterError::invalid(format!(
            "adapter_config.json has `task_type` = `\"{}\"`, and the adapter has no `{path}.weight`, the layer before the \
             head, which this base has none of either: train the adapter with modules_to_save=[\"{saved}\", …], or serve \
             a base that has the layer",
            task.name().unwrap_or_default()
        )))
    }

    /// Parts of fused layers count once an adapter has any of them: other models have no such modules.
    fn missing_parts(
        &self,
        modules: &Modules<'_>,
        layout: &LoraLayout,
    ) -> Result<Vec<Module>, AdapterError> {
        let mut missing = Vec::new();
        let fused = fused_sites(layout);
        let parts_of = |site: Site, p: Projection| {
            let of_layer = move |part: &Projection| site.layer().map(|at| Site::block(at, *part));
            p.parts().iter().filter_map(of_layer).map(Module::Linear)
        };
        let any = fused.iter().any(|(site, projection)| {
            parts_of(*site, *projection).any(|part| has_pair(modules.get(&part)))
        });
        for (site, projection) in fused.into_iter().filter(|_| any) {
            if has_pair(modules.get(&Module::Linear(site))) {
                continue;
            }
            for part in parts_of(site, projection) {
                if !has_pair(modules.get(&part)) && self.selects(part)? {
                    missing.push(part);
                }
            }
        }
        Ok(missing)
    }

    fn missing_rows(&self, modules: &Modules<'_>) -> impl Iterator<Item = Module> {
        let lacks = |module: &Module| {
            let parts = modules.get(module);
            let tokens = self.config.extras.tokens_of(&self.path(*module));
            tokens.is_some() && !parts.is_some_and(|parts| parts.has(Role::TokenRows))
        };
        let has = |module: &Module| self.config.task.has(*module, self.config.paths.names);
        [Module::Embedding, Module::HEAD]
            .into_iter()
            .filter(has)
            .filter(lacks)
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn missing_biases(&self, modules: &Modules<'_>, layout: &LoraLayout) -> Vec<Module> {
        let (Some(base), Biases::All) = (self.base, self.config.extras.bias) else {
            return Vec::new();
        };
        let biased = layout.sites().filter(|(site, _)| base.bias(*site).is_some());
        let norms = layout.norms().filter(|_| layout.norms_have_biases());
        let linear = biased.map(|(site, _)| Module::Linear(site));
        let lacks = |module: &Module| {
            let has = |parts: &Parts<'_>| parts.has(Role::Bias) || parts.has(Role::TargetBias);
            !modules.get(module).is_some_and(has)
        };
        let needed = |module: &Module| self.config.task.needs(*module, layout.names());
        let all = linear.chain(norms.map(|(norm, _)| Module::Norm(norm)));
        all.filter(needed).filter(lacks).collect()
    }

    fn absent(&self, selects: &str, missing: &[Module]) -> Result<(), AdapterError> {
        if missing.is_empty() {
            return Ok(());
        }
        let first: Vec<_> = missing.iter().take(5).map(|module| self.path(*module)).collect();
        Err(AdapterError::invalid(format!(
            "adapter_config.json {selects} {} layers that have no tensors ({}{}): the file is incomplete, or the adapter \
             was made for another base",
            missing.len(),
            first.join(", "),
            if missing.len() > first.len() { ", …" } else { "" }
        )))
    }

    /// A fused layer and a part of it would change the same outputs twice.
    fn check_fused(&self, modules: &Modules<'_>) -> Result<(), AdapterError> {
        for module in modules.keys() {
            let Module::Linear(Site::Block { layer, projection }) = module else { continue };
            for part in projection.parts().iter().filter(|part| *part != projection) {
                let part = Module::Linear(Site::block(*layer, *part));
                if modules.contains_key(&part) {
                    let (whole, part) = (self.path(*module), self.path(part));
                    return Err(AdapterError::invalid(format!(
                        "the adapter has tensors on {whole} and on its part {part}: convert it to one of the two forms"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn first<'a>(parts: &Parts<'a>) -> Option<Named<'a>> {
    parts.iter().next().map(|(_, tensor)| tensor)
}

fn has_pair(parts: Option<&Parts<'_>>) -> bool {
    parts.is_some_and(|parts| parts.pair().is_some())
}

/// Whether the site is a fused layer, and the model has its parts as layers of their own.
fn is_fused(site: Site, layout: &LoraLayout) -> bool {
    let Site::Block { layer, projection } = site else { return false };
    let has = |part: &Projection| layout.shape(Site::block(layer, *part)).is_some();
    projection.parts().len() > 1 && projection.parts().iter().all(has)
}

fn fused_sites(layout: &LoraLayout) -> Vec<(Site, Projection)> {
    let fused = layout.sites().filter_map(|(site, _)| match site {
        Site::Block { projection, .. } if projection.parts().len() > 1 => Some((site, projection)),
        _ => None,
    });
    fused.collect()
}

fn covered_by_parts(module: Module, modules: &Modules<'_>) -> bool {
    let Module::Linear(Site::Block { layer, projection }) = module else { return false };
    let parts = projection.parts();
    let has = |part: &Projection| has_pair(modules.get(&Module::Linear(Site::block(layer, *part))));
    parts.len() > 1 && parts.iter().all(has)
}

//! The file's tensors by module.
use super::{
    keys::{self, Role},
    module::Module,
    named::Named,
    paths::Paths,
    task::Task,
};
use crate::{adapter::AdapterError, lora::LoraLayout};
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;

/// Everything the file has for one module.
#[derive(Debug, Default)]
pub(super) struct Parts<'a>(BTreeMap<Role, Named<'a>>);

/// The file, module by module.
pub(super) type Modules<'a> = BTreeMap<Module, Parts<'a>>;

/// The tensors by module, and how the file spells their paths.
///
/// # Errors
/// When a name is not one that PEFT writes, two names mean one tensor, or there is none.
pub(super) fn sort<'a>(
    tensors: &'a BTreeMap<String, TensorView<'a>>,
    layout: Option<&LoraLayout>,
    task: Task,
) -> Result<(Modules<'a>, Paths), AdapterError> {
    let split = |name: &'a String| keys::split(name);
    let names = tensors.keys().map(split).collect::<Result<Vec<_>, _>>()?;
    let found: Vec<&str> = names.iter().map(|(path, _)| path.as_ref()).collect();
    let paths = Paths::find(&found, layout, task);
    let mut modules = Modules::new();
    for ((name, view), (path, role)) in tensors.iter().zip(&names) {
        let module = paths.parse(path);
        let module = module.ok_or_else(|| keys::unknown_module(name, path, paths))?;
        if paths.bare && !task.may_be_bare(paths.names, layout) {
            return Err(keys::headless(name, paths));
        }
        let tensor = Named { name, view };
        if let Some(other) = modules.entry(module).or_default().put(*role, tensor) {
            return Err(AdapterError::invalid(format!(
                "tensors {other} and {tensor} are the same factor or weight: keep one"
            )));
        }
    }
    if modules.is_empty() {
        return Err(AdapterError::invalid("adapter_model.safetensors has no tensors"));
    }
    Ok((modules, paths))
}

impl<'a> Parts<'a> {
    /// Gives back what had the role before.
    pub(super) fn put(&mut self, role: Role, tensor: Named<'a>) -> Option<Named<'a>> {
        self.0.insert(role, tensor)
    }

    pub(super) fn get(&self, role: Role) -> Option<Named<'a>> {
        self.0.get(&role).copied()
    }

    pub(super) fn has(&self, role: Role) -> bool {
        self.0.contains_key(&role)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Role, Named<'a>)> + '_ {
        self.0.iter().map(|(role, tensor)| (*role, *tensor))
    }

    /// Both factors of the pair: of a linear layer, or of an embedding.
    pub(super) fn pair(&self) -> Option<(Named<'a>, Named<'a>)> {
        let linear = self.get(Role::A).zip(self.get(Role::B));
        linear.or_else(|| self.get(Role::EmbeddingA).zip(self.get(Role::EmbeddingB)))
    }

    /// # Errors
    /// When a factor has no other beside it.
    pub(super) fn check_whole(&self) -> Result<(), AdapterError> {
        for (role, other, missing) in [
            (Role::A, Role::B, "lora_B"),
            (Role::B, Role::A, "lora_A"),
            (Role::EmbeddingA, Role::EmbeddingB, "lora_embedding_B"),
            (Role::EmbeddingB, Role::EmbeddingA, "lora_embedding_A"),
        ] {
            if let (Some(tensor), false) = (self.get(role), self.has(other)) {
                return Err(AdapterError::invalid(format!(
                    "tensor {tensor} has no {missing} beside it: the file is incomplete, save or upload it again"
                )));
            }
        }
        Ok(())
    }

    /// Trained numbers: copies of the base and of other tensors aside.
    pub(super) fn parameters(&self) -> usize {
        use Role::{BaseWeight, OriginalBias, OriginalWeight, SavedBias, SavedWeight};
        let copies = [BaseWeight, OriginalBias, OriginalWeight, SavedBias, SavedWeight];
        let trained = self.iter().filter(|(role, _)| !copies.contains(role));
        trained.map(|(_, tensor)| tensor.len()).sum()
    }
}

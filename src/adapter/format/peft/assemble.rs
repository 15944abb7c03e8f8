//! Tensors + config + model → weights: every tensor used, every selected module complete, every shape right.
use super::{
    config::LoraConfig,
    copies,
    coverage::Coverage,
    embedding::Table,
    head::{self, Found},
    keys::Role,
    linear::Layer,
    module::{Module, lacks_dense},
    parts::{Modules, Parts},
    task::Task,
    tied,
};
use crate::{
    adapter::{
        AdapterError,
        format::{table::Fit, tensors::to_f32},
    },
    lora::{EmbeddingShape, Labels, LoraLayout, LoraWeights, NormSite, Site, SiteShape},
};

/// The weights, and what they score.
///
/// # Errors
/// When a tensor is of a wrong shape or not finite, tensors, config and model do not agree, or the base cannot be
/// read.
pub(super) fn assemble(
    config: &LoraConfig,
    mut modules: Modules<'_>,
    fit: Fit<'_>,
) -> Result<(LoraWeights, Option<Labels>), AdapterError> {
    let layout = fit.layout();
    layout.map_or(Ok(()), |layout| config.task.check(layout))?;
    tied::complete(&mut modules, config, layout)?;
    Coverage { config, layout, base: fit.base() }.check(&modules)?;
    let builder = Builder { config, fit };
    let mut weights = LoraWeights::default();
    let Found { labels, head } = head::read(config, &modules, fit)?;
    if let Some(head) = head {
        weights.set_class_head(head);
    }
    for (module, parts) in &modules {
        match module {
            _ if builder.is_idle(*module) => check_finite(parts)?,
            Module::Linear(site) => builder.linear(&mut weights, *site, parts)?,
            Module::Embedding => builder.embedding(&mut weights, parts)?,
            Module::Norm(norm) => builder.norm(&mut weights, *norm, parts)?,
            Module::Classifier | Module::Pooler => {}
        }
    }
    builder.activation(&mut weights)?;
    Ok((weights, labels))
}

struct Builder<'a> {
    config: &'a LoraConfig,
    fit: Fit<'a>,
}

impl Builder<'_> {
    /// Whether nothing that is served here is computed from the module: the pooler of an adapter that embeds, on a base
    /// without it.
    fn is_idle(&self, module: Module) -> bool {
        let absent =
            |layout: &LoraLayout| lacks_dense(layout) || layout.shape(Site::HeadDense).is_none();
        match module {
            Module::Pooler => true,
            Module::HEAD_DENSE if !matches!(self.config.task, Task::Classify(_)) => {
                self.fit.layout().is_some_and(absent)
            }
            _ => false,
        }
    }

    /// As the model has it; the layer before a head may be for the adapter to bring.
    fn shape(&self, site: Site) -> Option<SiteShape> {
        let layout = self.fit.layout()?;
        let wide = || layout.class_head().map(|head| head.in_features);
        let square = |wide| SiteShape { in_features: wide, out_features: wide };
        let brought = || wide().filter(|_| site == Site::HeadDense).map(square);
        layout.shape(site).or_else(brought)
    }

    fn linear(
        &self,
        weights: &mut LoraWeights,
        site: Site,
        parts: &Parts<'_>,
    ) -> Result<(), AdapterError> {
        let (layout, base) = (self.fit.layout(), self.fit.base());
        let tokens = tied::head_tokens(self.config, layout);
        let tokens = tokens.filter(|_| site == Site::Head);
        let shape = match self.shape(site) {
            Some(shape) => shape,
            None => Layer::shape_in_file(parts, tokens)?,
        };
        copies::check(Module::Linear(site), parts, shape, base)?;
        if changes(parts) {
            let layer = Layer { site, shape, parts, config: self.config, base, tokens };
            weights.set_site(site, layer.delta()?);
        }
        Ok(())
    }

    fn embedding(&self, weights: &mut LoraWeights, parts: &Parts<'_>) -> Result<(), AdapterError> {
        let base = self.fit.base();
        let known = self.fit.layout().and_then(LoraLayout::embedding);
        let tokens = self.config.extras.tokens_of(&self.config.path(Module::Embedding));
        let shape = known.map_or_else(
            || Table::shape_in_file(parts, tokens),
            |EmbeddingShape { vocab, hidden, .. }| Ok([vocab, hidden]),
        )?;
        let as_site = SiteShape { in_features: shape[1], out_features: shape[0] };
        copies::check(Module::Embedding, parts, as_site, base)?;
        if changes(parts) {
            weights.set_embedding(Table { shape, parts, config: self.config, base }.delta()?);
        }
        Ok(())
    }

    fn norm(
        &self,
        weights: &mut LoraWeights,
        norm: NormSite,
        parts: &Parts<'_>,
    ) -> Result<(), AdapterError> {
        let longest = parts.iter().map(|(_, tensor)| tensor.len()).max().unwrap_or(0);
        let len = self.fit.layout().and_then(|layout| layout.norm(norm)).unwrap_or(longest);
        let is_own = |role| matches!(role, Role::Weight | Role::Bias);
        let copies = parts.iter().filter(|(role, _)| !is_own(*role));
        copies.map(|(_, copy)| copy).try_for_each(|copy| copy.check(&[len], "[len]"))?;
        if let Some(weight) = parts.get(Role::Weight) {
            weights.set_norm(norm, weight.tensor(&[len], "[len]")?);
        }
        if let Some(bias) = parts.get(Role::Bias) {
            weights.set_norm_bias(norm, bias.tensor(&[len], "[len]")?);
        }
        Ok(())
    }

    fn activation(&self, weights: &mut LoraWeights) -> Result<(), AdapterError> {
        let tokens = &self.config.extras.invocation;
        if tokens.is_empty() {
            return Ok(());
        }
        let vocab = self.fit.layout().and_then(LoraLayout::embedding).map(|e| e.vocab);
        let beyond = |id: &&u32| vocab.is_some_and(|vocab| **id as usize >= vocab);
        if let Some(id) = tokens.iter().find(beyond) {
            return Err(AdapterError::invalid(format!(
                "adapter_config.json has token {id} in `alora_invocation_tokens`, and the model has {} tokens: was the \
                 adapter made for another base?",
                vocab.unwrap_or(0)
            )));
        }
        weights.set_invocation(tokens.as_slice());
        Ok(())
    }
}

fn check_finite(parts: &Parts<'_>) -> Result<(), AdapterError> {
    parts.iter().try_for_each(|(_, tensor)| to_f32(tensor.name, tensor.view).map(drop))
}

/// Whether anything but copies is there.
fn changes(parts: &Parts<'_>) -> bool {
    parts.parameters() > 0
}

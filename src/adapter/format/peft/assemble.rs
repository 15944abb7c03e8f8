//! Tensors + config + model → weights: every tensor used, every selected module complete, every shape right.
use super::{
    config::LoraConfig,
    copies,
    coverage::Coverage,
    embedding::Table,
    keys::Role,
    linear::Layer,
    module::Module,
    parts::{Modules, Parts},
    tied,
};
use crate::{
    adapter::{AdapterError, format::table::Fit},
    lora::{EmbeddingShape, LoraLayout, LoraWeights, NormSite, Site, SiteShape},
};

/// # Errors
/// When a tensor is of a wrong shape or not finite, tensors, config and model do not agree, or the base cannot be
/// read.
pub(super) fn assemble(
    config: &LoraConfig,
    mut modules: Modules<'_>,
    fit: Fit<'_>,
) -> Result<LoraWeights, AdapterError> {
    let layout = fit.layout();
    tied::complete(&mut modules, &config.extras, layout)?;
    Coverage { config, layout, base: fit.base() }.check(&modules)?;
    let builder = Builder { config, fit };
    let mut weights = LoraWeights::default();
    for (module, parts) in &modules {
        match module {
            Module::Linear(site) => builder.linear(&mut weights, *site, parts)?,
            Module::Embedding => builder.embedding(&mut weights, parts)?,
            Module::Norm(norm) => builder.norm(&mut weights, *norm, parts)?,
        }
    }
    builder.activation(&mut weights)?;
    Ok(weights)
}

struct Builder<'a> {
    config: &'a LoraConfig,
    fit: Fit<'a>,
}

impl Builder<'_> {
    fn linear(
        &self,
        weights: &mut LoraWeights,
        site: Site,
        parts: &Parts<'_>,
    ) -> Result<(), AdapterError> {
        let (layout, base) = (self.fit.layout(), self.fit.base());
        let tokens = tied::head_tokens(&self.config.extras, layout);
        let tokens = tokens.filter(|_| site == Site::Head);
        let shape = match layout.and_then(|layout| layout.shape(site)) {
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
        let tokens = self.config.extras.tokens_of(EmbeddingShape::PATH);
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
        let Some(weight) = parts.get(Role::Weight) else { return Ok(()) };
        let len = self.fit.layout().and_then(|layout| layout.norm(norm)).unwrap_or(weight.len());
        let copies = parts.iter().filter(|(role, _)| *role != Role::Weight);
        copies.map(|(_, copy)| copy).try_for_each(|copy| copy.check(&[len], "[len]"))?;
        weights.set_norm(norm, weight.tensor(&[len], "[len]")?);
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

/// Whether anything but copies is there.
fn changes(parts: &Parts<'_>) -> bool {
    parts.parameters() > 0
}

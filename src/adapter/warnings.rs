//! What the uploader of an adapter should know, though it can be served.
use super::{AdapterDescription, describe::linear};
use crate::lora::{LoraLayout, Site};

impl AdapterDescription {
    /// Everything odd about it, in words, beside a base called `base` with these layers.
    pub fn warnings(&self, base: &str, layout: &LoraLayout) -> Vec<String> {
        let found =
            [self.other_base(base), self.nothing_learnt(), self.gaps(layout), self.ignored()];
        found.into_iter().flatten().collect()
    }

    fn other_base(&self, base: &str) -> Option<String> {
        let trained = self.base_model.as_deref().filter(|_| self.base_matches == Some(false))?;
        let trained: String = trained.chars().take(100).collect();
        Some(format!(
            "adapter_config.json says that the adapter was trained on `{}`, and this is `{base}`: its shapes fit, its \
             answers may make no sense",
            trained.escape_debug()
        ))
    }

    fn nothing_learnt(&self) -> Option<String> {
        let zero: Vec<_> = self.projections.iter().filter(|row| row.delta_norm == 0.0).collect();
        let else_trained = self.biases > 0
            || self.dora
            || self.head.is_some()
            || !self.trained_modules.is_empty()
            || !self.trained_tokens.is_empty();
        if zero.is_empty() {
            return None;
        } else if zero.len() == self.projections.len() && !else_trained {
            return Some(
                "every delta is zero, so the adapter answers as the base does: was it saved before it was trained?"
                    .into(),
            );
        }
        let zero: Vec<_> = zero.iter().map(|row| row.module.as_ref()).collect();
        Some(format!("the deltas of {} are all zero", zero.join(", ")))
    }

    fn gaps(&self, layout: &LoraLayout) -> Option<String> {
        let blocks = |module: &str| {
            let same = |(site, _): &(Site, _)| linear(layout.names(), *site) == module;
            layout.sites().filter(same).count()
        };
        let rows = self.projections.iter().map(|row| (row, blocks(&row.module)));
        let gaps = rows.filter(|(row, all)| row.layers < *all);
        let gaps: Vec<_> =
            gaps.map(|(row, all)| format!("{} in {} of {all}", row.module, row.layers)).collect();
        (!gaps.is_empty())
            .then(|| format!("changes only some of the base's blocks: {}", gaps.join(", ")))
    }

    fn ignored(&self) -> Option<String> {
        let fields = self.ignored_fields.join(", ");
        (!fields.is_empty()).then(|| {
            format!("adapter_config.json has fields that are not known here, and ignored: {fields}")
        })
    }
}

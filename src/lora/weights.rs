//! One adapter in host memory, in the only form the hot path knows.
use super::{ClassHead, EmbeddingDelta, LinearDelta, NormSite, Site};
use candle_core::Tensor;
use std::{collections::BTreeMap, sync::Arc};

/// A whole adapter, checked against the model's layout: only what it changes, each site at its own rank.
#[derive(Clone, Debug, Default)]
pub struct LoraWeights {
    sites: BTreeMap<Site, LinearDelta<Tensor>>,
    embedding: Option<EmbeddingDelta<Tensor>>,
    /// `[len]` f32: the weights that take the place of the base's.
    norms: BTreeMap<NormSite, Tensor>,
    /// `[len]` f32: the biases that take the place of the base's.
    norm_biases: BTreeMap<NormSite, Tensor>,
    class_head: Option<ClassHead>,
    invocation: Option<Arc<[u32]>>,
}

impl LoraWeights {
    /// What happens at `site`.
    pub fn at(&self, site: Site) -> Option<&LinearDelta<Tensor>> {
        self.sites.get(&site)
    }

    /// Every linear layer the adapter changes.
    pub fn sites(&self) -> impl Iterator<Item = (Site, &LinearDelta<Tensor>)> {
        self.sites.iter().map(|(site, delta)| (*site, delta))
    }

    /// What happens at the embedding.
    pub fn embedding(&self) -> Option<&EmbeddingDelta<Tensor>> {
        self.embedding.as_ref()
    }

    /// Every norm whose weight the adapter replaces, and the new weight `[len]`, f32.
    pub fn norms(&self) -> impl Iterator<Item = (NormSite, &Tensor)> {
        self.norms.iter().map(|(norm, weight)| (*norm, weight))
    }

    /// Every norm whose bias the adapter replaces, and the new bias `[len]`, f32.
    pub fn norm_biases(&self) -> impl Iterator<Item = (NormSite, &Tensor)> {
        self.norm_biases.iter().map(|(norm, bias)| (*norm, bias))
    }

    /// The adapter's own classification head; `None` for one that continues texts or embeds them, and for one that keeps
    /// the base's.
    pub fn class_head(&self) -> Option<&ClassHead> {
        self.class_head.as_ref()
    }

    /// Activated LoRA: the adapter acts from the last occurrence of these tokens in a prompt on, and not at all in
    /// a prompt without them (Greenewald et al. 2025). `None`: it acts on every token.
    pub fn invocation(&self) -> Option<&[u32]> {
        self.invocation.as_deref()
    }

    /// Sets what happens at `site`.
    pub fn set_site(&mut self, site: Site, delta: LinearDelta<Tensor>) {
        self.sites.insert(site, delta);
    }

    /// Sets what happens at the embedding.
    pub fn set_embedding(&mut self, delta: EmbeddingDelta<Tensor>) {
        self.embedding = Some(delta);
    }

    /// Replaces a norm's weight by this one, `[len]` f32.
    pub fn set_norm(&mut self, norm: NormSite, weight: Tensor) {
        self.norms.insert(norm, weight);
    }

    /// Replaces a norm's bias by this one, `[len]` f32.
    pub fn set_norm_bias(&mut self, norm: NormSite, bias: Tensor) {
        self.norm_biases.insert(norm, bias);
    }

    /// Gives it a classification head of its own.
    pub fn set_class_head(&mut self, head: ClassHead) {
        self.class_head = Some(head);
    }

    /// Makes it an activated LoRA; `tokens` are not empty.
    pub fn set_invocation(&mut self, tokens: impl Into<Arc<[u32]>>) {
        self.invocation = Some(tokens.into());
    }

    /// How many linear layers it changes.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        let modules = self.sites.is_empty() && self.embedding.is_none() && self.norms.is_empty();
        modules && self.norm_biases.is_empty() && self.class_head.is_none()
    }

    /// Host bytes of everything.
    pub fn bytes(&self) -> usize {
        let sites = self.sites.values().map(LinearDelta::bytes).sum::<usize>();
        let embedding = self.embedding.as_ref().map_or(0, EmbeddingDelta::bytes);
        let norms = self.norms.values().chain(self.norm_biases.values());
        let norms = norms.map(|w| w.elem_count() * w.dtype().size_in_bytes());
        let head = self.class_head.as_ref().map_or(0, ClassHead::bytes);
        sites + embedding + norms.sum::<usize>() + head
    }
}

impl<D: Into<LinearDelta<Tensor>>> FromIterator<(Site, D)> for LoraWeights {
    fn from_iter<I: IntoIterator<Item = (Site, D)>>(sites: I) -> Self {
        let sites = sites.into_iter().map(|(site, delta)| (site, delta.into())).collect();
        Self { sites, ..Self::default() }
    }
}

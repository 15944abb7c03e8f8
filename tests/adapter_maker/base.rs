//! A frozen base in memory whose every weight can be computed by hand.
use super::{layout, values};
use lorad::{
    kernel::{KernelError, Result},
    lora::{
        ClassHead, EmbeddingShape, FrozenBase, LoraLayout, NormSite, Projection, Site, SiteShape,
    },
};
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// Tokens of every base made here.
pub(crate) const VOCAB: usize = 16;

/// Weights that depend on the site alone, and biases where a test puts them.
#[derive(Clone)]
pub(crate) struct MadeBase {
    pub(crate) layout: LoraLayout,
    pub(crate) biases: BTreeMap<Site, Vec<f32>>,
    pub(crate) head: Option<ClassHead>,
}

impl MadeBase {
    /// Without biases.
    pub(crate) fn new(layout: LoraLayout) -> Self {
        Self { layout, biases: BTreeMap::new(), head: None }
    }

    /// The weight of a layer, `[out, in]`; a tied head's is the embedding's.
    pub(crate) fn weight(&self, site: Site) -> Vec<f32> {
        let tied = self.layout.embedding().is_some_and(|embedding| embedding.tied);
        if site == Site::Head && tied {
            return self.embedding();
        }
        let SiteShape { in_features, out_features } = self.layout.shape(site).expect("a layer");
        let place = self.layout.sites().position(|(at, _)| at == site).unwrap_or(100);
        values(in_features * out_features, 1000 + place as u32)
    }

    /// `[vocab, hidden]`
    pub(crate) fn embedding(&self) -> Vec<f32> {
        let EmbeddingShape { vocab, hidden, .. } = self.layout.embedding().expect("an embedding");
        values(vocab * hidden, 999)
    }
}

impl FrozenBase for MadeBase {
    fn layout(&self) -> &LoraLayout {
        &self.layout
    }

    fn weight_rows(&self, site: Site, rows: Range<usize>) -> Result<Vec<f32>> {
        let missing =
            || KernelError::Mismatch { operation: "weight", detail: format!("no {site}") };
        let wide = self.layout.shape(site).ok_or_else(missing)?.in_features;
        Ok(self.weight(site)[rows.start * wide..rows.end * wide].to_vec())
    }

    fn embedding_rows(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let wide = self.layout.embedding().expect("an embedding").hidden;
        Ok(self.embedding()[rows.start * wide..rows.end * wide].to_vec())
    }

    fn bias(&self, site: Site) -> Option<&[f32]> {
        self.biases.get(&site).map(Vec::as_slice)
    }

    fn class_head(&self) -> Option<&ClassHead> {
        self.head.as_ref()
    }
}

/// What [`Maker::new`](super::Maker::new) makes adapters for.
pub(crate) fn small_layout() -> LoraLayout {
    whole(&layout(2, 8, 8, 4, 12), 2, 8, false)
}

/// A base of that layout.
pub(crate) fn small_base() -> Arc<dyn FrozenBase> {
    Arc::new(MadeBase::new(small_layout()))
}

/// Adds norms, the embedding and the head.
pub(crate) fn whole(blocks: &LoraLayout, layers: usize, hidden: usize, tied: bool) -> LoraLayout {
    let norms = (0..layers).flat_map(|at| [NormSite::Attention(at), NormSite::Mlp(at)]);
    let norms = norms.chain([NormSite::Final]).map(|norm| (norm, hidden));
    let parts: Vec<_> = Projection::SEPARATE
        .iter()
        .map(|p| Site::block(0, *p))
        .filter_map(|site| Some((site, blocks.shape(site)?)))
        .collect();
    let head = (Site::Head, SiteShape { in_features: hidden, out_features: VOCAB });
    let sites: LoraLayout = blocks.sites().chain([head]).collect();
    sites.with_parts(parts).with_norms(norms).with_embedding(EmbeddingShape {
        vocab: VOCAB,
        hidden,
        tied,
    })
}

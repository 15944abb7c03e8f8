//! What adapters may change, from a description alone.
use super::spec::{ArchSpec, Head, HeadNorm};
use crate::lora::{EmbeddingShape, HeadCounts, LoraLayout, NormSite, Projection, Site, SiteShape};

impl ArchSpec {
    /// Every linear layer, norm and table that adapters may change.
    pub(super) fn lora_layout(&self) -> LoraLayout {
        let (dims, attention) = (&self.dims, &self.attention);
        let head = SiteShape { in_features: dims.hidden, out_features: dims.vocab };
        let own = self.block_sites(self.projections.names());
        let embedding = EmbeddingShape {
            vocab: dims.vocab,
            hidden: dims.hidden,
            tied: self.head == Head::Tied,
        };
        let sites: LoraLayout = own.chain([(Site::Head, head)]).collect();
        sites
            .with_parts(self.block_sites(&Projection::SEPARATE))
            .with_norms(self.norms())
            .with_embedding(embedding)
            .with_heads(HeadCounts { query: attention.heads, key_value: attention.kv_heads })
    }

    fn block_sites(&self, names: &[Projection]) -> impl Iterator<Item = (Site, SiteShape)> {
        (0..self.dims.layers).flat_map(move |layer| {
            names.iter().map(move |&name| (Site::block(layer, name), self.shape(name)))
        })
    }

    fn shape(&self, projection: Projection) -> SiteShape {
        let (hidden, inner) = (self.dims.hidden, self.mlp.intermediate);
        let queries = self.attention.heads * self.attention.head_dim;
        let keys = self.attention.kv_heads * self.attention.head_dim;
        let (in_features, out_features) = match projection {
            Projection::Q => (hidden, queries),
            Projection::K | Projection::V => (hidden, keys),
            Projection::Qkv => (hidden, queries + 2 * keys),
            Projection::O => (queries, hidden),
            Projection::Gate | Projection::Up => (hidden, inner),
            Projection::GateUp => (hidden, 2 * inner),
            Projection::Down => (inner, hidden),
        };
        SiteShape { in_features, out_features }
    }

    fn norms(&self) -> impl Iterator<Item = (NormSite, usize)> {
        let (hidden, head_dim) = (self.dims.hidden, self.attention.head_dim);
        let of_heads = self.attention.head_norm == HeadNorm::Rms;
        let blocks = (0..self.dims.layers).flat_map(move |layer| {
            let always = [(NormSite::Attention(layer), hidden), (NormSite::Mlp(layer), hidden)];
            let heads = [(NormSite::Query(layer), head_dim), (NormSite::Key(layer), head_dim)];
            always.into_iter().chain(heads.into_iter().filter(move |_| of_heads))
        });
        blocks.chain([(NormSite::Final, hidden)])
    }
}

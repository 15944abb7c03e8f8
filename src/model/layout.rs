//! What adapters may change, from a description alone.
use super::spec::{
    AfterDense, ArchSpec, AttentionSpec, Dims, EncoderSpec, Head, HeadNorm, MlpSpec, NormOrder,
    Spec,
};
use crate::lora::{
    ClassHeadShape, EmbeddingShape, HeadCounts, HeadKind, LoraLayout, ModuleNames, NormSite,
    Projection, Site, SiteShape,
};

impl Spec {
    /// What its tensors are called.
    pub(super) fn names(&self) -> ModuleNames {
        match self {
            Self::Decoder(_) => ModuleNames::Decoder,
            Self::Encoder(spec) => spec.names,
        }
    }

    /// Every linear layer, norm, table and head that adapters may change. `has_dense` says whether the checkpoint has the
    /// layer before an encoder's head.
    pub(super) fn lora_layout(&self, has_dense: bool) -> LoraLayout {
        match self {
            Self::Decoder(spec) => spec.lora_layout(),
            Self::Encoder(spec) => spec.lora_layout(has_dense),
        }
    }
}

impl ArchSpec {
    /// As [`Spec::lora_layout`].
    pub(super) fn lora_layout(&self) -> LoraLayout {
        let blocks = Blocks { dims: &self.dims, attention: &self.attention, mlp: &self.mlp };
        let head = SiteShape { in_features: self.dims.hidden, out_features: self.dims.vocab };
        let own = blocks.sites(self.projections.names());
        let head = (self.head != Head::None).then_some((Site::Head, head));
        let class_head = ClassHeadShape {
            in_features: self.dims.hidden,
            biased: false,
            kinds: &[HeadKind::Sequence],
            base: self.labels.clone(),
            has_dense: true,
        };
        let sites: LoraLayout = own.chain(head).collect();
        sites
            .with_parts(blocks.sites(&Projection::SEPARATE))
            .with_norms(self.norms())
            .with_embedding(blocks.embedding(self.head == Head::Tied))
            .with_heads(blocks.heads())
            .with_class_head(class_head)
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

impl EncoderSpec {
    /// As [`Spec::lora_layout`].
    pub(super) fn lora_layout(&self, has_dense: bool) -> LoraLayout {
        let blocks = Blocks { dims: &self.dims, attention: &self.attention, mlp: &self.mlp };
        let hidden = self.dims.hidden;
        let dense = SiteShape { in_features: hidden, out_features: hidden };
        let class_head = ClassHeadShape {
            in_features: hidden,
            biased: true,
            kinds: &[HeadKind::Sequence, HeadKind::Token],
            base: self.labels.clone(),
            has_dense,
        };
        let sites: LoraLayout =
            blocks.sites(self.block_projections()).chain([(Site::HeadDense, dense)]).collect();
        let layout = sites
            .with_names(self.names)
            .with_parts(blocks.sites(self.block_parts()))
            .with_norms(self.norm_sites().map(|norm| (norm, hidden)))
            .with_embedding(blocks.embedding(false))
            .with_heads(blocks.heads())
            .with_class_head(class_head);
        if self.norms.bias.is_some() { layout.with_norm_biases() } else { layout }
    }

    /// The linear layers of a block.
    fn block_projections(&self) -> &'static [Projection] {
        if self.is_gated() { self.projections.names() } else { self.block_parts() }
    }

    /// The same, each by itself.
    fn block_parts(&self) -> &'static [Projection] {
        use Projection::{Down, K, O, Q, Up, V};
        if self.is_gated() { &Projection::SEPARATE } else { &[Q, K, V, O, Up, Down] }
    }

    /// Every norm there is.
    fn norm_sites(&self) -> impl Iterator<Item = NormSite> {
        let before = self.norms.order == NormOrder::Before;
        let head = self.class_head.after == AfterDense::Norm;
        let blocks = (0..self.dims.layers).flat_map(move |layer| {
            let attention = (!before || layer > 0).then_some(NormSite::Attention(layer));
            attention.into_iter().chain([NormSite::Mlp(layer)])
        });
        [NormSite::Embedding]
            .into_iter()
            .chain(blocks)
            .chain(before.then_some(NormSite::Final))
            .chain(head.then_some(NormSite::Head))
    }
}

/// What the sizes of a block's layers follow from.
struct Blocks<'a> {
    dims: &'a Dims,
    attention: &'a AttentionSpec,
    mlp: &'a MlpSpec,
}

impl Blocks<'_> {
    fn sites(&self, names: &'static [Projection]) -> impl Iterator<Item = (Site, SiteShape)> {
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

    fn embedding(&self, tied: bool) -> EmbeddingShape {
        EmbeddingShape { vocab: self.dims.vocab, hidden: self.dims.hidden, tied }
    }

    fn heads(&self) -> HeadCounts {
        HeadCounts { query: self.attention.heads, key_value: self.attention.kv_heads }
    }
}

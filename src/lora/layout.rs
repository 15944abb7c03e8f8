//! What of a model an adapter may change: linear layers, the embedding, norms.
use super::{ClassHeadShape, ModuleNames};
use std::{collections::BTreeMap, fmt};

/// A linear layer inside a decoder block, by its role.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Projection {
    /// Attention queries.
    Q,
    /// Attention keys.
    K,
    /// Attention values.
    V,
    /// Queries, keys and values as one layer (Phi-3).
    Qkv,
    /// Attention output.
    O,
    /// MLP gate.
    Gate,
    /// MLP up.
    Up,
    /// Gate and up as one layer (Phi-3).
    GateUp,
    /// MLP down.
    Down,
}

impl Projection {
    /// Those of a block that computes each by itself, in its order.
    pub const SEPARATE: [Self; 7] =
        [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// Those of a block that computes the ones with a common input as one.
    pub const FUSED: [Self; 4] = [Self::Qkv, Self::O, Self::GateUp, Self::Down];

    /// Every name a layer can have.
    pub const ALL: [Self; 9] = [
        Self::Q,
        Self::K,
        Self::V,
        Self::Qkv,
        Self::O,
        Self::Gate,
        Self::Up,
        Self::GateUp,
        Self::Down,
    ];

    /// The module's path inside a block in `transformers`.
    pub fn module_path(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::Qkv => "self_attn.qkv_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::GateUp => "mlp.gate_up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// The layers whose outputs stand side by side in this one's; itself where it is not fused.
    pub fn parts(self) -> &'static [Self] {
        match self {
            Self::Qkv => &[Self::Q, Self::K, Self::V],
            Self::GateUp => &[Self::Gate, Self::Up],
            Self::Q => &[Self::Q],
            Self::K => &[Self::K],
            Self::V => &[Self::V],
            Self::O => &[Self::O],
            Self::Gate => &[Self::Gate],
            Self::Up => &[Self::Up],
            Self::Down => &[Self::Down],
        }
    }
}

/// One linear layer of the model. `Display` is its path in the `transformers` model.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Site {
    /// Inside a decoder block.
    Block {
        /// Decoder block, from 0.
        layer: usize,
        /// Which linear in the block.
        projection: Projection,
    },
    /// The output head, `lm_head`.
    Head,
    /// The layer between a text's hidden state and the classifier, `[hidden, hidden]` (encoders): BERT's pooler,
    /// `DistilBERT`'s `pre_classifier`.
    HeadDense,
}

impl Site {
    /// The site of `projection` in block `layer`.
    pub const fn block(layer: usize, projection: Projection) -> Self {
        Self::Block { layer, projection }
    }

    /// Its decoder block.
    pub fn layer(self) -> Option<usize> {
        match self {
            Self::Block { layer, .. } => Some(layer),
            Self::Head | Self::HeadDense => None,
        }
    }

    /// What it is in every block: `self_attn.q_proj`, or `lm_head`.
    pub fn module_path(self) -> &'static str {
        match self {
            Self::Block { projection, .. } => projection.module_path(),
            Self::Head => "lm_head",
            Self::HeadDense => "head.dense",
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block { layer, projection } => {
                write!(f, "model.layers.{layer}.{}", projection.module_path())
            }
            Self::Head | Self::HeadDense => f.write_str(self.module_path()),
        }
    }
}

/// One norm of the model. `Display` is its path in the `transformers` model.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum NormSite {
    /// Before attention, in this block.
    Attention(usize),
    /// Over each query head, in this block (Qwen3).
    Query(usize),
    /// Over each key head, in this block (Qwen3).
    Key(usize),
    /// Before the feed-forward half, in this block.
    Mlp(usize),
    /// Before the head.
    Final,
    /// After the embedding (encoders).
    Embedding,
    /// After [`Site::HeadDense`] (`ModernBERT`).
    Head,
}

impl NormSite {
    /// Its decoder block.
    pub fn layer(self) -> Option<usize> {
        match self {
            Self::Attention(layer) | Self::Query(layer) | Self::Key(layer) | Self::Mlp(layer) => {
                Some(layer)
            }
            Self::Final | Self::Embedding | Self::Head => None,
        }
    }

    /// What it is in every block: `input_layernorm`, or `model.norm`.
    pub fn module_path(self) -> &'static str {
        match self {
            Self::Attention(_) => "input_layernorm",
            Self::Query(_) => "self_attn.q_norm",
            Self::Key(_) => "self_attn.k_norm",
            Self::Mlp(_) => "post_attention_layernorm",
            Self::Final => "model.norm",
            Self::Embedding => "embeddings.norm",
            Self::Head => "head.norm",
        }
    }
}

impl fmt::Display for NormSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer() {
            Some(layer) => write!(f, "model.layers.{layer}.{}", self.module_path()),
            None => f.write_str(self.module_path()),
        }
    }
}

/// Size of a site's weight, `[out, in]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SiteShape {
    /// Columns.
    pub in_features: usize,
    /// Rows.
    pub out_features: usize,
}

/// Attention heads, which some formats interleave the rows of queries and keys by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeadCounts {
    /// Query heads.
    pub query: usize,
    /// Key/value heads.
    pub key_value: usize,
}

/// The token embedding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EmbeddingShape {
    /// Tokens.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Whether the head is the same table.
    pub tied: bool,
}

impl EmbeddingShape {
    /// The embedding's path in the `transformers` model.
    pub const PATH: &'static str = "model.embed_tokens";
}

/// Everything an adapter may change. Made by the model, read by adapter formats and slots.
#[derive(Clone, Debug, Default)]
pub struct LoraLayout {
    sites: BTreeMap<Site, SiteShape>,
    parts: BTreeMap<Site, SiteShape>,
    norms: BTreeMap<NormSite, usize>,
    embedding: Option<EmbeddingShape>,
    heads: Option<HeadCounts>,
    names: ModuleNames,
    class_head: Option<ClassHeadShape>,
    norms_have_biases: bool,
}

impl LoraLayout {
    /// Adds the layers that the base computes as part of a fused one; adapters may name them too.
    #[must_use]
    pub fn with_parts(mut self, parts: impl IntoIterator<Item = (Site, SiteShape)>) -> Self {
        self.parts.extend(parts);
        self
    }

    /// Adds norms and how long their weights are.
    #[must_use]
    pub fn with_norms(mut self, norms: impl IntoIterator<Item = (NormSite, usize)>) -> Self {
        self.norms.extend(norms);
        self
    }

    /// Adds the embedding.
    #[must_use]
    pub fn with_embedding(mut self, embedding: EmbeddingShape) -> Self {
        self.embedding = Some(embedding);
        self
    }

    /// Adds the number of attention heads.
    #[must_use]
    pub fn with_heads(mut self, heads: HeadCounts) -> Self {
        self.heads = Some(heads);
        self
    }

    /// Says what its modules are called; [`ModuleNames::Decoder`]'s unless said.
    #[must_use]
    pub fn with_names(mut self, names: ModuleNames) -> Self {
        self.names = names;
        self
    }

    /// Adds what classification heads are like.
    #[must_use]
    pub fn with_class_head(mut self, head: ClassHeadShape) -> Self {
        self.class_head = Some(head);
        self
    }

    /// Its norms have biases beside their weights.
    #[must_use]
    pub fn with_norm_biases(mut self) -> Self {
        self.norms_have_biases = true;
        self
    }

    /// What its modules are called.
    pub fn names(&self) -> ModuleNames {
        self.names
    }

    /// What classification heads are like; `None` where the model takes none.
    pub fn class_head(&self) -> Option<&ClassHeadShape> {
        self.class_head.as_ref()
    }

    /// Whether norms have biases.
    pub fn norms_have_biases(&self) -> bool {
        self.norms_have_biases
    }

    /// Whether the model continues texts: whether it has an output head.
    pub fn generates(&self) -> bool {
        self.sites.contains_key(&Site::Head)
    }

    /// The shape of `site`, a part of a fused layer included; `None` where the model has no such layer.
    pub fn shape(&self, site: Site) -> Option<SiteShape> {
        self.sites.get(&site).or_else(|| self.parts.get(&site)).copied()
    }

    /// Every linear layer under the base's own names and its shape: block by block, the head last.
    pub fn sites(&self) -> impl Iterator<Item = (Site, SiteShape)> + '_ {
        self.sites.iter().map(|(site, shape)| (*site, *shape))
    }

    /// The length of a norm's weight; `None` where the model has no such norm.
    pub fn norm(&self, norm: NormSite) -> Option<usize> {
        self.norms.get(&norm).copied()
    }

    /// Every norm and the length of its weight.
    pub fn norms(&self) -> impl Iterator<Item = (NormSite, usize)> + '_ {
        self.norms.iter().map(|(norm, len)| (*norm, *len))
    }

    /// The token embedding; `None` where nobody said.
    pub fn embedding(&self) -> Option<EmbeddingShape> {
        self.embedding
    }

    /// Attention heads; `None` where nobody said.
    pub fn heads(&self) -> Option<HeadCounts> {
        self.heads
    }

    /// Decoder blocks.
    pub fn layers(&self) -> usize {
        self.sites.keys().filter_map(|site| site.layer()).max().map_or(0, |last| last + 1)
    }
}

impl FromIterator<(Site, SiteShape)> for LoraLayout {
    fn from_iter<I: IntoIterator<Item = (Site, SiteShape)>>(sites: I) -> Self {
        Self { sites: sites.into_iter().collect(), ..Self::default() }
    }
}

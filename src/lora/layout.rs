//! Which linear layers of the model an adapter may change.
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
    /// Attention output.
    O,
    /// MLP gate.
    Gate,
    /// MLP up.
    Up,
    /// MLP down.
    Down,
}

impl Projection {
    /// Every projection, in the order a block computes them.
    pub const ALL: [Self; 7] =
        [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The module's path inside a block in `transformers`' Llama, Mistral and Qwen.
    pub fn module_path(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }
}

/// One linear layer of the model.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Site {
    /// Decoder block, from 0.
    pub layer: usize,
    /// Which linear in the block.
    pub projection: Projection,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layers.{}.{}", self.layer, self.projection.module_path())
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

/// Every site the model offers. Made by the model, read by adapter formats and slots.
#[derive(Clone, Debug, Default)]
pub struct LoraLayout {
    shapes: BTreeMap<Site, SiteShape>,
}

impl LoraLayout {
    /// The shape of `site`, or `None` where the model has no such layer.
    pub fn shape(&self, site: Site) -> Option<SiteShape> {
        self.shapes.get(&site).copied()
    }

    /// Every site and its shape, by layer.
    pub fn sites(&self) -> impl Iterator<Item = (Site, SiteShape)> + '_ {
        self.shapes.iter().map(|(site, shape)| (*site, *shape))
    }

    /// Decoder blocks.
    pub fn layers(&self) -> usize {
        self.shapes.keys().next_back().map_or(0, |site| site.layer + 1)
    }
}

impl FromIterator<(Site, SiteShape)> for LoraLayout {
    fn from_iter<I: IntoIterator<Item = (Site, SiteShape)>>(sites: I) -> Self {
        Self { shapes: sites.into_iter().collect() }
    }
}

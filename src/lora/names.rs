//! What families of `transformers` models call the modules that adapters may change.
use super::{HeadKind, NormSite, Projection, Site};

/// A family's names. Paths are those of the whole model with its head, as adapters are saved from it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum ModuleNames {
    /// Llama and its kin: `model.layers.0.self_attn.q_proj`.
    #[default]
    Decoder,
    /// `bert.encoder.layer.0.attention.self.query`
    Bert,
    /// BERT's below `roberta.`; the head has a dense layer of its own.
    Roberta,
    /// `distilbert.transformer.layer.0.attention.q_lin`
    DistilBert,
    /// `model.layers.0.attn.Wqkv`
    ModernBert,
}

impl ModuleNames {
    /// Every family.
    pub const ALL: [Self; 5] =
        [Self::Decoder, Self::Bert, Self::Roberta, Self::DistilBert, Self::ModernBert];

    /// What all but the head stands below. Checkpoints and adapters of the headless model do without.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Decoder | Self::ModernBert => "model.",
            Self::Bert => "bert.",
            Self::Roberta => "roberta.",
            Self::DistilBert => "distilbert.",
        }
    }

    /// Where its blocks are, below the prefix.
    pub fn blocks(self) -> &'static str {
        match self {
            Self::Decoder | Self::ModernBert => "layers.",
            Self::Bert | Self::Roberta => "encoder.layer.",
            Self::DistilBert => "transformer.layer.",
        }
    }

    /// A linear layer's path inside a block; `None` where the family has no module for it.
    pub fn projection(self, projection: Projection) -> Option<&'static str> {
        use Projection::{Down, Gate, GateUp, K, O, Q, Qkv, Up, V};
        match self {
            Self::Decoder => Some(projection.module_path()),
            Self::Bert | Self::Roberta => match projection {
                Q => Some("attention.self.query"),
                K => Some("attention.self.key"),
                V => Some("attention.self.value"),
                O => Some("attention.output.dense"),
                Up => Some("intermediate.dense"),
                Down => Some("output.dense"),
                Qkv | Gate | GateUp => None,
            },
            Self::DistilBert => match projection {
                Q => Some("attention.q_lin"),
                K => Some("attention.k_lin"),
                V => Some("attention.v_lin"),
                O => Some("attention.out_lin"),
                Up => Some("ffn.lin1"),
                Down => Some("ffn.lin2"),
                Qkv | Gate | GateUp => None,
            },
            Self::ModernBert => match projection {
                Qkv => Some("attn.Wqkv"),
                O => Some("attn.Wo"),
                GateUp => Some("mlp.Wi"),
                Down => Some("mlp.Wo"),
                Q | K | V | Gate | Up => None,
            },
        }
    }

    /// The path of a linear layer; `None` where the family has no module for it.
    pub fn linear(self, site: Site) -> Option<String> {
        let (prefix, blocks) = (self.prefix(), self.blocks());
        match site {
            Site::Block { layer, projection } => {
                Some(format!("{prefix}{blocks}{layer}.{}", self.projection(projection)?))
            }
            Site::Head => (self == Self::Decoder).then(|| "lm_head".to_owned()),
            Site::HeadDense => Some(match self {
                Self::Decoder => return None,
                Self::Bert => format!("{prefix}pooler.dense"),
                Self::Roberta => "classifier.dense".to_owned(),
                Self::DistilBert => "pre_classifier".to_owned(),
                Self::ModernBert => "head.dense".to_owned(),
            }),
        }
    }

    /// The path of a norm; `None` where the family has no module for it.
    pub fn norm(self, norm: NormSite) -> Option<String> {
        let (prefix, blocks) = (self.prefix(), self.blocks());
        let in_block = |layer: usize, name: &str| Some(format!("{prefix}{blocks}{layer}.{name}"));
        match (self, norm) {
            (Self::Decoder, NormSite::Embedding | NormSite::Head) => None,
            (Self::Decoder, norm) => Some(norm.to_string()),
            (Self::Bert | Self::Roberta, NormSite::Attention(layer)) => {
                in_block(layer, "attention.output.LayerNorm")
            }
            (Self::Bert | Self::Roberta, NormSite::Mlp(layer)) => {
                in_block(layer, "output.LayerNorm")
            }
            (Self::DistilBert, NormSite::Attention(layer)) => in_block(layer, "sa_layer_norm"),
            (Self::DistilBert, NormSite::Mlp(layer)) => in_block(layer, "output_layer_norm"),
            (Self::ModernBert, NormSite::Attention(layer)) => in_block(layer, "attn_norm"),
            (Self::ModernBert, NormSite::Mlp(layer)) => in_block(layer, "mlp_norm"),
            (Self::ModernBert, NormSite::Embedding) => Some(format!("{prefix}embeddings.norm")),
            (Self::ModernBert, NormSite::Final) => Some(format!("{prefix}final_norm")),
            (Self::ModernBert, NormSite::Head) => Some("head.norm".to_owned()),
            (_, NormSite::Embedding) => Some(format!("{prefix}embeddings.LayerNorm")),
            (_, NormSite::Final | NormSite::Head | NormSite::Query(_) | NormSite::Key(_)) => None,
        }
    }

    /// The path of the token embedding.
    pub fn embedding(self) -> &'static str {
        match self {
            Self::Decoder => super::EmbeddingShape::PATH,
            Self::Bert => "bert.embeddings.word_embeddings",
            Self::Roberta => "roberta.embeddings.word_embeddings",
            Self::DistilBert => "distilbert.embeddings.word_embeddings",
            Self::ModernBert => "model.embeddings.tok_embeddings",
        }
    }

    /// The path of the layer that scores labels.
    pub fn classifier(self, kind: HeadKind) -> &'static str {
        match (self, kind) {
            (Self::Decoder, _) => "score",
            (Self::Roberta, HeadKind::Sequence) => "classifier.out_proj",
            (Self::Bert | Self::Roberta | Self::DistilBert | Self::ModernBert, _) => "classifier",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_modules_of_a_family_have_one_path() {
        for names in ModuleNames::ALL {
            let linear = Projection::ALL.map(|projection| Site::block(3, projection));
            let linear = linear.into_iter().chain([Site::Head, Site::HeadDense]);
            let norms = [NormSite::Attention, NormSite::Query, NormSite::Key, NormSite::Mlp];
            let norms = norms.map(|norm| norm(3));
            let norms =
                norms.into_iter().chain([NormSite::Embedding, NormSite::Final, NormSite::Head]);
            let paths: Vec<_> = linear
                .filter_map(|site| names.linear(site))
                .chain(norms.filter_map(|norm| names.norm(norm)))
                .chain([names.embedding().to_owned()])
                .collect();
            assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len(), "{names:?}");
        }
    }

    #[test]
    fn a_decoders_names_are_what_sites_are_shown_as() {
        let site = Site::block(2, Projection::GateUp);
        assert_eq!(ModuleNames::Decoder.linear(site), Some(site.to_string()));
        assert_eq!(ModuleNames::Decoder.linear(Site::Head).as_deref(), Some("lm_head"));
        let norm = NormSite::Mlp(4);
        assert_eq!(ModuleNames::Decoder.norm(norm), Some(norm.to_string()));
    }
}

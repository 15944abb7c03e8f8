//! Encoders of every family, and adapters for them, in memory.
use super::made::{add_pair, named};
use crate::adapter_maker::{Maker, base::MadeBase, values};
use candle_core::{Device, Tensor};
use lorad::lora::{
    ClassHead, ClassHeadShape, EmbeddingShape, HeadKind, Labels, LoraLayout, ModuleNames, NormSite,
    Projection, Reading, Site, SiteShape,
};
use serde_json::json;

/// Layers, hidden, intermediate, vocabulary.
pub(crate) type Size = [usize; 4];

pub(crate) const SMALL: Size = [2, 8, 12, 16];

/// The layers of a family's block.
fn projections(names: ModuleNames) -> &'static [Projection] {
    use Projection::{Down, GateUp, K, O, Q, Qkv, Up, V};
    match names {
        ModuleNames::ModernBert => &[Qkv, O, GateUp, Down],
        _ => &[Q, K, V, O, Up, Down],
    }
}

fn shape(projection: Projection, [_, hidden, inner, _]: Size) -> SiteShape {
    let (in_features, out_features) = match projection {
        Projection::Qkv => (hidden, 3 * hidden),
        Projection::Up => (hidden, inner),
        Projection::GateUp => (hidden, 2 * inner),
        Projection::Down => (inner, hidden),
        _ => (hidden, hidden),
    };
    SiteShape { in_features, out_features }
}

fn norms(names: ModuleNames, layers: usize) -> Vec<NormSite> {
    let in_blocks = (0..layers).flat_map(|at| [NormSite::Attention(at), NormSite::Mlp(at)]);
    let all = in_blocks.chain([NormSite::Embedding, NormSite::Final, NormSite::Head]);
    all.filter(|norm| names.norm(*norm).is_some()).collect()
}

/// An encoder without a head of its own, with everything before a head.
pub(crate) fn encoder(names: ModuleNames, size: Size) -> MadeBase {
    let [layers, hidden, _, vocab] = size;
    let square = SiteShape { in_features: hidden, out_features: hidden };
    let blocks = (0..layers).flat_map(|layer| {
        projections(names).iter().map(move |p| (Site::block(layer, *p), shape(*p, size)))
    });
    let layout: LoraLayout = blocks.chain([(Site::HeadDense, square)]).collect();
    let layout = layout
        .with_norms(norms(names, layers).into_iter().map(|norm| (norm, hidden)))
        .with_embedding(EmbeddingShape { vocab, hidden, tied: false })
        .with_names(names)
        .with_class_head(ClassHeadShape {
            in_features: hidden,
            biased: true,
            kinds: &[HeadKind::Sequence, HeadKind::Token],
            base: None,
            has_dense: true,
        });
    let biased = names != ModuleNames::ModernBert;
    let mut base = MadeBase::new(if biased { layout.with_norm_biases() } else { layout });
    let sites: Vec<_> = base.layout.sites().filter(|_| biased).collect();
    for (seed, (site, shape)) in sites.into_iter().enumerate() {
        base.biases.insert(site, values(shape.out_features, 60 + seed as u32));
    }
    base
}

/// The same with a head of its own.
pub(crate) fn with_head(mut base: MadeBase, names: &[&str], kind: HeadKind) -> MadeBase {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let wide = base.layout.embedding().expect("an embedding").hidden;
    let labels = Labels { kind, names: names.into(), reading: Reading::OneOf };
    let count = labels.names.len();
    let head = base.layout.class_head().expect("heads").clone();
    let head = ClassHeadShape { base: Some(labels.clone()), ..head };
    base.layout = base.layout.with_class_head(head);
    let tensor = |values, shape: &[usize]| Tensor::from_vec(values, shape, &Device::Cpu);
    base.head = Some(ClassHead {
        labels,
        weight: tensor(values(count * wide, 70), &[count, wide]).expect("a weight"),
        bias: Some(tensor(values(count, 71), &[count]).expect("a bias")),
    });
    base
}

/// The same without the layer before a head.
pub(crate) fn without_dense(mut base: MadeBase) -> MadeBase {
    let head = base.layout.class_head().expect("heads").clone();
    base.layout = base.layout.with_class_head(ClassHeadShape { has_dense: false, ..head });
    base.biases.remove(&Site::HeadDense);
    base
}

/// An adapter without tensors.
pub(crate) fn adapter(task: Option<&str>, targets: &[&str]) -> Maker {
    let mut maker = Maker::new(1).with("task_type", json!(task));
    maker = maker.with("target_modules", json!(targets));
    maker.tensors.clear();
    maker
}

/// With a pair on a layer of both blocks.
pub(crate) fn on_blocks(maker: &mut Maker, blocks: &str, path: &str, [input, output]: [usize; 2]) {
    for layer in 0..2 {
        let seed = 3 + layer;
        add_pair(maker, &format!("{blocks}{layer}.{path}"), [2, input, output], seed);
    }
}

/// With a head of `count` labels at `path`.
pub(crate) fn add_head(maker: &mut Maker, path: &str, count: usize) {
    maker.set(&named(path, "weight"), &[count, 8], &values(count * 8, 80));
    maker.set(&named(path, "bias"), &[count], &values(count, 81));
}

/// A BERT adapter for so many labels.
pub(crate) fn bert_classifier(count: usize) -> Maker {
    let mut maker = adapter(Some("SEQ_CLS"), &["query", "value"]);
    maker = maker.with("modules_to_save", json!(["classifier", "classifier", "score"]));
    for path in ["attention.self.query", "attention.self.value"] {
        on_blocks(&mut maker, "bert.encoder.layer.", path, [8, 8]);
    }
    add_head(&mut maker, "classifier", count);
    maker
}

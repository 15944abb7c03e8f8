//! The products of a model's step.
use crate::lora::{LoraLayout, Projection, Site};

/// A weight's `[out, in]`.
pub(super) type Shape = [usize; 2];

/// What a step multiplies.
pub(super) struct Shapes {
    pub(super) model: String,
    /// Every product of every layer; weights that share their input are one.
    layers: Vec<Shape>,
    /// The vocabulary's.
    head: Vec<Shape>,
}

impl Shapes {
    /// SmolLM2-135M's.
    pub(super) fn smollm2() -> Self {
        const LAYER: [Shape; 4] = [[960, 576], [576, 576], [3072, 576], [576, 1536]];
        Self {
            model: "SmolLM2-135M".to_owned(),
            layers: LAYER.repeat(30),
            head: vec![[49_152, 576]],
        }
    }

    /// The layers of a model.
    pub(super) fn of(model: String, layout: &LoraLayout) -> Self {
        use Projection::{Down, Gate, K, O, Q, Up, V};
        let stacked = |layer: usize, projections: &[Projection]| {
            let shapes = projections
                .iter()
                .filter_map(|&projection| layout.shape(Site::block(layer, projection)));
            let shapes: Vec<_> = shapes.collect();
            let out = shapes.iter().map(|shape| shape.out_features).sum();
            shapes.first().map(|shape| [out, shape.in_features])
        };
        let groups: [&[Projection]; 4] = [&[Q, K, V], &[O], &[Gate, Up], &[Down]];
        let layers = (0..layout.layers())
            .flat_map(|layer| groups.iter().filter_map(move |group| stacked(layer, group)));
        let head = layout.shape(Site::Head).map(|shape| [shape.out_features, shape.in_features]);
        Self { model, layers: layers.collect(), head: head.into_iter().collect() }
    }

    /// Each part by its name.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&'static str, &[Shape])> {
        let parts = [("layers", self.layers.as_slice()), ("head", &self.head)];
        parts.into_iter().filter(|(_, shapes)| !shapes.is_empty())
    }

    /// Numbers in all weights.
    pub(super) fn weights(&self) -> usize {
        self.layers.iter().chain(&self.head).map(|[out, inner]| out * inner).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::SiteShape;

    #[test]
    fn weights_with_one_input_are_one_product() {
        let shape = |projection| match projection {
            Projection::K | Projection::V => (192, 576),
            Projection::Gate | Projection::Up => (1536, 576),
            Projection::Down => (576, 1536),
            Projection::Q | Projection::O => (576, 576),
            Projection::Qkv | Projection::GateUp => unreachable!("no fused layer is asked for"),
        };
        let sites = (0..30).flat_map(|layer| {
            Projection::SEPARATE.map(|projection| {
                let (out_features, in_features) = shape(projection);
                (Site::block(layer, projection), SiteShape { in_features, out_features })
            })
        });
        let shapes = Shapes::of("x".to_owned(), &sites.collect());
        assert_eq!(shapes.layers, Shapes::smollm2().layers);
        assert_eq!(Shapes::smollm2().weights(), 134_479_872);
    }
}

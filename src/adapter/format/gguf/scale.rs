//! The one alpha a GGUF adapter has for all its layers.
use crate::adapter::AdapterError;

/// A layer with a pair of factors: its path, rank, and PEFT's factor on `B·A`.
pub(super) struct Scaled<'a> {
    pub(super) module: &'a str,
    pub(super) rank: usize,
    pub(super) scaling: f32,
}

impl Scaled<'_> {
    /// What llama.cpp makes of `alpha` here.
    fn scaling_of(&self, alpha: f32) -> f32 {
        if alpha == 0.0 { 1.0 } else { alpha / self.rank as f32 }
    }

    /// The alpha that comes nearest.
    fn alpha(&self) -> f32 {
        (f64::from(self.scaling) * self.rank as f64) as f32
    }
}

/// The alpha which, divided by each layer's rank, is its scaling. Where a rank is no power of two and `rsLoRA`'s root is
/// irrational there may be none; then one that is off by a unit in the last place is as good.
///
/// # Errors
/// When the layers' scalings need different ones: llama.cpp would scale some layers otherwise than in training.
pub(super) fn alpha(layers: &[Scaled<'_>]) -> Result<f32, AdapterError> {
    let Some(first) = layers.first() else { return Ok(0.0) };
    if let Some(silent) = layers.iter().find(|layer| layer.scaling == 0.0) {
        return Err(AdapterError::unsupported(format!(
            "adapter_config.json scales `{}` by 0: llama.cpp takes an alpha of 0 as a scaling of 1",
            silent.module
        )));
    }
    let near = first.alpha();
    // The last stands for scalings of 1 at whatever rank.
    let candidates = [near, near.next_up(), near.next_down(), 0.0];
    let gives = |alpha: f32, same: fn(f32, f32) -> bool| {
        layers.iter().all(|layer| same(layer.scaling_of(alpha), layer.scaling))
    };
    let exact = candidates.into_iter().find(|alpha| gives(*alpha, |a, b| a == b));
    let found = exact.or_else(|| candidates.into_iter().find(|alpha| gives(*alpha, neighbours)));
    found.ok_or_else(|| {
        let differs = |layer: &&Scaled<'_>| layer.alpha() != near;
        let other = layers.iter().find(differs).unwrap_or(first);
        AdapterError::unsupported(format!(
            "a GGUF adapter has one alpha, divided by each layer's rank; adapter_config.json (`alpha_pattern`, or \
             `use_rslora` with several ranks) makes it {near} for `{}` and {} for `{}`",
            first.module,
            other.alpha(),
            other.module
        ))
    })
}

fn neighbours(a: f32, b: f32) -> bool {
    a == b || a.next_up() == b || a.next_down() == b
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layers(pairs: &[(usize, f32)]) -> Vec<Scaled<'static>> {
        pairs
            .iter()
            .map(|(rank, scaling)| Scaled { module: "m", rank: *rank, scaling: *scaling })
            .collect()
    }

    #[test]
    fn ranks_may_differ_and_alphas_may_not() {
        assert_eq!(alpha(&layers(&[(4, 4.0), (8, 2.0), (3, 16.0 / 3.0)])).expect("16"), 16.0);
        assert_eq!(alpha(&layers(&[(4, 1.0), (8, 1.0)])).expect("none"), 0.0);
        let error = alpha(&layers(&[(4, 4.0), (8, 4.0)])).expect_err("two").to_string();
        assert!(error.contains("16") && error.contains("32"), "{error}");
        assert!(alpha(&layers(&[(4, 0.0)])).expect_err("silent").to_string().contains("by 0"));
    }

    proptest! {
        /// `alpha / √rank` at one rank.
        #[test]
        fn rslora_is_within_a_unit_in_the_last_place(rank in 1_usize..300, given in 1_u32..512) {
            let scaling = (f64::from(given) / (rank as f64).sqrt()) as f32;
            let layer = layers(&[(rank, scaling)]);
            let found = layer[0].scaling_of(alpha(&layer).expect("one"));
            prop_assert!(neighbours(found, scaling));
            if rank.is_power_of_two() {
                prop_assert_eq!(found, scaling);
            }
        }

        #[test]
        fn plain_scaling_is_exact(ranks in prop::collection::vec(1_usize..300, 1..5), given in 1_u32..512) {
            let scaling = |rank: usize| (f64::from(given) / rank as f64) as f32;
            let layers = layers(&ranks.iter().map(|rank| (*rank, scaling(*rank))).collect::<Vec<_>>());
            let found = alpha(&layers).expect("the alpha given");
            let exact = layers.iter().all(|layer| layer.scaling_of(found) == layer.scaling);
            prop_assert!(exact);
        }
    }
}

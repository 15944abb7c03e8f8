//! The adapters of one request, and how much of each.
use super::EngineError;
use crate::adapter::{AdapterLease, VersionId};
use std::sync::Arc;

/// One adapter of a mix.
#[derive(Clone, Debug)]
pub struct MixPart {
    /// The version.
    pub lease: AdapterLease,
    /// Its share of the change: with weight `w` the base's `W` becomes `W + w·(W' − W)`. Not 0.
    pub weight: f32,
}

/// Checked when made: each version once, by version id, so that sums and hashes do not depend on how a client
/// ordered it. Empty is the base model. Clones share their parts.
#[derive(Clone, Debug, Default)]
pub struct AdapterMix(Arc<[MixPart]>);

impl AdapterMix {
    /// Most adapters of one request.
    pub const MAX_PARTS: usize = 16;
    /// Largest absolute weight of one.
    pub const MAX_WEIGHT: f32 = 100.0;

    /// Weights of one version are added up; what has weight 0 then is left out.
    ///
    /// # Errors
    /// [`EngineError::InvalidWeight`] and [`EngineError::TooManyAdapters`].
    pub fn new(parts: impl IntoIterator<Item = (AdapterLease, f32)>) -> Result<Self, EngineError> {
        let mut given: Vec<MixPart> =
            parts.into_iter().map(|(lease, weight)| MixPart { lease, weight }).collect();
        if given.len() > Self::MAX_PARTS {
            let (adapters, most) = (given.len(), Self::MAX_PARTS);
            return Err(EngineError::TooManyAdapters { adapters, most });
        }
        if let Some(part) = given.iter().find(|part| !is_weight(part.weight)) {
            return Err(EngineError::InvalidWeight { name: part.lease.name.to_string() });
        }
        // Weights too, so that equal lists add up to equal bits.
        given.sort_by(|a, b| a.lease.id.cmp(&b.lease.id).then(a.weight.total_cmp(&b.weight)));
        let mut parts: Vec<MixPart> = Vec::with_capacity(given.len());
        for part in given {
            match parts.last_mut() {
                Some(last) if last.lease.id == part.lease.id => last.weight += part.weight,
                _ => parts.push(part),
            }
        }
        parts.retain(|part| part.weight != 0.0);
        Ok(Self(parts.into()))
    }

    /// By version id.
    pub fn parts(&self) -> &[MixPart] {
        &self.0
    }

    /// Whether it is the base model.
    pub fn is_base(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<AdapterLease> for AdapterMix {
    /// All of one adapter.
    fn from(lease: AdapterLease) -> Self {
        Self(Arc::new([MixPart { lease, weight: 1.0 }]))
    }
}

fn is_weight(weight: f32) -> bool {
    weight.is_finite() && weight.abs() <= AdapterMix::MAX_WEIGHT
}

/// A part that changes a given prompt, and from where on.
#[derive(Clone, Debug)]
pub(super) struct ActivePart {
    pub(super) lease: AdapterLease,
    pub(super) weight: f32,
    /// The first position it changes.
    pub(super) from: usize,
    /// What it is going to take on the device, as far as that is known.
    pub(super) bytes: usize,
}

impl AdapterMix {
    /// The parts that change an answer to `prompt`.
    ///
    /// An adapter with invocation tokens begins with the first of them, where they occur last, and stays away where
    /// they do not occur (PEFT's `calculate_alora_offsets`). Generated tokens invoke nothing.
    pub(super) fn active(&self, prompt: &[u32]) -> Box<[ActivePart]> {
        let active = |part: &MixPart| {
            let from = match part.lease.weights.invocation() {
                Some(invocation) => last_start(prompt, invocation)?,
                None => 0,
            };
            Some(ActivePart { lease: part.lease.clone(), weight: part.weight, from, bytes: 0 })
        };
        self.0.iter().filter_map(active).collect()
    }
}

/// Where `wanted` occurs last in `tokens`.
fn last_start(tokens: &[u32], wanted: &[u32]) -> Option<usize> {
    if wanted.is_empty() {
        return None;
    }
    tokens.windows(wanted.len()).rposition(|window| window == wanted)
}

/// The versions that change a sequence, by version id: what it has in common with others of the same adapters.
pub(super) type Versions = Arc<[VersionId]>;

/// Of these parts.
pub(super) fn versions(parts: &[ActivePart]) -> Versions {
    parts.iter().map(|part| part.lease.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{invoked, lease};
    use proptest::prelude::*;

    fn shown(mix: &AdapterMix) -> Vec<(VersionId, u32)> {
        mix.parts().iter().map(|part| (part.lease.id, part.weight.to_bits())).collect()
    }

    #[test]
    fn a_version_stands_once_and_without_weight_not_at_all() {
        let mix = |parts: &[(&str, f32)]| {
            AdapterMix::new(parts.iter().map(|(name, weight)| (lease(name), *weight)))
        };
        let sum = mix(&[("a", 0.25), ("b", 1.0), ("a", 0.5)]).expect("valid");
        assert_eq!(sum.parts().len(), 2);
        let a = sum.parts().iter().find(|part| part.lease.id == lease("a").id).expect("there");
        assert_eq!(a.weight.to_bits(), 0.75_f32.to_bits());
        assert!(mix(&[("a", 0.0), ("b", 1.0), ("b", -1.0), ("c", -0.0)]).expect("valid").is_base());
        for weight in [f32::NAN, f32::INFINITY, 100.1, -100.1] {
            let refused = mix(&[("b", 1.0), ("a", weight)]).expect_err("refused");
            assert_eq!(refused, EngineError::InvalidWeight { name: "a".into() });
        }
        let many: Vec<_> = (0..17).map(|_| ("a", 1.0)).collect();
        let refused = mix(&many).expect_err("refused");
        assert_eq!(refused, EngineError::TooManyAdapters { adapters: 17, most: 16 });
        assert_eq!(shown(&lease("a").into()), shown(&mix(&[("a", 1.0)]).expect("valid")));
    }

    #[test]
    fn invocation_tokens_count_where_they_stand_last_in_the_prompt() {
        let parts = [(invoked("x", &[7, 8]), 0.5), (lease("plain"), 1.0)];
        let mix = AdapterMix::new(parts).expect("valid");
        let from = |prompt: &[u32]| -> Vec<(String, usize)> {
            let active = mix.active(prompt);
            let mut from: Vec<_> =
                active.iter().map(|part| (part.lease.name.to_string(), part.from)).collect();
            from.sort();
            from
        };
        let plain = ("plain".to_owned(), 0);
        assert_eq!(from(&[7, 8, 1, 7, 8, 7]), [plain.clone(), ("x".into(), 3)]);
        assert_eq!(from(&[7, 8]), [plain.clone(), ("x".into(), 0)]);
        for without in [&[8, 7, 7][..], &[8], &[]] {
            assert_eq!(from(without), std::slice::from_ref(&plain));
        }
        assert_eq!(last_start(&[7, 7, 7], &[7, 7]), Some(1), "occurrences may overlap");
        assert_eq!(last_start(&[7], &[]), None);
    }

    proptest! {
        #[test]
        fn a_mix_does_not_know_how_its_list_was_ordered(
            parts in prop::collection::vec((0_usize..4, -2.0_f32..2.0), 0..8),
            shuffle in any::<prop::sample::Index>(),
        ) {
            let mix = |parts: &[(usize, f32)]| {
                let named = parts.iter().map(|(name, w)| (lease(&format!("a{name}")), *w));
                shown(&AdapterMix::new(named).expect("valid"))
            };
            let mut other = parts.clone();
            if !other.is_empty() {
                let middle = shuffle.index(other.len());
                other.rotate_left(middle);
                let end = other.len() - 1;
                other.swap(0, end);
            }
            prop_assert_eq!(mix(&parts), mix(&other));
        }
    }
}

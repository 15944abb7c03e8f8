//! The adapters on the device: for each place, what every adapter slot holds there, at its exact rank.
use super::{
    EmbeddingDelta, LinearDelta, LoraLayout, LoraWeights, NormSite, PreparedAdapter, ResidentForm,
    ResidentHead, Site,
};
use crate::kernel::{Kernels, Precision, Result};
use candle_core::Tensor;
use std::collections::HashMap;

/// Index of one resident adapter. "Slot" alone means a KV row; this one is always "adapter slot".
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AdapterSlot(pub usize);

/// For every place of the model that an adapter can change, what each slot holds.
///
/// Beside a base in f32 on the CPU a slot shares the adapter's own pairs and vectors; everything else is a copy of
/// its own, which lives until the slot is cleared, while the adapter's f32 tensors stay with whoever leases them.
#[derive(Debug)]
pub struct LoraSlots {
    sites: HashMap<Site, Vec<Option<LinearDelta>>>,
    norms: HashMap<NormSite, Vec<Option<Tensor>>>,
    norm_biases: HashMap<NormSite, Vec<Option<Tensor>>>,
    class_heads: Vec<Option<ResidentHead>>,
    /// Empty where no resident adapter changes the embedding.
    embedding: Vec<Option<EmbeddingDelta>>,
    /// What the slots hold where no resident adapter changes anything.
    nothing: Vec<Option<LinearDelta>>,
    form: ResidentForm,
}

impl LoraSlots {
    /// Room for `slots` adapters beside a base of this layout that is stored in `precision`.
    pub fn new(slots: usize, precision: Precision, layout: &LoraLayout) -> Self {
        Self {
            sites: HashMap::new(),
            norms: HashMap::new(),
            norm_biases: HashMap::new(),
            class_heads: vec![None; slots],
            embedding: Vec::new(),
            nothing: vec![None; slots],
            form: ResidentForm::new(precision, layout),
        }
    }

    /// How many adapters fit.
    pub fn capacity(&self) -> usize {
        self.nothing.len()
    }

    /// The form of what the slots hold.
    pub fn form(&self) -> &ResidentForm {
        &self.form
    }

    /// Prepares an adapter and puts it into `slot`; what was there is gone. On an error the slot is empty.
    ///
    /// # Errors
    /// As [`ResidentForm::prepare`].
    ///
    /// # Panics
    /// When `slot` is not below [`LoraSlots::capacity`].
    pub fn load(
        &mut self,
        slot: AdapterSlot,
        weights: &LoraWeights,
        kernels: &dyn Kernels,
    ) -> Result<()> {
        self.clear(slot);
        let prepared = self.form.prepare(weights, kernels)?;
        self.put(slot, prepared);
        Ok(())
    }

    /// Moves an adapter into `slot`; what was there is gone.
    ///
    /// # Panics
    /// When `slot` is not below [`LoraSlots::capacity`].
    pub fn put(&mut self, slot: AdapterSlot, adapter: PreparedAdapter) {
        assert!(slot.0 < self.capacity(), "residency hands out slots below the capacity");
        self.clear(slot);
        for (site, delta) in adapter.sites {
            let held = self.sites.entry(site).or_insert_with(|| self.nothing.clone());
            held[slot.0] = Some(delta);
        }
        let capacity = self.capacity();
        let norms =
            [(&mut self.norms, adapter.norms), (&mut self.norm_biases, adapter.norm_biases)];
        for (places, vectors) in norms {
            for (norm, vector) in vectors {
                let held = places.entry(norm).or_insert_with(|| vec![None; capacity]);
                held[slot.0] = Some(vector);
            }
        }
        self.class_heads[slot.0] = adapter.class_head;
        if adapter.embedding.is_some() {
            self.embedding.resize(capacity, None);
            self.embedding[slot.0] = adapter.embedding;
        }
    }

    /// Empties `slot` and lets its memory go.
    pub fn clear(&mut self, slot: AdapterSlot) {
        self.sites.retain(|_, held| {
            held[slot.0] = None;
            held.iter().any(Option::is_some)
        });
        for places in [&mut self.norms, &mut self.norm_biases] {
            places.retain(|_, held| {
                held[slot.0] = None;
                held.iter().any(Option::is_some)
            });
        }
        self.class_heads[slot.0] = None;
        if let Some(held) = self.embedding.get_mut(slot.0) {
            *held = None;
        }
        if self.embedding.iter().all(Option::is_none) {
            self.embedding.clear();
        }
    }

    /// What each slot holds at `site`.
    pub fn at(&self, site: Site) -> &[Option<LinearDelta>] {
        self.sites.get(&site).unwrap_or(&self.nothing)
    }

    /// What each slot holds at the embedding; nothing where no resident adapter changes it.
    pub fn embedding(&self) -> &[Option<EmbeddingDelta>] {
        &self.embedding
    }

    /// The weight `[len]` each slot has for a norm; nothing where no resident adapter has one.
    pub fn norm(&self, norm: NormSite) -> &[Option<Tensor>] {
        self.norms.get(&norm).map_or(&[], Vec::as_slice)
    }

    /// The bias `[len]` each slot has for a norm; nothing where no resident adapter has one.
    pub fn norm_bias(&self, norm: NormSite) -> &[Option<Tensor>] {
        self.norm_biases.get(&norm).map_or(&[], Vec::as_slice)
    }

    /// Each slot's own classification head.
    pub fn class_heads(&self) -> &[Option<ResidentHead>] {
        &self.class_heads
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernel::CpuKernels,
        lora::{LowRank, Projection, SiteShape, TrainedRows},
    };
    use candle_core::{DType, Device};
    use std::sync::Arc;

    const SITE: Site = Site::block(0, Projection::O);

    fn zeros(rows: usize, cols: usize) -> Tensor {
        Tensor::zeros((rows, cols), DType::F32, &Device::Cpu).unwrap()
    }

    fn adapter() -> LoraWeights {
        let rows = || Some(TrainedRows { weight: zeros(2, 4), ids: Some([1, 3].into()) });
        let linear = LinearDelta {
            low_rank: Some(LowRank::new(zeros(2, 4), zeros(2, 4)).unwrap()),
            gain: Some(zeros(1, 4).squeeze(0).unwrap()),
            shift: None,
            trained: rows(),
        };
        let mut weights = LoraWeights::from_iter([(SITE, linear)]);
        weights.set_embedding(EmbeddingDelta { low_rank: None, gain: None, trained: rows() });
        weights.set_norm(NormSite::Final, zeros(1, 4).squeeze(0).unwrap());
        weights
    }

    fn slots() -> LoraSlots {
        let shape = SiteShape { in_features: 4, out_features: 4 };
        LoraSlots::new(3, Precision::Bf16, &LoraLayout::from_iter([(SITE, shape)]))
    }

    #[test]
    fn a_slot_holds_every_part_and_cleared_nothing_of_it() {
        let (mut slots, kernels) = (slots(), CpuKernels::new(1).unwrap());
        slots.load(AdapterSlot(1), &adapter(), &kernels).unwrap();
        let held = slots.at(SITE)[1].as_ref().unwrap();
        assert!(held.low_rank.is_some() && held.gain.is_some() && held.trained.is_some());
        assert!(slots.embedding()[1].as_ref().unwrap().trained.is_some());
        assert!(slots.norm(NormSite::Final)[1].is_some());
        slots.clear(AdapterSlot(2));
        assert_eq!((slots.embedding().len(), slots.norm(NormSite::Final).len()), (3, 3));
        slots.clear(AdapterSlot(1));
        assert!(slots.at(SITE).iter().all(Option::is_none));
        assert!(slots.embedding().is_empty() && slots.norm(NormSite::Final).is_empty());
    }

    #[test]
    fn a_prepared_adapter_knows_its_bytes_and_a_plan_comes_near() {
        let kernels = CpuKernels::new(1).unwrap();
        let shape = SiteShape { in_features: 64, out_features: 64 };
        let layout = LoraLayout::from_iter([(SITE, shape), (Site::Head, shape)]);
        let pair = || LowRank::new(zeros(2, 64), zeros(2, 64)).unwrap();
        let gain = || Some(zeros(1, 64).squeeze(0).unwrap());
        let plain = LoraWeights::from_iter([(SITE, LinearDelta { gain: gain(), ..pair().into() })]);
        let rows = TrainedRows { weight: zeros(64, 64), ids: None };
        let whole = LinearDelta { low_rank: None, gain: None, shift: None, trained: Some(rows) };
        let whole = LoraWeights::from_iter([(SITE, whole)]);
        for (precision, width) in
            [(Precision::F32, 4), (Precision::Bf16, 2), (Precision::Int8, 2), (Precision::Int4, 2)]
        {
            let form = ResidentForm::new(precision, &layout);
            let bytes = form.prepare(&plain, &kernels).unwrap().bytes();
            assert_eq!(bytes, 2 * 128 * width + 64 * 4, "{precision}");
            assert_eq!(form.estimate(&plain), bytes, "{precision}");
            let (held, planned) =
                (form.prepare(&whole, &kernels).unwrap().bytes(), form.estimate(&whole));
            assert!(planned <= held && held <= planned + planned / 4, "{planned} {held}");
        }
    }

    #[test]
    fn swapping_adapters_lets_go_of_the_rows_before() {
        let (mut slots, kernels) = (slots(), CpuKernels::new(1).unwrap());
        let mut before = Vec::new();
        for _ in 0..1000 {
            slots.load(AdapterSlot(0), &adapter(), &kernels).unwrap();
            assert!(before.drain(..).all(|rows: std::sync::Weak<_>| rows.strong_count() == 0));
            let linear = slots.at(SITE)[0].as_ref().unwrap().trained.as_ref().unwrap();
            let table = slots.embedding()[0].as_ref().unwrap().trained.as_ref().unwrap();
            before.extend([&linear.weight, &table.weight].map(Arc::downgrade));
        }
    }

    #[test]
    fn a_fused_gain_beside_a_part_is_refused() {
        let part = |projection| {
            (Site::block(0, projection), SiteShape { in_features: 4, out_features: 2 })
        };
        let layout =
            LoraLayout::default().with_parts([part(Projection::Gate), part(Projection::Up)]);
        let mut slots = LoraSlots::new(1, Precision::F32, &layout);
        let (_, delta) = adapter().sites().next().map(|(s, d)| (s, d.clone())).unwrap();
        let mut weights = LoraWeights::from_iter([(Site::block(0, Projection::GateUp), delta)]);
        let kernels = CpuKernels::new(1).unwrap();
        slots.load(AdapterSlot(0), &weights, &kernels).unwrap();
        assert!(slots.at(Site::block(0, Projection::Up))[0].is_some());
        let pair = LowRank::new(zeros(1, 4), zeros(1, 2)).unwrap();
        weights.set_site(Site::block(0, Projection::Up), pair.into());
        let error = slots.load(AdapterSlot(0), &weights, &kernels).unwrap_err().to_string();
        assert!(error.contains("model.layers.0.mlp.up_proj"), "{error}");
        assert!(slots.at(Site::block(0, Projection::Gate))[0].is_none());
    }
}

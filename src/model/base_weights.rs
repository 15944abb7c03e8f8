//! All packed weights of a model: to count them, to read them, and to prove them unchanged.
use crate::{
    kernel::{BaseWeight, KernelError, Result},
    lora::{ClassHead, FrozenBase, LoraLayout, Site},
};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// Handles to a model's base weights; the memory is the model's own.
#[derive(Clone, Debug)]
pub struct BaseWeights {
    pub(super) packed: Vec<Arc<BaseWeight>>,
    pub(super) layout: LoraLayout,
    pub(super) sites: BTreeMap<Site, BaseSite>,
    /// `[vocab, hidden]`
    pub(super) embedding: Arc<BaseWeight>,
    pub(super) class_head: Option<ClassHead>,
}

/// One linear layer inside a weight that it may share with its neighbours.
#[derive(Clone, Debug)]
pub(super) struct BaseSite {
    pub(super) weight: Arc<BaseWeight>,
    /// Its rows of the weight.
    pub(super) rows: Range<usize>,
    /// `[rows.len()]`
    pub(super) bias: Option<Arc<[f32]>>,
}

impl BaseWeights {
    /// Bytes they take on the device.
    pub fn bytes(&self) -> usize {
        self.packed.iter().map(|weight| weight.bytes()).sum()
    }

    /// SHA-256 over all of them: the same as long as no bit has changed.
    ///
    /// # Errors
    /// When the device does not give the values back.
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        for weight in &self.packed {
            hash.update(weight.fingerprint()?);
        }
        Ok(hash.finalize().into())
    }
}

impl FrozenBase for BaseWeights {
    fn layout(&self) -> &LoraLayout {
        &self.layout
    }

    fn weight_rows(&self, site: Site, rows: Range<usize>) -> Result<Vec<f32>> {
        let no_such = || KernelError::mismatch("weight", format!("no rows {rows:?} of {site}"));
        let held = self.sites.get(&site).ok_or_else(no_such)?;
        if rows.start > rows.end || rows.end > held.rows.len() {
            return Err(no_such());
        }
        held.weight.rows(held.rows.start + rows.start..held.rows.start + rows.end)
    }

    fn embedding_rows(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        self.embedding.rows(rows)
    }

    fn bias(&self, site: Site) -> Option<&[f32]> {
        self.sites.get(&site)?.bias.as_deref()
    }

    fn class_head(&self) -> Option<&ClassHead> {
        self.class_head.as_ref()
    }
}

//! All packed weights of a model, to count and to prove them unchanged.
use crate::kernel::BaseWeight;
use std::sync::Arc;

/// Handles to a model's base weights; the memory is the model's own.
#[derive(Clone, Debug)]
pub struct BaseWeights(pub(super) Vec<Arc<BaseWeight>>);

impl BaseWeights {
    /// Bytes they take on the device.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|weight| weight.bytes()).sum()
    }
}

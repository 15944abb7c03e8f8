//! All packed weights of a model, to count and to prove them unchanged.
use crate::kernel::{BaseWeight, Result};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Handles to a model's base weights; the memory is the model's own.
#[derive(Clone, Debug)]
pub struct BaseWeights(pub(super) Vec<Arc<BaseWeight>>);

impl BaseWeights {
    /// Bytes they take on the device.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|weight| weight.bytes()).sum()
    }

    /// SHA-256 over all of them: the same as long as no bit has changed.
    ///
    /// # Errors
    /// When the device does not give the values back.
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        for weight in &self.0 {
            hash.update(weight.fingerprint()?);
        }
        Ok(hash.finalize().into())
    }
}

//! The frozen base as an adapter's reader sees it.
use super::{ClassHead, LoraLayout, Site};
use crate::kernel::Result;
use std::ops::Range;

/// What reading the base gives.
pub type BaseResult<T> = Result<T>;

/// Read access to a base's weights, for what depends on them: the norms of `DoRA`, biases that replace the base's.
///
/// May be read from any thread while the model runs: the weights never change.
pub trait FrozenBase: Send + Sync {
    /// What adapters may change.
    fn layout(&self) -> &LoraLayout;

    /// Rows of a linear layer's weight `[out, in]` as it is served: `[rows.len(), in]`, f32.
    ///
    /// # Errors
    /// When there is no such layer or row, or the device fails.
    fn weight_rows(&self, site: Site, rows: Range<usize>) -> Result<Vec<f32>>;

    /// Rows of the embedding `[vocab, hidden]` as it is served: `[rows.len(), hidden]`, f32.
    ///
    /// # Errors
    /// When there is no such row, or the device fails.
    fn embedding_rows(&self, rows: Range<usize>) -> Result<Vec<f32>>;

    /// A linear layer's bias `[out]`; `None` where it has none.
    fn bias(&self, site: Site) -> Option<&[f32]>;

    /// The base's own classification head; `None` where it has none.
    fn class_head(&self) -> Option<&ClassHead> {
        None
    }
}

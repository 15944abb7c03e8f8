//! Low-rank deltas: what they look like, where they sit on the device, which row uses which.
//!
//! Knows layers and adapter slots. Knows no adapter names and no files.
mod base;
mod class_head;
mod fused;
mod layout;
mod names;
mod prepared;
mod routing;
mod slots;
mod weights;

pub use crate::kernel::{EmbeddingDelta, LinearDelta, LowRank, TrainedRows};
pub use base::{BaseResult, FrozenBase};
pub use class_head::{ClassHead, ClassHeadShape, HeadKind, Labels, Reading, ResidentHead};
pub use layout::{EmbeddingShape, HeadCounts, LoraLayout, NormSite, Projection, Site, SiteShape};
pub use names::ModuleNames;
pub use prepared::{PreparedAdapter, ResidentForm};
pub use routing::{LoraRouting, SlotUse};
pub use slots::{AdapterSlot, LoraSlots};
pub use weights::LoraWeights;

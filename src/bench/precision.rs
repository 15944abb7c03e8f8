//! The precisions there are.
use crate::kernel::Precision;

/// Every way to keep weights, the most exact first.
pub(super) fn every_precision() -> Vec<Precision> {
    ["f32", "bf16", "int8", "int4"].into_iter().filter_map(|name| name.parse().ok()).collect()
}

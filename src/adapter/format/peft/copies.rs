//! Copies of the base's weights that some adapters carry.
//!
//! PEFT writes the embedding and the head beside a pair on them. It loads such a copy over the base's own weight, so a
//! copy of something else would be another base.
use super::{keys::Role, module::Module, named::Named, parts::Parts};
use crate::{
    adapter::{AdapterError, format::tensors::to_f32},
    lora::{FrozenBase, SiteShape},
};
use std::ops::Range;

/// How far a copy may be from the base, as a part of the base's norm: the widest rounding of a weight, to four bits,
/// is a tenth; another model is one or more.
const LIMIT: f64 = 0.25;
/// Rows compared at one time.
const CHUNK: usize = 256;

/// Checks the shapes of all copies, and the values of those PEFT would load.
///
/// # Errors
/// When a copy has another shape, or is not of this base.
pub(super) fn check(
    module: Module,
    parts: &Parts<'_>,
    shape: SiteShape,
    base: Option<&dyn FrozenBase>,
) -> Result<(), AdapterError> {
    let SiteShape { in_features, out_features } = shape;
    for (role, tensor) in parts.iter() {
        match role {
            Role::BaseWeight | Role::SavedWeight | Role::OriginalWeight => {
                tensor.check(&[out_features, in_features], "[vocab, hidden]")?;
            }
            Role::SavedBias | Role::OriginalBias => tensor.check(&[out_features], "[out]")?,
            _ => {}
        }
        if let (Role::BaseWeight, Some(base)) = (role, base) {
            compare(module, tensor, shape, base)?;
        }
    }
    Ok(())
}

fn compare(
    module: Module,
    copy: Named<'_>,
    shape: SiteShape,
    base: &dyn FrozenBase,
) -> Result<(), AdapterError> {
    let values = to_f32(copy.name, copy.view)?;
    let (mut apart, mut whole) = (0f64, 0f64);
    for start in (0..shape.out_features).step_by(CHUNK) {
        let rows = start..(start + CHUNK).min(shape.out_features);
        let copied = &values[rows.start * shape.in_features..rows.end * shape.in_features];
        for (copied, own) in copied.iter().zip(own_rows(module, rows, base)?) {
            apart += (f64::from(*copied) - f64::from(own)).powi(2);
            whole += f64::from(own).powi(2);
        }
    }
    if apart.sqrt() <= LIMIT * whole.sqrt() {
        return Ok(());
    }
    Err(AdapterError::invalid(format!(
        "tensor {copy} is a copy of the base's weight that is not this base's: the adapter was made for another base, \
         or its base was trained further; serve it on that base"
    )))
}

fn own_rows(
    module: Module,
    rows: Range<usize>,
    base: &dyn FrozenBase,
) -> Result<Vec<f32>, AdapterError> {
    let own = match module {
        Module::Linear(site) => base.weight_rows(site, rows),
        Module::Embedding => base.embedding_rows(rows),
        Module::Norm(_) | Module::Classifier | Module::Pooler => return Ok(Vec::new()),
    };
    own.map_err(|error| AdapterError::Store(std::io::Error::other(error)))
}

//! Rows of a table for some of its tokens.
use super::{
    keys::Role,
    named::{Named, tensor},
    parts::Parts,
};
use crate::{adapter::AdapterError, lora::TrainedRows};
use candle_core::Tensor;

/// The rows that `parts` has for the tokens `ids`, in the order of the tokens.
///
/// # Errors
/// When there is not one row a token, a token is named twice or is not below `vocab`.
pub(super) fn trained(
    parts: &Parts<'_>,
    ids: Option<&[u32]>,
    [vocab, hidden]: [usize; 2],
) -> Result<Option<TrainedRows<Tensor>>, AdapterError> {
    let Some(tensor) = parts.get(Role::TokenRows) else { return Ok(None) };
    let Some(ids) = ids else {
        return Err(AdapterError::invalid(format!(
            "tensor {tensor} has no tokens in `trainable_token_indices` of adapter_config.json: PEFT would not load it"
        )));
    };
    sorted(tensor, ids, [vocab, hidden]).map(Some)
}

fn sorted(
    named: Named<'_>,
    ids: &[u32],
    [vocab, hidden]: [usize; 2],
) -> Result<TrainedRows<Tensor>, AdapterError> {
    let rows = named.values(&[ids.len(), hidden], "[tokens, hidden]")?;
    let mut order: Vec<(u32, &[f32])> = ids.iter().copied().zip(rows.chunks(hidden)).collect();
    order.sort_by_key(|(id, _)| *id);
    if let Some(twice) = order.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(wrong(twice[0].0, "twice"));
    }
    if let Some((id, _)) = order.iter().find(|(id, _)| *id as usize >= vocab) {
        return Err(wrong(*id, &format!("and the model has {vocab} tokens")));
    }
    let values: Vec<f32> = order.iter().flat_map(|(_, row)| row.iter().copied()).collect();
    Ok(TrainedRows {
        weight: tensor(values, (ids.len(), hidden))?,
        ids: Some(order.iter().map(|(id, _)| *id).collect()),
    })
}

fn wrong(id: u32, problem: &str) -> AdapterError {
    AdapterError::invalid(format!(
        "adapter_config.json has token {id} in `trainable_token_indices` {problem}: was the adapter made for another \
         base?"
    ))
}

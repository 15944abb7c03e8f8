//! Deltas of a layer that the base has as one (Phi-3's `qkv_proj`), cut into those of its parts.
use super::{LinearDelta, LoraLayout, LowRank, Site, TrainedRows};
use crate::kernel::{KernelError, Result};
use candle_core::Tensor;
use std::ops::Range;

/// What happens at `site`, by the layers whose outputs no other delta's columns can overlap.
///
/// A pair alone stays as it is: it only adds, whatever its parts do before it. Everything else is cut: a gain is a
/// factor on the base's output, which in a mix another adapter's deltas of the parts are added to. The parts share
/// `a`; `x · aᵀ` is computed for each of them.
///
/// # Errors
/// When the layout does not say how wide the parts are, or the delta is not as wide as all of them.
pub(super) fn by_parts(
    site: Site,
    delta: &LinearDelta<Tensor>,
    layout: &LoraLayout,
) -> Result<Vec<(Site, LinearDelta<Tensor>)>> {
    let whole = vec![(site, delta.clone())];
    let Site::Block { layer, projection } = site else { return Ok(whole) };
    let only_a_pair = delta.gain.is_none() && delta.shift.is_none() && delta.trained.is_none();
    if only_a_pair || projection.parts().len() == 1 {
        return Ok(whole);
    }
    let mut end = 0;
    let mut parts = Vec::new();
    for part in projection.parts().iter().map(|part| Site::block(layer, *part)) {
        let unknown = || KernelError::mismatch("load", format!("the layout has no {part}"));
        let start = end;
        end += layout.shape(part).ok_or_else(unknown)?.out_features;
        parts.push((part, narrow(delta, start..end)?));
    }
    Ok(parts)
}

/// The delta of some of its outputs.
fn narrow(delta: &LinearDelta<Tensor>, outputs: Range<usize>) -> Result<LinearDelta<Tensor>> {
    let vector = |vector: &Tensor| vector.narrow(0, outputs.start, outputs.len());
    let pair = |pair: &LowRank| {
        let (a, b) = pair.rows()?;
        LowRank::new(a.clone(), b.narrow(1, outputs.start, outputs.len())?.contiguous()?)
    };
    let trained = delta.trained.as_ref().map(|rows| narrow_rows(rows, &outputs)).transpose()?;
    Ok(LinearDelta {
        low_rank: delta.low_rank.as_ref().map(pair).transpose()?,
        gain: delta.gain.as_ref().map(vector).transpose()?,
        shift: delta.shift.as_ref().map(vector).transpose()?,
        trained: trained.flatten(),
    })
}

/// The rows that replace some of those, if any does.
fn narrow_rows(
    rows: &TrainedRows<Tensor>,
    outputs: &Range<usize>,
) -> Result<Option<TrainedRows<Tensor>>> {
    let Some(ids) = &rows.ids else {
        let weight = rows.weight.narrow(0, outputs.start, outputs.len())?;
        return Ok(Some(TrainedRows { weight, ids: None }));
    };
    let before = |limit: usize| ids.partition_point(|id| (*id as usize) < limit);
    let places = before(outputs.start)..before(outputs.end);
    if places.is_empty() {
        return Ok(None);
    }
    let weight = rows.weight.narrow(0, places.start, places.len())?;
    let first = outputs.start as u32;
    let ids = ids[places].iter().map(|id| id - first).collect();
    Ok(Some(TrainedRows { weight, ids: Some(ids) }))
}

#[cfg(test)]
mod tests {
    use super::super::{Projection, SiteShape};
    use super::*;
    use candle_core::{Device, IndexOp};

    fn layout(inner: usize) -> LoraLayout {
        let shape = |out_features| SiteShape { in_features: 2, out_features };
        let site = |projection| Site::block(1, projection);
        LoraLayout::from_iter([(site(Projection::GateUp), shape(2 * inner))]).with_parts([
            (site(Projection::Gate), shape(inner)),
            (site(Projection::Up), shape(inner)),
        ])
    }

    fn matrix(rows: usize) -> Tensor {
        Tensor::arange(0.0, 2.0 * rows as f32, &Device::Cpu).unwrap().reshape((rows, 2)).unwrap()
    }

    fn whole() -> LinearDelta<Tensor> {
        let b = matrix(6).t().unwrap().contiguous().unwrap();
        LinearDelta {
            gain: Some(Tensor::arange(0.0_f32, 6.0, &Device::Cpu).unwrap()),
            trained: Some(TrainedRows { weight: matrix(2), ids: Some([3, 5].into()) }),
            ..LowRank::new(matrix(2), b).unwrap().into()
        }
    }

    #[test]
    fn a_fused_gain_is_cut_at_the_parts_and_a_pair_alone_is_not() {
        let site = Site::block(1, Projection::GateUp);
        let parts = by_parts(site, &whole(), &layout(3)).unwrap();
        let sites: Vec<_> = parts.iter().map(|(site, _)| site.to_string()).collect();
        assert_eq!(sites, ["model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"]);
        let (gate, up) = (&parts[0].1, &parts[1].1);
        let gain = |delta: &LinearDelta<Tensor>| delta.gain.as_ref().unwrap().to_vec1::<f32>();
        assert_eq!(gain(gate).unwrap(), [0.0, 1.0, 2.0]);
        assert_eq!(gain(up).unwrap(), [3.0, 4.0, 5.0]);
        let b = up.low_rank.as_ref().unwrap().rows().unwrap().1.i(1).unwrap();
        assert_eq!(b.to_vec1::<f32>().unwrap(), [7.0, 9.0, 11.0]);
        assert!(gate.trained.is_none());
        let trained = up.trained.as_ref().unwrap();
        assert_eq!(trained.ids.as_deref(), Some(&[0, 2][..]));
        assert_eq!(trained.weight.dims(), [2, 2]);
        let pair = LinearDelta { gain: None, trained: None, ..whole() };
        assert_eq!(by_parts(site, &pair, &layout(3)).unwrap().len(), 1);
    }

    #[test]
    fn replaced_rows_of_all_outputs_go_to_their_parts() {
        let trained = Some(TrainedRows { weight: matrix(6), ids: None });
        let delta = LinearDelta { low_rank: None, gain: None, shift: None, trained };
        let parts = by_parts(Site::block(1, Projection::GateUp), &delta, &layout(3)).unwrap();
        let up = parts[1].1.trained.as_ref().unwrap();
        assert_eq!(
            (up.weight.i((0, 0)).unwrap().to_scalar::<f32>().unwrap(), &up.ids),
            (6.0, &None)
        );
    }

    #[test]
    fn parts_of_no_known_width_are_refused() {
        let site = Site::block(0, Projection::Qkv);
        assert!(by_parts(site, &whole(), &layout(3)).unwrap_err().to_string().contains("q_proj"));
        let wide = by_parts(Site::block(1, Projection::GateUp), &whole(), &layout(4));
        assert!(wide.is_err());
    }
}

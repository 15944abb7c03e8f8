//! An adapter on the device, on its way into a slot; made on any thread where the device allows it.
use super::{
    ClassHead, EmbeddingDelta, LinearDelta, LoraLayout, LoraWeights, LowRank, NormSite,
    ResidentHead, Site, TrainedRows, fused::by_parts,
};
use crate::kernel::{KernelError, Kernels, Precision, Result};
use candle_core::{Tensor, TensorId};
use std::{collections::HashSet, sync::Arc};

/// How adapters are held beside a base: in which precision, and cut at which layers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ResidentForm {
    /// How the base is stored.
    precision: Precision,
    layout: Arc<LoraLayout>,
}

/// An adapter in that form. Moving it into a slot copies nothing.
#[derive(Debug)]
pub struct PreparedAdapter {
    pub(super) sites: Vec<(Site, LinearDelta)>,
    pub(super) norms: Vec<(NormSite, Tensor)>,
    pub(super) norm_biases: Vec<(NormSite, Tensor)>,
    pub(super) class_head: Option<ResidentHead>,
    pub(super) embedding: Option<EmbeddingDelta>,
}

impl ResidentForm {
    /// Beside a base of this layout that is stored in `precision`.
    pub fn new(precision: Precision, layout: &LoraLayout) -> Self {
        Self { precision, layout: Arc::new(layout.clone()) }
    }

    /// All of an adapter on the device, or nothing of it.
    ///
    /// What it does at a layer that the base has as one is cut into the layer's parts, unless it is a pair alone:
    /// all that a fused layer's slots hold can be added after what its parts' hold.
    ///
    /// # Errors
    /// When the copy to the device fails, or the adapter changes a fused layer and a part of it by more than a pair.
    pub fn prepare(&self, weights: &LoraWeights, kernels: &dyn Kernels) -> Result<PreparedAdapter> {
        let sites = self.prepare_sites(weights, kernels)?;
        let norm = |(norm, weight)| Ok((norm, kernels.load_vector(weight)?));
        let norms = weights.norms().map(norm).collect::<Result<_>>()?;
        let norm_biases = weights.norm_biases().map(norm).collect::<Result<_>>()?;
        let class_head = weights.class_head().map(|head| head.load(kernels)).transpose()?;
        let tables = self.precision.of_tables();
        let embedding = weights.embedding().map(|delta| delta.load(kernels, tables)).transpose()?;
        Ok(PreparedAdapter { sites, norms, norm_biases, class_head, embedding })
    }

    /// What it does at linear layers.
    fn prepare_sites(
        &self,
        weights: &LoraWeights,
        kernels: &dyn Kernels,
    ) -> Result<Vec<(Site, LinearDelta)>> {
        let (mut parts, mut seen) = (Vec::new(), HashSet::new());
        for (site, delta) in weights.sites() {
            for (site, delta) in by_parts(site, delta, &self.layout)? {
                if !seen.insert(site) {
                    let detail = format!("{site} is changed by itself and as a part");
                    return Err(KernelError::mismatch("load", detail));
                }
                parts.push((site, delta));
            }
        }
        let pairs: Vec<_> = parts.iter().filter_map(|(_, delta)| delta.low_rank.as_ref()).collect();
        let mut pairs = kernels.load_low_ranks(&pairs, self.precision)?.into_iter();
        let load = |(site, delta): &(Site, LinearDelta<Tensor>)| {
            let pair = delta.low_rank.as_ref().and_then(|_| pairs.next());
            Ok((*site, delta.load_beside(pair, kernels, self.precision_at(*site))?))
        };
        parts.iter().map(load).collect()
    }

    /// How rows of its own for a site are stored: as the base's.
    fn precision_at(&self, site: Site) -> Precision {
        match site {
            Site::Block { .. } | Site::HeadDense => self.precision,
            Site::Head => self.precision.of_tables(),
        }
    }

    /// Bytes that [`ResidentForm::prepare`] will make of an adapter, to plan with: what a device adds between rows or
    /// at odd ranks, and what the parts of a fused layer need more than the whole, is not in it.
    pub fn estimate(&self, weights: &LoraWeights) -> usize {
        let sites = weights.sites().map(|(site, delta)| {
            let vectors = [&delta.gain, &delta.shift].into_iter().flatten().map(bytes);
            let rows = delta.trained.as_ref();
            self.pair(delta.low_rank.as_ref())
                + vectors.sum::<usize>()
                + rows.map_or(0, |rows| stored(rows, self.precision_at(site)))
        });
        let embedding = weights.embedding().map_or(0, |delta| {
            let rows = delta.trained.as_ref();
            self.pair(delta.low_rank.as_ref())
                + delta.gain.as_ref().map_or(0, bytes)
                + rows.map_or(0, |rows| stored(rows, self.precision.of_tables()))
        });
        let norms = weights.norms().chain(weights.norm_biases()).map(|(_, weight)| bytes(weight));
        let head = weights.class_head().map_or(0, ClassHead::bytes);
        sites.sum::<usize>() + embedding + norms.sum::<usize>() + head
    }

    /// As [`Kernels::load_low_ranks`] holds it.
    fn pair(&self, pair: Option<&LowRank>) -> usize {
        let width = if self.precision == Precision::F32 { 4 } else { 2 };
        pair.map_or(0, |pair| (pair.in_features() + pair.out_features()) * pair.rank() * width)
    }
}

impl PreparedAdapter {
    /// Bytes it holds, memory that it shares with its own parts or with the host's form counted once.
    pub fn bytes(&self) -> usize {
        let mut seen = HashSet::new();
        let mut once = |tensor: &Tensor| once(&mut seen, tensor);
        let pair = |pair: &LowRank, once: &mut dyn FnMut(&Tensor) -> usize| {
            pair.rows().map_or_else(|_| pair.bytes(), |(a, b)| once(a) + once(b))
        };
        let mut sum = 0;
        for (_, delta) in &self.sites {
            sum += delta.low_rank.as_ref().map_or(0, |p| pair(p, &mut once));
            sum += [&delta.gain, &delta.shift].into_iter().flatten().map(&mut once).sum::<usize>();
            sum += delta.trained.as_ref().map_or(0, held);
        }
        if let Some(delta) = &self.embedding {
            sum += delta.low_rank.as_ref().map_or(0, |p| pair(p, &mut once));
            sum += delta.gain.as_ref().map_or(0, &mut once);
            sum += delta.trained.as_ref().map_or(0, held);
        }
        let norms = self.norms.iter().chain(&self.norm_biases);
        sum + norms.map(|(_, weight)| once(weight)).sum::<usize>()
            + self.class_head.as_ref().map_or(0, ResidentHead::bytes)
    }
}

fn once(seen: &mut HashSet<TensorId>, tensor: &Tensor) -> usize {
    if seen.insert(tensor.id()) { bytes(tensor) } else { 0 }
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

fn held(rows: &TrainedRows) -> usize {
    rows.weight.bytes() + rows.ids.as_ref().map_or(0, |ids| size_of_val::<[u32]>(ids))
}

/// Bytes of rows in `precision`, without what lies between them.
fn stored(rows: &TrainedRows<Tensor>, precision: Precision) -> usize {
    let values = rows.weight.elem_count();
    let weights = match precision {
        Precision::Auto | Precision::F32 => 4 * values,
        Precision::Bf16 => 2 * values,
        Precision::Int8 => values + values / 16,
        Precision::Int4 => values / 2 + values / 16,
    };
    weights + rows.ids.as_ref().map_or(0, |ids| size_of_val::<[u32]>(ids))
}

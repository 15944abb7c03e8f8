//! Weights in panels: a few columns of the product side by side, so that one pass over `in` makes them all.
use super::super::check;
use super::super::weight::{Packed, WeightData};
use super::super::{BaseWeight, KernelError, Precision, Result};
#[cfg(target_arch = "x86_64")]
use super::amx::{self, Amx};
use super::linear::VECTORS;
use super::machine::Machine;
use super::memory::{Arena, Pages};
use super::simd::pair;
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::any::Any;

/// `[panels, steps, width]`: column `c` of panel `p` is row `p · width + c` of the weight; the rest is 0.
pub(super) struct PackedWeight {
    pub(super) panels: Panels,
    /// Columns of a panel.
    pub(super) width: usize,
    /// Values (or pairs of them) of a column.
    pub(super) steps: usize,
}

/// The values of a [`PackedWeight`].
pub(super) enum Panels {
    /// One value a step.
    F32(Pages<f32>),
    /// Two values of bfloat16 a step, the earlier in the lower half.
    Bf16(Pages<u32>),
    /// As `Bf16`, the steps filled up to whole tiles.
    #[cfg(target_arch = "x86_64")]
    Tiles(Amx, Pages<u32>),
}

impl Packed for PackedWeight {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn row(&self, row: usize, to: &mut [f32]) {
        let (panel, column) = (row / self.width, row % self.width);
        let start = panel * self.steps * self.width + column;
        match &self.panels {
            Panels::F32(values) => {
                let steps = values[start..].iter().step_by(self.width);
                to.iter_mut().zip(steps).for_each(|(to, value)| *to = *value);
            }
            Panels::Bf16(pairs) => widen(pairs[start..].iter().step_by(self.width), to),
            #[cfg(target_arch = "x86_64")]
            Panels::Tiles(_, pairs) => widen(pairs[start..].iter().step_by(self.width), to),
        }
    }

    fn bytes(&self) -> &[u8] {
        match &self.panels {
            Panels::F32(values) => values.bytes(),
            Panels::Bf16(pairs) => pairs.bytes(),
            #[cfg(target_arch = "x86_64")]
            Panels::Tiles(_, pairs) => pairs.bytes(),
        }
    }
}

impl PackedWeight {
    /// Whether products with it are tiles.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn is_tiles(&self) -> bool {
        matches!(self.panels, Panels::Tiles(..))
    }

    /// The kernels' own layout behind `weight`.
    pub(super) fn of(weight: &BaseWeight) -> Result<&Self> {
        let packed = match &weight.data {
            WeightData::Packed(packed) => packed.as_any().downcast_ref(),
            WeightData::Device(_) => None,
        };
        packed.ok_or_else(|| {
            let detail = "packed by another device, or as a table whose rows are looked up";
            KernelError::mismatch("weight", format!("{weight:?} was {detail}"))
        })
    }
}

pub(super) fn widen<'a>(mut pairs: impl Iterator<Item = &'a u32>, to: &mut [f32]) {
    let (full, rest) = to.as_chunks_mut();
    for (to, pair) in full.iter_mut().zip(pairs.by_ref()) {
        *to = [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)];
    }
    if let (Some(last), Some(pair)) = (rest.first_mut(), pairs.next()) {
        *last = f32::from_bits(pair << 16);
    }
}

/// Packs a host weight `[out, in]` for the machine's vectors, to memory of `arena`.
pub(super) fn pack(
    weight: &Tensor,
    precision: Precision,
    machine: &Machine,
    arena: &Arena,
) -> Result<BaseWeight> {
    let (out_features, in_features) = check::weight(weight)?;
    let weight = on_host(weight)?;
    let (storage, layout) = weight.storage_and_layout();
    let rows = Rows::new(&storage, layout.start_offset(), [out_features, in_features])?;
    let width = machine.level.lanes() * VECTORS;
    let packed = match precision {
        Precision::F32 => {
            let panels = Panels::F32(pack_f32(&rows, width, (machine, arena))?);
            PackedWeight { panels, width, steps: in_features }
        }
        Precision::Bf16 => pack_pairs(&rows, width, (machine, arena))?,
        Precision::Auto | Precision::Int8 | Precision::Int4 => {
            return Err(KernelError::Unsupported(format!("no panels of precision `{precision}`")));
        }
    };
    let data = WeightData::Packed(Box::new(packed));
    Ok(BaseWeight { out_features, in_features, precision, data })
}

/// For tiles where the machine has them.
fn pack_pairs(rows: &Rows<'_>, width: usize, memory: (&Machine, &Arena)) -> Result<PackedWeight> {
    let steps = rows.len.div_ceil(2);
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = memory.0.level.tiles() {
        let (width, steps) = (amx::WIDTH, steps.next_multiple_of(amx::TILE));
        let panels = Panels::Tiles(amx, pack_bf16(rows, (steps, width), memory)?);
        return Ok(PackedWeight { panels, width, steps });
    }
    let panels = Panels::Bf16(pack_bf16(rows, (steps, width), memory)?);
    Ok(PackedWeight { panels, width, steps })
}

/// The weight where it can be read, in a float dtype that [`Rows`] reads.
pub(super) fn on_host(weight: &Tensor) -> Result<Tensor> {
    let weight = match weight.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => weight.clone(),
        _ => weight.to_dtype(DType::F32)?,
    };
    Ok(weight.to_device(&Device::Cpu)?.contiguous()?)
}

fn pack_f32(
    rows: &Rows<'_>,
    width: usize,
    (machine, arena): (&Machine, &Arena),
) -> Result<Pages<f32>> {
    let panel = rows.len * width;
    let mut packed = arena.zeroed(rows.count.div_ceil(width) * panel)?;
    machine.pool.chunks(&mut packed, panel, |index, panel| {
        rows.each(index * width..(index + 1) * width, |column, values| {
            let to = panel[column..].iter_mut().step_by(width);
            to.zip(values).for_each(|(to, value)| *to = *value);
        });
    });
    Ok(packed)
}

fn pack_bf16(
    rows: &Rows<'_>,
    (steps, width): (usize, usize),
    (machine, arena): (&Machine, &Arena),
) -> Result<Pages<u32>> {
    let panel = steps * width;
    let mut packed = arena.zeroed(rows.count.div_ceil(width) * panel)?;
    machine.pool.chunks(&mut packed, panel, |index, panel| {
        rows.each(index * width..(index + 1) * width, |column, values| {
            let to = panel[column..].iter_mut().step_by(width);
            to.zip(values.chunks(2)).for_each(|(to, two)| {
                *to = pair(two[0], two.get(1).copied().unwrap_or(0.0));
            });
        });
    });
    Ok(packed)
}

/// Rows of a contiguous host matrix.
pub(super) struct Rows<'a> {
    values: Values<'a>,
    pub(super) count: usize,
    pub(super) len: usize,
}

enum Values<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl<'a> Rows<'a> {
    /// `count` rows of `len` values from element `start` on.
    pub(super) fn new(
        storage: &'a Storage,
        start: usize,
        [count, len]: [usize; 2],
    ) -> Result<Self> {
        let range = start..start + count * len;
        let values = match storage {
            Storage::Cpu(CpuStorage::F32(values)) => Values::F32(&values[range]),
            Storage::Cpu(CpuStorage::F16(values)) => Values::F16(&values[range]),
            Storage::Cpu(CpuStorage::BF16(values)) => Values::Bf16(&values[range]),
            _ => {
                return Err(KernelError::mismatch(
                    "pack",
                    "the weight is no host matrix of floats",
                ));
            }
        };
        Ok(Self { values, count, len })
    }

    /// Calls `take` with the place in `range` and the values of every row there is.
    pub(super) fn each(&self, range: std::ops::Range<usize>, mut take: impl FnMut(usize, &[f32])) {
        let mut widened = vec![0.0; self.len];
        for (place, row) in range.enumerate().take_while(|(_, row)| *row < self.count) {
            let span = row * self.len..(row + 1) * self.len;
            match &self.values {
                Values::F32(values) => widened.copy_from_slice(&values[span]),
                Values::F16(values) => values[span].convert_to_f32_slice(&mut widened),
                Values::Bf16(values) => values[span].convert_to_f32_slice(&mut widened),
            }
            take(place, &widened);
        }
    }
}

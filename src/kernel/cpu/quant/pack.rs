//! Weights rounded to integers, in panels of 32 columns.
use super::super::super::check;
use super::super::super::weight::{Packed, WeightData};
use super::super::super::{BaseWeight, Precision, Result};
use super::super::machine::Machine;
use super::super::memory::{Arena, Pages};
use super::super::pack::{Rows, on_host};
use super::super::simd::{Simd, Task};
use super::format::{Format, Int4, Int8, WIDTH};
use candle_core::Tensor;
use std::any::Any;
use std::marker::PhantomData;

/// `[panels, groups]` of a format's words: column `c` of panel `p` is row `p · WIDTH + c` of the weight; the rest is
/// zero weights with scale 0.
pub(in super::super) struct QuantWeight {
    pub(super) kind: Kind,
    pub(super) words: Pages<u32>,
}

/// The format of the words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Int8,
    Int4,
}

impl Packed for QuantWeight {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn row(&self, row: usize, to: &mut [f32]) {
        match self.kind {
            Kind::Int8 => self.unpack::<Int8>(row, to),
            Kind::Int4 => self.unpack::<Int4>(row, to),
        }
    }

    fn bytes(&self) -> &[u8] {
        self.words.bytes()
    }
}

impl QuantWeight {
    /// The integers behind `weight`, where it has some.
    pub(in super::super) fn of(weight: &BaseWeight) -> Option<&Self> {
        match &weight.data {
            WeightData::Packed(packed) => packed.as_any().downcast_ref(),
            WeightData::Device(_) => None,
        }
    }

    fn unpack<F: Format>(&self, row: usize, to: &mut [f32]) {
        let panel = to.len().div_ceil(F::GROUP) * F::WORDS;
        let groups = self.words[row / WIDTH * panel..].chunks_exact(F::WORDS);
        for (to, group) in to.chunks_mut(F::GROUP).zip(groups) {
            F::unpack(group, row % WIDTH, to);
        }
    }
}

/// Rounds and packs a host weight `[out, in]` to memory of `arena`; `precision` is int8 or int4.
pub(in super::super) fn pack(
    weight: &Tensor,
    precision: Precision,
    machine: &Machine,
    arena: &Arena,
) -> Result<BaseWeight> {
    let (out_features, in_features) = check::weight(weight)?;
    let weight = on_host(weight)?;
    let (storage, layout) = weight.storage_and_layout();
    let rows = Rows::new(&storage, layout.start_offset(), [out_features, in_features])?;
    let packed = match precision {
        Precision::Int4 => {
            QuantWeight { kind: Kind::Int4, words: words::<Int4>(&rows, machine, arena)? }
        }
        _ => QuantWeight { kind: Kind::Int8, words: words::<Int8>(&rows, machine, arena)? },
    };
    let data = WeightData::Packed(Box::new(packed));
    Ok(BaseWeight { out_features, in_features, precision, data })
}

fn words<F: Format>(rows: &Rows<'_>, machine: &Machine, arena: &Arena) -> Result<Pages<u32>> {
    let panel = rows.len.div_ceil(F::GROUP) * F::WORDS;
    let mut words = arena.zeroed(rows.count.div_ceil(WIDTH) * panel)?;
    machine.pool.chunks(&mut words, panel, |index, panel| {
        rows.each(index * WIDTH..(index + 1) * WIDTH, |column, values| {
            machine.level.run(PackColumn::<F> { values, column, panel, format: PhantomData });
        });
    });
    Ok(words)
}

/// One column of a panel.
struct PackColumn<'a, F> {
    values: &'a [f32],
    column: usize,
    panel: &'a mut [u32],
    format: PhantomData<F>,
}

impl<F: Format> Task for PackColumn<'_, F> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "compiled with the caller's instruction set")]
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let groups = self.panel.chunks_exact_mut(F::WORDS);
        for (values, group) in self.values.chunks(F::GROUP).zip(groups) {
            F::pack(values, self.column, group);
        }
    }
}

//! Keys and values in host memory: values row by row, keys with a vector of tokens side by side.
//!
//! A score is a sum over `head_dim`, so with tokens in the lanes a vector of scores needs no sum across
//! lanes; an output is a sum over tokens, so values lie with `head_dim` in the lanes.
use super::super::kv::KvLayer;
use super::super::{KvCache, KvShape, Result};
use super::memory::Arena;

/// Keys `[blocks, kv_heads, groups, head_dim, lanes]`, values `[blocks, kv_heads, block_size, head_dim]`;
/// token `o` of a block is lane `o % lanes` of group `o / lanes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct KvLayout {
    pub(super) shape: KvShape,
    pub(super) lanes: usize,
}

impl KvLayout {
    /// Groups of tokens a block has.
    pub(super) fn groups(self) -> usize {
        self.shape.block_size.div_ceil(self.lanes)
    }

    /// Values of one group of keys.
    pub(super) fn group_len(self) -> usize {
        self.shape.head_dim * self.lanes
    }

    /// Where a group of keys begins.
    pub(super) fn group(self, block: usize, kv_head: usize, group: usize) -> usize {
        ((block * self.shape.kv_heads + kv_head) * self.groups() + group) * self.group_len()
    }

    /// The group of a position, counted over a sequence's blocks.
    pub(super) fn group_of(self, position: usize) -> usize {
        let size = self.shape.block_size;
        position / size * self.groups() + position % size / self.lanes
    }

    /// The first position of a group, counted over a sequence's blocks.
    pub(super) fn position_of(self, group: usize) -> usize {
        group / self.groups() * self.shape.block_size + group % self.groups() * self.lanes
    }

    /// Where the values of a block's token begin.
    pub(super) fn value(self, block: usize, kv_head: usize, offset: usize) -> usize {
        let heads = block * self.shape.kv_heads + kv_head;
        (heads * self.shape.block_size + offset) * self.shape.head_dim
    }

    /// A whole cache of zeros.
    pub(super) fn allocate(self, arena: &Arena) -> Result<KvCache> {
        let KvShape { layers, blocks, block_size, kv_heads, head_dim } = self.shape;
        let heads = blocks * kv_heads;
        let layer = |_| {
            let keys = arena.zeroed(heads * self.groups() * self.group_len())?;
            Ok(KvLayer::Pages { keys, values: arena.zeroed(heads * block_size * head_dim)? })
        };
        let layers = (0..layers).map(layer).collect::<Result<_>>()?;
        Ok(KvCache { shape: self.shape, layers })
    }

    /// Writes one token's keys and values (`[kv_heads, head_dim]` each) to KV row `row`.
    pub(super) fn write(
        self,
        (keys, values): (&mut [f32], &mut [f32]),
        row: usize,
        (k, v): (&[f32], &[f32]),
    ) {
        let KvShape { block_size, head_dim, .. } = self.shape;
        let (block, offset) = (row / block_size, row % block_size);
        let heads = k.chunks_exact(head_dim).zip(v.chunks_exact(head_dim));
        for (head, (k, v)) in heads.enumerate() {
            let group = self.group(block, head, offset / self.lanes);
            let lane = keys[group..][..self.group_len()].iter_mut().skip(offset % self.lanes);
            lane.step_by(self.lanes).zip(k).for_each(|(to, k)| *to = *k);
            values[self.value(block, head, offset)..][..head_dim].copy_from_slice(v);
        }
    }
}

//! The door to the CPU kernels: checks what comes in, hands out memory, and calls the right one.
use super::super::kv::{KvLayer, foreign};
use super::super::{
    Act, Activation, AttentionArgs, BaseWeight, EmbeddingDelta, FeedForward, KernelError, Kernels,
    KvCache, KvShape, LoraTarget, LowRank, NormWeights, Precision, Result, RopeKvArgs, RowSegment,
    weight::stack,
};
use super::super::{aside, check};
use super::attention::Attention;
use super::embedding::AdaptEmbedding;
use super::isa::{Isa, Level};
use super::kv::KvLayout;
use super::linear::{Linear, on_tiles};
use super::lora::AddLora;
#[cfg(target_arch = "x86_64")]
use super::lora_tiles::TilePair;
use super::machine::{Machine, rows_per_item};
use super::memory::Arena;
use super::norm::Norm;
use super::pack::pack;
use super::pool::Pool;
use super::table::pack_table;
use super::{elementwise, highest, host, quant, sums};
use candle_core::{DType, Tensor};
use std::{borrow::Cow, ops::Range, slice::from_ref};

/// The CPU kernels: an instruction set and some threads.
pub struct CpuKernels {
    machine: Machine,
}

impl CpuKernels {
    /// On `threads` threads in all, with the best instruction set this machine has.
    ///
    /// # Errors
    /// When the system starts no more threads.
    pub fn new(threads: usize) -> Result<Self> {
        Self::at(threads, Level::best())
    }

    /// With a given instruction set.
    ///
    /// # Errors
    /// When this machine does not have it, or the system starts no more threads.
    pub fn with_isa(threads: usize, isa: Isa) -> Result<Self> {
        let unsupported = || KernelError::Unsupported(format!("this machine has no {isa}"));
        Self::at(threads, Level::of(isa).ok_or_else(unsupported)?)
    }

    fn at(threads: usize, level: Level) -> Result<Self> {
        let refused = |e| KernelError::Unsupported(format!("cannot start {threads} threads: {e}"));
        let pool = Pool::new(threads).map_err(refused)?;
        Ok(Self { machine: Machine::new(level, pool) })
    }

    /// `x · Wᵀ + bias` to `y`, or added to it; all of it checked.
    fn product(
        &self,
        x: &Act,
        weight: &BaseWeight,
        (bias, onto): (Option<&Act>, bool),
        y: &mut [f32],
    ) -> Result<()> {
        product_of(x, (weight, bias), onto)?.multiply(&self.machine, weight, y)
    }

    /// A product with what adapters change, to `y` or added to it, its shapes checked: pairs at its end where that can
    /// be, the rest after it.
    fn adapted(
        &self,
        (y, onto): (&mut Act, bool),
        x: &Act,
        (weight, bias): (&BaseWeight, Option<&Act>),
        targets: &[LoraTarget<'_>],
        segments: &[RowSegment],
    ) -> Result<()> {
        let parts = check::lora(y, x.shape(), targets, segments)?;
        let mut lora = AddLora::new(x, y, targets, segments)?;
        if !parts.vectors && lora.joins(&self.machine, weight)? {
            let linear = product_of(x, (weight, bias), onto)?;
            let y = y.values_mut()?;
            Linear { pairs: Some(&lora), ..linear }.multiply(&self.machine, weight, y)?;
            lora.have_joined = true;
            return self.add_deltas(&lora, parts, y);
        }
        let product_and_deltas = |y: &mut Act| {
            let y = y.values_mut()?;
            self.product(x, weight, (bias, onto), y)?;
            self.add_deltas(&lora, parts, y)
        };
        if onto {
            aside::keeping_aside(y, targets, segments, product_and_deltas)
        } else {
            product_and_deltas(y)
        }
    }

    /// The parts of a delta in their order.
    fn add_deltas(&self, lora: &AddLora<'_>, parts: check::Parts, y: &mut [f32]) -> Result<()> {
        if parts.vectors {
            lora.scale_and_shift(&self.machine, y)?;
        }
        lora.add_pairs(&self.machine, y)?;
        if parts.trained {
            lora.add_trained(&self.machine, y)?;
        }
        Ok(())
    }

    fn packed(&self, weight: &Tensor, precision: Precision, arena: &Arena) -> Result<BaseWeight> {
        match self.concrete(precision) {
            precision @ (Precision::Int8 | Precision::Int4) => {
                quant::pack(weight, precision, &self.machine, arena)
            }
            precision => pack(weight, precision, &self.machine, arena),
        }
    }

    fn concrete(&self, precision: Precision) -> Precision {
        if precision == Precision::Auto { self.auto_precision() } else { precision }
    }

    fn layout(&self, shape: KvShape) -> KvLayout {
        KvLayout { shape, lanes: self.machine.level.lanes() }
    }
}

/// The operands of a product, checked by the caller.
fn product_of<'a>(
    x: &'a Act,
    (weight, bias): (&BaseWeight, Option<&'a Act>),
    onto: bool,
) -> Result<Linear<'a>> {
    let (in_features, out_features) = (weight.in_features, weight.out_features);
    let (x, rows, bias) = (x.values()?, x.rows(), bias.map(Act::values).transpose()?);
    Ok(Linear { x, rows, in_features, out_features, bias, onto, pairs: None, between: None })
}

impl Kernels for CpuKernels {
    fn kv_block_bytes(&self, shape: KvShape) -> usize {
        self.layout(shape).block_bytes()
    }

    fn describe(&self) -> String {
        let threads = self.machine.pool.threads();
        let plural = if threads == 1 { "" } else { "s" };
        format!("cpu, {}, {threads} thread{plural}", self.machine.level.isa())
    }

    fn loads_on_any_thread(&self) -> bool {
        true
    }

    fn auto_precision(&self) -> Precision {
        match self.machine.level.isa() {
            // Half the bytes to read, and widening is free beside the products.
            Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 | Isa::Avx2 | Isa::Neon => Precision::Bf16,
            Isa::Portable => Precision::F32,
        }
    }

    fn pack(&self, parts: &[Tensor], precision: Precision) -> Result<BaseWeight> {
        self.packed(&stack(parts)?, precision, &self.machine.arena)
    }

    fn pack_table(&self, table: &Tensor, precision: Precision) -> Result<BaseWeight> {
        match self.concrete(precision) {
            precision @ (Precision::Int8 | Precision::Int4) => {
                self.pack(from_ref(table), precision)
            }
            precision => pack_table(table, precision, &self.machine, &self.machine.arena),
        }
    }

    fn load_rows(&self, rows: &Tensor, precision: Precision) -> Result<BaseWeight> {
        self.packed(rows, precision, &Arena::of_single_pieces())
    }

    fn load_vector(&self, vector: &Tensor) -> Result<Tensor> {
        let vector = vector.to_dtype(DType::F32)?.contiguous()?;
        host::values(&vector)?;
        Ok(vector)
    }

    fn upload(&self, values: &[f32], rows: usize, cols: usize) -> Result<Act> {
        check::upload(values, rows, cols)?;
        self.machine.act(rows, cols, |to| {
            to.copy_from_slice(values);
            Ok(())
        })
    }

    fn read<'a>(&self, x: &'a Act) -> Result<Cow<'a, [f32]>> {
        x.values().map(Cow::Borrowed)
    }

    fn load_low_rank(&self, pair: &LowRank, precision: Precision) -> Result<LowRank> {
        Ok(self.load_low_ranks(&[pair], precision)?.remove(0))
    }

    fn load_low_ranks(&self, pairs: &[&LowRank], precision: Precision) -> Result<Vec<LowRank>> {
        let rows = |pair: &LowRank| self.load_embedding_pair(pair, precision);
        #[cfg(target_arch = "x86_64")]
        if self.machine.level.tiles().is_some() && precision != Precision::F32 {
            return TilePair::of_adapter(&self.machine, pairs, rows);
        }
        pairs.iter().map(|pair| rows(pair)).collect()
    }

    fn load_embedding_pair(&self, pair: &LowRank, precision: Precision) -> Result<LowRank> {
        let (a, b) = pair.rows()?;
        host::values(a)?;
        host::values(b)?;
        pair.beside(precision)
    }

    fn new_kv(&self, shape: KvShape) -> Result<KvCache> {
        if shape.block_size == 0 || shape.row() == 0 {
            return Err(KernelError::mismatch("new_kv", format!("{shape:?} holds nothing")));
        }
        self.layout(shape).allocate(&self.machine.arena)
    }

    fn embed(&self, table: &BaseWeight, ids: &[u32]) -> Result<Act> {
        check::indices("embed", ids, table.out_features)?;
        let packed = table.packed()?;
        let cols = table.in_features;
        let rows = rows_per_item(cols);
        self.machine.act(ids.len(), cols, |to| {
            self.machine.pool.chunks(to, rows * cols, |index, to| {
                for (row, to) in to.chunks_exact_mut(cols).enumerate() {
                    packed.row(ids[index * rows + row] as usize, to);
                }
            });
            Ok(())
        })
    }

    fn adapt_embedding(
        &self,
        x: &mut Act,
        ids: &[u32],
        slots: &[Option<EmbeddingDelta>],
        segments: &[RowSegment],
    ) -> Result<()> {
        check::adapt_embedding(x, ids, slots, segments)?;
        let adapted = AdaptEmbedding { ids, hidden: x.cols(), slots, segments };
        adapted.run(&self.machine, x.values_mut()?)
    }

    fn linear(&self, x: &Act, weight: &BaseWeight, bias: Option<&Act>) -> Result<Act> {
        check::linear(x.shape(), weight, bias)?;
        self.machine
            .act(x.rows(), weight.out_features, |y| self.product(x, weight, (bias, false), y))
    }

    fn add_linear(
        &self,
        y: &mut Act,
        x: &Act,
        weight: &BaseWeight,
        bias: Option<&Act>,
    ) -> Result<()> {
        check::add_linear(y, x.shape(), weight, bias)?;
        self.product(x, weight, (bias, true), y.values_mut()?)
    }

    fn add_lora(
        &self,
        y: &mut Act,
        x: &Act,
        targets: &[LoraTarget<'_>],
        segments: &[RowSegment],
    ) -> Result<()> {
        let parts = check::lora(y, x.shape(), targets, segments)?;
        let lora = AddLora::new(x, y, targets, segments)?;
        self.add_deltas(&lora, parts, y.values_mut()?)
    }

    fn adapted_linear(
        &self,
        x: &Act,
        (weight, bias): (&BaseWeight, Option<&Act>),
        targets: &[LoraTarget<'_>],
        segments: &[RowSegment],
    ) -> Result<Act> {
        check::linear(x.shape(), weight, bias)?;
        let mut y = self.machine.act(x.rows(), weight.out_features, |_| Ok(()))?;
        self.adapted((&mut y, false), x, (weight, bias), targets, segments)?;
        Ok(y)
    }

    fn add_adapted(
        &self,
        y: &mut Act,
        x: &Act,
        (weight, bias): (&BaseWeight, Option<&Act>),
        targets: &[LoraTarget<'_>],
        segments: &[RowSegment],
    ) -> Result<()> {
        check::add_linear(y, x.shape(), weight, bias)?;
        self.adapted((y, true), x, (weight, bias), targets, segments)
    }

    fn add_feed_forward(
        &self,
        y: &mut Act,
        (wide, between): (Act, FeedForward),
        (weight, bias): (&BaseWeight, Option<&Act>),
        targets: &[LoraTarget<'_>],
        segments: &[RowSegment],
    ) -> Result<()> {
        let x = check::inner(&wide, between)?;
        check::add_linear(y, x, weight, bias)?;
        let parts = check::lora(y, x, targets, segments)?;
        let lora = AddLora::without_rows(x, y, targets, segments);
        let pairs = lora.has_pairs().then_some(&lora);
        let is_all = pairs.map_or(Ok(true), |lora| lora.joins(&self.machine, weight))?;
        if is_all && !parts.vectors && !parts.trained && on_tiles(&self.machine, weight)? {
            let linear = product_of(&wide, (weight, bias), true)?;
            let linear = Linear { between: Some(between), pairs, ..linear };
            return linear.multiply(&self.machine, weight, y.values_mut()?);
        }
        let inner = self.inner(wide, between)?;
        self.adapted((y, true), &inner, (weight, bias), targets, segments)
    }

    fn rms_norm(&self, x: &Act, weights: NormWeights<'_>, eps: f32) -> Result<Act> {
        check::rms_norm(x, &weights)?;
        let (norm, from) = (Norm::new(weights, eps)?, x.values()?);
        self.machine.act(x.rows(), x.cols(), |y| {
            norm.rows(&self.machine, from, y);
            Ok(())
        })
    }

    fn layer_norm(
        &self,
        x: &Act,
        weights: NormWeights<'_>,
        biases: Option<NormWeights<'_>>,
        eps: f32,
    ) -> Result<Act> {
        check::layer_norm(x, &weights, biases.as_ref())?;
        let (norm, from) = (Norm::new(weights, eps)?.and_biases(biases)?, x.values()?);
        self.machine.act(x.rows(), x.cols(), |y| {
            norm.centred_rows(&self.machine, from, y);
            Ok(())
        })
    }

    fn head_norm(
        &self,
        x: &mut Act,
        columns: Range<usize>,
        weights: NormWeights<'_>,
        eps: f32,
    ) -> Result<()> {
        check::head_norm(x, &columns, &weights)?;
        let (norm, cols) = (Norm::new(weights, eps)?, x.cols());
        norm.heads(&self.machine, (x.values_mut()?, cols), &columns);
        Ok(())
    }

    fn rope_write_kv(
        &self,
        qkv: &mut Act,
        cache: &mut KvCache,
        layer: usize,
        args: &RopeKvArgs<'_>,
    ) -> Result<()> {
        check::rope_write_kv(qkv, cache, layer, args)?;
        let cols = qkv.cols();
        if let Some(table) = args.table {
            let (half, rotated) = (table.head_dim / 2, cols - cache.shape.row());
            let (cos, sin) = (host::values(&table.cos)?, host::values(&table.sin)?);
            let (cos, sin): (&[f32], &[f32]) = (&cos, &sin);
            elementwise::rope(&self.machine, (qkv.values_mut()?, cols), rotated, |row| {
                let at = args.positions[row] as usize * half;
                (&cos[at..at + half], &sin[at..at + half])
            });
        }
        let layout = self.layout(cache.shape);
        let rows = (qkv.values()?, cols);
        let layer = cache.layers.get_mut(layer).ok_or_else(foreign)?;
        layout.write(&self.machine, layer, rows, args.slot_mapping)
    }

    fn gated(&self, gate_up: &Act, activation: Activation) -> Result<Act> {
        let inner = check::gated(gate_up)?;
        let from = gate_up.values()?;
        self.machine.act(gate_up.rows(), inner, |y| {
            elementwise::gated(&self.machine, (from, inner), activation, y);
            Ok(())
        })
    }

    fn activate(&self, x: &mut Act, activation: Activation) -> Result<()> {
        elementwise::activate(&self.machine, activation, x.values_mut()?);
        Ok(())
    }

    fn add_rows(&self, x: &mut Act, table: &Act, rows: &[u32]) -> Result<()> {
        check::add_rows(x, table, rows)?;
        let cols = x.cols();
        sums::add_rows(&self.machine, (x.values_mut()?, cols), table.values()?, rows);
        Ok(())
    }

    fn mean_rows(&self, x: &Act, ranges: &[Range<u32>]) -> Result<Act> {
        check::mean_rows(x, ranges)?;
        let from = (x.values()?, x.cols());
        self.machine.act(ranges.len(), x.cols(), |y| {
            sums::mean_rows(&self.machine, from, ranges, y);
            Ok(())
        })
    }

    fn paged_attention(
        &self,
        q: &Act,
        cache: &KvCache,
        layer: usize,
        args: &AttentionArgs<'_>,
    ) -> Result<Act> {
        check::attention(q, cache, layer, args)?;
        let (layout, args) = (self.layout(cache.shape), *args);
        let (q_cols, cols) = (q.cols(), args.heads * cache.shape.head_dim);
        let (q_rows, q) = (q.rows(), q.values()?);
        self.machine.act(q_rows, cols, |out| {
            match cache.layers.get(layer) {
                Some(KvLayer::Pages { keys, values }) => {
                    let scales = None;
                    Attention { q, q_cols, keys, values, scales, layout, args }
                        .run(&self.machine, out);
                }
                Some(KvLayer::Pairs { keys, values }) => {
                    let scales = None;
                    Attention { q, q_cols, keys, values, scales, layout, args }
                        .run(&self.machine, out);
                }
                Some(KvLayer::Quads { keys, values, scales }) => {
                    let scales = Some(scales);
                    Attention { q, q_cols, keys, values, scales, layout, args }
                        .run(&self.machine, out);
                }
                _ => return Err(foreign()),
            }
            Ok(())
        })
    }

    fn highest(&self, rows: &[f32], cols: usize, highest: &mut Vec<Option<u32>>) -> Result<()> {
        highest.clear();
        highest.resize(check::highest(rows, cols)?, None);
        highest::highest(&self.machine, rows, cols, highest);
        Ok(())
    }

    fn for_each(&self, items: usize, task: &(dyn Fn(usize) + Sync)) {
        self.machine.pool.run(items, task);
    }

    fn select_rows(&self, x: &Act, rows: &[u32]) -> Result<Act> {
        check::indices("select_rows", rows, x.rows())?;
        let (from, cols) = (x.values()?, x.cols());
        self.machine.act(rows.len(), cols, |to| {
            for (to, row) in to.chunks_exact_mut(cols.max(1)).zip(rows) {
                to.copy_from_slice(&from[*row as usize * cols..][..cols]);
            }
            Ok(())
        })
    }
}

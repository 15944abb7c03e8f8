//! The loops.
use super::deltas;
use crate::kernel::{
    Act, Activation, AttentionArgs, BaseWeight, EmbeddingDelta, KernelError, Kernels, KvCache,
    KvPrecision, KvShape, LoraTarget, LowRank, NormWeights, Precision, Result, RopeKvArgs,
    RowSegment,
    args::SequenceArgs,
    check,
    rounding::{Rounding, Step, rounded},
    weight::stack,
};
use candle_core::{DType, Device, Tensor};
use half::bf16;
use std::{borrow::Cow, f64::consts::FRAC_1_SQRT_2, ops::Range};

/// Plain loops in host memory. Weights are candle tensors in the precision asked for; with
/// [`Precision::Bf16`] activations too are rounded to bf16 before a product, and sums are not. At
/// [`Precision::Int8`] and [`Precision::Int4`] weights and activations are rounded as everywhere, and their f32
/// values multiplied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Kernels for Reference {
    fn describe(&self) -> String {
        "reference loops".into()
    }

    fn loads_on_any_thread(&self) -> bool {
        true
    }

    fn auto_precision(&self) -> Precision {
        Precision::F32
    }

    fn pack(&self, parts: &[Tensor], precision: Precision) -> Result<BaseWeight> {
        let (dtype, precision) = match precision {
            Precision::Auto | Precision::F32 => (DType::F32, Precision::F32),
            Precision::Bf16 => (DType::BF16, Precision::Bf16),
            Precision::Int8 | Precision::Int4 => {
                return pack_rounded(&stack(parts)?, precision);
            }
        };
        BaseWeight::device(stack(parts)?.to_device(&Device::Cpu)?.to_dtype(dtype)?, precision)
    }

    fn upload(&self, values: &[f32], rows: usize, cols: usize) -> Result<Act> {
        check::upload(values, rows, cols)?;
        Ok(Act::host(values.to_vec(), rows, cols))
    }

    fn read<'a>(&self, x: &'a Act) -> Result<Cow<'a, [f32]>> {
        Ok(Cow::Borrowed(x.values()?))
    }

    fn load_low_rank(&self, pair: &LowRank, precision: Precision) -> Result<LowRank> {
        pair.beside(precision)
    }

    fn new_kv(&self, shape: KvShape) -> Result<KvCache> {
        Ok(KvCache::on_host(shape))
    }

    fn embed(&self, table: &BaseWeight, ids: &[u32]) -> Result<Act> {
        check::indices("embed", ids, table.out_features())?;
        let (values, cols) = (host(table.tensor()?)?, table.in_features());
        Ok(Act::host(gather(&values, cols, ids), ids.len(), cols))
    }

    fn adapt_embedding(
        &self,
        x: &mut Act,
        ids: &[u32],
        slots: &[Option<EmbeddingDelta>],
        segments: &[RowSegment],
    ) -> Result<()> {
        check::adapt_embedding(x, ids, slots, segments)?;
        deltas::adapt_embedding(x, ids, slots, segments)
    }

    fn linear(&self, x: &Act, weight: &BaseWeight, bias: Option<&Act>) -> Result<Act> {
        check::linear(x.shape(), weight, bias)?;
        let w = host(weight.tensor()?)?;
        let x_values = in_precision(x.values()?, weight);
        let bias = bias.map(Act::values).transpose()?;
        let (k, n) = (weight.in_features(), weight.out_features());
        let mut y = Vec::with_capacity(x.rows() * n);
        for row in x_values.chunks_exact(k.max(1)) {
            for out in 0..n {
                let sum = dot(row, &w[out * k..(out + 1) * k]);
                y.push((sum + bias.map_or(0.0, |bias| f64::from(bias[out]))) as f32);
            }
        }
        Ok(Act::host(y, x.rows(), n))
    }

    fn add_linear(
        &self,
        y: &mut Act,
        x: &Act,
        weight: &BaseWeight,
        bias: Option<&Act>,
    ) -> Result<()> {
        check::add_linear(y, x.shape(), weight, bias)?;
        let product = self.linear(x, weight, bias)?;
        y.values_mut()?.iter_mut().zip(product.values()?).for_each(|(y, x)| *y += x);
        Ok(())
    }

    fn add_lora(
        &self,
        y: &mut Act,
        x: &Act,
        targets: &[LoraTarget<'_>],
        segments: &[RowSegment],
    ) -> Result<()> {
        check::lora(y, x.shape(), targets, segments)?;
        targets.iter().try_for_each(|target| deltas::add_lora(y, x, target, segments))
    }

    fn rms_norm(&self, x: &Act, weights: NormWeights<'_>, eps: f32) -> Result<Act> {
        check::rms_norm(x, &weights)?;
        let mut values = x.values()?.to_vec();
        for (t, row) in values.chunks_exact_mut(x.cols().max(1)).enumerate() {
            normalise(row, &deltas::norm_weight(&weights, t)?, eps);
        }
        Ok(Act::host(values, x.rows(), x.cols()))
    }

    fn layer_norm(
        &self,
        x: &Act,
        weights: NormWeights<'_>,
        biases: Option<NormWeights<'_>>,
        eps: f32,
    ) -> Result<Act> {
        check::layer_norm(x, &weights, biases.as_ref())?;
        let mut values = x.values()?.to_vec();
        for (t, row) in values.chunks_exact_mut(x.cols().max(1)).enumerate() {
            let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / row.len() as f64;
            for x in row.iter_mut() {
                *x = (f64::from(*x) - mean) as f32;
            }
            normalise(row, &deltas::norm_weight(&weights, t)?, eps);
            if let Some(biases) = &biases {
                let bias = deltas::norm_weight(biases, t)?;
                for (x, bias) in row.iter_mut().zip(bias) {
                    *x = (f64::from(*x) + bias) as f32;
                }
            }
        }
        Ok(Act::host(values, x.rows(), x.cols()))
    }

    fn head_norm(
        &self,
        x: &mut Act,
        columns: Range<usize>,
        weights: NormWeights<'_>,
        eps: f32,
    ) -> Result<()> {
        check::head_norm(x, &columns, &weights)?;
        let cols = x.cols();
        for (t, row) in x.values_mut()?.chunks_exact_mut(cols.max(1)).enumerate() {
            let weight = deltas::norm_weight(&weights, t)?;
            let heads = row[columns.clone()].chunks_exact_mut(weight.len());
            heads.for_each(|head| normalise(head, &weight, eps));
        }
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
        let angles =
            args.table.map(|table| Ok::<_, KernelError>((host(&table.cos)?, host(&table.sin)?)));
        let angles = angles.transpose()?;
        let (shape, cols) = (cache.shape(), qkv.cols());
        let half = shape.head_dim / 2;
        let (keys, values) = cache.host_layer_mut(layer)?;
        for (t, row) in qkv.values_mut()?.chunks_exact_mut(cols.max(1)).enumerate() {
            let (rotated, v) = row.split_at_mut(cols - shape.row());
            if let Some((cos, sin)) = &angles {
                let at = args.positions[t] as usize * half..(args.positions[t] as usize + 1) * half;
                for head in rotated.chunks_exact_mut(shape.head_dim) {
                    rotate(head, &cos[at.clone()], &sin[at.clone()]);
                }
            }
            let to = args.slot_mapping[t] as usize * shape.row();
            let k = &rotated[args.heads * shape.head_dim..];
            keys[to..to + shape.row()].copy_from_slice(&kept_in(k, shape));
            values[to..to + shape.row()].copy_from_slice(&kept_in(v, shape));
        }
        Ok(())
    }

    fn gated(&self, gate_up: &Act, activation: Activation) -> Result<Act> {
        let inner = check::gated(gate_up)?;
        let mut values = Vec::with_capacity(gate_up.rows() * inner);
        for row in gate_up.values()?.chunks_exact(gate_up.cols().max(1)) {
            let (gate, up) = row.split_at(inner);
            values.extend(gate.iter().zip(up).map(|(&gate, &up)| {
                (activate(f64::from(gate), activation) * f64::from(up)) as f32
            }));
        }
        Ok(Act::host(values, gate_up.rows(), inner))
    }

    fn activate(&self, x: &mut Act, activation: Activation) -> Result<()> {
        for x in x.values_mut()? {
            *x = activate(f64::from(*x), activation) as f32;
        }
        Ok(())
    }

    fn add_rows(&self, x: &mut Act, table: &Act, rows: &[u32]) -> Result<()> {
        check::add_rows(x, table, rows)?;
        let added = gather(table.values()?, table.cols(), rows);
        x.values_mut()?.iter_mut().zip(added).for_each(|(x, row)| *x += row);
        Ok(())
    }

    fn mean_rows(&self, x: &Act, ranges: &[Range<u32>]) -> Result<Act> {
        check::mean_rows(x, ranges)?;
        let (values, cols) = (x.values()?, x.cols());
        let mut means = Vec::with_capacity(ranges.len() * cols);
        for range in ranges {
            let rows = || range.clone().map(|row| &values[row as usize * cols..][..cols]);
            means.extend((0..cols).map(|col| {
                let sum: f64 = rows().map(|row| f64::from(row[col])).sum();
                (sum / f64::from(range.end - range.start)) as f32
            }));
        }
        Ok(Act::host(means, ranges.len(), cols))
    }

    fn paged_attention(
        &self,
        q: &Act,
        cache: &KvCache,
        layer: usize,
        args: &AttentionArgs<'_>,
    ) -> Result<Act> {
        check::attention(q, cache, layer, args)?;
        let (shape, q_values) = (cache.shape(), q.values()?);
        let cols = args.heads * shape.head_dim;
        let mut y = vec![0.0; q.rows() * cols];
        for sequence in args.sequences() {
            for (i, row) in sequence.rows.clone().enumerate() {
                for head in 0..args.heads {
                    let query =
                        &q_values[row * q.cols() + head * shape.head_dim..][..shape.head_dim];
                    let kv_head = head / (args.heads / shape.kv_heads);
                    let read = HeadCache::new(cache, layer, kv_head, &sequence)?;
                    let output = attend(query, &read, sequence.visible(i, args.reach), args.scale);
                    let at = row * cols + head * shape.head_dim;
                    y[at..at + shape.head_dim].copy_from_slice(&output);
                }
            }
        }
        Ok(Act::host(y, q.rows(), cols))
    }

    fn highest(&self, rows: &[f32], cols: usize, highest: &mut Vec<Option<u32>>) -> Result<()> {
        check::highest(rows, cols)?;
        highest.clear();
        highest.extend(rows.chunks_exact(cols.max(1)).map(|row| {
            let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let numbers = row.iter().all(|value| *value < f32::INFINITY);
            let at = row.iter().position(|value| *value == greatest)?;
            (numbers && greatest > f32::NEG_INFINITY).then_some(at as u32)
        }));
        Ok(())
    }

    fn select_rows(&self, x: &Act, rows: &[u32]) -> Result<Act> {
        check::indices("select_rows", rows, x.rows())?;
        Ok(Act::host(gather(x.values()?, x.cols(), rows), rows.len(), x.cols()))
    }
}

/// One key/value head of one sequence.
struct HeadCache<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    shape: KvShape,
    kv_head: usize,
    sequence: &'a SequenceArgs<'a>,
}

impl<'a> HeadCache<'a> {
    fn new(
        cache: &'a KvCache,
        layer: usize,
        kv_head: usize,
        sequence: &'a SequenceArgs<'a>,
    ) -> Result<Self> {
        let (keys, values) = cache.host_layer(layer)?;
        Ok(Self { keys, values, shape: cache.shape(), kv_head, sequence })
    }

    fn at<'b>(&self, memory: &'b [f32], position: usize) -> &'b [f32] {
        let row = self.sequence.kv_row(position, self.shape.block_size);
        let start = row * self.shape.row() + self.kv_head * self.shape.head_dim;
        &memory[start..start + self.shape.head_dim]
    }
}

/// `softmax(q · Kᵀ · scale) · V` of one query over the positions it sees.
fn attend(query: &[f32], cache: &HeadCache<'_>, seen: Range<usize>, scale: f32) -> Vec<f32> {
    let score = |position| dot(query, cache.at(cache.keys, position)) * f64::from(scale);
    let scores: Vec<f64> = seen.clone().map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut output = vec![0.0; query.len()];
    for (weight, position) in weights.iter().zip(seen) {
        for (sum, value) in output.iter_mut().zip(cache.at(cache.values, position)) {
            *sum += weight / total * f64::from(*value);
        }
    }
    output.into_iter().map(|sum: f64| sum as f32).collect()
}

/// `x / sqrt(mean(x²) + eps) · weight`
fn normalise(x: &mut [f32], weight: &[f64], eps: f32) {
    let mean = dot(x, x) / x.len() as f64;
    let factor = 1.0 / (mean + f64::from(eps)).sqrt();
    for (x, w) in x.iter_mut().zip(weight) {
        *x = (f64::from(*x) * factor * w) as f32;
    }
}

fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (low, high) = head.split_at_mut(cos.len());
    for (((x, y), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
    }
}

fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + candle_core::cpu::erf::erf_f64(x * FRAC_1_SQRT_2)),
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}

pub(super) fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

fn gather(values: &[f32], cols: usize, rows: &[u32]) -> Vec<f32> {
    rows.iter().flat_map(|&row| &values[row as usize * cols..][..cols]).copied().collect()
}

/// A tensor's values, widened to f32.
pub(super) fn host(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// As a cache of this shape gives them back.
fn kept_in(values: &[f32], shape: KvShape) -> Vec<f32> {
    match shape.precision {
        KvPrecision::F32 => values.to_vec(),
        KvPrecision::Bf16 => in_bf16(values),
        KvPrecision::Int8 => values.chunks(shape.head_dim).flat_map(in_steps).collect(),
    }
}

/// Rounded to steps of one size.
fn in_steps(values: &[f32]) -> impl Iterator<Item = f32> {
    let step = Step::of(values);
    values.iter().map(move |value| f32::from(step.round(*value)) * step.size)
}

/// Rounded once.
fn in_bf16(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&value| bf16::from_f32(value).to_f32()).collect()
}

/// Activations as `weight`'s precision multiplies them.
pub(super) fn in_precision(values: &[f32], weight: &BaseWeight) -> Vec<f32> {
    if weight.precision() == Precision::Bf16 {
        return in_bf16(values);
    }
    match Rounding::of_activations(weight.precision()) {
        Some(rounding) => rounded(values, weight.in_features(), rounding),
        None => values.to_vec(),
    }
}

/// The f32 values that the integers of `precision` stand for.
fn pack_rounded(weight: &Tensor, precision: Precision) -> Result<BaseWeight> {
    let (rows, cols) = check::weight(weight)?;
    let values = host(&weight.to_device(&Device::Cpu)?)?;
    let values = match Rounding::of_weights(precision) {
        Some(rounding) => rounded(&values, cols, rounding),
        None => values,
    };
    BaseWeight::device(Tensor::from_vec(values, (rows, cols), &Device::Cpu)?, precision)
}

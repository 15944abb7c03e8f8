//! The operations as candle has them, on f32 activations.
use super::{attention, embedding, lora, norm};
use crate::kernel::{
    Act, Activation, AttentionArgs, BaseWeight, EmbeddingDelta, KernelError, Kernels, KvCache,
    KvPrecision, KvShape, LoraTarget, LowRank, NormWeights, Precision, Result, RopeKvArgs,
    RopeTable, RowSegment, act::ActData, check, kv::KvLayer, weight::stack,
};
use candle_core::{DType, Device, Tensor};
use candle_nn::rotary_emb;
use std::{borrow::Cow, ops::Range};

/// Plain candle operations on one device.
///
/// The products are the device's libraries': their order of summation may depend on the number of rows,
/// so a row alone and the same row in company agree to rounding, not to the bit.
#[derive(Clone, Debug)]
pub struct CandleOps {
    device: Device,
}

impl CandleOps {
    /// On `device`.
    pub fn new(device: Device) -> Self {
        Self { device }
    }

    fn act(tensor: Tensor) -> Result<Act> {
        let (rows, cols) = tensor.dims2()?;
        Ok(Act::device(tensor, rows, cols))
    }

    fn indices(&self, indices: &[u32]) -> Result<Tensor> {
        Ok(Tensor::from_slice(indices, indices.len(), &self.device)?)
    }

    fn empty(&self, cols: usize) -> Result<Act> {
        Self::act(Tensor::zeros((0, cols), DType::F32, &self.device)?)
    }

    /// The rows of `table` at `indices`, on this device wherever the table is.
    fn angles(&self, table: &Tensor, positions: &[u32]) -> Result<Tensor> {
        let index = Tensor::from_slice(positions, positions.len(), table.device())?;
        let rows = table.index_select(&index, 0)?.to_device(&self.device)?;
        Ok(rows.to_dtype(DType::F32)?.unsqueeze(1)?)
    }
}

impl Kernels for CandleOps {
    fn describe(&self) -> String {
        format!("candle operations on {:?}", self.device.location())
    }

    fn device(&self) -> &'static str {
        match self.device {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
            Device::Metal(_) => "metal",
        }
    }

    fn loads_on_any_thread(&self) -> bool {
        self.device.is_cpu()
    }

    fn auto_precision(&self) -> Precision {
        if self.device.is_cpu() { Precision::F32 } else { Precision::Bf16 }
    }

    fn pack(&self, parts: &[Tensor], precision: Precision) -> Result<BaseWeight> {
        let precision = match precision {
            Precision::Auto => self.auto_precision(),
            Precision::Int8 | Precision::Int4 => {
                return Err(KernelError::Unsupported(format!(
                    "precision `{precision}` is for the CPU; use bf16 or f32, or --device cpu"
                )));
            }
            Precision::F32 | Precision::Bf16 => precision,
        };
        let dtype = if precision == Precision::Bf16 { DType::BF16 } else { DType::F32 };
        let tensor = stack(parts)?.to_dtype(dtype)?.to_device(&self.device)?.contiguous()?;
        BaseWeight::device(tensor, precision)
    }

    fn upload(&self, values: &[f32], rows: usize, cols: usize) -> Result<Act> {
        check::upload(values, rows, cols)?;
        Self::act(Tensor::from_slice(values, (rows, cols), &self.device)?)
    }

    fn read<'a>(&self, x: &'a Act) -> Result<Cow<'a, [f32]>> {
        Ok(Cow::Owned(x.tensor()?.flatten_all()?.to_vec1()?))
    }

    fn load_low_rank(&self, pair: &LowRank, precision: Precision) -> Result<LowRank> {
        let pair = pair.beside(precision)?;
        let (a, b) = pair.rows()?;
        LowRank::new(a.to_device(&self.device)?, b.to_device(&self.device)?)
    }

    fn load_vector(&self, vector: &Tensor) -> Result<Tensor> {
        Ok(vector.to_dtype(DType::F32)?.contiguous()?.to_device(&self.device)?)
    }

    fn load_rope(&self, table: RopeTable) -> Result<RopeTable> {
        let (cos, sin) = (table.cos.to_device(&self.device)?, table.sin.to_device(&self.device)?);
        Ok(RopeTable { cos, sin, ..table })
    }

    fn new_kv(&self, shape: KvShape) -> Result<KvCache> {
        let rows = shape.blocks * shape.block_size;
        let dtype = match shape.precision {
            KvPrecision::F32 => DType::F32,
            KvPrecision::Bf16 => DType::BF16,
            KvPrecision::Int8 => {
                return Err(KernelError::Unsupported(format!(
                    "KV precision `{}` is for the CPU; use auto, bf16 or f32, or --device cpu",
                    shape.precision
                )));
            }
        };
        let zeros = || Tensor::zeros((rows, shape.row()), dtype, &self.device);
        let layer = |_| Ok(KvLayer::Device { keys: zeros()?, values: zeros()? });
        Ok(KvCache { shape, layers: (0..shape.layers).map(layer).collect::<Result<_>>()? })
    }

    fn embed(&self, table: &BaseWeight, ids: &[u32]) -> Result<Act> {
        check::indices("embed", ids, table.out_features())?;
        let rows = table.tensor()?.index_select(&self.indices(ids)?, 0)?;
        Self::act(rows.to_dtype(DType::F32)?)
    }

    fn adapt_embedding(
        &self,
        x: &mut Act,
        ids: &[u32],
        slots: &[Option<EmbeddingDelta>],
        segments: &[RowSegment],
    ) -> Result<()> {
        check::adapt_embedding(x, ids, slots, segments)?;
        embedding::adapt(x.tensor()?, ids, slots, segments)
    }

    fn linear(&self, x: &Act, weight: &BaseWeight, bias: Option<&Act>) -> Result<Act> {
        check::linear(x.shape(), weight, bias)?;
        if x.rows() == 0 {
            return self.empty(weight.out_features());
        }
        let weight = weight.tensor()?;
        let y = x.tensor()?.to_dtype(weight.dtype())?.matmul(&weight.t()?)?.to_dtype(DType::F32)?;
        Self::act(match bias {
            Some(bias) => y.broadcast_add(bias.tensor()?)?,
            None => y,
        })
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
        y.data = ActData::Device((y.tensor()? + product.tensor()?)?);
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
        let (y, x) = (y.tensor()?, x.tensor()?);
        targets.iter().try_for_each(|target| lora::add(y, x, target, segments))
    }

    fn rms_norm(&self, x: &Act, weights: NormWeights<'_>, eps: f32) -> Result<Act> {
        check::rms_norm(x, &weights)?;
        if x.rows() == 0 {
            return self.empty(x.cols());
        }
        Self::act(norm::rows(x.tensor()?, &weights, eps)?)
    }

    fn layer_norm(
        &self,
        x: &Act,
        weights: NormWeights<'_>,
        biases: Option<NormWeights<'_>>,
        eps: f32,
    ) -> Result<Act> {
        check::layer_norm(x, &weights, biases.as_ref())?;
        if x.rows() == 0 {
            return self.empty(x.cols());
        }
        Self::act(norm::centred_rows(x.tensor()?, &weights, biases.as_ref(), eps)?)
    }

    fn head_norm(
        &self,
        x: &mut Act,
        columns: Range<usize>,
        weights: NormWeights<'_>,
        eps: f32,
    ) -> Result<()> {
        check::head_norm(x, &columns, &weights)?;
        if x.rows() == 0 || columns.is_empty() {
            return Ok(());
        }
        norm::heads(x.tensor()?, &columns, &weights, eps)
    }

    fn rope_write_kv(
        &self,
        qkv: &mut Act,
        cache: &mut KvCache,
        layer: usize,
        args: &RopeKvArgs<'_>,
    ) -> Result<()> {
        check::rope_write_kv(qkv, cache, layer, args)?;
        if qkv.rows() == 0 {
            return Ok(());
        }
        let (rows, width, head_dim) = (qkv.rows(), cache.shape().row(), cache.shape().head_dim);
        let (queries, rotated) = (args.heads * head_dim, qkv.cols() - width);
        let qkv = qkv.tensor()?;
        let part = |start, len| qkv.narrow(1, start, len)?.contiguous();
        if let Some(table) = args.table {
            // Every token is a batch row of its own, with its own angles: positions may be ragged.
            let cos = self.angles(&table.cos, args.positions)?;
            let sin = self.angles(&table.sin, args.positions)?;
            let heads = part(0, rotated)?.reshape((rows, rotated / head_dim, 1, head_dim))?;
            let heads = rotary_emb::rope(&heads, &cos, &sin)?.reshape((rows, rotated))?;
            qkv.slice_set(&heads, 1, 0)?;
        }
        let index = self.indices(args.slot_mapping)?.unsqueeze(1)?;
        let index = index.broadcast_as((rows, width))?.contiguous()?;
        let (keys, values) = cache.device_layer(layer)?;
        let dtype = keys.dtype();
        keys.scatter_set(&index, &part(queries, width)?.to_dtype(dtype)?, 0)?;
        values.scatter_set(&index, &part(rotated, width)?.to_dtype(dtype)?, 0)?;
        Ok(())
    }

    fn gated(&self, gate_up: &Act, activation: Activation) -> Result<Act> {
        let inner = check::gated(gate_up)?;
        let gate_up = gate_up.tensor()?;
        let part = |start| gate_up.narrow(1, start, inner);
        Self::act((activated(&part(0)?, activation)? * part(inner)?)?)
    }

    fn activate(&self, x: &mut Act, activation: Activation) -> Result<()> {
        x.data = ActData::Device(activated(x.tensor()?, activation)?);
        Ok(())
    }

    fn add_rows(&self, x: &mut Act, table: &Act, rows: &[u32]) -> Result<()> {
        check::add_rows(x, table, rows)?;
        if rows.is_empty() {
            return Ok(());
        }
        let added = table.tensor()?.index_select(&self.indices(rows)?, 0)?;
        x.data = ActData::Device((x.tensor()? + added)?);
        Ok(())
    }

    fn mean_rows(&self, x: &Act, ranges: &[Range<u32>]) -> Result<Act> {
        check::mean_rows(x, ranges)?;
        if ranges.is_empty() {
            return self.empty(x.cols());
        }
        let x = x.tensor()?;
        let mean = |range: &Range<u32>| -> Result<Tensor> {
            Ok(x.narrow(0, range.start as usize, range.len())?.mean_keepdim(0)?)
        };
        Self::act(Tensor::cat(&ranges.iter().map(mean).collect::<Result<Vec<_>>>()?, 0)?)
    }

    fn paged_attention(
        &self,
        q: &Act,
        cache: &KvCache,
        layer: usize,
        args: &AttentionArgs<'_>,
    ) -> Result<Act> {
        check::attention(q, cache, layer, args)?;
        let cols = args.heads * cache.shape().head_dim;
        if q.rows() == 0 {
            return self.empty(cols);
        }
        let q = q.tensor()?.narrow(1, 0, cols)?.contiguous()?;
        Self::act(attention::paged(&q, cache, layer, args)?)
    }

    fn select_rows(&self, x: &Act, rows: &[u32]) -> Result<Act> {
        check::indices("select_rows", rows, x.rows())?;
        if rows.is_empty() {
            return self.empty(x.cols());
        }
        Self::act(x.tensor()?.index_select(&self.indices(rows)?, 0)?)
    }
}

fn activated(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::Silu => x.silu()?,
        Activation::Gelu => x.gelu_erf()?,
        Activation::GeluTanh => x.gelu()?,
        Activation::Relu => x.relu()?,
        Activation::Tanh => x.tanh()?,
    })
}

//! Makes adapters in memory: a correct one, to be bent by a test.
pub(crate) mod base;

pub(crate) use base::{small_base, small_layout};
use lorad::{
    adapter::AdapterFiles,
    lora::{LoraLayout, Projection, Site, SiteShape},
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A Llama-type model's sites.
pub(crate) fn layout(
    layers: usize,
    hidden: usize,
    q: usize,
    kv: usize,
    intermediate: usize,
) -> LoraLayout {
    let shape = |projection| match projection {
        Projection::Q => (hidden, q),
        Projection::K | Projection::V => (hidden, kv),
        Projection::O => (q, hidden),
        Projection::Gate | Projection::Up => (hidden, intermediate),
        Projection::Down => (intermediate, hidden),
        Projection::Qkv | Projection::GateUp => unreachable!("the layers are separate"),
    };
    let sites =
        (0..layers).flat_map(|layer| Projection::SEPARATE.map(|p| (Site::block(layer, p), p)));
    sites
        .map(|(site, projection)| {
            let (in_features, out_features) = shape(projection);
            (site, SiteShape { in_features, out_features })
        })
        .collect()
}

/// An adapter in the making: rank 2, alpha 4, on `q_proj` and `down_proj` of both layers, f32.
#[derive(Clone)]
pub(crate) struct Maker {
    pub(crate) config: Map<String, Value>,
    pub(crate) tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

pub(crate) fn key(layer: usize, module: &str, factor: char) -> String {
    format!("base_model.model.model.layers.{layer}.{module}.lora_{factor}.weight")
}

impl Maker {
    /// Different seeds, different values.
    pub(crate) fn new(seed: u32) -> Self {
        let config = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4,
            "target_modules": ["q_proj", "down_proj"], "bias": "none",
        });
        let Value::Object(config) = config else { unreachable!("an object was written") };
        let mut maker = Self { config, tensors: BTreeMap::new() };
        for layer in 0..2 {
            maker.add(layer, "self_attn.q_proj", [2, 8, 8], seed);
            maker.add(layer, "mlp.down_proj", [2, 12, 8], seed + 7);
        }
        maker
    }

    /// A pair of factors of `[rank, in, out]`.
    pub(crate) fn add(
        &mut self,
        layer: usize,
        module: &str,
        [rank, input, output]: [usize; 3],
        seed: u32,
    ) {
        self.set(&key(layer, module, 'A'), &[rank, input], &values(rank * input, seed));
        self.set(&key(layer, module, 'B'), &[output, rank], &values(output * rank, seed + 1));
    }

    pub(crate) fn set(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.insert(name.to_owned(), (Dtype::F32, shape.to_vec(), bytes));
    }

    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.config.insert(field.to_owned(), value);
        self
    }

    pub(crate) fn files(&self) -> AdapterFiles {
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).expect("bytes fit the shape"))
        });
        let weights = safetensors::serialize(views, None);
        AdapterFiles::Peft {
            config: serde_json::to_vec(&self.config).expect("JSON").into(),
            weights: weights.expect("safetensors").into(),
        }
    }
}

/// Small numbers that bf16 and f16 hold exactly.
pub(crate) fn values(count: usize, seed: u32) -> Vec<f32> {
    let number =
        |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(97));
    (0..count).map(|i| f32::from((number(i) >> 7) as u8) / 64.0 - 2.0).collect()
}

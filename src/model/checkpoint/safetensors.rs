//! A checkpoint as the hub keeps it: `config.json` and one or several safetensors files.
use super::{Checkpoint, Files};
use crate::model::{ModelError, TextAssets};
use bytes::Bytes;
use candle_core::{DType, Device, Tensor};
use safetensors::{
    SafeTensors,
    tensor::{Dtype, Metadata, TensorInfo},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// An open checkpoint. Tensors are read when asked for.
pub(crate) struct SafetensorsCheckpoint {
    origin: String,
    files: Files,
    config: Value,
    shards: Vec<Shard>,
    /// Tensor → shard.
    tensors: BTreeMap<String, usize>,
}

struct Shard {
    place: String,
    bytes: Bytes,
    data_start: usize,
    header: Metadata,
}

impl SafetensorsCheckpoint {
    /// Opens the files and checks the headers.
    ///
    /// # Errors
    /// When a file is missing, damaged, or holds a tensor that another one holds too.
    pub(crate) fn open(files: Files) -> Result<Self, ModelError> {
        let config = files.json(CONFIG)?.ok_or_else(|| {
            let detail = "does not exist; a model directory holds config.json, *.safetensors and \
                          tokenizer.json";
            ModelError::file(files.place(CONFIG), detail)
        })?;
        let mut shards = Vec::new();
        let mut tensors = BTreeMap::new();
        for name in shard_names(&files)? {
            let shard = Shard::open(&files, &name)?;
            for tensor in shard.header.tensors().into_keys() {
                if tensors.insert(tensor.clone(), shards.len()).is_some() {
                    let detail = "is in two files of the checkpoint";
                    return Err(tensor_error(&shard.place, &tensor, detail));
                }
            }
            shards.push(shard);
        }
        let origin = match &files {
            Files::Directory(directory) => directory.display().to_string(),
            Files::Embedded(_) => "embedded model".to_owned(),
        };
        Ok(Self { origin, files, config, shards, tensors })
    }
}

impl Checkpoint for SafetensorsCheckpoint {
    fn origin(&self) -> &str {
        &self.origin
    }

    fn config(&self) -> &Value {
        &self.config
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn tensor(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        let Some(shard) = self.tensors.get(name).and_then(|shard| self.shards.get(*shard)) else {
            return Ok(None);
        };
        shard.header.info(name).map(|info| shard.tensor(name, info)).transpose()
    }

    fn files(&self) -> Option<&Files> {
        Some(&self.files)
    }

    fn text(&self) -> Result<TextAssets, ModelError> {
        TextAssets::read(&self.files, &self.config)
    }
}

impl Shard {
    fn open(files: &Files, name: &str) -> Result<Self, ModelError> {
        let place = files.place(name);
        let bytes = files.map(name)?.ok_or_else(|| {
            ModelError::file(
                &place,
                "does not exist, though the index names it; fetch the model again",
            )
        })?;
        let (header_len, header) = SafeTensors::read_metadata(&bytes).map_err(|error| {
            let detail = format!("is not a whole safetensors file ({error}); fetch it again");
            ModelError::file(&place, detail)
        })?;
        Ok(Self { place, data_start: size_of::<u64>() + header_len, bytes, header })
    }

    fn tensor(&self, name: &str, info: &TensorInfo) -> Result<Tensor, ModelError> {
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                let detail = format!("has dtype {other:?}; F32, F16 and BF16 are read");
                return Err(tensor_error(&self.place, name, &detail));
            }
        };
        let (start, end) = info.data_offsets;
        let data = self.data_start + start..self.data_start + end;
        let data = self.bytes.get(data).expect("the header was checked against the file's length");
        Tensor::from_raw_buffer(data, dtype, &info.shape, &Device::Cpu)
            .map_err(|error| tensor_error(&self.place, name, &format!("cannot be read: {error}")))
    }
}

fn tensor_error(place: &str, name: &str, detail: &str) -> ModelError {
    let (origin, name) = (place.to_owned(), name.to_owned());
    ModelError::Tensor { origin, name, detail: detail.to_owned() }
}

/// One file, or those that the index names.
fn shard_names(files: &Files) -> Result<Vec<String>, ModelError> {
    if files.has(SINGLE) {
        return Ok(vec![SINGLE.to_owned()]);
    }
    let Some(index) = files.json(INDEX)? else { return Err(no_weights(files)) };
    let bad = |detail: &str| ModelError::file(files.place(INDEX), detail);
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| bad("has no `weight_map`; fetch it again"))?;
    let names: Option<BTreeSet<&str>> = map.values().map(Value::as_str).collect();
    let names = names.ok_or_else(|| bad("has a `weight_map` whose values are not file names"))?;
    match names.iter().find(|name| !is_shard_name(name)) {
        Some(name) => Err(bad(&format!("names `{name}`, which is no safetensors file beside it"))),
        None => Ok(names.into_iter().map(str::to_owned).collect()),
    }
}

/// A plain name: an index must not lead out of its directory.
fn is_shard_name(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.contains(['/', '\\'])
}

fn no_weights(files: &Files) -> ModelError {
    let detail = if files.has("pytorch_model.bin") || files.has("pytorch_model.bin.index.json") {
        "does not exist, only pytorch_model.bin, a format that can run code and is not read; load the \
         model with transformers and save_pretrained it"
    } else {
        "does not exist, nor does model.safetensors.index.json; fetch the model's weights"
    };
    ModelError::file(files.place(SINGLE), detail)
}

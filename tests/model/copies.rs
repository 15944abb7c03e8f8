//! A copy of a golden base in which a test may break things.
use crate::harness::{Harness, repository};
use lorad::{
    kernel::{KvChoice, Precision, Reference},
    model::{LoadOptions, LoadedModel, ModelSource, Pooling, Progress, load},
};
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};
use tempfile::TempDir;

const BASE: &str = "tests/golden/llama_tied";

/// Name → dtype, shape, bytes.
pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// The directory.
pub(crate) struct Copy {
    directory: TempDir,
}

impl Copy {
    /// Of a decoder.
    pub(crate) fn new() -> Self {
        Self::of(&repository(BASE))
    }

    /// Of any base: the files beside its weights, and those of its pooling.
    pub(crate) fn of(base: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let copy = Self { directory };
        for place in ["", "1_Pooling"] {
            let Ok(files) = fs::read_dir(base.join(place)) else { continue };
            fs::create_dir_all(copy.path().join(place)).unwrap();
            for file in files.map(|file| file.unwrap().path()).filter(|file| file.is_file()) {
                fs::copy(&file, copy.path().join(place).join(file.file_name().unwrap())).unwrap();
            }
        }
        copy
    }

    /// Changes a JSON file.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value: Value = serde_json::from_slice(&self.read(name)).unwrap();
        change(&mut value);
        self.write(name, value.to_string());
    }

    /// Changes the tensors.
    pub(crate) fn change_tensors(&self, change: impl FnOnce(&mut Tensors)) {
        let mut tensors = self.tensors();
        change(&mut tensors);
        self.write_tensors("model.safetensors", &tensors);
    }

    /// What is loaded, with a pooling or as the files say.
    pub(crate) fn load(&self, pooling: Option<Pooling>) -> LoadedModel {
        let options = LoadOptions { pooling, ..options(None) };
        load(&ModelSource::Directory(self.path().to_owned()), &Reference, &options).unwrap()
    }

    /// With other tensors.
    pub(crate) fn with_tensors(change: impl FnOnce(&mut Tensors)) -> Self {
        let copy = Self::new();
        let mut tensors = copy.tensors();
        change(&mut tensors);
        copy.write_tensors("model.safetensors", &tensors);
        copy
    }

    /// With another configuration.
    pub(crate) fn with_config(key: &str, value: Value) -> Self {
        let copy = Self::new();
        let mut config: Value = serde_json::from_slice(&copy.read("config.json")).unwrap();
        config[key] = value;
        copy.write("config.json", config.to_string());
        copy
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), content).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).unwrap();
    }

    pub(crate) fn tensors(&self) -> Tensors {
        let bytes = self.read("model.safetensors");
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let owned = |(name, view): (&str, TensorView<'_>)| {
            (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        tensors.iter().map(owned).collect()
    }

    pub(crate) fn write_tensors(&self, file: &str, tensors: &Tensors) {
        let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        self.write(file, serialize(views, None).unwrap());
    }

    pub(crate) fn error(&self) -> String {
        load(&ModelSource::Directory(self.path().to_owned()), &Reference, &options(None))
            .err()
            .expect("the directory is broken")
            .to_string()
    }

    /// Logits after a few tokens.
    pub(crate) fn logits(&self) -> Vec<Vec<f32>> {
        logits(self.path())
    }
}

pub(crate) fn options(max_positions: Option<usize>) -> LoadOptions {
    LoadOptions {
        precision: Precision::F32,
        kv_precision: KvChoice::Auto,
        max_positions,
        kv_cache_bytes: None,
        pooling: None,
        progress: Progress::Hidden,
    }
}

pub(crate) fn logits(directory: &Path) -> Vec<Vec<f32>> {
    let kernels: Arc<dyn lorad::kernel::Kernels> = Arc::new(Reference);
    Harness::open(directory, &kernels, Precision::F32).logits(&[5, 9, 2, 77], None)
}

/// Every word must be in the message.
pub(crate) fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

//! Uploads of every form, well made, badly made and made to harm: what comes out, and that nothing stays.
mod forms;
mod fuzz;
mod made;
mod refusals;

use lorad::{
    adapter::{
        AdapterError, AdapterFiles, AdapterLimits,
        upload::{Part, Staging},
    },
    error::Classified,
};
use std::{fs, path::Path};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// A place for uploads and a runtime that brings them there.
struct Place {
    staging: Staging,
    runtime: Runtime,
    limits: AdapterLimits,
    parent: TempDir,
}

type Read = Result<(AdapterFiles, Vec<String>), AdapterError>;

impl Place {
    fn new() -> Self {
        Self::with_limit(AdapterLimits::default().max_adapter_bytes)
    }

    fn with_limit(max_adapter_bytes: u64) -> Self {
        let parent = TempDir::new().expect("a directory");
        Self {
            staging: Staging::open(parent.path()).expect("a place"),
            runtime: Builder::new_current_thread().build().expect("a runtime"),
            limits: AdapterLimits { max_adapter_bytes, ..AdapterLimits::default() },
            parent,
        }
    }

    /// What comes out of these parts, which come in pieces of 1000 bytes. Nothing stays on disk, whatever it is.
    fn read(&self, parts: &[(Part, &[u8])]) -> Read {
        let read = self.runtime.block_on(async {
            let mut incoming = self.staging.receive(u64::MAX).await?;
            for (part, bytes) in parts {
                incoming.begin(*part).await?;
                for piece in bytes.chunks(1000) {
                    incoming.write(piece.to_vec().into()).await?;
                }
            }
            incoming.finish().await?.into_files(&self.limits)
        });
        assert_eq!(self.left(), 0, "something stays");
        read
    }

    fn whole(&self, bytes: &[u8]) -> Read {
        self.read(&[(Part::Whole, bytes)])
    }

    /// The code and the text of a refusal.
    fn refused(&self, case: &str, bytes: &[u8]) -> (&'static str, String) {
        let Err(error) = self.whole(bytes) else { panic!("{case}: read") };
        let text = error.to_string();
        let here = self.parent.path().to_str().expect("text");
        assert!(!text.contains(here) && text.len() < 1000, "{text}");
        (error.code(), text)
    }

    /// Uploads that lie here.
    fn left(&self) -> usize {
        fs::read_dir(self.staging.path()).expect("a directory").count() - 1
    }
}

fn golden(path: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    fs::read(root.join(path)).expect("a golden file")
}

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

fn config() -> Vec<u8> {
    golden("llama/adapters/layers/adapter_config.json")
}

fn weights() -> Vec<u8> {
    golden("llama/adapters/layers/adapter_model.safetensors")
}

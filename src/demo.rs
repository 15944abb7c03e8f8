//! The embedded default: a small base model and three adapters that are part of the binary.
use crate::adapter::{AdapterFiles, AdapterName};
use bytes::Bytes;

/// What clients call the embedded base unless `--served-model-name` says otherwise.
pub const NAME: &str = "newsdesk";

/// The base's directory: name and content of each file. Made by `demo/train.py`.
pub const BASE: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../demo/newsdesk/config.json")),
    ("generation_config.json", include_bytes!("../demo/newsdesk/generation_config.json")),
    ("model.safetensors", include_bytes!("../demo/newsdesk/model.safetensors")),
    ("tokenizer.json", include_bytes!("../demo/newsdesk/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../demo/newsdesk/tokenizer_config.json")),
];

/// Name, config and weights of each adapter.
const ADAPTERS: [(&str, &[u8], &[u8]); 3] = [
    (
        "rate",
        include_bytes!("../adapters/rate/adapter_config.json"),
        include_bytes!("../adapters/rate/adapter_model.safetensors"),
    ),
    (
        "headline",
        include_bytes!("../adapters/headline/adapter_config.json"),
        include_bytes!("../adapters/headline/adapter_model.safetensors"),
    ),
    (
        "extract",
        include_bytes!("../adapters/extract/adapter_config.json"),
        include_bytes!("../adapters/extract/adapter_model.safetensors"),
    ),
];

/// The embedded adapters, as they would be uploaded.
///
/// # Panics
/// Never: the names are constants, and a test reads them.
pub fn adapters() -> impl Iterator<Item = (AdapterName, AdapterFiles)> {
    ADAPTERS.iter().map(|(name, config, weights)| {
        let name = name.parse().expect("the embedded names are names");
        let (config, weights) = (Bytes::from_static(config), Bytes::from_static(weights));
        (name, AdapterFiles::Peft { config, weights })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_adapters_have_names() {
        let names: Vec<_> = adapters().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["rate", "headline", "extract"]);
    }
}

//! The base model's settings.
use super::{ModelError, ModelSource};

/// Which base model, and how clients see it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ModelConfig {
    /// Base model: a directory with config.json, *.safetensors and tokenizer.json, a GGUF file, or a hub id, org/name[@revision] [default: the built-in demo]
    #[arg(long, env = "LORAD_MODEL", value_name = "MODEL")]
    pub model: Option<String>,

    /// Name of the base model in the API [default: the directory's name, or org/name]
    #[arg(long, env = "LORAD_SERVED_MODEL_NAME", value_name = "NAME")]
    pub served_model_name: Option<String>,

    /// Longest sequence in tokens, prompt and answer together [default: what the model was made for]
    #[arg(long, env = "LORAD_MAX_MODEL_LEN", value_name = "TOKENS")]
    pub max_model_len: Option<usize>,
}

impl ModelConfig {
    /// Where the named model is.
    ///
    /// # Errors
    /// When none is named, or what is named is nothing this build can read.
    pub fn source(&self) -> Result<ModelSource, ModelError> {
        match &self.model {
            Some(model) => ModelSource::parse(model),
            None => Err(ModelError::Source {
                model: String::new(),
                detail: "none is named; say which with --model".to_owned(),
            }),
        }
    }
}

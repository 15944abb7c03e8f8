//! The base model's settings.
use super::{ModelError, ModelSource, Pooling};
use std::env;

const MODEL_VARIABLE: &str = "LORAD_MODEL";

/// Which base model, and how clients see it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ModelConfig {
    /// The same as --model, as vLLM takes it
    #[arg(value_name = "MODEL")]
    pub positional_model: Option<String>,

    /// Base model: a directory with config.json, *.safetensors and tokenizer.json, a GGUF file, or a hub id, org/name[@revision] [default: the built-in demo]
    #[arg(long, env = MODEL_VARIABLE, value_name = "MODEL")]
    pub model: Option<String>,

    /// Name of the base model in the API, and more names that it has too, with blanks or commas between them [default: the directory's name, or org/name]
    #[arg(
        long,
        env = "LORAD_SERVED_MODEL_NAME",
        value_name = "NAME",
        num_args = 1..,
        value_delimiter = ',',
        value_parser = a_name
    )]
    pub served_model_name: Vec<String>,

    /// Longest sequence in tokens, prompt and answer together [default: what the model was made for]
    #[arg(long, env = "LORAD_MAX_MODEL_LEN", value_name = "TOKENS")]
    pub max_model_len: Option<usize>,

    /// How a text's hidden states become its embedding: first (or cls), last or mean [default: as the model's files say, else mean for an encoder]
    #[arg(long, env = "LORAD_POOLING", value_name = "POOLING")]
    pub pooling: Option<Pooling>,
}

impl ModelConfig {
    /// The named model, if there is one.
    ///
    /// # Errors
    /// When two are.
    pub fn named(&self) -> Result<Option<&str>, ModelError> {
        let (Some(first), Some(second)) = (&self.positional_model, &self.model) else {
            return Ok(self.positional_model.as_deref().or(self.model.as_deref()));
        };
        // An argument wins over the variable, as everywhere.
        let is_variable = env::var(MODEL_VARIABLE).is_ok_and(|value| value == *second);
        if first == second || is_variable {
            return Ok(Some(first));
        }
        Err(ModelError::Source {
            model: first.clone(),
            detail: format!("is not what --model names, `{second}`: name one of the two"),
        })
    }

    /// Where the named model is.
    ///
    /// # Errors
    /// When none is named or two are, or what is named is nothing this build can read.
    pub fn source(&self) -> Result<ModelSource, ModelError> {
        match self.named()? {
            Some(model) => ModelSource::parse(model),
            None => Err(ModelError::Source {
                model: String::new(),
                detail: "none is named; say which with --model".to_owned(),
            }),
        }
    }
}

fn a_name(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("a name must not be empty"),
        name => Ok(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        model: ModelConfig,
    }

    fn read(line: &[&str]) -> ModelConfig {
        Line::parse_from(["lorad"].iter().chain(line)).model
    }

    #[test]
    fn a_model_is_named_once_with_or_without_its_flag() {
        for line in [&["a"][..], &["--model", "a"], &["a", "--model", "a"]] {
            assert_eq!(read(line).named().expect("one"), Some("a"), "{line:?}");
        }
        assert_eq!(read(&[]).named().expect("none"), None);
        let error = read(&["a", "--model", "b"]).named().expect_err("two").to_string();
        assert!(error.contains("`b`"), "{error}");
    }

    #[test]
    fn it_may_have_several_names() {
        let line = ["a", "--served-model-name", "x", "y", "--max-model-len", "8"];
        assert_eq!(read(&line).served_model_name, ["x", "y"]);
        assert_eq!(read(&["--served-model-name", "x, y"]).served_model_name, ["x", "y"]);
        let empty = ["lorad", "--served-model-name", "x,"];
        assert!(Line::try_parse_from(empty).is_err());
    }
}

//! Picks the family and makes sure that it read everything.
use super::{ARCHITECTURES, Family, Fields, Spec, Top, labels};
use crate::model::{
    ModelError,
    spec::{ArchSpec, EncoderSpec, Head},
};
use serde_json::Value;

/// The architecture's name and description, from `config.json`.
///
/// # Errors
/// When the architecture is not served, a value is out of range, or a key is not known.
pub(crate) fn read_spec(config: &Value) -> Result<(&'static str, Spec), ModelError> {
    let mut fields = Fields::new(config)?;
    refuse_quantised(&fields)?;
    let (name, family, top) = architecture(&mut fields)?;
    let labels = match top {
        Top::Labels(kind) => Some(labels::read(&mut fields, kind)?),
        Top::Bare | Top::Vocabulary => None,
    };
    let spec = match family {
        Family::Decoder(read) => {
            let spec = read(&mut fields)?;
            let head = if let Top::Vocabulary = top { spec.head } else { Head::None };
            Spec::Decoder(ArchSpec { head, labels, ..spec })
        }
        Family::Encoder(read) => Spec::Encoder(EncoderSpec { labels, ..read(&mut fields)? }),
    };
    fields.finish()?;
    Ok((name, spec))
}

fn architecture(fields: &mut Fields) -> Result<(&'static str, Family, Top), ModelError> {
    let named = fields.texts("architectures")?;
    let named = fields.need("architectures", named)?;
    ARCHITECTURES
        .iter()
        .find(|(name, ..)| named.iter().any(|wanted| wanted == name))
        .copied()
        .ok_or_else(|| {
            let known: Vec<_> = ARCHITECTURES.iter().map(|(name, ..)| *name).collect();
            let detail = format!("is {}; this build serves {}", named.join(", "), known.join(", "));
            ModelError::config("architectures", detail)
        })
}

fn refuse_quantised(fields: &Fields) -> Result<(), ModelError> {
    const KEY: &str = "quantization_config";
    if fields.has(KEY) {
        let detail = "says that the weights are quantised, which is not read from safetensors; \
                      take the f32, f16 or bf16 checkpoint and let --precision shrink it";
        return Err(ModelError::config(KEY, detail));
    }
    Ok(())
}

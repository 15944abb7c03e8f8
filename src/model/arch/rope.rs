//! Rotary embedding's fields, in both spellings.
use super::Fields;
use crate::model::{
    ModelError,
    spec::{RopeScaling, RopeSpec},
};
use candle_transformers::models::llama::{Llama3RopeConfig, Llama3RopeType};

/// What `transformers` takes where no file says it.
const DEFAULT_THETA: f64 = 10_000.0;

/// `rope_parameters` (version 5), or `rope_theta` and `rope_scaling` (version 4).
pub(super) fn read(fields: &mut Fields) -> Result<RopeSpec, ModelError> {
    whole_heads(fields)?;
    let outer_theta = fields.positive("rope_theta")?;
    let scaling = fields.object("rope_scaling")?;
    let inner = match (fields.object("rope_parameters")?, scaling) {
        (Some(inner), None) | (None, Some(inner)) => inner,
        (None, None) => return Ok(plain(outer_theta.unwrap_or(DEFAULT_THETA))),
        (Some(_), Some(_)) => {
            let detail = "is given, and `rope_parameters` too; keep one of them";
            return Err(ModelError::config("rope_scaling", detail));
        }
    };
    parameters(inner, outer_theta, DEFAULT_THETA)
}

/// One set of `rope_parameters`; `outer` is the base of frequencies that stands outside, `default` what is meant where none
/// does.
pub(super) fn parameters(
    mut inner: Fields,
    outer: Option<f64>,
    default: f64,
) -> Result<RopeSpec, ModelError> {
    whole_heads(&mut inner)?;
    let theta = agreed(outer, inner.positive("rope_theta")?)?;
    let scaling = read_scaling(&mut inner)?;
    inner.finish()?;
    Ok(RopeSpec { scaling, ..plain(theta.unwrap_or(default)) })
}

/// Frequencies as they were published.
pub(super) fn plain(theta: f64) -> RopeSpec {
    RopeSpec { theta, scaling: RopeScaling::None }
}

fn read_scaling(fields: &mut Fields) -> Result<RopeScaling, ModelError> {
    let (kind, old_kind) = (fields.text("rope_type")?, fields.text("type")?);
    match kind.or(old_kind).as_deref() {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: stretch(fields)? }),
        Some("llama3") => read_bands(fields).map(RopeScaling::Llama3),
        Some("divisors") => {
            let divisors = fields.positives("divisors")?;
            fields.need("divisors", divisors).map(RopeScaling::Divisors)
        }
        Some(other) => {
            let detail = format!("is `{other}`; default, linear and llama3 are served");
            Err(ModelError::config(fields.name("rope_type"), detail))
        }
    }
}

fn read_bands(fields: &mut Fields) -> Result<Llama3RopeConfig, ModelError> {
    const ORIGINAL: &str = "original_max_position_embeddings";
    let bands = Llama3RopeConfig {
        factor: stretch(fields)? as f32,
        low_freq_factor: need(fields, "low_freq_factor")? as f32,
        high_freq_factor: need(fields, "high_freq_factor")? as f32,
        original_max_position_embeddings: {
            let positions = fields.size(ORIGINAL, 1..=1 << 24)?;
            fields.need(ORIGINAL, positions)?
        },
        rope_type: Llama3RopeType::Llama3,
    };
    if bands.high_freq_factor <= bands.low_freq_factor {
        let detail = format!(
            "is {}; it must be above low_freq_factor {}",
            bands.high_freq_factor, bands.low_freq_factor
        );
        return Err(ModelError::config(fields.name("high_freq_factor"), detail));
    }
    Ok(bands)
}

fn stretch(fields: &mut Fields) -> Result<f64, ModelError> {
    let factor = need(fields, "factor")?;
    if factor < 1.0 {
        let detail = format!("is {factor}; it must be at least 1");
        return Err(ModelError::config(fields.name("factor"), detail));
    }
    Ok(factor)
}

fn need(fields: &mut Fields, key: &str) -> Result<f64, ModelError> {
    let number = fields.positive(key)?;
    fields.need(key, number)
}

/// As many divisors as a head has pairs.
pub(super) fn check(rope: &RopeSpec, head_dim: usize) -> Result<(), ModelError> {
    match &rope.scaling {
        RopeScaling::Divisors(divisors) if divisors.len() != head_dim / 2 => {
            let detail = format!("has {} numbers for heads of {head_dim}", divisors.len());
            Err(ModelError::config("rope_parameters.divisors", detail))
        }
        _ => Ok(()),
    }
}

/// Heads that are rotated in part are a different model.
fn whole_heads(fields: &mut Fields) -> Result<(), ModelError> {
    const KEY: &str = "partial_rotary_factor";
    match fields.positive(KEY)? {
        Some(part) if (part - 1.0).abs() > f64::EPSILON => {
            let detail = format!("is {part}; only heads rotated as a whole (1.0) are served");
            Err(ModelError::config(fields.name(KEY), detail))
        }
        _ => Ok(()),
    }
}

fn agreed(outer: Option<f64>, inner: Option<f64>) -> Result<Option<f64>, ModelError> {
    match (outer, inner) {
        (Some(outer), Some(inner)) if (outer - inner).abs() > f64::EPSILON * outer => {
            let detail = format!("is {outer} outside and {inner} inside `rope_parameters`");
            Err(ModelError::config("rope_theta", detail))
        }
        _ => Ok(inner.or(outer)),
    }
}

//! What the header of an adapter says.
use super::architecture::Architecture;
use crate::{
    adapter::AdapterError,
    gguf::{GgufFile, Value},
};

pub(super) const ARCHITECTURE: &str = "general.architecture";
pub(super) const TYPE: &str = "general.type";
pub(super) const NAME: &str = "general.name";
pub(super) const BASE_COUNT: &str = "general.base_model.count";
pub(super) const BASE_NAME: &str = "general.base_model.0.name";
pub(super) const BASE_ORGANIZATION: &str = "general.base_model.0.organization";
pub(super) const BASE_URL: &str = "general.base_model.0.repo_url";
pub(super) const QUANTIZATION: &str = "general.quantization_version";
pub(super) const KIND: &str = "adapter.type";
pub(super) const ALPHA: &str = "adapter.lora.alpha";
pub(super) const INVOCATION: &str = "adapter.alora.invocation_tokens";
/// Where the hub's models are, before their ids.
pub(super) const HUB: &str = "https://huggingface.co/";

/// Keys that say how an adapter computes, and two that tell people what it is for; llama.cpp reads no others.
const KNOWN: &[&str] =
    &[KIND, ALPHA, INVOCATION, "adapter.lora.task_name", "adapter.lora.prompt_prefix"];

/// The header, checked.
#[derive(Debug)]
pub(super) struct Header {
    /// What the adapter's base is.
    pub(super) architecture: &'static Architecture,
    /// Divided by a pair's rank it is the pair's scaling. 0: the scaling is 1.
    pub(super) alpha: f32,
    /// Tokens from which on an activated LoRA acts; none for others.
    pub(super) invocation: Vec<u32>,
    /// What it was trained on.
    pub(super) base_model: Option<String>,
}

impl Header {
    /// # Errors
    /// When the file is no LoRA adapter, or says something that is not known.
    pub(super) fn read(file: &GgufFile) -> Result<Self, AdapterError> {
        check_type(file)?;
        refuse_unknown(file)?;
        let name = file.text(ARCHITECTURE)?.ok_or_else(|| {
            file.wrong("has no `general.architecture`; convert the adapter again")
        })?;
        let alpha = file.float(ALPHA)?.unwrap_or(0.0);
        if !(alpha as f32).is_finite() {
            return Err(file.wrong(format!("has `{ALPHA}` = {alpha}, which is not finite")).into());
        }
        Ok(Self {
            architecture: Architecture::named(name)?,
            alpha: alpha as f32,
            invocation: invocation(file)?,
            base_model: base_model(file)?,
        })
    }
}

fn check_type(file: &GgufFile) -> Result<(), AdapterError> {
    match file.text(TYPE)? {
        Some("adapter") => {}
        None | Some("model") => {
            return Err(AdapterError::invalid(
                "the GGUF file is a base model, not an adapter: serve it with --model",
            ));
        }
        Some(other) => {
            let other = other.escape_debug();
            return Err(file.wrong(format!("has `{TYPE}` = `{other}`, not `adapter`")).into());
        }
    }
    match file.text(KIND)? {
        Some("lora") => Ok(()),
        other => Err(AdapterError::unsupported(format!(
            "the GGUF file has `{KIND}` = `{}`: this server serves `lora`",
            other.unwrap_or_default().escape_debug()
        ))),
    }
}

/// A key of the adapter that nobody reads could change a number.
fn refuse_unknown(file: &GgufFile) -> Result<(), AdapterError> {
    let unknown = |key: &&String| key.starts_with("adapter.") && !KNOWN.contains(&key.as_str());
    match file.values().keys().find(unknown) {
        None => Ok(()),
        Some(key) => Err(AdapterError::unsupported(format!(
            "the GGUF file has `{}`, which this build does not know how to honour",
            key.escape_debug()
        ))),
    }
}

fn invocation(file: &GgufFile) -> Result<Vec<u32>, AdapterError> {
    let token = |number: f64| {
        let token = number as u32;
        (f64::from(token) == number).then_some(token)
    };
    let numbers = file.numbers(INVOCATION)?.unwrap_or_default();
    let tokens: Option<Vec<u32>> = numbers.into_iter().map(token).collect();
    tokens.ok_or_else(|| file.wrong(format!("has `{INVOCATION}`, which are not tokens")).into())
}

/// The id on the hub where there is one, else the name.
fn base_model(file: &GgufFile) -> Result<Option<String>, AdapterError> {
    if let Some(id) = file.text(BASE_URL)?.and_then(|url| url.strip_prefix(HUB)) {
        return Ok(Some(id.to_owned()));
    }
    let named = file.values().get(BASE_NAME);
    Ok(named.and_then(|value| match value {
        Value::Text(name) => Some(name.clone()),
        _ => None,
    }))
}

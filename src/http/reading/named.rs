//! Who is to read: every way to name an adapter that some dialect has.
use crate::http::{
    ApiError, AppState, json::JsonBody, mix::NamedAdapters, openai::named_adapters, split::Asker,
    state::Chosen,
};
use serde_json::Value;

/// LoRAX's name of the base.
const BASE: &str = "__base_model__";
/// The header that names an adapter where the body does not.
const HEADER: &str = "x-adapter-id";

/// What a request calls the adapter that is to read.
#[derive(Debug)]
struct AdapterNames {
    /// Field and name, each where it has one.
    names: Vec<(&'static str, String)>,
    several: NamedAdapters,
}

impl AdapterNames {
    /// `model`, `adapter_id`, `parameters.adapter_id` and the header `x-adapter-id`; `adapters` and `lora` beside them.
    ///
    /// # Errors
    /// The path of a name that is no string, or is wrong.
    fn read(asker: Asker<'_>) -> Result<Self, ApiError> {
        let body: &JsonBody = asker.body;
        let parameters = body.get("parameters").and_then(Value::as_object);
        let nested = parameters.and_then(|fields| fields.get("adapter_id"));
        let mut names = Vec::new();
        for (field, value) in [
            ("model", body.get("model")),
            ("adapter_id", body.get("adapter_id")),
            ("parameters.adapter_id", nested.filter(|value| !value.is_null())),
        ] {
            let Some(value) = value else { continue };
            let wrong = || ApiError::malformed(field, format!("`{field}` must be a name"));
            names.push((field, value.as_str().ok_or_else(wrong)?.to_owned()));
        }
        if let Some(value) = asker.headers.get(HEADER) {
            let wrong = |_| ApiError::malformed(HEADER, format!("`{HEADER}` must be a name"));
            names.push((HEADER, value.to_str().map_err(wrong)?.trim().to_owned()));
        }
        names.retain(|(_, name)| !name.is_empty() && name != BASE);
        Ok(Self { names, several: named_adapters(body)? })
    }
}

/// What the names of a request mean together. A name of the base leaves it to the others.
///
/// # Errors
/// 400 where two of them name different adapters, 404 for what nobody has published for this caller.
pub(super) fn chosen(app: &AppState, asker: Asker<'_>) -> Result<Chosen, ApiError> {
    let AdapterNames { names, several } = AdapterNames::read(asker)?;
    let base = app.generator.model();
    let (bases, mut adapters): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|(_, name)| base.is_called(name));
    adapters.dedup_by(|(_, later), (_, name)| later == name);
    if let [(first, _), (second, _), ..] = &adapters[..] {
        return Err(ApiError::exclusive(second, first));
    }
    let named = adapters.first().or_else(|| bases.first());
    let (field, model) =
        named.map_or(("model", None), |(field, name)| (*field, Some(name.as_str())));
    app.choose(asker, (field, model), several).map_err(|error| {
        if error.reason() == "model_not_found" { error.with_param(field) } else { error }
    })
}

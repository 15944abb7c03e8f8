//! llama.cpp's `/lora-adapters`: adapters by number, and what requests get that name none.
use super::{
    ApiError, AppState,
    auth::Caller,
    json::{declares_json, read_bytes},
    mix::{NamedAdapter, NamedAdapters, Who},
};
use crate::{
    adapter::{AdapterEntry, AdapterRef, AdapterRegistry},
    generation::AdapterMix,
};
use axum::{
    Extension, Json,
    extract::{Request, State},
};
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError, RwLock};

/// Numbers of adapters and their scales in requests that name no adapter. Clones are handles to the same; they last as
/// long as the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Scales(Arc<RwLock<Vec<(u64, f32)>>>);

impl Scales {
    fn set(&self, scales: Vec<(u64, f32)>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = scales;
    }

    fn get(&self) -> Vec<(u64, f32)> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn of(&self, number: u64) -> f32 {
        let scales = self.get();
        scales.iter().find(|(other, _)| *other == number).map_or(0.0, |(_, scale)| *scale)
    }

    /// What a request gets that names nothing: what has gone since, or is others' own, is left out.
    pub(super) fn defaults(&self, registry: &AdapterRegistry, caller: Caller) -> NamedAdapters {
        let entry = |(number, weight): (u64, f32)| {
            let name = registry.numbered(number)?;
            let entry = registry.get(&name)?;
            let named = NamedAdapter {
                who: Who::Name(AdapterRef { name, version: None }),
                weight,
                path: "model".into(),
            };
            caller.may_use(&entry.terms).then_some(named)
        };
        NamedAdapters { field: "", entries: self.get().into_iter().filter_map(entry).collect() }
    }
}

/// `GET /lora-adapters`: names stand where llama.cpp has paths.
pub(super) async fn list(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
) -> Json<Value> {
    let mut entries = app.registry.list();
    entries.retain(|entry| caller.may_use(&entry.terms));
    entries.sort_by_key(|entry| entry.number);
    let described = |entry: &AdapterEntry| {
        let scale = app.scales.of(entry.number);
        json!({"id": entry.number, "path": entry.name.as_str(), "scale": scale})
    };
    Json(entries.iter().map(described).collect())
}

/// `POST /lora-adapters`: scales for requests that name no adapter; what the list leaves out has none.
pub(super) async fn set(
    State(app): State<AppState>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    if !declares_json(request.headers()) {
        return Err(ApiError::not_json());
    }
    let body = read_bytes(request, &app).await?;
    let scales = read(&body, |number| app.registry.numbered(number).is_some())?;
    tracing::info!(adapters = scales.len(), "scales of requests that name no adapter were set");
    app.scales.set(scales);
    Ok(Json(json!({"success": true})))
}

/// The scales that are not 0; a later entry for a number counts before an earlier one. Other fields are ignored: clients
/// send back what they were given.
fn read(body: &[u8], is_there: impl Fn(u64) -> bool) -> Result<Vec<(u64, f32)>, ApiError> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::malformed("body", format!("the body is not JSON: {error}")))?;
    let Value::Array(entries) = body else {
        let message = "the body must be an array of objects with an `id` and a `scale`";
        return Err(ApiError::malformed("body", message));
    };
    let mut scales: Vec<(u64, f32)> = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let (id, scale) = (format!("[{at}].id"), format!("[{at}].scale"));
        let number = entry.get("id").and_then(Value::as_u64).ok_or_else(|| {
            let message = format!("`{id}` must be an id of GET /lora-adapters: 0 or more");
            ApiError::malformed(&id, message)
        })?;
        if !is_there(number) {
            return Err(ApiError::no_adapter(number).with_param(&id));
        }
        let weight = weight(&scale, entry.get("scale"))?;
        scales.retain(|(other, _)| *other != number);
        scales.push((number, weight));
    }
    scales.retain(|(_, weight)| *weight != 0.0);
    let (count, most) = (scales.len(), AdapterMix::MAX_PARTS);
    if count > most {
        let message = format!("{most} adapters may have a scale other than 0, not {count}");
        return Err(ApiError::invalid("body", message));
    }
    Ok(scales)
}

fn weight(path: &str, value: Option<&Value>) -> Result<f32, ApiError> {
    let most = AdapterMix::MAX_WEIGHT;
    match value.filter(|value| !value.is_null()) {
        None => Ok(0.0),
        Some(value) => match value.as_f64() {
            Some(weight) if weight.abs() <= f64::from(most) => Ok(weight as f32),
            Some(_) => {
                let message = format!("`{path}` must be between -{most} and {most}");
                Err(ApiError::invalid(path, message))
            }
            None => Err(ApiError::malformed(path, format!("`{path}` must be a number"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scales(body: &Value) -> Result<Vec<(u64, f32)>, ApiError> {
        read(body.to_string().as_bytes(), |number| number < 40)
    }

    #[test]
    fn what_is_left_out_or_zero_has_no_scale() {
        let body = json!([{"id": 0, "scale": 0.5, "path": "a"}, {"id": 1, "scale": 0}, {"id": 2}]);
        assert_eq!(scales(&body).expect("valid"), [(0, 0.5)]);
        let twice = json!([{"id": 0, "scale": 0.5}, {"id": 0, "scale": -1}]);
        assert_eq!(scales(&twice).expect("valid"), [(0, -1.0)]);
        assert_eq!(scales(&json!([])).expect("valid"), []);
        let all: Vec<_> =
            (0..40).map(|id| json!({"id": id, "scale": i32::from(id == 7)})).collect();
        assert_eq!(scales(&all.into()).expect("valid"), [(7, 1.0)]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        for (body, status, param) in [
            (json!({"id": 0}), 400, "body"),
            (json!([0]), 400, "[0].id"),
            (json!([{"scale": 1}]), 400, "[0].id"),
            (json!([{"id": 0, "scale": 1}, {"id": -1, "scale": 1}]), 400, "[1].id"),
            (json!([{"id": 99, "scale": 1}]), 404, "[0].id"),
            (json!([{"id": 0, "scale": "1"}]), 400, "[0].scale"),
            (json!([{"id": 0, "scale": 1e9}]), 400, "[0].scale"),
        ] {
            let error = scales(&body).expect_err("refused");
            assert_eq!(error.status().as_u16(), status, "{body}");
            assert_eq!(error.openai()["error"]["param"], param, "{body}");
        }
        let many: Vec<_> = (0..17).map(|id| json!({"id": id, "scale": 1})).collect();
        assert_eq!(scales(&many.into()).expect_err("too many").status().as_u16(), 400);
        assert_eq!(read(b"[", |_| true).expect_err("cut").status().as_u16(), 400);
    }
}

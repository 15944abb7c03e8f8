//! `POST /v1/unload_lora_adapter`
use crate::{
    adapter::{AdapterError, AdapterName, SwapPolicy},
    http::{ApiError, AppState, auth::Caller, json::JsonBody},
};
use axum::{Extension, extract::State};
use serde::Deserialize;

#[derive(Deserialize)]
struct UnloadFields {
    lora_name: Option<String>,
}

/// 200 with vLLM's text when the name means nothing any more. Running requests finish.
pub(in crate::http) async fn unload(
    State(app): State<AppState>,
    Extension(caller): Extension<Caller>,
    body: JsonBody,
) -> Result<String, ApiError> {
    let UnloadFields { lora_name } = body.read()?;
    let Some(name) = lora_name.filter(|name| !name.is_empty()) else {
        let message = "'lora_name' needs to be provided to unload a LoRA adapter.";
        return Err(ApiError::user_input(message));
    };
    let name: AdapterName = name.parse().map_err(|_| unknown(&name))?;
    app.aliases.check_unused(&name)?;
    let by = (caller.actor(), SwapPolicy::Pin);
    let version = match app.registry.retire(name.clone(), None, by).await {
        Err(AdapterError::NotFound(name)) => return Err(unknown(name.as_str())),
        other => other?,
    };
    app.metrics.adapter_changed("retired");
    app.metrics.adapter_gone(name.as_str());
    tracing::info!(adapter = %name, %version, "adapter retired");
    Ok(format!("Success: LoRA adapter '{name}' removed successfully."))
}

fn unknown(name: &str) -> ApiError {
    let shown: String = name.chars().take(128).collect();
    let shown = shown.escape_debug();
    ApiError::no_adapter_files(format!("The lora adapter '{shown}' cannot be found."))
}

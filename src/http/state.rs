//! What handlers may use.
use super::{ApiError, HttpConfig};
use crate::{
    adapter::{AdapterRef, AdapterRegistry},
    generation::Generator,
    telemetry::Metrics,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};
use tracing::Span;

/// Everything behind the door. Clones are handles to the same things.
#[derive(Clone)]
pub struct AppState {
    /// Text in, text out.
    pub generator: Generator,
    /// The adapters that requests can name.
    pub registry: AdapterRegistry,
    /// What to count in.
    pub metrics: Metrics,
    /// The door's own settings.
    pub config: Arc<HttpConfig>,
    pub(super) started: SystemTime,
    draining: Arc<AtomicBool>,
}

impl AppState {
    /// A door in front of these rooms.
    pub fn new(
        generator: Generator,
        registry: AdapterRegistry,
        metrics: Metrics,
        config: HttpConfig,
    ) -> Self {
        let (config, draining) = (Arc::new(config), Arc::default());
        Self { generator, registry, metrics, config, started: SystemTime::now(), draining }
    }

    /// From now on the server calls itself unhealthy, so that nobody sends it more.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether new requests are welcome.
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.generator.is_alive()
    }

    /// What the request's `model` means: nothing and the base's name are the base, all else is an adapter.
    ///
    /// # Errors
    /// 404 for what can be neither.
    pub(super) fn resolve(&self, model: Option<&str>) -> Result<Option<AdapterRef>, ApiError> {
        let base = &self.generator.model().name;
        match model {
            None | Some("") => Ok(None),
            Some(name) if name == base => Ok(None),
            Some(name) => match name.parse::<AdapterRef>() {
                Ok(wanted) if self.registry.get(&wanted.name).is_some() => {
                    Span::current().record("adapter", wanted.name.as_str());
                    Ok(Some(wanted))
                }
                _ => Err(ApiError::no_model(name)),
            },
        }
    }

    /// What a response calls the model of a request.
    pub(super) fn model_name(&self, adapter: Option<&AdapterRef>) -> String {
        match adapter {
            Some(adapter) => adapter.to_string(),
            None => self.generator.model().name.clone(),
        }
    }
}

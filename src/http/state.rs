//! What handlers may use.
use super::{
    ApiError, HttpConfig, Keys,
    auth::Caller,
    mix::{NamedAdapter, NamedAdapters, Who},
    upload::Uploads,
};
use crate::{
    adapter::{AdapterError, AdapterName, AdapterRef, AdapterRegistry, upload::Staging},
    generation::{Generator, WeightedAdapter},
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

/// Which adapters answer a request, and in whose name.
#[derive(Debug)]
pub(super) struct Chosen {
    /// What the response calls its model: the adapter that the request's model names, else the base.
    pub(super) model: String,
    /// In the request's order.
    pub(super) adapters: Vec<WeightedAdapter>,
}

impl Chosen {
    /// Names and weights, as the log shows them: `pirate` or `pirate*0.7+sql*0.3`.
    fn log_entry(&self) -> String {
        let shown = |one: &WeightedAdapter| match one.weight {
            1.0 => one.adapter.name.to_string(),
            weight => format!("{}*{weight}", one.adapter.name),
        };
        self.adapters.iter().map(shown).collect::<Vec<_>>().join("+")
    }
}

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
    pub(super) keys: Keys,
    pub(super) started: SystemTime,
    pub(super) uploads: Uploads,
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
        let (keys, draining, uploads) = (Keys::new(&config), Arc::default(), Uploads::new(None));
        let (config, started) = (Arc::new(config), SystemTime::now());
        Self { generator, registry, metrics, config, keys, started, uploads, draining }
    }

    /// The same door, whose uploads wait in `staging`; else they wait in the system's directory of temporary files.
    #[must_use]
    pub fn with_staging(self, staging: Staging) -> Self {
        Self { uploads: Uploads::new(Some(staging)), ..self }
    }

    /// From now on the server calls itself unhealthy, so that nobody sends it more.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether new requests are welcome.
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.generator.is_alive()
    }

    /// What a request's model and its list of adapters mean together; `field` is what its dialect calls the model.
    ///
    /// # Errors
    /// 404 for what nobody has published for this caller, 400 where both name adapters.
    pub(super) fn choose(
        &self,
        caller: Caller,
        (field, model): (&str, Option<&str>),
        named: NamedAdapters,
    ) -> Result<Chosen, ApiError> {
        let chosen = match self.resolve(caller, model)? {
            Some(_) if !named.entries.is_empty() => {
                return Err(ApiError::exclusive(named.field, field));
            }
            Some(adapter) => {
                let model = adapter.to_string();
                let one = WeightedAdapter { adapter, weight: 1.0, field: field.to_owned() };
                Chosen { model, adapters: vec![one] }
            }
            None if named.entries.is_empty() && !caller.may_use_base() => {
                return Err(ApiError::key_needs_adapter(field));
            }
            None => {
                let adapters = named.entries.into_iter().map(|entry| self.look_up(caller, entry));
                let model = self.generator.model().name.clone();
                Chosen { model, adapters: adapters.collect::<Result<_, _>>()? }
            }
        };
        if !chosen.adapters.is_empty() {
            Span::current().record("adapter", chosen.log_entry());
        }
        Ok(chosen)
    }

    /// Nothing and the base's name are the base, all else is an adapter.
    fn resolve(&self, caller: Caller, model: Option<&str>) -> Result<Option<AdapterRef>, ApiError> {
        let base = &self.generator.model().name;
        match model {
            None | Some("") => Ok(None),
            Some(name) if name == base => Ok(None),
            Some(name) => match name.parse::<AdapterRef>() {
                Ok(wanted) if self.is_there(caller, &wanted.name) => Ok(Some(wanted)),
                _ => Err(ApiError::no_model(name)),
            },
        }
    }

    /// Others' private adapters are not there at all.
    fn is_there(&self, caller: Caller, name: &AdapterName) -> bool {
        self.registry.get(name).is_some_and(|entry| caller.may_use(&entry.terms))
    }

    fn look_up(&self, caller: Caller, entry: NamedAdapter) -> Result<WeightedAdapter, ApiError> {
        let NamedAdapter { who, weight, path: field } = entry;
        let adapter = match who {
            Who::Name(wanted) if self.is_there(caller, &wanted.name) => wanted,
            Who::Name(wanted) => {
                return Err(ApiError::from(AdapterError::NotFound(wanted.name)).with_param(&field));
            }
            Who::Number(number) => match self.registry.numbered(number) {
                Some(name) if self.is_there(caller, &name) => AdapterRef { name, version: None },
                _ => return Err(ApiError::no_adapter(number).with_param(&field)),
            },
        };
        Ok(WeightedAdapter { adapter, weight, field })
    }
}

//! What handlers may use.
use super::{
    ApiError, HttpConfig, Keys,
    access::Access,
    auth::Caller,
    drain::Drain,
    llama::Scales,
    mix::{NamedAdapter, NamedAdapters, Who},
    shadow::Shadows,
    split::{Asker, Split},
    upload::Uploads,
};
use crate::{
    adapter::{
        AdapterError, AdapterName, AdapterRef, AdapterRegistry, Event,
        alias::{self, Alias, Aliases},
        upload::Staging,
    },
    generation::{Generator, WeightedAdapter},
    telemetry::{Metrics, Traces},
};
use std::{ops::Deref, sync::Arc, time::SystemTime};
use tracing::Span;

/// Which adapters answer a request, and in whose name.
#[derive(Debug)]
pub(super) struct Chosen {
    /// What the response calls its model: the adapter or alias that the request's model names, else the base.
    pub(super) model: String,
    /// In the request's order; what an alias' target is stands for the alias.
    pub(super) adapters: Vec<WeightedAdapter>,
    /// The aliases among them.
    pub(super) split: Split,
}

impl Chosen {
    /// Names and weights, as the log shows them: `pirate`, `pirate*0.7+sql*0.3` or `chat>pirate`.
    fn log_entry(&self) -> String {
        let shown = |one: &WeightedAdapter| match one.weight {
            1.0 => one.adapter.name.to_string(),
            weight => format!("{}*{weight}", one.adapter.name),
        };
        let adapters = self.adapters.iter().map(shown).collect::<Vec<_>>().join("+");
        self.split.aliases().map(|alias| format!("{alias}>")).chain([adapters]).collect()
    }
}

/// What a request's model is.
enum Named {
    /// And what the request calls it.
    Base(String),
    Adapter(AdapterRef),
    Alias(Arc<Alias>),
}

/// Everything behind the door. Clones are handles to the same [`Rooms`], and cost next to nothing: every layer of
/// every request takes one.
#[derive(Clone)]
pub struct AppState(Arc<Rooms>);

impl Deref for AppState {
    type Target = Rooms;

    fn deref(&self) -> &Rooms {
        &self.0
    }
}

/// What is behind the door.
#[derive(Clone)]
pub struct Rooms {
    /// Text in, text out.
    pub generator: Generator,
    /// The adapters that requests can name.
    pub registry: AdapterRegistry,
    /// The names that stand for several of them.
    pub aliases: Aliases,
    /// What to count in.
    pub metrics: Metrics,
    /// Where traces go.
    pub traces: Traces,
    /// The door's own settings.
    pub config: Arc<HttpConfig>,
    pub(super) keys: Keys,
    /// What requests get that name no adapter.
    pub(super) scales: Scales,
    pub(super) started: SystemTime,
    pub(super) uploads: Uploads,
    pub(super) shadows: Shadows,
    pub(super) drain: Drain,
}

impl AppState {
    /// A door in front of these rooms.
    pub fn new(
        generator: Generator,
        registry: AdapterRegistry,
        metrics: Metrics,
        config: HttpConfig,
    ) -> Self {
        let (keys, drain, uploads) = (Keys::new(&config), Drain::default(), Uploads::new(None));
        let aliases = Aliases::new(&generator.model().name, None);
        let (config, started, shadows) = (Arc::new(config), SystemTime::now(), Shadows::new());
        let app = Self(Arc::new(Rooms {
            generator,
            registry,
            aliases,
            metrics,
            traces: Traces::default(),
            config,
            keys,
            scales: Scales::default(),
            started,
            uploads,
            shadows,
            drain,
        }));
        app.record_changes();
        app
    }

    /// The same door, whose uploads wait in `staging`; else they wait in the system's directory of temporary files.
    #[must_use]
    pub fn with_staging(self, staging: Staging) -> Self {
        self.with(|rooms| rooms.uploads = Uploads::new(Some(staging)))
    }

    /// The same door with these aliases; else they live as long as it does.
    #[must_use]
    pub fn with_aliases(self, aliases: Aliases) -> Self {
        let app = self.with(|rooms| rooms.aliases = aliases);
        app.record_changes();
        app
    }

    /// The same door, whose requests leave traces.
    #[must_use]
    pub fn with_traces(self, traces: Traces) -> Self {
        self.with(|rooms| rooms.traces = traces)
    }

    fn with(mut self, change: impl FnOnce(&mut Rooms)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    fn record_changes(&self) {
        let (metrics, log) = (self.metrics.clone(), self.registry.events().clone());
        self.aliases.on_change(Box::new(move |event| {
            let action = event.action.as_str();
            metrics.alias_changed(event.alias.as_str(), action);
            let told = Event::now(&event.by, &format!("alias_{action}"), &event.alias);
            let text = |revision: alias::Revision| revision.to_string();
            let (version, previous) = (event.revision.map(text), event.previous.map(text));
            log.record(Event { version, previous, ..told.saying(&event.detail) });
        }));
    }

    /// From now on the server calls itself unhealthy, and takes no more requests.
    pub fn drain(&self) {
        self.drain.begin();
        self.shadows.end();
    }

    /// What a request's model and its list of adapters mean together; `field` is what its dialect calls the model.
    ///
    /// # Errors
    /// 404 for what nobody has published for this caller, 400 where both name adapters.
    pub(super) fn choose(
        &self,
        asker: Asker<'_>,
        (field, model): (&str, Option<&str>),
        named: NamedAdapters,
    ) -> Result<Chosen, ApiError> {
        if let Some(access) = Access::current() {
            access.asks(asker.caller, model.unwrap_or(&self.generator.model().name));
        }
        let mut split = Split::default();
        let one = |adapter| WeightedAdapter { adapter, weight: 1.0, field: field.to_owned() };
        let (model, adapters) = match self.resolve(asker.caller, model)? {
            Named::Alias(_) | Named::Adapter(_) if !named.entries.is_empty() => {
                return Err(ApiError::exclusive(named.field, field));
            }
            Named::Alias(alias) => {
                let target = split.draw_alone(self, &alias, asker);
                let target = target.map_err(|error| error.with_param(field))?;
                (alias.name().to_string(), target.adapter_ref().map(one).into_iter().collect())
            }
            Named::Adapter(adapter) => (adapter.to_string(), vec![one(adapter)]),
            Named::Base(_) if named.entries.is_empty() && !asker.caller.may_use_base() => {
                return Err(ApiError::key_needs_adapter(field));
            }
            Named::Base(model) => {
                let named = match named.field {
                    "" => self.scales.defaults(&self.registry, asker.caller),
                    _ => named,
                };
                let mut adapters = Vec::with_capacity(named.entries.len());
                for entry in named.entries {
                    adapters.extend(self.look_up(entry, &mut split, asker)?);
                }
                (model, adapters)
            }
        };
        let chosen = Chosen { model, adapters, split };
        if !chosen.log_entry().is_empty() {
            Span::current().record("adapter", chosen.log_entry());
        }
        Ok(chosen)
    }

    /// Nothing and the base's names are the base, all else is an alias or an adapter.
    fn resolve(&self, caller: Caller, model: Option<&str>) -> Result<Named, ApiError> {
        let base = self.generator.model();
        let name = model.filter(|name| !name.is_empty()).unwrap_or(&base.name);
        if base.is_called(name) {
            return Ok(Named::Base(name.to_owned()));
        }
        if let Some(alias) = self.aliases.named(name) {
            return Ok(Named::Alias(alias));
        }
        match name.parse::<AdapterRef>() {
            Ok(wanted) if self.is_there(caller, &wanted.name) => Ok(Named::Adapter(wanted)),
            _ => Err(ApiError::no_model(name)),
        }
    }

    /// Others' private adapters are not there at all.
    fn is_there(&self, caller: Caller, name: &AdapterName) -> bool {
        self.registry.get(name).is_some_and(|entry| caller.may_use(&entry.terms))
    }

    /// `None` where an alias' target is the base: it changes nothing.
    fn look_up(
        &self,
        entry: NamedAdapter,
        split: &mut Split,
        asker: Asker<'_>,
    ) -> Result<Option<WeightedAdapter>, ApiError> {
        let NamedAdapter { who, weight, path: field } = entry;
        let alias = match &who {
            Who::Name(AdapterRef { name, version: None }) => self.aliases.get(name),
            _ => None,
        };
        if let Some(alias) = alias {
            let target = split.draw(self, &alias, asker).map_err(|error| {
                // An alias of others' adapters alone is as unknown as any name that nobody has given.
                let hidden = error.reason() == "model_not_found";
                let unknown = || AdapterError::NotFound(alias.name().clone()).into();
                if hidden { unknown() } else { error }.with_param(&field)
            })?;
            return Ok(target.adapter_ref().map(|adapter| WeightedAdapter {
                adapter,
                weight,
                field,
            }));
        }
        let adapter = match who {
            Who::Name(wanted) if self.is_there(asker.caller, &wanted.name) => wanted,
            Who::Name(wanted) => {
                return Err(ApiError::from(AdapterError::NotFound(wanted.name)).with_param(&field));
            }
            Who::Number(number) => match self.registry.numbered(number) {
                Some(name) if self.is_there(asker.caller, &name) => {
                    AdapterRef { name, version: None }
                }
                _ => return Err(ApiError::no_adapter(number).with_param(&field)),
            },
        };
        Ok(Some(WeightedAdapter { adapter, weight, field }))
    }
}

//! Aliases in a request: which target it gets, and what became of it.
use super::{ApiError, AppState, auth::Caller, drain::Drain, json::JsonBody};
use crate::{
    adapter::{
        AdapterRegistry,
        alias::{Alias, Drawn, Observation, Sticky, Target},
    },
    error::{Classified, ErrorKind},
    generation::GenerateError,
};
use axum::http::HeaderMap;
use std::{
    borrow::Cow,
    sync::Arc,
    time::{Instant, SystemTime},
};

/// How the engine calls an output that is not finite.
const NON_FINITE: &str = "non_finite_output";

/// Who asks: what an alias may be sticky by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    pub(super) caller: Caller,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a JsonBody,
}

impl Asker<'_> {
    /// What the request has of it; an empty value is none.
    fn value(&self, sticky: &Sticky) -> Option<Cow<'_, str>> {
        let value = match sticky {
            Sticky::Header(name) => String::from_utf8_lossy(self.headers.get(name)?.as_bytes()),
            Sticky::Field(name) => Cow::Borrowed(self.body.get(name)?.as_str()?),
        };
        Some(value).filter(|value| !value.is_empty())
    }
}

/// The aliases of one request with the targets they drew.
#[derive(Debug, Default)]
pub(super) struct Split {
    drawn: Vec<Drawn>,
    /// Whether one target answers alone and whole: only then are failures its own.
    is_pure: bool,
}

impl Split {
    /// The target of the one alias that a request names.
    ///
    /// # Errors
    /// As [`Split::draw`].
    pub(super) fn draw_alone(
        &mut self,
        app: &AppState,
        alias: &Arc<Alias>,
        asker: Asker<'_>,
    ) -> Result<Target, ApiError> {
        self.is_pure = true;
        self.draw(app, alias, asker)
    }

    /// A target of `alias` for this request.
    ///
    /// # Errors
    /// 404 when none is left.
    pub(super) fn draw(
        &mut self,
        app: &AppState,
        alias: &Arc<Alias>,
        asker: Asker<'_>,
    ) -> Result<Target, ApiError> {
        let value = alias.form().sticky.as_ref().and_then(|sticky| asker.value(sticky));
        let is_usable = |target: &Target| is_usable(app, asker.caller, target);
        let drawn = alias.draw(value.as_deref(), rand::random(), is_usable);
        let published = |target: &Target| is_there(&app.registry, target);
        let drawn = drawn.map_err(|error| {
            // Others' private adapters are not there at all, and their names are nobody's business.
            let is_private = alias.form().targets.iter().any(|target| published(&target.target));
            if is_private { ApiError::no_model(alias.name().as_str()) } else { error.into() }
        })?;
        if drawn.missed().is_some_and(|missed| !published(missed)) {
            drawn.tell_missed();
        }
        let target = drawn.target().clone();
        self.drawn.push(drawn);
        Ok(target)
    }

    /// What was asked for, in order.
    pub(super) fn aliases(&self) -> impl Iterator<Item = &str> {
        self.drawn.iter().map(|drawn| drawn.alias().name().as_str())
    }

    /// What is to answer besides, where the alias wants that and it is not what answers anyway.
    pub(super) fn shadow(&self) -> Option<(&Alias, &Target)> {
        match &self.drawn[..] {
            [drawn] if self.is_pure => {
                let shadow = drawn.alias().form().shadow.as_ref()?;
                (shadow != drawn.target()).then_some((drawn.alias(), shadow))
            }
            _ => None,
        }
    }

    /// The request begins.
    pub(super) fn begin(self, app: &AppState) -> Tally {
        for drawn in &self.drawn {
            let target = drawn.target().shown(app.aliases.base());
            app.metrics.alias_requested(drawn.alias().name().as_str(), &target);
        }
        Tally { split: self, app: app.clone(), begun: Instant::now() }
    }
}

/// Whether requests can be sent to a target.
pub(super) fn is_there(registry: &AdapterRegistry, target: &Target) -> bool {
    match target {
        Target::Base => true,
        Target::Adapter(wanted) => registry.contains(wanted),
    }
}

/// Whether this caller's requests can.
pub(super) fn is_usable(app: &AppState, caller: Caller, target: &Target) -> bool {
    let Target::Adapter(wanted) = target else { return caller.may_use_base() };
    let entry = app.registry.contains(wanted).then(|| app.registry.get(&wanted.name)).flatten();
    entry.is_some_and(|entry| caller.may_use(&entry.terms))
}

/// Waits for the end of a request, and reports it. One that is dropped before was its client's to end.
pub(super) struct Tally {
    split: Split,
    app: AppState,
    begun: Instant,
}

impl Tally {
    /// When the request began.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// When the server ends.
    pub(super) fn drain(&self) -> &Drain {
        &self.app.drain
    }

    /// Every answer is whole.
    pub(super) fn answered(&mut self) {
        self.observe(Observation::Answered(self.begun.elapsed()));
    }

    /// It ended with this error. Only what the server and the target are to blame for counts.
    pub(super) fn failed(&mut self, error: &GenerateError) {
        if error.kind() != ErrorKind::Internal {
            return;
        }
        let (seen, reason) = match error.code() {
            NON_FINITE => (Observation::NonFinite, "non_finite"),
            _ => (Observation::Failed, "error"),
        };
        for drawn in &self.split.drawn {
            let target = drawn.target().shown(self.app.aliases.base());
            self.app.metrics.alias_failed(drawn.alias().name().as_str(), &target, reason);
        }
        self.observe(seen);
    }

    fn observe(&mut self, seen: Observation) {
        let drawn = std::mem::take(&mut self.split.drawn);
        if !self.split.is_pure {
            return;
        }
        for trip in drawn.iter().filter_map(|drawn| drawn.observe(seen, Instant::now())) {
            let (aliases, registry) = (self.app.aliases.clone(), self.app.registry.clone());
            tokio::task::spawn_blocking(move || {
                aliases.flip_back(&trip, SystemTime::now(), &|target| is_there(&registry, target));
            });
        }
    }
}

//! One alias in one of its forms, at work.
use super::{
    AliasError, AliasForm, AliasRecord, Counts, Observation, Revision, Target, Trip, split,
    watch::Watch,
};
use crate::adapter::{AdapterName, Stamp};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

/// Whether, and as what, a form lies in the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Kept {
    /// In memory only: there is no store.
    Nowhere,
    /// It lies there.
    Stored(Stamp),
    /// It could not be written yet, over what lies there.
    Unsaved(Option<Stamp>),
}

/// An alias' form. A change makes a new one; requests that drew from this one report to it still.
#[derive(Debug)]
pub struct Alias {
    name: AdapterName,
    record: AliasRecord,
    revision: Revision,
    watch: Watch,
    kept: Mutex<Kept>,
    /// Whether a missing target was logged.
    told: AtomicBool,
}

/// A target that a request got.
#[derive(Clone, Debug)]
pub struct Drawn {
    alias: Arc<Alias>,
    at: usize,
    /// What would have been drawn if it were there.
    missed: Option<usize>,
}

impl Alias {
    pub(super) fn new(name: AdapterName, record: AliasRecord, kept: Kept, now: Instant) -> Self {
        let (revision, watch) = (Revision::of(&record.bytes()), Watch::new(&record, now));
        let (kept, told) = (Mutex::new(kept), AtomicBool::new(false));
        Self { name, record, revision, watch, kept, told }
    }

    /// What clients call it.
    pub fn name(&self) -> &AdapterName {
        &self.name
    }

    /// What it is and was.
    pub fn record(&self) -> &AliasRecord {
        &self.record
    }

    /// What it does.
    pub fn form(&self) -> &AliasForm {
        &self.record.form
    }

    /// Which of its forms this is.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether it survives a restart.
    pub fn is_durable(&self) -> bool {
        matches!(*self.kept(), Kept::Stored(_))
    }

    /// What the requests of the window came to, for each target.
    pub fn counts(&self, now: Instant) -> Vec<Counts> {
        self.watch.counts(now)
    }

    /// A target for one request: the same for equal values of what it is sticky by, else by `chance`, which is uniform
    /// in `[0, 1)`. A target that is not there is passed over for the others by their weights.
    ///
    /// # Errors
    /// [`AliasError::NoTargetLeft`].
    pub fn draw(
        self: &Arc<Self>,
        value: Option<&str>,
        chance: f64,
        is_there: impl Fn(&Target) -> bool,
    ) -> Result<Drawn, AliasError> {
        // A target over its limit is out at once, while its form is still being taken back.
        let is_sound = |at: usize| self.watch.tripped() != Some(at);
        let wish = self.pick(value, chance, |_, _| true);
        let sound = self.pick(value, chance, |at, target| is_sound(at) && is_there(target));
        let left = sound.or_else(|| self.pick(value, chance, |_, target| is_there(target)));
        let Some(at) = left else {
            let target = wish.map(|at| self.form().targets[at].target.to_string());
            let (alias, target) = (self.name.clone(), target.unwrap_or_default());
            return Err(AliasError::NoTargetLeft { alias, target });
        };
        let missed = wish.filter(|wish| *wish != at && is_sound(*wish));
        Ok(Drawn { alias: Arc::clone(self), at, missed })
    }

    fn pick(
        &self,
        value: Option<&str>,
        chance: f64,
        may: impl Fn(usize, &Target) -> bool,
    ) -> Option<usize> {
        let targets = self.form().targets.iter().enumerate();
        let targets = targets.filter(|(at, target)| may(*at, &target.target));
        match value {
            Some(value) => split::by_value(&self.name, targets, value),
            None => split::by_chance(targets, chance),
        }
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lies in the store below or beside this form.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        match &*self.kept() {
            Kept::Stored(stamp) => Some(stamp.clone()),
            Kept::Unsaved(stamp) => stamp.clone(),
            Kept::Nowhere => None,
        }
    }
}

impl Drawn {
    /// The alias that was asked for.
    pub fn alias(&self) -> &Alias {
        &self.alias
    }

    /// What answers.
    pub fn target(&self) -> &Target {
        &self.alias.form().targets[self.at].target
    }

    /// The target that the request would have got, had it been there.
    pub fn missed(&self) -> Option<&Target> {
        Some(&self.alias.form().targets.get(self.missed?)?.target)
    }

    /// Logs that what was missed is not published; once for each form, as there may be a thousand requests a second.
    pub fn tell_missed(&self) {
        let Some(target) = self.missed() else { return };
        if !self.alias.told.swap(true, Relaxed) {
            let alias = &self.alias.name;
            tracing::warn!(%alias, %target, "a target is not published: the others take its requests");
        }
    }

    /// Reports how the request ended; what comes back must be taken to [`Aliases::flip_back`](super::Aliases::flip_back).
    pub fn observe(&self, seen: Observation, now: Instant) -> Option<Trip> {
        let Alias { name, record, revision, watch, .. } = &*self.alias;
        let reason = watch.observe(record, self.at, seen, now)?;
        let target = self.target().clone();
        Some(Trip { alias: name.clone(), revision: *revision, target, reason })
    }
}

//! Which aliases there are: changed one at a time, read without waiting.
use super::{
    Alias, AliasAction, AliasError, AliasEvent, AliasForm, AliasOutcome, AliasRecord, AliasRule,
    Author, Revision, Target, Trip, live::Kept, stored::Shelf,
};
use crate::adapter::{AdapterError, AdapterName, NameKeeper, Objects, Stamp};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Most aliases of a server.
const MAX_ALIASES: usize = 4096;
/// How often a change is tried against others' changes.
const ATTEMPTS: usize = 5;

type Listener = Box<dyn Fn(&AliasEvent) + Send + Sync>;
/// Whether a target is published now.
type IsThere<'a> = &'a dyn Fn(&Target) -> bool;

/// Name → alias. Clones are handles to the same aliases.
///
/// Look-ups never wait for a store. Methods that change something do, and block: none may be called on an async thread.
#[derive(Clone)]
pub struct Aliases(Arc<Inner>);

struct Inner {
    /// What clients call the base model.
    base: String,
    shelf: Option<Shelf>,
    aliases: RwLock<BTreeMap<AdapterName, Arc<Alias>>>,
    /// Held from a change's check to the map insert; the stamps of what in the store is no alias.
    changing: Mutex<BTreeMap<AdapterName, Stamp>>,
    listeners: RwLock<Vec<Listener>>,
}

impl fmt::Debug for Aliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aliases").field("aliases", &self.list().len()).finish_non_exhaustive()
    }
}

impl Aliases {
    /// No aliases yet; without a store they live as long as the process.
    pub fn new(base: &str, store: Option<Arc<dyn Objects>>) -> Self {
        Self(Arc::new(Inner {
            base: base.to_owned(),
            shelf: store.map(Shelf::new),
            aliases: RwLock::default(),
            changing: Mutex::default(),
            listeners: RwLock::default(),
        }))
    }

    /// Calls `listener` for each change that this process makes, on the thread that makes it.
    pub fn on_change(&self, listener: Listener) {
        self.0.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// What clients call the base model.
    pub fn base(&self) -> &str {
        &self.0.base
    }

    /// One alias.
    pub fn get(&self, name: &AdapterName) -> Option<Arc<Alias>> {
        self.read(|aliases| aliases.get(name).cloned())
    }

    /// What a request's model names, if that is an alias.
    pub fn named(&self, model: &str) -> Option<Arc<Alias>> {
        model.parse().ok().and_then(|name| self.get(&name))
    }

    /// Every alias, by name.
    pub fn list(&self) -> Vec<Arc<Alias>> {
        self.read(|aliases| aliases.values().cloned().collect())
    }

    /// Whether an adapter may be called so.
    ///
    /// # Errors
    /// [`AdapterError::InvalidName`] for an alias' name.
    pub fn check_free(&self, name: &AdapterName) -> Result<(), AdapterError> {
        match self.get(name) {
            None => Ok(()),
            Some(_) => Err(AdapterError::InvalidName(format!(
                "`{name}` is an alias; delete the alias, or give the adapter another name"
            ))),
        }
    }

    /// Whether no alias sends requests to an adapter.
    ///
    /// # Errors
    /// [`AliasError::InUse`] with the first that does.
    pub fn check_unused(&self, adapter: &AdapterName) -> Result<(), AliasError> {
        let names = |alias: &&Arc<Alias>| {
            alias.form().named().any(|target| target.adapter() == Some(adapter))
        };
        match self.list().iter().find(names) {
            None => Ok(()),
            Some(alias) => {
                Err(AliasError::InUse { adapter: adapter.clone(), alias: alias.name().clone() })
            }
        }
    }

    /// Makes `form` what `name` does. Blocks.
    ///
    /// # Errors
    /// When the name is taken, a target is not there, the rule does not hold, or the store fails.
    pub fn put(
        &self,
        name: &AdapterName,
        form: &AliasForm,
        rule: AliasRule,
        author: &Author,
        is_there: IsThere<'_>,
    ) -> Result<(Arc<Alias>, AliasOutcome), AliasError> {
        self.check_name(name, is_there)?;
        self.check_targets(form, is_there)?;
        let mut changing = self.lock();
        for _ in 0..ATTEMPTS {
            let current = self.reload(name, &mut changing)?;
            check_rule(name, current.as_deref(), rule)?;
            let (previous, outcome) = match &current {
                Some(current) if current.form() == form => {
                    return Ok((Arc::clone(current), AliasOutcome::Unchanged));
                }
                Some(current) => (Some(current.form().clone()), AliasOutcome::Replaced),
                None => (None, AliasOutcome::Created),
            };
            let record = record(form.clone(), previous, AliasAction::Put, author);
            if let Some(alias) = self.write(name, record, current.as_deref())? {
                drop(changing);
                self.tell(&alias, current.as_deref());
                return Ok((alias, outcome));
            }
        }
        Err(AliasError::Busy(name.clone()))
    }

    /// Makes an alias what it was before its last change; doing it twice changes nothing. Blocks.
    ///
    /// # Errors
    /// [`AliasError::NotFound`], [`AliasError::NothingBefore`], [`AliasError::NoTargetLeft`] when none of the former
    /// targets is there, [`AliasError::Conflict`] when it is not at `expected`, and when the store fails.
    pub fn roll_back(
        &self,
        name: &AdapterName,
        expected: Option<Revision>,
        author: &Author,
        is_there: IsThere<'_>,
    ) -> Result<Arc<Alias>, AliasError> {
        let mut changing = self.lock();
        for _ in 0..ATTEMPTS {
            let current = self.existing(name, expected, &mut changing)?;
            let previous = current.record().previous.clone();
            let form = previous.ok_or_else(|| AliasError::NothingBefore(name.clone()))?;
            if !answers(&form, is_there) {
                let target = form.targets[0].target.shown(self.base());
                return Err(AliasError::NoTargetLeft { alias: name.clone(), target });
            }
            let before = Some(current.form().clone());
            let record = record(form, before, AliasAction::RolledBack, author);
            if let Some(alias) = self.write(name, record, Some(&current))? {
                drop(changing);
                self.tell(&alias, Some(&current));
                return Ok(alias);
            }
        }
        Err(AliasError::Busy(name.clone()))
    }

    /// Removes an alias; with `expected`, only at that revision. Blocks.
    ///
    /// # Errors
    /// [`AliasError::NotFound`], [`AliasError::Conflict`], and when the store fails.
    pub fn delete(
        &self,
        name: &AdapterName,
        expected: Option<Revision>,
        author: &Author,
    ) -> Result<Revision, AliasError> {
        let mut changing = self.lock();
        let current = self.existing(name, expected, &mut changing)?;
        if let Some(shelf) = &self.0.shelf {
            shelf.delete(name)?;
        }
        self.write_map(|aliases| aliases.remove(name));
        drop(changing);
        let (action, by) = (AliasAction::Deleted, author.by.clone());
        let previous = Some(current.revision());
        let (alias, detail) = (name.clone(), String::new());
        self.tell_event(&AliasEvent { alias, action, by, revision: None, previous, detail });
        Ok(current.revision())
    }

    /// Takes back the change that brought a failing target, unless another change came first: the alias is what it was
    /// before, or, where there was nothing before, itself without that target. It is so at once, stored or not. Blocks.
    pub fn flip_back(
        &self,
        trip: &Trip,
        at: SystemTime,
        is_there: IsThere<'_>,
    ) -> Option<Arc<Alias>> {
        let mut changing = self.lock();
        let current = self.get(&trip.alias).filter(|found| found.revision() == trip.revision)?;
        let former = current.record().previous.clone();
        let former = former.filter(|form| answers(form, is_there));
        let rest = || current.form().without(&trip.target).filter(|form| answers(form, is_there));
        let Some(form) = former.or_else(rest) else {
            tracing::error!(alias = %trip.alias, target = %trip.target, reason = trip.reason,
                "a target is over its limit, and there is nothing to flip back to");
            return None;
        };
        let author = Author { by: "guard".into(), at };
        let before = Some(current.form().clone());
        let mut record = record(form, before, AliasAction::FlippedBack, &author);
        record.reason = Some(format!("`{}`: {}", trip.target.shown(self.base()), trip.reason));
        let kept = match &self.0.shelf {
            Some(_) => Kept::Unsaved(current.stamp()),
            None => Kept::Nowhere,
        };
        let alias = self.insert(&trip.alias, record, kept);
        self.save(&alias, &mut changing);
        drop(changing);
        self.tell(&alias, Some(&current));
        Some(alias)
    }

    /// Sees what others have written to the store, and writes what could not be written before. Blocks.
    ///
    /// # Errors
    /// When the store cannot be listed; a broken alias in it is only logged.
    pub fn refresh(&self) -> Result<(), AliasError> {
        let Some(shelf) = &self.0.shelf else { return Ok(()) };
        let mut changing = self.lock();
        let stored = shelf.stamps()?;
        changing.retain(|name, stamp| stored.get(name) == Some(&*stamp));
        for (name, stamp) in &stored {
            let known = self.get(name).and_then(|alias| alias.stamp());
            if known.as_ref() == Some(stamp) || changing.contains_key(name) {
                continue;
            }
            if let Err(error) = self.reload(name, &mut changing) {
                tracing::warn!(alias = %name, %error, "left out an alias that cannot be read");
                changing.insert(name.clone(), stamp.clone());
            }
        }
        for alias in self.list() {
            if !stored.contains_key(alias.name()) && alias.stamp().is_some() {
                self.write_map(|aliases| aliases.remove(alias.name()));
            } else if matches!(*alias.kept(), Kept::Unsaved(_)) {
                self.save(&alias, &mut changing);
            }
        }
        Ok(())
    }

    /// What the store has under `name` becomes what is served; a form that waits to be written stays.
    fn reload(
        &self,
        name: &AdapterName,
        broken: &mut BTreeMap<AdapterName, Stamp>,
    ) -> Result<Option<Arc<Alias>>, AliasError> {
        let (current, Some(shelf)) = (self.get(name), &self.0.shelf) else {
            return Ok(self.get(name));
        };
        let Some((record, stamp)) = shelf.read(name)? else {
            self.write_map(|aliases| aliases.remove(name));
            return Ok(None);
        };
        broken.remove(name);
        if current.as_ref().and_then(|alias| alias.stamp()).as_ref() == Some(&stamp) {
            return Ok(current);
        }
        if name.as_str().eq_ignore_ascii_case(self.base()) {
            return Err(AliasError::Taken(format!("`{name}` is the base model's name")));
        }
        Ok(Some(self.insert(name, record, Kept::Stored(stamp))))
    }

    fn existing(
        &self,
        name: &AdapterName,
        expected: Option<Revision>,
        changing: &mut BTreeMap<AdapterName, Stamp>,
    ) -> Result<Arc<Alias>, AliasError> {
        let current = self.reload(name, changing)?;
        let current = current.ok_or_else(|| AliasError::NotFound(name.clone()))?;
        match expected {
            Some(expected) if expected != current.revision() => Err(conflict(&current)),
            _ => Ok(current),
        }
    }

    /// Stores and serves a new form; `None` where the store has something else than `current`.
    fn write(
        &self,
        name: &AdapterName,
        record: AliasRecord,
        current: Option<&Alias>,
    ) -> Result<Option<Arc<Alias>>, AliasError> {
        let kept = match &self.0.shelf {
            Some(shelf) => shelf.write(name, &record, current.and_then(Alias::stamp).as_ref())?,
            None => Some(Kept::Nowhere),
        };
        Ok(kept.map(|kept| self.insert(name, record, kept)))
    }

    /// Tries to store a form that is served already. Where somebody else was faster, theirs holds.
    fn save(&self, alias: &Alias, changing: &mut BTreeMap<AdapterName, Stamp>) {
        let Some(shelf) = &self.0.shelf else { return };
        let name = alias.name();
        let saved = shelf.write(name, alias.record(), alias.stamp().as_ref());
        let saved = saved.and_then(|kept| match kept {
            Some(kept) => {
                *alias.kept() = kept;
                Ok(())
            }
            None => self.reload(name, changing).map(drop),
        });
        if let Err(error) = saved {
            tracing::error!(alias = %name, %error, "an alias is served, but could not be stored");
        }
    }

    fn insert(&self, name: &AdapterName, record: AliasRecord, kept: Kept) -> Arc<Alias> {
        let alias = Arc::new(Alias::new(name.clone(), record, kept, Instant::now()));
        self.write_map(|aliases| aliases.insert(name.clone(), Arc::clone(&alias)));
        alias
    }

    fn check_name(&self, name: &AdapterName, is_there: IsThere<'_>) -> Result<(), AliasError> {
        if name.as_str().eq_ignore_ascii_case(self.base()) {
            let message = format!("`{name}` is the base model's name; an alias needs another");
            return Err(AliasError::Taken(message));
        }
        let adapter = Target::Adapter(name.clone().into());
        if is_there(&adapter) {
            let message = format!("`{name}` is a published adapter; an alias needs another name");
            return Err(AliasError::Taken(message));
        }
        // One file a name, also where files know no case.
        let twin = |other: &&AdapterName| other.as_str().eq_ignore_ascii_case(name.as_str());
        self.read(|aliases| match aliases.keys().find(twin) {
            Some(twin) if twin != name => Err(AliasError::Taken(format!(
                "`{name}` differs from the alias `{twin}` in case only"
            ))),
            None if aliases.len() >= MAX_ALIASES => Err(AliasError::TooMany(MAX_ALIASES)),
            _ => Ok(()),
        })
    }

    fn check_targets(&self, form: &AliasForm, is_there: IsThere<'_>) -> Result<(), AliasError> {
        let places = (0..form.targets.len()).map(|at| format!("targets[{at}].model"));
        for (field, target) in places.chain(["shadow".into()]).zip(form.named()) {
            let target_name = target.adapter();
            if let Some(alias) = target_name.and_then(|name| self.get(name)) {
                let message =
                    format!("`{field}`: `{}` is an alias; name adapters or the base", alias.name());
                return Err(AliasError::Invalid { field, message });
            }
            if !is_there(target) {
                let target = target.shown(self.base());
                return Err(AliasError::UnknownTarget { field, target });
            }
        }
        Ok(())
    }

    fn tell(&self, alias: &Alias, before: Option<&Alias>) {
        let record = alias.record();
        let share = |(target, shown): (&Target, &super::TargetDraft)| {
            format!("{} {:.4}", shown.model, record.form.share(target))
        };
        let shown = record.form.shown(self.base());
        let targets = record.form.targets.iter().map(|target| &target.target).zip(&shown.targets);
        let split = targets.map(share).collect::<Vec<_>>().join(", ");
        let detail = match &record.reason {
            Some(reason) => format!("{reason}; now {split}"),
            None => split,
        };
        self.tell_event(&AliasEvent {
            alias: alias.name().clone(),
            action: record.action,
            by: record.changed_by.clone(),
            revision: Some(alias.revision()),
            previous: before.map(Alias::revision),
            detail,
        });
    }

    fn tell_event(&self, event: &AliasEvent) {
        let AliasEvent { alias, action, by, detail, .. } = event;
        let action = action.as_str();
        if event.action == AliasAction::FlippedBack {
            tracing::warn!(%alias, action, by, detail, "an alias went back by itself");
        } else {
            tracing::info!(%alias, action, by, detail, "an alias changed");
        }
        for listener in self.0.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            listener(event);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AdapterName, Stamp>> {
        self.0.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<AdapterName, Arc<Alias>>) -> T) -> T {
        look(&self.0.aliases.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write_map<T>(&self, change: impl FnOnce(&mut BTreeMap<AdapterName, Arc<Alias>>) -> T) -> T {
        change(&mut self.0.aliases.write().unwrap_or_else(PoisonError::into_inner))
    }
}

fn check_rule(
    name: &AdapterName,
    current: Option<&Alias>,
    rule: AliasRule,
) -> Result<(), AliasError> {
    match (current, rule) {
        (Some(current), AliasRule::Create) => Err(conflict(current)),
        (Some(current), AliasRule::ReplaceIf(expected)) if current.revision() != expected => {
            Err(conflict(current))
        }
        (None, AliasRule::ReplaceIf(_)) => Err(AliasError::NotFound(name.clone())),
        _ => Ok(()),
    }
}

impl NameKeeper for Aliases {
    fn may_publish(&self, name: &AdapterName) -> Result<(), AdapterError> {
        self.check_free(name)
    }

    /// Whoever retires asks [`Aliases::check_unused`] first, and may insist.
    fn may_retire(&self, _: &AdapterName) -> Result<(), AdapterError> {
        Ok(())
    }
}

fn conflict(current: &Alias) -> AliasError {
    AliasError::Conflict { name: current.name().clone(), current: current.revision() }
}

/// Whether any target with a weight is there.
fn answers(form: &AliasForm, is_there: IsThere<'_>) -> bool {
    form.targets.iter().any(|target| target.weight > 0.0 && is_there(&target.target))
}

fn record(
    form: AliasForm,
    previous: Option<AliasForm>,
    action: AliasAction,
    author: &Author,
) -> AliasRecord {
    let since = author.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (changed_by, changed_at_ms) = (author.by.clone(), since.as_millis() as u64);
    AliasRecord { form, previous, action, changed_by, changed_at_ms, reason: None }
}

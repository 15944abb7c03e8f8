//! Changes of what a name means: each is one record, written with compare-and-swap.
use super::{
    Candidate, Departure, Publication, PublishOptions, PublishOutcome, PublishRule, SwapPolicy,
    handle::Inner, record::NameRecord,
};
use crate::adapter::{
    AdapterError, AdapterFiles, AdapterName, AdapterTerms, Event, Stamp, VersionId,
};
use std::sync::{Arc, MutexGuard, PoisonError};

/// Lost races against other servers before a change is given up.
const TRIES: usize = 8;

impl Inner {
    pub(super) fn publish(
        &self,
        name: AdapterName,
        files: AdapterFiles,
        options: &PublishOptions,
    ) -> Result<Publication, AdapterError> {
        // What can be refused without reading the weights is.
        if let Some(unchanged) = self.unchanged(&name, files.version()) {
            return Ok(unchanged);
        }
        self.check_name(&name)?;
        self.check_rule(&name, options.rule)?;
        let candidate = self.examine(name, files)?;
        self.commit(&candidate, options)
    }

    pub(super) fn commit(
        &self,
        candidate: &Candidate,
        options: &PublishOptions,
    ) -> Result<Publication, AdapterError> {
        let Candidate { name, description, files, version, .. } = candidate;
        let _changing = self.lock();
        self.check_name(name)?;
        let mut stored = false;
        for _ in 0..TRIES {
            if let Some(unchanged) = self.unchanged(name, version.id) {
                return Ok(unchanged);
            }
            let before = self.check_rule(name, options.rule)?;
            if !std::mem::replace(&mut stored, true) {
                self.vault.put_version(version.id, files)?;
            }
            let record = self.record_of(name);
            let record =
                record.meaning(candidate.record(&options.by, &options.source), self.keep_versions);
            // In memory before anybody can ask for it.
            self.warm.keep(Arc::clone(version));
            if !self.write_record(record, options.policy)? {
                continue;
            }
            let action = if before.is_some() { "replace" } else { "publish" };
            self.note(&options.by, action, name, (Some(version.id), before));
            return Ok(Publication {
                version: version.id,
                outcome: before.map_or(PublishOutcome::Created, PublishOutcome::Replaced),
                durable: self.durable,
                description: Arc::clone(description),
            });
        }
        Err(AdapterError::Contended(name.clone()))
    }

    fn unchanged(&self, name: &AdapterName, version: VersionId) -> Option<Publication> {
        self.read(|catalogue| {
            let current = catalogue.current(name).filter(|found| found.id == version)?;
            Some(Publication {
                version,
                outcome: PublishOutcome::Unchanged,
                durable: self.durable,
                description: Arc::clone(&current.description),
            })
        })
    }

    /// What the name means before the change, when the rule allows the change.
    pub(super) fn check_rule(
        &self,
        name: &AdapterName,
        rule: PublishRule,
    ) -> Result<Option<VersionId>, AdapterError> {
        self.read(|catalogue| {
            let current = catalogue.current(name).map(|version| version.id);
            match (current, rule) {
                (Some(current), PublishRule::Create) => {
                    Err(AdapterError::Conflict { name: name.clone(), current })
                }
                (Some(current), PublishRule::ReplaceIf(expected)) if current != expected => {
                    Err(AdapterError::Conflict { name: name.clone(), current })
                }
                (None, PublishRule::ReplaceIf(_)) => Err(AdapterError::NotFound(name.clone())),
                (None, _) => catalogue.check_room(name, self.limits.max_adapters).map(|()| None),
                (Some(current), _) => Ok(Some(current)),
            }
        })
    }

    pub(super) fn roll_back(
        &self,
        name: &AdapterName,
        to: Option<VersionId>,
        expected: Option<VersionId>,
        by: &str,
        policy: SwapPolicy,
    ) -> Result<Publication, AdapterError> {
        let _changing = self.lock();
        for _ in 0..TRIES {
            let current = self.expect(name, expected)?;
            let record = self.record_of(name);
            let Some(to) = to.or_else(|| record.versions.get(1).map(|version| version.id)) else {
                return Err(AdapterError::NoFormerVersion(name.clone()));
            };
            let missing = || AdapterError::VersionNotFound(name.clone(), to);
            let version = record.version(to).cloned().ok_or_else(missing)?;
            let description = Arc::clone(&version.description);
            let done = |outcome| Publication {
                version: to,
                outcome,
                durable: self.durable,
                description: Arc::clone(&description),
            };
            if to == current {
                return Ok(done(PublishOutcome::Unchanged));
            }
            if !self.durable || self.warm.get(to).is_none() {
                // What cannot be read must not become what everybody asks for.
                let version = self.fetch(name, to)?;
                self.warm.keep(version);
            }
            let mut version = version.at(std::time::SystemTime::now());
            by.clone_into(&mut version.by);
            if self.write_record(record.meaning(version, self.keep_versions), policy)? {
                self.note(by, "roll_back", name, (Some(to), Some(current)));
                return Ok(done(PublishOutcome::Replaced(current)));
            }
        }
        Err(AdapterError::Contended(name.clone()))
    }

    pub(super) fn set_terms(
        &self,
        name: &AdapterName,
        terms: &AdapterTerms,
        by: &str,
    ) -> Result<(), AdapterError> {
        terms.check()?;
        let _changing = self.lock();
        for _ in 0..TRIES {
            let current = self.expect(name, None)?;
            let mut record = self.record_of(name);
            record.terms = Arc::new(terms.clone());
            record.versions.truncate(terms.keep_versions.unwrap_or(self.keep_versions).max(1));
            if self.write_record(record, SwapPolicy::Pin)? {
                let event = Event::now(by, "terms", name).meaning(Some(current), None);
                self.events.record(event.saying(shown(terms)));
                return Ok(());
            }
        }
        Err(AdapterError::Contended(name.clone()))
    }

    pub(super) fn retire(
        &self,
        name: &AdapterName,
        expected: Option<VersionId>,
        by: &str,
        policy: SwapPolicy,
    ) -> Result<VersionId, AdapterError> {
        let _changing = self.lock();
        for _ in 0..TRIES {
            let current = self.expect(name, expected)?;
            {
                let keepers = self.keepers.read().unwrap_or_else(PoisonError::into_inner);
                keepers.iter().try_for_each(|keeper| keeper.may_retire(name))?;
            }
            // First what others put there: it would be back with the next look.
            self.remove_drop_in(name)?;
            if self.write_record(self.record_of(name).retired(), policy)? {
                self.note(by, "retire", name, (None, Some(current)));
                return Ok(current);
            }
        }
        Err(AdapterError::Contended(name.clone()))
    }

    /// What the name means, which must be `expected` where that is given.
    fn expect(
        &self,
        name: &AdapterName,
        expected: Option<VersionId>,
    ) -> Result<VersionId, AdapterError> {
        let current = self.read(|catalogue| catalogue.current(name).map(|version| version.id));
        let current = current.ok_or_else(|| AdapterError::NotFound(name.clone()))?;
        match expected {
            Some(expected) if expected != current => {
                Err(AdapterError::Conflict { name: name.clone(), current })
            }
            _ => Ok(current),
        }
    }

    pub(super) fn record_of(&self, name: &AdapterName) -> NameRecord {
        let found =
            self.read(|catalogue| catalogue.get(name).map(|named| named.record.as_ref().clone()));
        found.unwrap_or_else(|| NameRecord::new(name.clone()))
    }

    /// Writes a record and takes it over. `false`: another server was first; what it wrote is taken over instead.
    pub(super) fn write_record(
        &self,
        record: NameRecord,
        policy: SwapPolicy,
    ) -> Result<bool, AdapterError> {
        let expected = self.read(|catalogue| catalogue.stamp(&record.name).cloned());
        if let Some(stamp) = self.vault.put_record(&record, expected.as_ref())? {
            self.install(record, Some(stamp), policy);
            return Ok(true);
        }
        match self.vault.record(&record.name)? {
            Some((found, stamp)) => self.install(found, Some(stamp), SwapPolicy::Pin),
            None => self.install(NameRecord::new(record.name), None, SwapPolicy::Pin),
        }
        Ok(false)
    }

    /// From here on requests see the record. What nobody names any more goes.
    pub(super) fn install(&self, record: NameRecord, stamp: Option<Stamp>, policy: SwapPolicy) {
        let (name, now) = (record.name.clone(), record.current().map(|version| version.id));
        let was_pinned =
            self.read(|catalogue| catalogue.get(&name).is_some_and(|named| named.record.terms.pin));
        let is_pinned = record.terms.pin;
        let (before, lost) = self.write(|catalogue| catalogue.put(Arc::new(record), stamp));
        if let Some(version) = before.filter(|before| Some(*before) != now) {
            self.depart(Departure { name, version, policy, last: false });
        }
        // It looks at every name: not for each of the many that a start installs.
        if was_pinned || is_pinned {
            self.warm.pin(self.read(super::catalogue::Catalogue::pinned));
        }
        self.remove_versions(&lost);
    }

    /// Where other servers write too, one of them may name a version at this very moment: there [`Inner::collect`] removes
    /// it when it is old enough.
    fn remove_versions(&self, lost: &[VersionId]) {
        let objects = self.vault.objects();
        if objects.is_shared() || !objects.is_writable() {
            return;
        }
        for id in lost {
            if let Err(error) = self.vault.remove_version(*id) {
                tracing::warn!(version = %id, %error, "could not remove a version that nobody names");
            }
        }
    }

    fn depart(&self, departure: Departure) {
        let last = !self.read(|catalogue| catalogue.means(departure.version));
        if last {
            self.warm.depart(departure.version);
        }
        let departure = Departure { last, ..departure };
        for departed in self.departures.read().unwrap_or_else(PoisonError::into_inner).iter() {
            departed(&departure);
        }
    }

    /// Writes into the event log what `name` means now, and what it meant before. Nobody in particular is the start.
    pub(super) fn note(
        &self,
        by: &str,
        action: &str,
        name: &AdapterName,
        (version, previous): (Option<VersionId>, Option<VersionId>),
    ) {
        let by = if by.is_empty() { "start" } else { by };
        self.events.record(Event::now(by, action, name).meaning(version, previous));
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Terms as the event log has them: keys are counted, not shown.
fn shown(terms: &AdapterTerms) -> String {
    let keys = terms.keys.len();
    let shown = AdapterTerms { keys: Vec::new(), ..terms.clone() };
    // Plain fields cannot fail to be written.
    let shown = serde_json::to_string(&shown).unwrap_or_default();
    if keys == 0 { shown } else { format!("{shown}, {keys} keys") }
}

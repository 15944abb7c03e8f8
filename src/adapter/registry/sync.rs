//! What others write to the store: other servers their records, other programs their files.
use super::{
    LoadReport, Source, SwapPolicy,
    catalogue::Catalogue,
    handle::Inner,
    record::{NameRecord, VersionRecord},
};
use crate::adapter::{
    AdapterError, AdapterFiles, AdapterName, AdapterVersion, Event, Stamp, VersionId,
    store::{self, DropIn},
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
};

/// Who publishes what others put into the store.
const BY: &str = "store";

impl Inner {
    pub(super) fn refresh(&self) -> Result<LoadReport, AdapterError> {
        let _changing = self.lock();
        let mut report = LoadReport::default();
        self.take_over_records(&mut report)?;
        self.take_over_files(&mut report)?;
        self.has_looked.store(true, Ordering::Relaxed);
        Ok(report)
    }

    /// Records that another server has written, or removed.
    fn take_over_records(&self, report: &mut LoadReport) -> Result<(), AdapterError> {
        let found = self.vault.records()?;
        let gone = self.read(|catalogue| catalogue.without_record(&found));
        for name in gone {
            self.install(NameRecord::new(name), None, SwapPolicy::Pin);
        }
        for (name, stamp) in found {
            let known = self.read(|catalogue| catalogue.stamp(&name).cloned());
            if known.as_ref() == Some(&stamp) || self.is_refused(name.as_str(), &stamp) {
                continue;
            }
            match self.take_over_record(&name, &stamp) {
                Ok(true) => report.loaded.push(name),
                Ok(false) => {}
                Err(error) => self.leave_out(name.to_string(), stamp, error, report),
            }
        }
        Ok(())
    }

    /// Whether the name means something now.
    fn take_over_record(&self, name: &AdapterName, listed: &Stamp) -> Result<bool, AdapterError> {
        let Some((record, stamp)) = self.vault.record(name)? else { return Ok(false) };
        let is_published = record.current().is_some();
        if is_published {
            self.check_name(name)?;
            self.check_fit(&record)?;
            if self.read(|catalogue| catalogue.get(name).is_none()) {
                self.read(|catalogue| catalogue.check_room(name, self.limits.max_adapters))?;
            }
        }
        // A store that stamps a listing and an answer in two ways would be read at every look.
        if stamp != *listed {
            tracing::debug!(adapter = %name, "a record has changed between listing and reading it");
        }
        self.install(record, Some(stamp), SwapPolicy::Pin);
        Ok(is_published)
    }

    /// A record that was written beside another base says nothing about this one: the weights do.
    fn check_fit(&self, record: &NameRecord) -> Result<(), AdapterError> {
        let fitting = self.fingerprint();
        match record.current() {
            Some(current) if current.fits != fitting && current.source != Source::DropIn => {
                let files = self.vault.version(current.id, &self.limits)?;
                self.parse(&files).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Adapters that somebody else put into the store, changed or removed.
    fn take_over_files(&self, report: &mut LoadReport) -> Result<(), AdapterError> {
        let found = store::drop_ins::find(self.vault.objects().as_ref())?;
        let places: BTreeMap<_, _> =
            found.into_iter().map(|place| (place.name_text.clone(), place)).collect();
        self.places().clone_from(&places);
        let gone = |name: &AdapterName| !places.contains_key(name.as_str());
        for name in self.read(Catalogue::dropped_in).into_iter().filter(gone) {
            if self.is_gone_for_good(&name) {
                self.forget_drop_in(&name)?;
            }
        }
        for (text, place) in &places {
            if self.is_refused(text, &place.stamp) || self.is_known(text, &place.stamp) {
                continue;
            }
            match self.take_over_place(place) {
                Ok(name) => report.loaded.push(name),
                Err(error) => {
                    self.leave_out(text.clone(), place.stamp.clone(), error, report);
                }
            }
        }
        Ok(())
    }

    fn is_known(&self, text: &str, stamp: &Stamp) -> bool {
        let Ok(name) = text.parse::<AdapterName>() else { return false };
        self.read(|catalogue| catalogue.get(&name)?.record.drop_in.clone()).as_ref() == Some(stamp)
    }

    /// A sync job may take a directory away and put another one there: while serving, the second look in which it is
    /// gone counts.
    fn is_gone_for_good(&self, name: &AdapterName) -> bool {
        let gone = Stamp("gone".into());
        let before = self.refused().insert(name.to_string(), gone.clone());
        before == Some(gone) || !self.has_looked.load(Ordering::Relaxed)
    }

    fn forget_drop_in(&self, name: &AdapterName) -> Result<(), AdapterError> {
        self.refused().remove(name.as_str());
        let mut record = self.record_of(name);
        record.versions.retain(|version| version.source != Source::DropIn);
        record.drop_in = None;
        tracing::info!(adapter = %name, "an adapter's files were removed from the store");
        let before = self.read(|catalogue| catalogue.current(name).map(|version| version.id));
        let now = record.current().map(|version| version.id);
        self.write_found(record)?;
        let action = if now.is_some() { "replace" } else { "retire" };
        self.note(self.looker(), action, name, (now, before));
        Ok(())
    }

    fn take_over_place(&self, place: &DropIn) -> Result<AdapterName, AdapterError> {
        let name: AdapterName = place.name_text.parse()?;
        self.check_name(&name)?;
        if self.read(|catalogue| catalogue.get(&name).is_none()) {
            self.read(|catalogue| catalogue.check_room(&name, self.limits.max_adapters))?;
        }
        let files = store::drop_ins::read(self.vault.objects().as_ref(), place, &self.limits)?;
        let (parsed, id) = (self.parse(&files)?, files.version());
        let description = self.describe(&parsed)?;
        let version =
            VersionRecord::new(id, BY.into(), Source::DropIn, self.fingerprint(), description);
        let mut record = self.record_of(&name);
        record.drop_in = Some(place.stamp.clone());
        self.refused().remove(name.as_str());
        // The same content that an upload brought: the upload's files stay as they are.
        let before = record.current().map(|current| current.id);
        if before != Some(id) {
            self.warm.keep(Arc::new(AdapterVersion { id, weights: parsed.weights }));
            record = record.meaning(version.at(place.modified), self.keep_versions);
        }
        self.write_found(record)?;
        if before != Some(id) {
            let action = if before.is_some() { "replace" } else { "publish" };
            self.note(self.looker(), action, &name, (Some(id), before));
        }
        Ok(name)
    }

    /// How the event log calls whoever looks into the store.
    fn looker(&self) -> &'static str {
        if self.has_looked.load(Ordering::Relaxed) { "watch" } else { "start" }
    }

    /// Remembers what was found, in the store where it can be written.
    fn write_found(&self, record: NameRecord) -> Result<(), AdapterError> {
        if self.vault.objects().is_writable() {
            // Where another server was first, the next look compares with what it wrote.
            return self.write_record(record, SwapPolicy::Pin).map(drop);
        }
        self.install(record, None, SwapPolicy::Pin);
        Ok(())
    }

    /// The files of a version that lies where others write: it may not be what it was.
    pub(super) fn drop_in_files(
        &self,
        name: &AdapterName,
        id: VersionId,
    ) -> Result<AdapterFiles, AdapterError> {
        let found = self.places().get(name.as_str()).cloned();
        let place =
            found.ok_or(AdapterError::Lost { version: id, reason: "its files are gone" })?;
        let objects = self.vault.objects().as_ref();
        // Whatever is wrong with them, they are not what they were.
        let files = store::drop_ins::read(objects, &place, &self.limits).ok();
        let unchanged = files.filter(|files| files.version() == id);
        unchanged.ok_or(AdapterError::Lost { version: id, reason: "its files have changed" })
    }

    /// One name's files are not what its record says.
    pub(super) fn look_again(&self, name: &AdapterName) -> Result<(), AdapterError> {
        let _changing = self.lock();
        let found = store::drop_ins::find(self.vault.objects().as_ref())?;
        match found.into_iter().find(|place| place.name_text == name.as_str()) {
            Some(place) => {
                self.places().insert(name.to_string(), place.clone());
                self.take_over_place(&place).map(drop)
            }
            None => self.forget_drop_in(name),
        }
    }

    /// Removes what others put under this name, if they did.
    pub(super) fn remove_drop_in(&self, name: &AdapterName) -> Result<(), AdapterError> {
        let place = self.places().get(name.as_str()).cloned();
        if let Some(place) = place {
            store::drop_ins::remove(self.vault.objects().as_ref(), &place)?;
            self.places().remove(name.as_str());
        }
        Ok(())
    }

    pub(super) fn collect(&self) -> Result<usize, AdapterError> {
        if !self.vault.objects().is_writable() {
            return Ok(0);
        }
        let _changing = self.lock();
        self.take_over_records(&mut LoadReport::default())?;
        let (kept, retired) = self.read(|catalogue| (catalogue.kept(), catalogue.retired()));
        self.vault.collect(&kept, &retired)
    }

    fn leave_out(&self, entry: String, stamp: Stamp, error: AdapterError, report: &mut LoadReport) {
        tracing::warn!(adapter = entry, %error, "left out an adapter that cannot be served");
        self.events.record(Event::now(self.looker(), "refuse", &entry).saying(error.to_string()));
        self.refused().insert(entry.clone(), stamp);
        report.skipped.push((entry, error));
    }

    fn is_refused(&self, entry: &str, stamp: &Stamp) -> bool {
        self.refused().get(entry) == Some(stamp)
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<String, DropIn>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, HashMap<String, Stamp>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells bases of different layers apart.
    pub(super) fn fingerprint(&self) -> String {
        let layers = format!("{:?}", self.base.layout());
        let digest = Sha256::digest(layers.as_bytes());
        VersionId(digest.into()).to_string()[..16].to_owned()
    }
}

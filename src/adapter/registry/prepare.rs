//! From files to versions in host memory.
use super::{Source, handle::Inner, record::VersionRecord};
use crate::adapter::{
    AdapterDescription, AdapterError, AdapterFiles, AdapterLease, AdapterName, AdapterRef,
    AdapterVersion, ParsedAdapter, VersionId, format,
};
use std::sync::Arc;

/// Files that were read and checked against the base, and that no name means yet.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Under which name they would be published.
    pub name: AdapterName,
    /// What they are.
    pub description: Arc<AdapterDescription>,
    pub(super) files: AdapterFiles,
    pub(super) version: Arc<AdapterVersion>,
    fits: String,
}

impl Candidate {
    /// The content's identity.
    pub fn version(&self) -> VersionId {
        self.version.id
    }

    /// A lease on it, to try it with.
    pub fn lease(&self) -> AdapterLease {
        AdapterLease::new(self.name.clone(), Arc::clone(&self.version))
    }
}

impl Inner {
    pub(super) fn examine(
        &self,
        name: AdapterName,
        files: AdapterFiles,
    ) -> Result<Candidate, AdapterError> {
        self.check_name(&name)?;
        let (parsed, id) = (self.parse(&files)?, files.version());
        let (description, fits) = (self.describe(&parsed)?, self.fingerprint());
        let version = Arc::new(AdapterVersion { id, weights: parsed.weights });
        Ok(Candidate { name, description, files, version, fits })
    }

    pub(super) fn parse(&self, files: &AdapterFiles) -> Result<ParsedAdapter, AdapterError> {
        format::parse(files, self.base.as_ref(), &self.limits)
    }

    pub(super) fn describe(
        &self,
        parsed: &ParsedAdapter,
    ) -> Result<Arc<AdapterDescription>, AdapterError> {
        let about = parsed.describe()?;
        Ok(Arc::new(match self.reserved.get() {
            Some(name) => about.beside(name),
            None => about,
        }))
    }

    /// A version of `name` out of the store. What it is was written down when it was published.
    pub(super) fn fetch(
        &self,
        name: &AdapterName,
        id: VersionId,
    ) -> Result<Arc<AdapterVersion>, AdapterError> {
        let files = self.files(name, id)?;
        let weights = self.parse(&files)?.weights;
        Ok(Arc::new(AdapterVersion { id, weights }))
    }

    /// The files of a version of `name`, whose hash is right.
    pub(super) fn files(
        &self,
        name: &AdapterName,
        id: VersionId,
    ) -> Result<AdapterFiles, AdapterError> {
        let wanted = AdapterRef { name: name.clone(), version: Some(id) };
        let (record, _) = self.read(|catalogue| catalogue.find(&wanted))?;
        match record.version(id).map(|version| &version.source) {
            Some(Source::DropIn) => self.drop_in_files(name, id),
            _ => self.vault.version(id, &self.limits),
        }
    }

    /// Requests name the base and adapters in one field, so that each name can mean one of them only.
    pub(super) fn check_name(&self, name: &AdapterName) -> Result<(), AdapterError> {
        if let Some(base) = self.reserved.get()
            && name.as_str().eq_ignore_ascii_case(base)
        {
            return Err(AdapterError::InvalidName(format!(
                "`{base}` is the base model's name; an adapter needs another"
            )));
        }
        let keepers = self.keepers.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        keepers.iter().try_for_each(|keeper| keeper.may_publish(name))
    }
}

impl Candidate {
    /// Its place in a history.
    pub(super) fn record(&self, by: &str, source: &Source) -> VersionRecord {
        let (fits, description) = (self.fits.clone(), Arc::clone(&self.description));
        VersionRecord::new(self.version.id, by.to_owned(), source.clone(), fits, description)
    }
}

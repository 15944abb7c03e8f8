//! What a name means, as the store keeps it.
use crate::adapter::{AdapterDescription, AdapterName, AdapterTerms, Stamp, VersionId};
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Where a version's files came from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Source {
    /// An upload.
    Upload,
    /// Somebody put them into the store by other means; they are read where they lie.
    DropIn,
    /// Part of this program.
    Embedded,
    /// A repository of the hub, at the commit that its reference meant then.
    Hub {
        /// `hf://org/name@revision`
        reference: String,
        /// The commit.
        commit: String,
    },
}

/// One name, with all that is kept of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct NameRecord {
    pub(super) name: AdapterName,
    /// The current one, then those before it, the latest first. None of them: the name is retired.
    pub(super) versions: Vec<VersionRecord>,
    #[serde(default, with = "shared")]
    pub(super) terms: Arc<AdapterTerms>,
    /// The stamp of the files of this name that others put there, when they were last read: as long as it is the same,
    /// they are no news.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) drop_in: Option<Stamp>,
}

/// One version of a name.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct VersionRecord {
    pub(super) id: VersionId,
    /// Milliseconds since 1970: when the name came to mean it.
    since: u64,
    /// Who published it.
    pub(super) by: String,
    pub(super) source: Source,
    /// The layers of the base that it was compared with.
    pub(super) fits: String,
    #[serde(with = "shared")]
    pub(super) description: Arc<AdapterDescription>,
}

impl NameRecord {
    /// A name that means nothing yet.
    pub(super) fn new(name: AdapterName) -> Self {
        Self { name, versions: Vec::new(), terms: Arc::default(), drop_in: None }
    }

    /// What the name means now.
    pub(super) fn current(&self) -> Option<&VersionRecord> {
        self.versions.first()
    }

    /// One of its versions.
    pub(super) fn version(&self, id: VersionId) -> Option<&VersionRecord> {
        self.versions.iter().find(|version| version.id == id)
    }

    /// The name means `version` now; of those before it as many are kept as make `keep` together.
    #[must_use]
    pub(super) fn meaning(&self, version: VersionRecord, keep: usize) -> Self {
        let id = version.id;
        let others = self.versions.iter().filter(|other| other.id != id).cloned();
        // Files that lie where others write are gone when they write again.
        let is_there = |other: &VersionRecord| other.source != Source::DropIn;
        let is_drop_in = version.source == Source::DropIn;
        let kept = others.filter(|other| !is_drop_in || is_there(other));
        let keep = self.terms.keep_versions.unwrap_or(keep).max(1);
        let versions = std::iter::once(version).chain(kept).take(keep).collect();
        Self { versions, ..self.clone() }
    }

    /// The name means nothing any more. What others put there is forgotten too.
    #[must_use]
    pub(super) fn retired(&self) -> Self {
        Self::new(self.name.clone())
    }
}

impl VersionRecord {
    /// From now on.
    pub(super) fn new(
        id: VersionId,
        by: String,
        source: Source,
        fits: String,
        description: Arc<AdapterDescription>,
    ) -> Self {
        Self { id, by, source, fits, description, since: 0 }.at(SystemTime::now())
    }

    /// The same, since another time.
    #[must_use]
    pub(super) fn at(self, time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self { since: u64::try_from(since).unwrap_or(u64::MAX), ..self }
    }

    pub(super) fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.since)
    }
}

/// What lies behind an [`Arc`], written as if it did not.
mod shared {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        shared: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        shared.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}

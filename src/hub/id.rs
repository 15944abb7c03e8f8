//! A repository on the hub and a revision of it.
use std::{fmt, str::FromStr};

/// `org/name` or `org/name@revision`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HubId {
    pub(crate) owner: String,
    pub(crate) name: String,
    /// Branch, tag or commit; `None` is the main branch.
    pub(crate) revision: Option<String>,
}

impl HubId {
    /// Without the revision: `org/name`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

impl FromStr for HubId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        let (owner, name) = repository.split_once('/').ok_or(())?;
        let whole = is_part(owner) && is_part(name) && revision.is_none_or(is_revision);
        let owned = || Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
        };
        whole.then(owned).ok_or(())
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

/// The hub's own rule: letters, digits, `-`, `_` and `.`, not at the ends, no `--` and no `..`.
fn is_part(part: &str) -> bool {
    const MAX_BYTES: usize = 96;
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let end = |c: char| matches!(c, '-' | '.');
    !part.is_empty()
        && part.len() <= MAX_BYTES
        && part.chars().all(inner)
        && !part.starts_with(end)
        && !part.ends_with(end)
        && !part.contains("--")
        && !part.contains("..")
}

/// What git allows, as far as it matters for a path in the cache.
fn is_revision(revision: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+');
    !revision.is_empty()
        && revision.chars().all(allowed)
        && revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_written_alike() {
        for id in ["HuggingFaceTB/SmolLM2-135M", "a/b.c_d@refs/pr/1", "a/b@v1.0"] {
            assert_eq!(id.parse::<HubId>().unwrap().to_string(), id);
        }
        assert_eq!("a/b@main".parse::<HubId>().unwrap().repository(), "a/b");
    }

    #[test]
    fn paths_are_no_ids() {
        for text in [
            "",
            "a",
            "/a",
            "a/",
            "./a",
            "../a",
            "a/b/c",
            "~/a",
            "a/..",
            "a/b@",
            "a/b@../x",
            "a/b@x/../y",
        ] {
            assert!(text.parse::<HubId>().is_err(), "{text}");
        }
    }
}

//! The keys that this server knows, compared in constant time.
use super::KeyFile;
use crate::http::HttpConfig;
use sha2::{Digest, Sha256};
use std::{
    fmt,
    hint::black_box,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

/// How often key files are read again.
const REREAD: Duration = Duration::from_secs(2);

/// The hash of a key: neither a dump of memory nor the time of a comparison tells the key.
pub(super) type KeyHash = [u8; 32];

/// What a presented key is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rank {
    /// One of the admin keys.
    Admin,
    /// One of the API keys, or any where there are none.
    Client,
    /// Neither.
    Stranger,
}

/// The keys as they are now. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Keys(Arc<RwLock<Known>>);

/// Those of one kind: from the settings, and from a file that may change.
#[derive(Clone, Default)]
struct Ring {
    given: Vec<KeyHash>,
    filed: Vec<KeyHash>,
    file: Option<KeyFile>,
    /// Why the file could not be used when it was last read.
    trouble: Option<String>,
}

struct Known {
    api: Ring,
    admin: Ring,
}

impl Keys {
    /// The keys of `config`.
    pub fn new(config: &HttpConfig) -> Self {
        Self(Arc::new(RwLock::new(Known {
            api: Ring::new(&config.api_keys, config.api_key_file.clone()),
            admin: Ring::new(&config.admin_keys, config.admin_key_file.clone()),
        })))
    }

    /// Whether there is any admin key.
    pub fn has_admin(&self) -> bool {
        !self.read(|known| known.admin.is_empty())
    }

    /// What `presented` is; no key at all is a client's where there are no API keys.
    pub(super) fn rank(&self, presented: Option<&KeyHash>) -> Rank {
        self.read(|known| {
            let is_admin = presented.is_some_and(|key| known.admin.has(key));
            let is_client = presented.is_some_and(|key| known.api.has(key));
            match (is_admin, is_client || known.api.is_empty()) {
                (true, _) => Rank::Admin,
                (false, true) => Rank::Client,
                (false, false) => Rank::Stranger,
            }
        })
    }

    /// Reads the key files again and again, for as long as the server runs.
    pub(in crate::http) async fn follow_files(self) {
        if self.read(|known| known.api.file.is_none() && known.admin.file.is_none()) {
            return;
        }
        loop {
            tokio::time::sleep(REREAD).await;
            let keys = self.clone();
            if tokio::task::spawn_blocking(move || keys.reread()).await.is_err() {
                return;
            }
        }
    }

    /// Takes over what changed; a file that cannot be used changes nothing. Blocks.
    pub(super) fn reread(&self) {
        let (api, admin) = self.read(|known| (known.api.clone(), known.admin.clone()));
        let (api, admin) = (api.reread(), admin.reread());
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.api = api.unwrap_or_else(|| std::mem::take(&mut known.api));
        known.admin = admin.unwrap_or_else(|| std::mem::take(&mut known.admin));
    }

    fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ring {
    fn new(given: &[String], file: Option<KeyFile>) -> Self {
        let filed = file.as_ref().map(|file| hashes(file.keys())).unwrap_or_default();
        Self { given: hashes(given), filed, file, trouble: None }
    }

    fn is_empty(&self) -> bool {
        self.given.is_empty() && self.filed.is_empty()
    }

    /// Looks at every byte of every key, whatever it finds.
    fn has(&self, presented: &KeyHash) -> bool {
        let differing = |key: &KeyHash| {
            presented.iter().zip(key).fold(0, |bits, (a, b)| black_box(bits | (a ^ b)))
        };
        self.given.iter().chain(&self.filed).filter(|key| differing(key) == 0).count() > 0
    }

    fn reread(mut self) -> Option<Self> {
        let file = self.file.as_ref()?;
        match file.changed()? {
            Ok(changed) => {
                let (file, keys) = (changed.shown(), changed.keys().len());
                tracing::info!(file, keys, "the keys in a file have changed");
                self.filed = hashes(changed.keys());
                (self.file, self.trouble) = (Some(changed), None);
            }
            // It is read every few seconds; once is enough.
            Err(error) if self.trouble.as_ref() == Some(&error) => return None,
            Err(error) => {
                tracing::warn!(
                    file = file.shown(),
                    error,
                    "a file of keys cannot be used; what it said before holds"
                );
                self.trouble = Some(error);
            }
        }
        Some(self)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |ring: &Ring| ring.given.len() + ring.filed.len();
        let (api, admin) = self.read(|known| (count(&known.api), count(&known.admin)));
        write!(f, "Keys({api} api, {admin} admin)")
    }
}

/// An empty key stays in the list: it opens nothing, and must not open the door by its absence.
fn hashes(keys: &[String]) -> Vec<KeyHash> {
    keys.iter().map(|key| hash(key.trim())).collect()
}

/// A key's hash.
pub(super) fn hash(key: &str) -> KeyHash {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn keys(api: &[&str], admin: &[&str]) -> Keys {
        let owned = |keys: &[&str]| keys.iter().map(ToString::to_string).collect();
        let (api_keys, admin_keys) = (owned(api), owned(admin));
        Keys::new(&HttpConfig { api_keys, admin_keys, ..HttpConfig::default() })
    }

    fn rank(keys: &Keys, key: &str) -> Rank {
        keys.rank(Some(&hash(key)))
    }

    #[test]
    fn without_api_keys_everybody_is_a_client() {
        let none = keys(&[], &["admin"]);
        assert_eq!((none.rank(None), rank(&none, "any")), (Rank::Client, Rank::Client));
        assert_eq!(rank(&none, "admin"), Rank::Admin);
        assert!(none.has_admin() && !keys(&["one"], &[]).has_admin());
    }

    #[test]
    fn with_api_keys_only_they_are_clients() {
        let both = keys(&["one", " two"], &["admin"]);
        assert_eq!((rank(&both, "one"), rank(&both, "two")), (Rank::Client, Rank::Client));
        assert_eq!((both.rank(None), rank(&both, "on")), (Rank::Stranger, Rank::Stranger));
        assert_eq!(rank(&both, "admin"), Rank::Admin);
        assert!(!format!("{both:?}").contains("one"));
    }

    #[test]
    fn an_empty_key_does_not_open_the_door() {
        let empty = keys(&[""], &[" "]);
        assert_eq!(empty.rank(None), Rank::Stranger);
        assert!(empty.has_admin());
    }

    #[test]
    fn a_file_that_changes_is_followed_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys");
        let write = |text: &str| fs::write(&path, text).expect("written");
        write("old\n");
        let file = KeyFile::read(path.to_str().expect("UTF-8")).expect("keys");
        let api_keys = vec!["given".to_owned()];
        let config = HttpConfig { api_keys, api_key_file: Some(file), ..HttpConfig::default() };
        let keys = Keys::new(&config);
        let ranks = || ["given", "old", "new"].map(|key| rank(&keys, key) == Rank::Client);
        assert_eq!(ranks(), [true, true, false]);
        write("# rotated\nnew\n");
        keys.reread();
        assert_eq!(ranks(), [true, false, true]);
        for broken in [Some("# none"), None] {
            match broken {
                Some(text) => write(text),
                None => fs::remove_file(&path).expect("removed"),
            }
            keys.reread();
            assert_eq!(ranks(), [true, false, true], "{broken:?}");
        }
        write("old");
        keys.reread();
        assert_eq!(ranks(), [true, true, false]);
    }
}

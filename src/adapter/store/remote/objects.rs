//! The store behind a URL; see the contract for what it promises.
use super::{
    connect::{Kind, connect, environment},
    explain::{Address, is_no_bucket},
    lines, listing,
    read::{self, Read},
    write,
};
use crate::adapter::{
    AdapterError,
    store::{Content, ObjectInfo, Objects, Stamp, WriteRule},
};
use bytes::Bytes;
use object_store::{Error, ObjectStore, ObjectStoreExt, path::Path};
use reqwest::Url;
use std::{sync::Arc, time::SystemTime};
use tokio::runtime::{self, Runtime};

/// Written when a store is opened, to learn whether it keeps conditions.
const PROBE: &str = ".lorad/probe";
/// Threads that wait for the network.
const THREADS: usize = 2;

/// Objects in a bucket or on a web server, which can be read only.
///
/// Settings and credentials come from the environment: `AWS_*`, `GOOGLE_*`, `AZURE_*`. Every wait has an end.
#[derive(Debug)]
pub struct RemoteObjects {
    client: Arc<dyn ObjectStore>,
    root: Path,
    address: Address,
    /// Why nothing can be written, where it cannot.
    read_only: Option<String>,
    /// Always there until this is dropped.
    runtime: Option<Runtime>,
}

impl RemoteObjects {
    /// The objects behind `url`, after asking whether they can be listed and written.
    ///
    /// # Errors
    /// When the URL is of no known kind, settings are wrong, or the store does not answer.
    pub fn open(url: &Url) -> Result<Self, AdapterError> {
        Self::open_with(url, environment())
    }

    /// The same with other variables than the environment's.
    pub(super) fn open_with(
        url: &Url,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, AdapterError> {
        let kind = Kind::of(url).ok_or_else(|| {
            AdapterError::invalid(format!("`{}://` is no kind of adapter store", url.scheme()))
        })?;
        let address = Address::new(kind, url);
        if url.query().is_some() || url.fragment().is_some() {
            return Err(AdapterError::invalid(
                "the URL of an adapter store has no `?` and no `#`: settings and credentials come from the environment",
            ));
        }
        let (client, root) =
            connect(kind, url, variables).map_err(|error| address.failed("open it", "", &error))?;
        Self::over(client, root, address)
    }

    fn over(
        client: Arc<dyn ObjectStore>,
        root: Path,
        address: Address,
    ) -> Result<Self, AdapterError> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("adapter-store")
            .enable_all()
            .build()?;
        let mut store = Self { client, root, address, read_only: None, runtime: Some(runtime) };
        store.list(".lorad/names/")?;
        store.read_only = store.probe()?;
        Ok(store)
    }

    /// Another store on the same objects, as another process would have it.
    #[cfg(test)]
    pub(super) fn beside(&self) -> Result<Self, AdapterError> {
        Self::over(Arc::clone(&self.client), self.root.clone(), self.address.clone())
    }

    /// Whether what is written only if nothing is there is refused when something is there. There are stores that do not
    /// care: there, one server's change would undo another's, and nobody would know.
    fn probe(&self) -> Result<Option<String>, AdapterError> {
        if self.address.kind == Kind::Web {
            return Ok(Some("a web server's adapters can be served, not changed".to_owned()));
        }
        for _ in 0..2 {
            let at = self.at(PROBE)?;
            let put = write::put(&*self.client, &at, Content::Bytes(b"lorad"), WriteRule::IfAbsent);
            match self.wait(put) {
                Ok(None) => return Ok(None),
                Ok(Some(_)) => {}
                Err(Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) => {
                    let why = "the server's credentials do not allow to write there";
                    return Ok(Some(self.warn(why)));
                }
                Err(Error::NotImplemented { .. }) => {
                    return Ok(Some(self.warn("it is set to make no conditional writes")));
                }
                Err(error) => return Err(self.address.failed("write", PROBE, &error)),
            }
        }
        let why = "it ignores the condition of a conditional write (If-None-Match), so servers would undo each other's \
                   changes; use a newer version of the store";
        Ok(Some(self.warn(why)))
    }

    fn warn(&self, why: &str) -> String {
        tracing::warn!("{}", self.address.read_only(why));
        why.to_owned()
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("there until this is dropped").block_on(work)
    }

    fn at(&self, path: &str) -> Result<Path, AdapterError> {
        let wrong = || self.address.wrong_path(path);
        let whole = match self.root.as_ref() {
            "" => path.to_owned(),
            root => format!("{root}/{path}"),
        };
        // It forgives slashes at the ends.
        if path.is_empty() || path.starts_with('/') || path.ends_with('/') {
            return Err(wrong());
        }
        Path::parse(whole).map_err(|_| wrong())
    }

    fn check_writable(&self) -> Result<(), AdapterError> {
        match &self.read_only {
            Some(why) => Err(self.address.read_only(why)),
            None => Ok(()),
        }
    }
}

impl Objects for RemoteObjects {
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, AdapterError> {
        let at = match prefix.strip_suffix('/') {
            None if prefix.is_empty() => self.root.clone(),
            inner => self.at(inner.unwrap_or_default())?,
        };
        let found = self.wait(async {
            if self.address.kind == Kind::Web {
                listing::list_by_level(&*self.client, &at).await
            } else {
                listing::list(&*self.client, &at, prefix.is_empty()).await
            }
        });
        let found = found.map_err(|error| self.address.failed("list", prefix, &error))?;
        Ok(found.iter().filter_map(|meta| listing::info(&self.root, prefix, meta)).collect())
    }

    fn get(&self, path: &str, limit: u64) -> Result<Option<(Bytes, Stamp)>, AdapterError> {
        let at = self.at(path)?;
        match self.wait(read::get(&*self.client, &at, limit)) {
            Ok(Read::Nothing) => Ok(None),
            Ok(Read::TooLarge(bytes)) => Err(AdapterError::TooLarge { bytes, limit }),
            Ok(Read::Object(bytes, stamp)) => Ok(Some((bytes, stamp))),
            Err(error) => Err(self.address.failed("read", path, &error)),
        }
    }

    fn put(
        &self,
        path: &str,
        content: Content<'_>,
        rule: WriteRule<'_>,
    ) -> Result<Option<Stamp>, AdapterError> {
        self.check_writable()?;
        let at = self.at(path)?;
        let done = self.wait(write::put(&*self.client, &at, content, rule));
        done.map_err(|error| self.address.failed("write", path, &error))
    }

    fn delete(&self, path: &str) -> Result<(), AdapterError> {
        self.check_writable()?;
        let at = self.at(path)?;
        match self.wait(self.client.delete(&at)) {
            Err(error @ Error::NotFound { .. }) if !is_no_bucket(&error) => Ok(()),
            other => other.map_err(|error| self.address.failed("remove", path, &error)),
        }
    }

    fn append(&self, path: &str, line: &str) -> Result<(), AdapterError> {
        self.check_writable()?;
        let at = self.at(path)?;
        if line.contains('\n') {
            return Err(AdapterError::invalid("a log's line is one line"));
        }
        let at = lines::place(&at, SystemTime::now());
        let content = Content::Bytes(line.as_bytes());
        let done = self.wait(write::put(&*self.client, &at, content, WriteRule::Always));
        done.map(drop).map_err(|error| self.address.failed("write", path, &error))
    }

    fn tail(&self, path: &str, count: usize) -> Result<Vec<String>, AdapterError> {
        let at = self.at(path)?;
        let lines = self.wait(lines::tail(&*self.client, &at, count));
        lines.map_err(|error| self.address.failed("read", path, &error))
    }

    fn is_writable(&self) -> bool {
        self.read_only.is_none()
    }
}

impl Drop for RemoteObjects {
    fn drop(&mut self) {
        // To wait for the threads is forbidden on an async thread, and there is nothing to wait for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

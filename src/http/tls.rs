//! TLS: a certificate and its key from files, read again when they change.
use super::HttpConfig;
use axum_server::tls_rustls::RustlsConfig;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How often the files are looked at.
const REREAD: Duration = Duration::from_secs(2);

/// The certificate as it is now. Clones are handles to the same one.
#[derive(Clone)]
pub(super) struct Tls {
    config: RustlsConfig,
    files: Arc<Files>,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    /// What they held when they were last looked at, whether it could be used or not.
    seen: Mutex<Pem>,
}

/// The content of the two files.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// What the settings ask for. Blocks.
    ///
    /// # Errors
    /// When a file cannot be read, or the two are no certificate with its key.
    pub(super) fn open(config: &HttpConfig) -> io::Result<Option<Self>> {
        let (Some(certificate), Some(key)) = (&config.tls_cert, &config.tls_key) else {
            return Ok(None);
        };
        let (certificate, key) = (certificate.clone(), key.clone());
        let pem =
            Pem { certificate: read("--tls-cert", &certificate)?, key: read("--tls-key", &key)? };
        let config = RustlsConfig::from_config(pem.config()?);
        let files = Arc::new(Files { certificate, key, seen: Mutex::new(pem) });
        Ok(Some(Self { config, files }))
    }

    /// For the next connection.
    pub(super) fn config(&self) -> RustlsConfig {
        self.config.clone()
    }

    /// Looks at the files again and again, for as long as the server runs.
    pub(super) async fn follow_files(self) {
        loop {
            tokio::time::sleep(REREAD).await;
            let tls = self.clone();
            if tokio::task::spawn_blocking(move || tls.reread()).await.is_err() {
                return;
            }
        }
    }

    /// Takes over what changed; files that cannot be used change nothing. Blocks.
    fn reread(&self) {
        let Files { certificate, key, seen } = &*self.files;
        let (Ok(certificate), Ok(key)) = (fs::read(certificate), fs::read(key)) else { return };
        let pem = Pem { certificate, key };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == pem {
            return;
        }
        match pem.config() {
            Ok(config) => {
                self.config.reload_from_config(config);
                tracing::info!("the TLS certificate has changed");
            }
            // One of the two may still be on its way; it is looked at again when it has changed.
            Err(error) => {
                tracing::warn!(%error, "new TLS files cannot be used; the former certificate holds");
            }
        }
        *seen = pem;
    }
}

impl Pem {
    fn config(&self) -> io::Result<Arc<ServerConfig>> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| unusable("--tls-cert", error))?;
        if chain.is_empty() {
            return Err(unusable("--tls-cert", "it holds no certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| unusable("--tls-key", error))?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(io::Error::other)?
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .map_err(|error| unusable("--tls-cert with --tls-key", error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn read(flag: &str, path: &PathBuf) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| {
        io::Error::new(error.kind(), format!("{flag}: {} cannot be read: {error}", path.display()))
    })
}

fn unusable(flag: &str, why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{flag} cannot be used: {why}"))
}

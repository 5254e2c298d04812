//! Authorities: who may vouch for a certificate.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{RootCertStore, pki_types::CertificateDer};
use tracing::warn;

use super::{TlsError, identity::read_certificates};

/// The authorities that are believed. Copies believe the same, and are asked at each handshake, so that a file that was
/// replaced holds without a restart.
#[derive(Debug, Clone)]
pub struct Authorities {
    file: Option<PathBuf>,
    believed: Arc<RwLock<Believed>>,
}

#[derive(Debug, Clone)]
struct Believed {
    /// The system's and those of the configuration: for servers.
    servers: Arc<RootCertStore>,
    /// Those of the configuration alone: the public ones vouch for names of hosts, not for phones.
    phones: Arc<RootCertStore>,
    /// The latter as they are in the file.
    certificates: Arc<[CertificateDer<'static>]>,
}

impl Authorities {
    /// Reads the system's authorities and those of a PEM file.
    ///
    /// # Errors
    /// The file cannot be read or has no usable certificate. The system having none is only warned of.
    pub fn open(file: Option<&Path>) -> Result<Self, TlsError> {
        let believed = Arc::new(RwLock::new(Believed::read(file)?));
        Ok(Self { file: file.map(Path::to_owned), believed })
    }

    /// Reads them again.
    ///
    /// # Errors
    /// Those of [`Authorities::open`]; who was believed before is believed on.
    pub fn reload(&self) -> Result<(), TlsError> {
        let believed = Believed::read(self.file.as_deref())?;
        *self.believed.write().unwrap_or_else(PoisonError::into_inner) = believed;
        Ok(())
    }

    /// The file that they are read from beside the system's.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    fn now(&self) -> Believed {
        self.believed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those that may vouch for servers.
    pub(super) fn servers(&self) -> Arc<RootCertStore> {
        self.now().servers
    }

    /// Those that may vouch for phones.
    pub(super) fn phones(&self) -> Arc<RootCertStore> {
        self.now().phones
    }

    /// The same, DER.
    pub(super) fn of_phones(&self) -> Vec<CertificateDer<'static>> {
        self.now().certificates.to_vec()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.servers().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Believed {
    fn read(file: Option<&Path>) -> Result<Self, TlsError> {
        let mut servers = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        servers.add_parsable_certificates(system.certs);
        if servers.is_empty() {
            warn!("the system has no certificate authorities (package ca-certificates)");
        }
        let mut phones = RootCertStore::empty();
        let mut certificates = Vec::new();
        if let Some(file) = file {
            certificates = read_certificates(file)?;
            for certificate in &certificates {
                let unusable = |error| TlsError::Content {
                    path: file.to_owned(),
                    why: format!("a certificate in it cannot be an authority: {error}"),
                };
                servers.add(certificate.clone()).map_err(unusable)?;
                phones.add(certificate.clone()).map_err(unusable)?;
            }
        }
        Ok(Self { servers: Arc::new(servers), phones: Arc::new(phones), certificates: certificates.into() })
    }
}

//! Authorities: who may vouch for a certificate.

use std::{path::Path, sync::Arc};

use rustls::RootCertStore;
use tracing::warn;

use super::{TlsError, identity::read_certificates};

/// The authorities that are believed.
#[derive(Debug, Clone)]
pub struct Authorities {
    /// The system's and those of the configuration: for servers.
    pub(super) servers: Arc<RootCertStore>,
    /// Those of the configuration alone: the public ones vouch for names of hosts, not for phones.
    pub(super) phones: Arc<RootCertStore>,
}

impl Authorities {
    /// Reads the system's authorities and those of a PEM file.
    ///
    /// # Errors
    /// The file cannot be read or has no usable certificate. The system having none is only warned of.
    pub fn open(file: Option<&Path>) -> Result<Self, TlsError> {
        let mut servers = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        servers.add_parsable_certificates(system.certs);
        if servers.is_empty() {
            warn!("the system has no certificate authorities (package ca-certificates)");
        }
        let mut phones = RootCertStore::empty();
        if let Some(file) = file {
            for certificate in read_certificates(file)? {
                let unusable = |error| TlsError::Content {
                    path: file.to_owned(),
                    why: format!("a certificate in it cannot be an authority: {error}"),
                };
                servers.add(certificate.clone()).map_err(unusable)?;
                phones.add(certificate).map_err(unusable)?;
            }
        }
        Ok(Self { servers: Arc::new(servers), phones: Arc::new(phones) })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }
}

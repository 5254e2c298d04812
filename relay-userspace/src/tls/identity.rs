//! The certificate that the appliance shows: the configured one, or one that its own authority signs.
//!
//! It is held in one place that all listeners and connections ask at each handshake, so that a file that was replaced,
//! or a certificate that was renewed, is shown from then on without a restart.
//!
//! Invariant: what is shown is always a certificate with its own key. Files of which one is new and the other is not yet
//! change nothing.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    SignatureScheme, client,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server,
    sign::CertifiedKey,
};
use time::OffsetDateTime;

use super::{Described, TlsError, describe::described, own::Own, server::provider};

/// A certificate chain and its private key, with where they come from. Copies show the same.
#[derive(Debug, Clone)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    own: Option<Arc<Own>>,
    shown: Arc<Showing>,
}

/// What is shown at the moment.
#[derive(Debug)]
pub(super) struct Showing(RwLock<Arc<Shown>>);

#[derive(Debug)]
pub(super) struct Shown {
    certified: Arc<CertifiedKey>,
    /// The key in DER form, for those who do not take rustls's.
    pub(super) key: PrivateKeyDer<'static>,
}

impl Shown {
    /// The chain, the appliance's certificate first, DER.
    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }
}

impl Showing {
    pub(super) fn now(&self) -> Arc<Shown> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows something else; says whether it is something else.
    fn show(&self, shown: Shown) -> bool {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let other = current.chain() != shown.chain();
        *current = Arc::new(shown);
        other
    }
}

impl server::ResolvesServerCert for Showing {
    fn resolve(&self, _hello: server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now().certified))
    }
}

impl client::ResolvesClientCert for Showing {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Identity {
    /// Reads the configured certificate and key; without them, the own one in the state directory, which is made if it
    /// is not there, for these names and addresses, with the authority that signs it.
    ///
    /// # Errors
    /// A file that cannot be read, made, or is not what it should be.
    pub fn open(
        state: &Path,
        certificate: Option<&Path>,
        private_key: Option<&Path>,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<Self, TlsError> {
        if let (Some(certificate), Some(key)) = (certificate, private_key) {
            let shown = Arc::new(Showing(RwLock::new(Arc::new(read(certificate, key)?))));
            return Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), own: None, shown });
        }
        let own = Own::new(state, names, addresses);
        own.ensure(OffsetDateTime::now_utc())?;
        let (certificate, key) = (own.certificate(), own.key());
        let shown = Arc::new(Showing(RwLock::new(Arc::new(read(&certificate, &key)?))));
        Ok(Self { certificate, key, own: Some(Arc::new(own)), shown })
    }

    /// Looks for a new certificate: in its files, or, where it is the own one and holds no longer for long, by making
    /// one. Says whether another one is shown from now on.
    ///
    /// # Errors
    /// Those of [`Identity::open`]; what was shown before is shown on.
    pub fn renew(&self, now: OffsetDateTime) -> Result<bool, TlsError> {
        if let Some(own) = &self.own {
            own.ensure(now)?;
        }
        Ok(self.shown.show(read(&self.certificate, &self.key)?))
    }

    /// The files that it is read from.
    #[must_use]
    pub fn files(&self) -> [&Path; 2] {
        [&self.certificate, &self.key]
    }

    /// The certificate in words; `None` when it cannot be read.
    #[must_use]
    pub fn described(&self) -> Option<Described> {
        self.shown.now().chain().first().and_then(|certificate| described(certificate))
    }

    /// Whether the appliance made it itself.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The certificate of the appliance's own authority, PEM: what phones are to trust. `None` where the certificate is
    /// a configured one.
    #[must_use]
    pub fn authority(&self) -> Option<String> {
        fs::read_to_string(self.own.as_ref()?.authority()).ok()
    }

    /// Whether that authority has signed what is shown: a certificate that an earlier version made is its own authority.
    #[must_use]
    pub fn is_signed_by_authority(&self) -> bool {
        self.shown.now().chain().len() > 1
    }

    /// The names and addresses that the certificate is for.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.described().map(|described| described.names).unwrap_or_default()
    }

    /// The chain, the appliance's certificate first, DER.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.shown.now().chain().to_vec()
    }

    pub(super) fn shown(&self) -> &Arc<Showing> {
        &self.shown
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Shown, TlsError> {
    let chain = read_certificates(certificate)?;
    let text = fs::read(key).map_err(wrong(key, "the private key cannot be read"))?;
    let der = PrivateKeyDer::from_pem_slice(&text).map_err(|error| TlsError::Content {
        path: key.to_owned(),
        why: format!("no private key in PEM form can be read from it: {error}"),
    })?;
    let certified =
        CertifiedKey::from_der(chain, der.clone_key(), &provider(&[])).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Content {
                path: key.to_owned(),
                why: format!("it is not the private key of the certificate in {}", certificate.display()),
            },
            error => TlsError::Content { path: certificate.to_owned(), why: error.to_string() },
        })?;
    Ok(Shown { certified: Arc::new(certified), key: der })
}

/// The certificates of a PEM file; at least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = fs::read(path).map_err(wrong(path, "it cannot be read"))?;
    let unreadable = |why: String| TlsError::Content { path: path.to_owned(), why };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(format!("it is not in PEM form: {error}")))?;
    if chain.is_empty() {
        return Err(unreadable("there is no certificate in it".to_owned()));
    }
    Ok(chain)
}

pub(super) fn wrong(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> TlsError {
    let path: PathBuf = path.to_owned();
    move |error| TlsError::File { path, what, error }
}

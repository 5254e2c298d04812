//! The appliance's own certificate: the configured one, or one that it made itself at its first start.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use time::{Duration, OffsetDateTime};
use tracing::info;

use super::{Described, TlsError, describe::described};

/// Where the certificate that the appliance makes is kept, in the state directory.
const DIRECTORY: &str = "tls";
const CERTIFICATE: &str = "own.pem";
const KEY: &str = "own.key";
/// How long the own certificate holds. Phones that trust it are configured by hand: it must not end soon.
const VALIDITY: Duration = Duration::days(3650);
/// Clocks of phones that have just started may be behind.
const BACKDATED: Duration = Duration::days(1);

/// A certificate chain and its private key.
#[derive(Debug)]
pub struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    own: bool,
}

impl Identity {
    /// Reads the configured certificate and key; without them, the own one in the state directory, which is made if it
    /// is not there, for the given names and addresses.
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
            return Self::read(certificate, key, false);
        }
        let directory = state.join(DIRECTORY);
        let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
        if !certificate.exists() || !key.exists() {
            make(&directory, &certificate, &key, names, addresses)?;
        }
        Self::read(&certificate, &key, true)
    }

    /// The certificate in words; `None` when it cannot be read.
    #[must_use]
    pub fn described(&self) -> Option<Described> {
        self.chain.first().and_then(|certificate| described(certificate))
    }

    /// Whether the appliance made it itself.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// The names and addresses that the certificate is for.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.chain
            .first()
            .and_then(|leaf| described(leaf))
            .map(|described| described.names)
            .unwrap_or_default()
    }

    /// The chain, the appliance's certificate first, DER.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    fn read(certificate: &Path, key: &Path, own: bool) -> Result<Self, TlsError> {
        let chain = read_certificates(certificate)?;
        let text = fs::read(key).map_err(wrong(key, "the private key cannot be read"))?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| TlsError::Content {
            path: key.to_owned(),
            why: format!("no private key in PEM form can be read from it: {error}"),
        })?;
        Ok(Self { chain, key, own })
    }
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

fn wrong(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> TlsError {
    let path: PathBuf = path.to_owned();
    move |error| TlsError::File { path, what, error }
}

fn make(
    directory: &Path,
    certificate: &Path,
    key: &Path,
    names: &[String],
    addresses: &[IpAddr],
) -> Result<(), TlsError> {
    let mut params = CertificateParams::new(names).map_err(TlsError::library)?;
    params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, names.first().map_or("branchline", String::as_str));
    subject.push(DnType::OrganizationName, "Branchline appliance");
    params.distinguished_name = subject;
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + VALIDITY;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let pair = KeyPair::generate().map_err(TlsError::library)?;
    let made = params.self_signed(&pair).map_err(TlsError::library)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(wrong(directory, "it cannot be made"))?;
    write(key, 0o600, &pair.serialize_pem())?;
    write(certificate, 0o644, &made.pem())?;
    info!(certificate = %certificate.display(), "the appliance has made a certificate of its own");
    Ok(())
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), TlsError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(path).map_err(wrong(path, "it cannot be made"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        // Half a file would be in the way of the next start, when the disk may have room.
        let _ = fs::remove_file(path);
        wrong(path, "it cannot be written")(error)
    })
}

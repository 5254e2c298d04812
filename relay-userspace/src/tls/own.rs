//! The appliance's own authority, and the certificate that it signs for the appliance.
//!
//! Phones are told to trust the authority once; the certificate below it may then be short-lived, be renewed, and follow
//! the appliance's addresses. Both have RSA keys: old phones know nothing else, and RSA key exchange needs one.
//! RFC 5280.
//!
//! Invariant: the authority's key never leaves its file, which only the daemon's user can read, and an authority that is
//! there is never replaced: phones trust it. A certificate that an earlier version made for itself is kept, because
//! phones trust that one, until it is about to end.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use openssl::{pkey::PKey, rsa::Rsa};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, SanType,
};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime, macros::datetime};
use tracing::info;

use super::{
    TlsError,
    describe::described,
    identity::{read_certificates, wrong},
};

/// Where they are kept, in the state directory.
const DIRECTORY: &str = "tls";
const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const CERTIFICATE: &str = "own.pem";
const KEY: &str = "own.key";
/// Bits of the keys: what old phones know too.
const BITS: u32 = 2048;
/// From when the authority holds: whatever the clock says, phones must not find it of the future.
const AUTHORITY_BEGINS: OffsetDateTime = datetime!(2020-01-01 0:00 UTC);
/// Until when: old phones count seconds in 31 bits, which end in January 2038.
const AUTHORITY_ENDS: OffsetDateTime = datetime!(2037-12-31 0:00 UTC);
/// How long it holds at least.
const AUTHORITY_HOLDS: Duration = Duration::days(3650);
/// How long a certificate below it holds: the longest that browsers take.
const HOLDS: Duration = Duration::days(397);
/// What is left of that when the next one is made.
const RENEWED_BEFORE: Duration = Duration::days(60);
/// Clocks of phones that have just started may be behind.
const BACKDATED: Duration = Duration::days(1);

/// Where the own authority and certificate are, and for what the certificate is to be.
#[derive(Debug)]
pub(super) struct Own {
    directory: PathBuf,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// The files of the own certificate and its key.
#[must_use]
pub fn own_files(state: &Path) -> [PathBuf; 2] {
    [CERTIFICATE, KEY].map(|name| state.join(DIRECTORY).join(name))
}

impl Own {
    pub(super) fn new(state: &Path, names: &[String], addresses: &[IpAddr]) -> Self {
        Self { directory: state.join(DIRECTORY), names: names.to_vec(), addresses: addresses.to_vec() }
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.directory.join(CERTIFICATE)
    }

    pub(super) fn key(&self) -> PathBuf {
        self.directory.join(KEY)
    }

    pub(super) fn authority(&self) -> PathBuf {
        self.directory.join(AUTHORITY)
    }

    /// Makes what is not there, and the certificate anew when it is about to end or is not for what it is to be.
    pub(super) fn ensure(&self, now: OffsetDateTime) -> Result<(), TlsError> {
        let authority_key = self.directory.join(AUTHORITY_KEY);
        if !self.authority().exists() || !authority_key.exists() {
            self.make_authority(now)?;
        }
        if !self.certificate().exists() || !self.key().exists() || self.has_to_be_renewed(now)? {
            self.make_certificate(now)?;
        }
        Ok(())
    }

    fn has_to_be_renewed(&self, now: OffsetDateTime) -> Result<bool, TlsError> {
        let chain = read_certificates(&self.certificate())?;
        let Some(shown) = chain.first().and_then(|leaf| described(leaf)) else { return Ok(true) };
        let ends = OffsetDateTime::from_unix_timestamp(shown.not_after_unix).unwrap_or(now);
        if ends - now < RENEWED_BEFORE {
            return Ok(true);
        }
        // One that vouches for itself is trusted by phones as it is.
        let wanted = self.names.iter().cloned().chain(self.addresses.iter().map(IpAddr::to_string));
        Ok(chain.len() > 1 && wanted.into_iter().any(|name| !shown.names.contains(&name)))
    }

    fn make_authority(&self, now: OffsetDateTime) -> Result<(), TlsError> {
        let mut params = CertificateParams::new(Vec::new()).map_err(TlsError::library)?;
        let host = self.names.first().map_or("branchline", String::as_str);
        params.distinguished_name = subject(&format!("{host} authority"));
        params.not_before = AUTHORITY_BEGINS;
        params.not_after = AUTHORITY_ENDS.max(now + AUTHORITY_HOLDS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let (pair, pem) = key_pair()?;
        let made = params.self_signed(&pair).map_err(TlsError::library)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(wrong(&self.directory, "it cannot be made"))?;
        write(&self.directory.join(AUTHORITY_KEY), 0o600, &pem)?;
        write(&self.authority(), 0o644, &made.pem())?;
        info!(certificate = %self.authority().display(), "the appliance has made an authority of its own");
        Ok(())
    }

    fn make_certificate(&self, now: OffsetDateTime) -> Result<(), TlsError> {
        let key_file = self.directory.join(AUTHORITY_KEY);
        let text = fs::read_to_string(&key_file).map_err(wrong(&key_file, "it cannot be read"))?;
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |error: rcgen::Error| TlsError::Content { path, why: error.to_string() }
        };
        let pair = KeyPair::from_pem_and_sign_algo(&text, &PKCS_RSA_SHA256).map_err(unusable(&key_file))?;
        let authority: CertificateDer<'static> =
            read_certificates(&self.authority())?.into_iter().next().unwrap_or_else(|| Vec::new().into());
        let issuer = Issuer::from_ca_cert_der(&authority, pair).map_err(unusable(&self.authority()))?;

        let mut params = CertificateParams::new(self.names.as_slice()).map_err(TlsError::library)?;
        params.subject_alt_names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = subject(self.names.first().map_or("branchline", String::as_str));
        params.not_before = now - BACKDATED;
        params.not_after = now + HOLDS;
        params.use_authority_key_identifier_extension = true;
        // Key encipherment: RSA key exchange.
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let (pair, pem) = key_pair()?;
        let made = params.signed_by(&pair, &issuer).map_err(TlsError::library)?;
        let authority =
            fs::read_to_string(self.authority()).map_err(wrong(&self.authority(), "it cannot be read"))?;
        write(&self.key(), 0o600, &pem)?;
        write(&self.certificate(), 0o644, &(made.pem() + &authority))?;
        info!(certificate = %self.certificate().display(), "the appliance has made a certificate of its own");
        Ok(())
    }
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject.push(DnType::OrganizationName, "Branchline appliance");
    subject
}

/// A new key, and its PEM form. rcgen makes no RSA keys with ring.
fn key_pair() -> Result<(KeyPair, String), TlsError> {
    let key = PKey::from_rsa(Rsa::generate(BITS).map_err(TlsError::library)?).map_err(TlsError::library)?;
    let pem = key.private_key_to_pem_pkcs8().map_err(TlsError::library)?;
    let pem = String::from_utf8(pem).map_err(TlsError::library)?;
    let pair = KeyPair::from_pem_and_sign_algo(&pem, &PKCS_RSA_SHA256).map_err(TlsError::library)?;
    Ok((pair, pem))
}

/// Writes a file that takes the place of the one before as a whole.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), TlsError> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(&new).map_err(wrong(path, "it cannot be made"))?;
    let written =
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, path));
    written.map_err(|error| {
        // Half a file would be in the way of the next start, when the disk may have room.
        let _ = fs::remove_file(&new);
        wrong(path, "it cannot be written")(error)
    })
}

//! Servers' certificates: what was met goes into the store, what an operator trusts goes into force.

use std::{sync::Arc, time::SystemTime};

use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use tracing::{error, warn};

use crate::{
    control::CertificateView,
    store::{SeenCertificate, Store, StoreError},
    tls::{Fingerprint, Seen, Trust, describe},
};

/// The store and what TLS goes by.
#[derive(Debug, Clone)]
pub(super) struct Certificates {
    store: Arc<Store>,
    trust: Arc<Trust>,
}

/// Seconds since 1970.
pub(super) fn now_unix() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

impl Certificates {
    /// Puts into force what is trusted by the store.
    pub(super) fn new(store: Arc<Store>, trust: Arc<Trust>) -> Result<Self, StoreError> {
        let certificates = Self { store, trust };
        certificates.enforce()?;
        Ok(certificates)
    }

    /// What TLS goes by.
    pub(super) fn in_force(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// The store.
    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn enforce(&self) -> Result<(), StoreError> {
        let trusted =
            self.store.certificates()?.into_iter().filter(|certificate| certificate.trusted.is_some());
        self.trust.set(trusted.filter_map(|certificate| Fingerprint::parse(&certificate.fingerprint)));
        Ok(())
    }

    /// Has the certificates noted that were met since the last time; returns what is wrong with that of `server`. The
    /// disk is waited for elsewhere: who asks has signalling to do.
    pub(super) fn met(&self, server: &str) -> Option<String> {
        let seen = self.trust.take_seen();
        let why = seen.iter().rev().find(|seen| seen.server == server).map(|seen| {
            format!(
                "its certificate is not trusted: {}; look at it and trust it with \
                 `branchline certificates trust {}` or on the page Certificates",
                seen.why, seen.fingerprint
            )
        });
        if !seen.is_empty() {
            let certificates = self.clone();
            tokio::task::spawn_blocking(move || seen.iter().for_each(|seen| certificates.note(seen)));
        }
        why
    }

    fn note(&self, seen: &Seen) {
        let fingerprint = seen.fingerprint.to_string();
        let known = self.store.certificates().is_ok_and(|known| {
            known.iter().any(|known| known.fingerprint == fingerprint && known.why == seen.why)
        });
        if !known {
            warn!(
                server = seen.server,
                fingerprint,
                reason = seen.why,
                "a server's certificate is not trusted"
            );
        }
        let noted =
            self.store.certificate_seen(&fingerprint, &seen.server, &seen.chain, &seen.why, now_unix());
        if let Err(error) = noted {
            error!(%error, "a certificate cannot be noted");
        }
    }

    /// All that were met.
    pub(super) fn list(&self) -> Result<Vec<SeenCertificate>, StoreError> {
        self.store.certificates()
    }

    /// Trusts a certificate that was met; says whether there is such a one. The beginning of its fingerprint will do
    /// when it is that of one certificate only.
    pub(super) fn trust(&self, fingerprint: &str, by: &str) -> Result<bool, StoreError> {
        let Some(fingerprint) = self.find(fingerprint)? else { return Ok(false) };
        let done = self.store.trust_certificate(&fingerprint, by, now_unix())?;
        self.enforce()?;
        if done {
            warn!(fingerprint, by, "a server's certificate is trusted from now on");
        }
        Ok(done)
    }

    /// Forgets a certificate, trusted or not; says whether there was such a one.
    pub(super) fn forget(&self, fingerprint: &str) -> Result<bool, StoreError> {
        let Some(fingerprint) = self.find(fingerprint)? else { return Ok(false) };
        let done = self.store.forget_certificate(&fingerprint)?;
        self.enforce()?;
        Ok(done)
    }

    fn find(&self, beginning: &str) -> Result<Option<String>, StoreError> {
        /// Digits that make a beginning.
        const FEWEST: usize = 8;
        let wanted: String = beginning.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
        let mut fitting = self
            .store
            .certificates()?
            .into_iter()
            .map(|certificate| certificate.fingerprint)
            .filter(|fingerprint| wanted.len() >= FEWEST && fingerprint.starts_with(&wanted));
        Ok(match (fitting.next(), fitting.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        })
    }
}

/// What a person wants to know of a certificate before trusting it.
pub(super) fn certificate_view(certificate: &SeenCertificate) -> CertificateView {
    let mut view = CertificateView {
        fingerprint: certificate.fingerprint.clone(),
        server: certificate.server.clone(),
        why: certificate.why.clone(),
        subject: String::new(),
        issuer: String::new(),
        serial: String::new(),
        signature_algorithm: String::new(),
        version: 0,
        not_before: String::new(),
        not_after: String::new(),
        names: Vec::new(),
        first_seen_unix: certificate.first_seen_unix,
        last_seen_unix: certificate.last_seen_unix,
        trusted_unix: certificate.trusted.as_ref().map(|(when, _)| *when),
        trusted_by: certificate.trusted.as_ref().map(|(_, by)| by.clone()),
        chain_pem: certificate.chain_pem.clone(),
    };
    let Some(described) = describe(&certificate.chain_pem).into_iter().next() else { return view };
    let date = |unix| {
        let date = OffsetDateTime::from_unix_timestamp(unix).ok();
        date.and_then(|date| date.format(&Rfc2822).ok()).unwrap_or_default()
    };
    view.subject = described.subject.to_string();
    view.issuer = described.issuer.to_string();
    view.serial = described.serial;
    view.signature_algorithm = described.signature_algorithm;
    view.version = described.version;
    view.not_before = date(described.not_before_unix);
    view.not_after = date(described.not_after_unix);
    view.names = described.names;
    view
}

//! Servers' certificates that no authority vouches for, and what an operator decided about each.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rusqlite::params;

use super::{Store, StoreError};

/// Certificates that are kept undecided; the oldest go first.
const MOST_UNDECIDED: u32 = 100;
/// Base64 characters in a line of PEM (RFC 7468 section 2).
const PEM_LINE: usize = 64;

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenCertificate {
    /// SHA-256, lower-case hexadecimal.
    pub fingerprint: String,
    /// Who showed it: the name or address that was connected to.
    pub server: String,
    /// The chain, the server's certificate first, PEM.
    pub chain_pem: String,
    /// Why it is not believed.
    pub why: String,
    /// When it was first met, in seconds since 1970.
    pub first_seen_unix: i64,
    /// When it was last met.
    pub last_seen_unix: i64,
    /// When, and by whom, it was trusted.
    pub trusted: Option<(i64, String)>,
}

impl Store {
    /// Notes that a certificate was met and not believed.
    ///
    /// # Errors
    /// The database.
    pub fn certificate_seen(
        &self,
        fingerprint: &str,
        server: &str,
        chain: &[Vec<u8>],
        why: &str,
        now_unix: i64,
    ) -> Result<(), StoreError> {
        let chain: String = chain.iter().map(|certificate| pem(certificate)).collect();
        self.with(|db| {
            db.execute(
                "INSERT INTO server_certificate(fingerprint, server, chain_pem, why, first_seen_unix, last_seen_unix)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5)
                 ON CONFLICT(fingerprint) DO UPDATE SET
                     server = excluded.server, why = excluded.why, last_seen_unix = excluded.last_seen_unix",
                params![fingerprint, server, chain, why, now_unix],
            )?;
            db.execute(
                "DELETE FROM server_certificate WHERE trusted_unix IS NULL AND fingerprint NOT IN (
                     SELECT fingerprint FROM server_certificate WHERE trusted_unix IS NULL
                     ORDER BY last_seen_unix DESC LIMIT ?1)",
                [MOST_UNDECIDED],
            )
        })
        .map(drop)
    }

    /// All certificates, those that were met last first.
    ///
    /// # Errors
    /// The database.
    pub fn certificates(&self) -> Result<Vec<SeenCertificate>, StoreError> {
        self.with(|db| {
            let mut query = db.prepare(
                "SELECT fingerprint, server, chain_pem, why, first_seen_unix, last_seen_unix, trusted_unix, trusted_by
                 FROM server_certificate ORDER BY last_seen_unix DESC, fingerprint",
            )?;
            let rows = query.query_map([], |row| {
                let trusted: Option<i64> = row.get(6)?;
                Ok(SeenCertificate {
                    fingerprint: row.get(0)?,
                    server: row.get(1)?,
                    chain_pem: row.get(2)?,
                    why: row.get(3)?,
                    first_seen_unix: row.get(4)?,
                    last_seen_unix: row.get(5)?,
                    trusted: trusted.zip(row.get(7)?),
                })
            })?;
            rows.collect()
        })
    }

    /// Trusts a certificate that was met; says whether there is such a one.
    ///
    /// # Errors
    /// The database.
    pub fn trust_certificate(&self, fingerprint: &str, by: &str, now_unix: i64) -> Result<bool, StoreError> {
        self.with(|db| {
            db.execute(
                "UPDATE server_certificate SET trusted_unix = ?2, trusted_by = ?3 WHERE fingerprint = ?1",
                params![fingerprint, now_unix, by],
            )
        })
        .map(|changed| changed > 0)
    }

    /// Forgets a certificate, trusted or not; says whether there was such a one.
    ///
    /// # Errors
    /// The database.
    pub fn forget_certificate(&self, fingerprint: &str) -> Result<bool, StoreError> {
        self.with(|db| db.execute("DELETE FROM server_certificate WHERE fingerprint = ?1", [fingerprint]))
            .map(|changed| changed > 0)
    }
}

/// A certificate in PEM form (RFC 7468).
fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<&str> =
        text.as_bytes().chunks(PEM_LINE).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::Directory;

    #[test]
    fn a_certificate_is_seen_trusted_seen_again_and_forgotten() {
        let directory = Directory::new("certificates");
        let store = Store::open(directory.path()).unwrap();
        store.certificate_seen("aa", "sip.example.com", &[vec![1, 2, 3]], "unknown issuer", 100).unwrap();
        assert!(!store.trust_certificate("bb", "admin", 150).unwrap(), "never met");
        assert!(store.trust_certificate("aa", "admin", 150).unwrap());
        store.certificate_seen("aa", "10.0.0.1", &[vec![1, 2, 3]], "other name", 200).unwrap();
        let expected = SeenCertificate {
            fingerprint: "aa".to_owned(),
            server: "10.0.0.1".to_owned(),
            chain_pem: "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n".to_owned(),
            why: "other name".to_owned(),
            first_seen_unix: 100,
            last_seen_unix: 200,
            trusted: Some((150, "admin".to_owned())),
        };
        assert_eq!(store.certificates().unwrap(), [expected]);
        assert!(store.forget_certificate("aa").unwrap());
        assert_eq!(store.certificates().unwrap(), []);
    }

    #[test]
    fn only_so_many_undecided_certificates_are_kept_and_every_trusted_one() {
        let directory = Directory::new("many");
        let store = Store::open(directory.path()).unwrap();
        store.certificate_seen("first", "a", &[], "", 0).unwrap();
        store.trust_certificate("first", "admin", 0).unwrap();
        for number in 1..=i64::from(MOST_UNDECIDED) + 5 {
            store.certificate_seen(&number.to_string(), "a", &[], "", number).unwrap();
        }
        let kept = store.certificates().unwrap();
        assert_eq!(kept.len(), MOST_UNDECIDED as usize + 1);
        assert_eq!(kept.last().map(|kept| kept.fingerprint.as_str()), Some("first"));
        assert_eq!(kept[MOST_UNDECIDED as usize - 1].fingerprint, "6");
    }
}

//! Certificates in words, for people who decide whether to trust them.

use std::fmt;

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::Serialize;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, x509::X509Name};

/// A subject or an issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Party {
    /// O.
    pub organization: String,
    /// OU.
    pub unit: String,
    /// CN.
    pub common_name: String,
}

/// As `CN=..., OU=..., O=...`, without what is empty.
impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("CN", &self.common_name), ("OU", &self.unit), ("O", &self.organization)];
        let words = parts
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={value}"));
        f.write_str(&words.collect::<Vec<_>>().join(", "))
    }
}

/// One certificate of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Described {
    /// Who it is for.
    pub subject: Party,
    /// Who made it.
    pub issuer: Party,
    /// X.509's version.
    pub version: u32,
    /// How it is signed.
    pub signature_algorithm: String,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// From when it holds, in seconds since 1970.
    pub not_before_unix: i64,
    /// Until when.
    pub not_after_unix: i64,
    /// Names and addresses that it is for.
    pub names: Vec<String>,
}

/// The certificates of a chain in PEM form that can be read, the server's first.
#[must_use]
pub fn describe(chain_pem: &str) -> Vec<Described> {
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).filter_map(Result::ok);
    chain.filter_map(|der| described(&der)).collect()
}

/// The names and addresses that a certificate in DER form is for.
#[must_use]
pub fn names_of(der: &[u8]) -> Vec<String> {
    described(der).map(|described| described.names).unwrap_or_default()
}

/// A certificate in DER form; `None` when it cannot be read.
pub(super) fn described(der: &[u8]) -> Option<Described> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(Described {
        subject: party(certificate.subject()),
        issuer: party(certificate.issuer()),
        // The encoding begins at 0 for version 1 (RFC 5280 section 4.1.2.1).
        version: certificate.version().0.saturating_add(1),
        signature_algorithm: algorithm(&certificate.signature_algorithm.algorithm.to_id_string()),
        serial: certificate.raw_serial_as_string(),
        not_before_unix: certificate.validity().not_before.timestamp(),
        not_after_unix: certificate.validity().not_after.timestamp(),
        names: names(&certificate),
    })
}

fn party(name: &X509Name<'_>) -> Party {
    let first = |mut values: Vec<&str>| {
        values.truncate(4);
        values.join(", ")
    };
    Party {
        organization: first(name.iter_organization().filter_map(|value| value.as_str().ok()).collect()),
        unit: first(name.iter_organizational_unit().filter_map(|value| value.as_str().ok()).collect()),
        common_name: first(name.iter_common_name().filter_map(|value| value.as_str().ok()).collect()),
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
                Ok(v4) => Some(std::net::Ipv4Addr::from(v4).to_string()),
                Err(_) => {
                    <[u8; 16]>::try_from(*bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string())
                }
            },
            _ => None,
        })
        .take(32)
        .collect()
}

/// The usual names of signature algorithms (RFC 8017, 5758, 8410); the identifier of any other.
fn algorithm(id: &str) -> String {
    match id {
        "1.2.840.113549.1.1.4" => "MD5 with RSA",
        "1.2.840.113549.1.1.5" => "SHA-1 with RSA",
        "1.2.840.113549.1.1.10" => "RSA-PSS",
        "1.2.840.113549.1.1.11" => "SHA-256 with RSA",
        "1.2.840.113549.1.1.12" => "SHA-384 with RSA",
        "1.2.840.113549.1.1.13" => "SHA-512 with RSA",
        "1.2.840.10045.4.3.2" => "ECDSA with SHA-256",
        "1.2.840.10045.4.3.3" => "ECDSA with SHA-384",
        "1.2.840.10045.4.3.4" => "ECDSA with SHA-512",
        "1.3.101.112" => "Ed25519",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_is_told_in_words_and_what_is_none_is_left_out() {
        let mut params = CertificateParams::new(vec!["sip.example.com".to_owned()]).unwrap();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "Example");
        name.push(DnType::OrganizationalUnitName, "Voice");
        name.push(DnType::CommonName, "sip.example.com");
        params.distinguished_name = name;
        params.serial_number = Some(vec![1, 2, 3].into());
        let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let chain = format!("{pem}-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n");
        let party = Party {
            organization: "Example".to_owned(),
            unit: "Voice".to_owned(),
            common_name: "sip.example.com".to_owned(),
        };
        let expected = Described {
            subject: party.clone(),
            issuer: party,
            version: 3,
            signature_algorithm: "ECDSA with SHA-256".to_owned(),
            serial: "01:02:03".to_owned(),
            not_before_unix: 157_766_400,
            not_after_unix: 67_090_118_400,
            names: vec!["sip.example.com".to_owned()],
        };
        assert_eq!(describe(&chain), [expected]);
    }
}

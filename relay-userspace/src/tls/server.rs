//! The end that listens: phones, browsers and servers that connect to the appliance.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring},
    pki_types::{CertificateDer, UnixTime},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{Authorities, Identity, TlsError};
use crate::config::{ClientCertificates, Suite, Tls};

/// The settings of a listener that shows `identity`.
///
/// # Errors
/// The suites leave nothing, or phones' certificates shall be checked and there are no authorities for them.
pub fn server_config(
    identity: &Identity,
    authorities: &Authorities,
    settings: &Tls,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider(&settings.suites);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Settings { key: "tls.suites", why: error.to_string() })?;
    let builder = match settings.client_certificates {
        ClientCertificates::Off => builder.with_no_client_auth(),
        wanted => {
            let phones = authorities.phones();
            if phones.is_empty() {
                return Err(TlsError::Settings {
                    key: "tls.client_certificates",
                    why: "phones' certificates can only be checked against tls.authorities, which is not set"
                        .to_owned(),
                });
            }
            builder.with_client_cert_verifier(Arc::new(Verifier {
                authorities: authorities.clone(),
                subjects: phones.subjects(),
                mandatory: wanted == ClientCertificates::Require,
                signatures: provider.signature_verification_algorithms,
                provider,
            }))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::clone(identity.shown()) as _);
    if settings.client_certificates != ClientCertificates::Off {
        // A session that is taken up again is not checked again: who is believed no more would come in by it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(Arc::new(config))
}

/// Believes what the authorities of phones vouch for at the time.
#[derive(Debug)]
struct Verifier {
    authorities: Authorities,
    /// Whose certificates are asked for: those of the start.
    subjects: Vec<DistinguishedName>,
    mandatory: bool,
    provider: Arc<CryptoProvider>,
    signatures: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let provider = Arc::clone(&self.provider);
        let verifier = WebPkiClientVerifier::builder_with_provider(self.authorities.phones(), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_client_cert(leaf, others, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.signatures)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.signatures)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_schemes()
    }
}

/// ring's primitives with the suites that are allowed; none named: all.
pub(super) fn provider(suites: &[Suite]) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    if !suites.is_empty() {
        provider
            .cipher_suites
            .retain(|suite| suites.iter().any(|allowed| allowed.code() == u16::from(suite.suite())));
    }
    Arc::new(provider)
}

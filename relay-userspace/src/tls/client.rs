//! The end that connects: the appliance toward servers.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{Authorities, Fingerprint, Identity, TlsError, Trust, server::provider};
use crate::config::Tls;

/// The settings of connections to servers. The appliance shows `identity` to servers that ask for a certificate.
///
/// # Errors
/// The suites leave nothing.
pub fn client_config(
    identity: &Identity,
    authorities: &Authorities,
    trust: &Arc<Trust>,
    settings: &Tls,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider(&settings.suites);
    let verifier = Verifier {
        authorities: authorities.clone(),
        trust: Arc::clone(trust),
        signatures: provider.signature_verification_algorithms,
        provider: Arc::clone(&provider),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Settings { key: "tls.suites", why: error.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::clone(identity.shown()) as _);
    // A session that is taken up again is not checked again: a certificate that is trusted no more would do. Connections
    // to servers are few and last.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Believes what an authority vouches for, and exactly the certificates that an operator trusts.
#[derive(Debug)]
struct Verifier {
    authorities: Authorities,
    trust: Arc<Trust>,
    provider: Arc<CryptoProvider>,
    signatures: rustls::crypto::WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // webpki wants at least one authority: without any, every certificate has to be trusted by hand.
        let authorities = Some(self.authorities.servers()).filter(|roots| !roots.is_empty());
        let verifier = authorities.map(|roots| {
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider)).build()
        });
        let error = match verifier {
            Some(Ok(verifier)) => match verifier.verify_server_cert(leaf, others, server, ocsp, now) {
                Ok(verified) => return Ok(verified),
                Err(error) => error,
            },
            Some(Err(error)) => Error::General(error.to_string()),
            None => Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer),
        };
        if self.trust.is_trusted(Fingerprint::of(leaf)) {
            return Ok(ServerCertVerified::assertion());
        }
        let chain: Vec<&CertificateDer<'_>> = std::iter::once(leaf).chain(others).collect();
        self.trust.met(server.to_str().into_owned(), &chain, why(&error));
        Err(error)
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

/// The reason in words.
fn why(error: &Error) -> String {
    use rustls::CertificateError as Why;
    let Error::InvalidCertificate(error) = error else { return error.to_string() };
    match error {
        Why::UnknownIssuer => "no trusted authority vouches for it".to_owned(),
        Why::Expired | Why::ExpiredContext { .. } => {
            "it has expired, or the appliance's clock is wrong".to_owned()
        }
        Why::NotValidYet | Why::NotValidYetContext { .. } => {
            "it is not valid yet, or the appliance's clock is wrong".to_owned()
        }
        Why::NotValidForName | Why::NotValidForNameContext { .. } => {
            "it is for another name than the one that is configured".to_owned()
        }
        Why::Revoked => "it has been revoked".to_owned(),
        other => format!("{other}"),
    }
}

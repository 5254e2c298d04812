//! The end that listens: phones, browsers and servers that connect to the appliance.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    server::WebPkiClientVerifier,
};

use super::{Authorities, Identity, TlsError};
use crate::config::{ClientCertificates, Suite, Tls};

/// The settings of a listener that shows `identity`.
///
/// # Errors
/// The certificate and its key do not fit, the suites leave nothing, or phones' certificates shall be checked and there
/// are no authorities for them.
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
            if authorities.phones.is_empty() {
                return Err(TlsError::Settings {
                    key: "tls.client_certificates",
                    why: "phones' certificates can only be checked against tls.authorities, which is not set"
                        .to_owned(),
                });
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::clone(&authorities.phones), provider);
            let verifier = if wanted == ClientCertificates::Request {
                verifier.allow_unauthenticated()
            } else {
                verifier
            };
            builder.with_client_cert_verifier(verifier.build().map_err(TlsError::library)?)
        }
    };
    let config = builder
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| TlsError::Settings { key: "tls.certificate", why: error.to_string() })?;
    Ok(Arc::new(config))
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

//! TLS as phones speak it that are too old for rustls: TLS 1.0 to 1.2, with RSA key exchange and CBC suites.
//!
//! It is OpenSSL's, at security level 0, on a port of its own that is off unless it is configured: whoever records such
//! a connection and later gets the key can read it (no forward secrecy), and its ciphers are weak. It shows the same
//! certificate as everything else and asks phones for theirs as the configuration says.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use openssl::{
    error::ErrorStack,
    pkey::{Id, PKey},
    ssl::{
        Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode, SslVerifyMode,
        SslVersion,
    },
    x509::{X509, store::X509StoreBuilder},
};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use super::{
    Authorities, Identity, TlsError,
    identity::{Showing, Shown},
};
use crate::config::{ClientCertificates, Tls};

/// What old phones know, the better ones first: with forward secrecy where they have it, then RSA key exchange. No RC4,
/// no triple DES, nothing for export.
const SUITES: &str = "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-SHA:\
                      ECDHE-RSA-AES128-SHA:AES256-SHA256:AES128-SHA256:AES256-SHA:AES128-SHA:@SECLEVEL=0";

/// The listening end for old phones.
#[derive(Debug)]
pub struct LegacyAcceptor {
    shown: Arc<Showing>,
    authorities: Authorities,
    asks: ClientCertificates,
    /// What was built of the certificate that was shown when it was.
    built: Mutex<Option<(Arc<Shown>, SslContext)>>,
}

impl LegacyAcceptor {
    /// One that shows `identity`. Nothing is checked before [`LegacyAcceptor::check`] or the first connection.
    #[must_use]
    pub fn new(identity: &Identity, authorities: &Authorities, settings: &Tls) -> Self {
        Self {
            shown: Arc::clone(identity.shown()),
            authorities: authorities.clone(),
            asks: settings.client_certificates,
            built: Mutex::default(),
        }
    }

    /// Whether its suites and the certificate go together.
    ///
    /// # Errors
    /// They do not; what to do.
    pub fn check(&self) -> Result<(), TlsError> {
        let shown = self.shown.now();
        let key = PKey::private_key_from_der(shown.key.secret_der()).map_err(TlsError::library)?;
        if key.id() != Id::RSA {
            return Err(TlsError::Settings {
                key: "network.sip_legacy_tls_port",
                why: "old phones need a certificate with an RSA key, and the one that is shown has another; if the \
                      appliance made it, remove own.pem and own.key in the state directory's tls, and it makes one"
                    .to_owned(),
            });
        }
        self.build(&shown).map_err(TlsError::library).map(drop)
    }

    /// Takes a connection.
    ///
    /// # Errors
    /// The handshake failed, or the certificate cannot be shown.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<SslStream<TcpStream>> {
        let context = self.context()?;
        let mut stream = SslStream::new(Ssl::new(&context)?, stream)?;
        Pin::new(&mut stream).accept().await.map_err(io::Error::other)?;
        Ok(stream)
    }

    fn context(&self) -> Result<SslContext, ErrorStack> {
        let shown = self.shown.now();
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, context)) = &*built
            && Arc::ptr_eq(of, &shown)
        {
            return Ok(context.clone());
        }
        let context = self.build(&shown)?;
        *built = Some((shown, context.clone()));
        Ok(context)
    }

    fn build(&self, shown: &Shown) -> Result<SslContext, ErrorStack> {
        let mut builder = SslContextBuilder::new(SslMethod::tls_server())?;
        builder.set_security_level(0);
        builder.set_min_proto_version(Some(SslVersion::TLS1))?;
        builder.set_max_proto_version(Some(SslVersion::TLS1_2))?;
        builder.set_cipher_list(SUITES)?;
        builder.set_options(
            SslOptions::NO_COMPRESSION
                | SslOptions::NO_RENEGOTIATION
                | SslOptions::NO_TICKET
                | SslOptions::CIPHER_SERVER_PREFERENCE,
        );
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        let mut chain = shown.chain().iter();
        if let Some(own) = chain.next() {
            let own = X509::from_der(own)?;
            builder.set_certificate(&own)?;
        }
        for above in chain {
            builder.add_extra_chain_cert(X509::from_der(above)?)?;
        }
        let key = PKey::private_key_from_der(shown.key.secret_der())?;
        builder.set_private_key(&key)?;
        builder.check_private_key()?;
        if self.asks != ClientCertificates::Off {
            let mut store = X509StoreBuilder::new()?;
            for authority in self.authorities.of_phones() {
                store.add_cert(X509::from_der(&authority)?)?;
            }
            builder.set_verify_cert_store(store.build())?;
            let mut mode = SslVerifyMode::PEER;
            if self.asks == ClientCertificates::Require {
                mode |= SslVerifyMode::FAIL_IF_NO_PEER_CERT;
            }
            builder.set_verify(mode);
        }
        Ok(builder.build())
    }
}

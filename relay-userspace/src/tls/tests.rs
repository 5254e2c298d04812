//! Handshakes in memory, between the two ends as the appliance sets them up.

use std::sync::Arc;

use rustls::{ClientConnection, Connection, ServerConnection, pki_types::ServerName};

use super::*;
use crate::{
    config::{ClientCertificates, Suite, Tls},
    store::tests_support::Directory,
};

fn identity(directory: &Directory) -> Identity {
    let names = ["branch.example.com".to_owned()];
    Identity::open(directory.path(), None, None, &names, &["10.0.0.1".parse().unwrap()]).unwrap()
}

/// Both ends talk until neither has anything to say; the client's error, then the server's.
fn handshake(
    client: Arc<rustls::ClientConfig>,
    server: Arc<rustls::ServerConfig>,
    name: &str,
) -> Result<(), String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = Connection::from(ClientConnection::new(client, name).unwrap());
    let mut server = Connection::from(ServerConnection::new(server).unwrap());
    for _ in 0..10 {
        for turn in 0..2 {
            let (from, to) = if turn == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let mut bytes = Vec::new();
            while from.wants_write() {
                from.write_tls(&mut bytes).unwrap();
            }
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                to.read_tls(&mut bytes).unwrap();
                to.process_new_packets().map_err(|error| error.to_string())?;
            }
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

#[test]
fn the_own_certificate_is_made_once_and_kept() {
    let directory = Directory::new("identity");
    let first = identity(&directory);
    assert!(first.is_own());
    assert_eq!(first.chain(), identity(&directory).chain());
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(directory.path().join("tls").join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("own.key"), mode("own.pem")), (0o600, 0o644));
}

#[test]
fn an_unknown_certificate_is_refused_shown_and_believed_only_after_it_was_trusted() {
    let directory = Directory::new("unknown");
    let identity = identity(&directory);
    let authorities = Authorities::open(None).unwrap();
    let trust = Arc::new(Trust::default());
    let settings = Tls::default();
    let server = server_config(&identity, &authorities, &settings).unwrap();
    let client = client_config(&identity, &authorities, &trust, &settings).unwrap();
    let error = handshake(Arc::clone(&client), Arc::clone(&server), "branch.example.com").unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    let seen = trust.take_seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].server.as_str(), seen[0].chain.len()), ("branch.example.com", 2));
    assert_eq!(seen[0].why, "no trusted authority vouches for it");
    trust.set([seen[0].fingerprint]);
    handshake(client, server, "branch.example.com").unwrap();
    assert_eq!(trust.take_seen(), []);
}

#[test]
fn an_authority_vouches_for_the_right_name_only() {
    let directory = Directory::new("authority");
    let identity = identity(&directory);
    let file = directory.path().join("tls/authority.pem");
    let authorities = Authorities::open(Some(&file)).unwrap();
    let trust = Arc::new(Trust::default());
    let settings = Tls::default();
    let server = server_config(&identity, &authorities, &settings).unwrap();
    let client = client_config(&identity, &authorities, &trust, &settings).unwrap();
    handshake(Arc::clone(&client), Arc::clone(&server), "branch.example.com").unwrap();
    handshake(Arc::clone(&client), Arc::clone(&server), "10.0.0.1").unwrap();
    handshake(client, server, "other.example.com").unwrap_err();
    assert_eq!(trust.take_seen()[0].why, "it is for another name than the one that is configured");
}

#[test]
fn phones_certificates_are_asked_for_as_the_configuration_says() {
    let directory = Directory::new("mutual");
    let identity = identity(&directory);
    let file = directory.path().join("tls/authority.pem");
    let authorities = Authorities::open(Some(&file)).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let bare = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authorities.servers())
        .with_no_client_auth();
    let bare = Arc::new(bare);
    let mutual = client_config(&identity, &authorities, &Arc::default(), &Tls::default()).unwrap();
    let rows = [
        (ClientCertificates::Off, true, true),
        (ClientCertificates::Request, true, true),
        (ClientCertificates::Require, false, true),
    ];
    for (client_certificates, without, with) in rows {
        let settings = Tls { client_certificates, ..Tls::default() };
        let server = server_config(&identity, &authorities, &settings).unwrap();
        let outcome = |client: &Arc<rustls::ClientConfig>| {
            handshake(Arc::clone(client), Arc::clone(&server), "branch.example.com").is_ok()
        };
        assert_eq!((outcome(&bare), outcome(&mutual)), (without, with), "{client_certificates:?}");
    }
    let settings = Tls { client_certificates: ClientCertificates::Require, ..Tls::default() };
    let error =
        server_config(&identity, &Authorities::open(None).unwrap(), &settings).unwrap_err().to_string();
    assert!(error.starts_with("key tls.client_certificates: "), "{error}");
}

#[test]
fn ends_without_a_common_suite_do_not_come_together() {
    let directory = Directory::new("suites");
    let identity = identity(&directory);
    let file = directory.path().join("tls/authority.pem");
    let authorities = Authorities::open(Some(&file)).unwrap();
    let with = |suite: Suite| Tls { suites: vec![suite], ..Tls::default() };
    let server = server_config(&identity, &authorities, &with(Suite::TLS_AES_256_GCM_SHA384)).unwrap();
    for (suite, common) in [(Suite::TLS_AES_256_GCM_SHA384, true), (Suite::TLS_AES_128_GCM_SHA256, false)] {
        let client = client_config(&identity, &authorities, &Arc::default(), &with(suite)).unwrap();
        assert_eq!(handshake(client, Arc::clone(&server), "10.0.0.1").is_ok(), common, "{suite:?}");
    }
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let directory = Directory::new("files");
    let path = directory.path().join("empty.pem");
    std::fs::write(&path, "nothing").unwrap();
    let error = Identity::open(directory.path(), Some(&path), Some(&path), &[], &[]).unwrap_err().to_string();
    assert!(error.ends_with("empty.pem: there is no certificate in it"), "{error}");
    let missing = directory.path().join("missing.pem");
    let error = Authorities::open(Some(&missing)).unwrap_err().to_string();
    assert!(error.contains("missing.pem: it cannot be read: No such file"), "{error}");
}

#[test]
fn fingerprints_are_read_as_they_are_written_with_or_without_colons() {
    let fingerprint = Fingerprint::of(b"certificate");
    let text = fingerprint.to_string();
    assert_eq!(Fingerprint::parse(&text), Some(fingerprint));
    let colons: Vec<String> =
        text.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into()).collect();
    assert_eq!(Fingerprint::parse(&colons.join(":").to_uppercase()), Some(fingerprint));
    assert_eq!(Fingerprint::parse("00"), None);
    assert_eq!(Fingerprint::parse(&"z".repeat(64)), None);
}

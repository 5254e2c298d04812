//! Handshakes in memory, between the two ends as the appliance sets them up.

use std::sync::Arc;

use rustls::{ClientConnection, Connection, ServerConnection, pki_types::ServerName};
use time::OffsetDateTime;

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
fn the_own_certificate_is_signed_by_an_own_authority_that_stays_when_it_is_renewed() {
    let directory = Directory::new("renewed");
    let identity = identity(&directory);
    let authority = identity.authority().unwrap();
    let made = describe(&authority).remove(0);
    assert_eq!(made.subject.to_string(), "CN=branch.example.com authority, O=Branchline appliance");
    let before = identity.described().unwrap();
    assert_eq!((before.issuer, identity.chain().len()), (made.subject, 2));
    let now = OffsetDateTime::now_utc();
    assert!(!identity.renew(now).unwrap(), "there is time");
    assert!(identity.renew(now + time::Duration::days(340)).unwrap());
    let after = identity.described().unwrap();
    assert!(after.not_after_unix > before.not_after_unix && after.names == before.names);
    assert_eq!(identity.authority().unwrap(), authority);
    // Who trusts the authority trusts the new one, on a listener that was set up before.
    let believed = Authorities::open(Some(&directory.path().join("tls/authority.pem"))).unwrap();
    let server = server_config(&identity, &believed, &Tls::default()).unwrap();
    assert!(identity.renew(now + time::Duration::days(900)).unwrap());
    assert!(identity.renew(now).is_ok());
    let client = client_config(&identity, &believed, &Arc::default(), &Tls::default()).unwrap();
    let error = handshake(Arc::clone(&client), Arc::clone(&server), "branch.example.com").unwrap_err();
    assert!(
        error.contains("not valid yet"),
        "the one of a clock that is far ahead is shown at once: {error}"
    );
}

#[test]
fn the_own_certificate_follows_the_appliances_addresses() {
    let directory = Directory::new("follows");
    identity(&directory);
    let names = ["branch.example.com".to_owned()];
    let moved = Identity::open(directory.path(), None, None, &names, &["10.0.0.2".parse().unwrap()]).unwrap();
    assert_eq!(moved.names(), ["branch.example.com", "10.0.0.2"]);
}

#[test]
fn a_certificate_of_an_earlier_version_is_kept_until_it_is_about_to_end() {
    let directory = Directory::new("earlier");
    let now = OffsetDateTime::now_utc();
    let mut params = rcgen::CertificateParams::new(vec!["old.example.com".to_owned()]).unwrap();
    params.not_after = now + time::Duration::days(1000);
    let pair = rcgen::KeyPair::generate().unwrap();
    let tls = directory.path().join("tls");
    std::fs::create_dir_all(&tls).unwrap();
    std::fs::write(tls.join("own.pem"), params.self_signed(&pair).unwrap().pem()).unwrap();
    std::fs::write(tls.join("own.key"), pair.serialize_pem()).unwrap();
    let identity = identity(&directory);
    assert_eq!(
        (identity.names(), identity.is_signed_by_authority()),
        (vec!["old.example.com".to_owned()], false)
    );
    assert!(identity.is_own() && identity.authority().is_some(), "the next one's authority can be given out");
    let legacy = LegacyAcceptor::new(&identity, &Authorities::open(None).unwrap(), &Tls::default());
    let error = legacy.check().unwrap_err().to_string();
    assert!(error.contains("RSA key") && error.contains("remove own.pem and own.key"), "{error}");
    assert!(!identity.renew(now + time::Duration::days(900)).unwrap());
    assert!(identity.renew(now + time::Duration::days(950)).unwrap());
    assert_eq!(
        (identity.names()[0].as_str(), identity.is_signed_by_authority()),
        ("branch.example.com", true)
    );
    legacy.check().unwrap();
}

#[test]
fn files_that_were_replaced_are_shown_and_believed_without_a_new_listener() {
    let (old, new, directory) = (Directory::new("old"), Directory::new("new"), Directory::new("files"));
    let (first, second) = (identity(&old), identity(&new));
    let at = |name: &str| directory.path().join(name);
    let copy = |from: &Directory, name: &str, to: &str| {
        std::fs::copy(from.path().join("tls").join(name), at(to)).unwrap();
    };
    copy(&old, "own.pem", "shown.pem");
    copy(&old, "own.key", "shown.key");
    copy(&old, "authority.pem", "authorities.pem");
    let shown =
        Identity::open(directory.path(), Some(&at("shown.pem")), Some(&at("shown.key")), &[], &[]).unwrap();
    let believed = Authorities::open(Some(&at("authorities.pem"))).unwrap();
    let mutual = Tls { client_certificates: ClientCertificates::Require, ..Tls::default() };
    let server = server_config(&shown, &believed, &mutual).unwrap();
    let of = |identity: &Identity, directory: &Directory| {
        let authorities = Authorities::open(Some(&directory.path().join("tls/authority.pem"))).unwrap();
        client_config(identity, &authorities, &Arc::default(), &Tls::default()).unwrap()
    };
    let (old_phone, new_phone) = (of(&first, &old), of(&second, &new));
    let meets = |phone: &Arc<rustls::ClientConfig>| {
        handshake(Arc::clone(phone), Arc::clone(&server), "branch.example.com").is_ok()
    };
    assert_eq!((meets(&old_phone), meets(&new_phone)), (true, false));
    let now = OffsetDateTime::now_utc();
    // The certificate is there before its key.
    copy(&new, "own.pem", "shown.pem");
    let error = shown.renew(now).unwrap_err().to_string();
    assert!(error.contains("shown.key: it is not the private key of the certificate in"), "{error}");
    assert_eq!((meets(&old_phone), meets(&new_phone)), (true, false), "half of it changes nothing");
    copy(&new, "own.key", "shown.key");
    assert!(shown.renew(now).unwrap());
    copy(&new, "authority.pem", "authorities.pem");
    believed.reload().unwrap();
    assert_eq!((meets(&old_phone), meets(&new_phone)), (false, true));
    std::fs::write(at("authorities.pem"), "nothing").unwrap();
    believed.reload().unwrap_err();
    assert!(meets(&new_phone), "a file that cannot be read takes nobody's trust away");
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

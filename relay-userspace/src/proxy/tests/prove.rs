//! Phones that have to prove themselves, and nonces that servers give out in advance.

use std::time::Duration;

use zeroize::Zeroizing;

use super::{harness::*, transfers::find};
use crate::{
    config::ChallengePolicy,
    proxy::{Credential, Credentials, DropReason, EmergencyCalls, Measure, Routing, Settings},
    sip::{
        digest::{Challenge, Ha1, Request, Secret},
        wire::{HeaderName, Method},
    },
};

const SERVERS_CHALLENGE: &str =
    "WWW-Authenticate: Digest realm=\"pbx\", nonce=\"abc\", qop=\"auth\", algorithm=MD5\n";

fn world(challenge: ChallengePolicy) -> World {
    let mut settings = settings();
    settings.networks[0].challenge = challenge;
    let emergency = EmergencyCalls { numbers: vec!["112".to_owned()], dial: "112".to_owned() };
    let mut world =
        World::with(Settings { routing: Routing { emergency, ..Routing::default() }, ..settings });
    world.set_entry(&[]);
    world
}

fn request(method: &str, uri: &str, user: &str, cseq: u32, more: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bK{method}{user}{cseq}\nFrom: <sip:{user}@example.com>;tag=r\n\
         To: <sip:{user}@example.com>\nCall-ID: reg\nCSeq: {cseq} {method}\nContact: <sip:{user}@192.0.2.11:5060>\n{more}Expires: 3600\nContent-Length: 0\n\n"
    )
}

fn header(sent: &Sent, name: HeaderName) -> Option<String> {
    sent.message().header(name).map(|header| String::from_utf8_lossy(header.value).into_owned())
}

/// What a phone with this password answers to a challenge, with a count of its own.
fn answered(challenge: &str, method: &str, uri: &str, password: &str, count: &str) -> String {
    use md5::{Digest as _, Md5};
    let hash = |text: String| {
        Md5::digest(text.as_bytes()).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    };
    let part = |name: &str| {
        let (_, rest) = challenge.split_once(&format!("{name}=\"")).unwrap();
        rest.split('"').next().unwrap()
    };
    let (realm, nonce) = (part("realm"), part("nonce"));
    let secret = hash(format!("station200:{realm}:{password}"));
    let what = hash(format!("{method}:{uri}"));
    let response = hash(format!("{secret}:{nonce}:{count}:c:auth:{what}"));
    format!(
        "Digest username=\"station200\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", algorithm=MD5, qop=auth, nc={count}, cnonce=\"c\""
    )
}

#[test]
fn a_phone_with_an_entry_proves_itself_and_the_server_gets_the_appliances_answer() {
    let mut world = world(ChallengePolicy::Always);
    let uri = "sip:example.com";
    let sent = world.phone(&request("REGISTER", uri, "200", 1, ""));
    assert_eq!((sent.len(), sent[0].first_line().as_str()), (1, "SIP/2.0 401 Unauthorized"));
    let challenge = header(&sent[0], HeaderName::WwwAuthenticate).unwrap();
    assert!(challenge.starts_with("Digest realm=\"example.com\", nonce=\""), "{challenge}");

    let answer_of =
        |count| format!("Authorization: {}\n", answered(&challenge, "REGISTER", uri, "secret", count));
    let sent = world.phone(&request("REGISTER", uri, "200", 2, &answer_of("00000001")));
    assert_eq!((sent[0].network, sent[0].to.as_str()), (SERVERS, SERVER));
    assert_eq!(header(&sent[0], HeaderName::Authorization), None, "what was for the appliance stays here");
    let again = world.server(&answer(&sent[0], 401, "Unauthorized", "t", SERVERS_CHALLENGE, "")).remove(0);
    let authorization = header(&again, HeaderName::Authorization).unwrap();
    assert!(authorization.contains("realm=\"pbx\", nonce=\"abc\""), "{authorization}");

    // Somebody has heard it, and sends it again; the phone goes on with the same nonce.
    let replayed = world.phone(&request("REGISTER", uri, "200", 3, &answer_of("00000001")));
    assert_eq!(replayed[0].first_line(), "SIP/2.0 401 Unauthorized");
    assert!(header(&replayed[0], HeaderName::WwwAuthenticate).unwrap().ends_with(", stale=true"));
    assert_eq!(world.count(Measure::Dropped(DropReason::StaleCredentials)), 1);
    let sent = world.phone(&request("REGISTER", uri, "200", 4, &answer_of("00000002")));
    assert_eq!(sent[0].network, SERVERS);
    world.wait(Duration::from_secs(400));
    let sent = world.phone(&request("REGISTER", uri, "200", 5, &answer_of("00000003")));
    assert!(header(&sent[0], HeaderName::WwwAuthenticate).unwrap().ends_with(", stale=true"), "too old");
}

#[test]
fn an_invented_tag_proves_no_dialog() {
    let mut world = world(ChallengePolicy::Always);
    for (method, status) in [
        ("REGISTER", "401 Unauthorized"),
        ("MESSAGE", "407 Proxy Authentication Required"),
        ("SUBSCRIBE", "407 Proxy Authentication Required"),
        ("REFER", "407 Proxy Authentication Required"),
    ] {
        let text = request(method, "sip:100@example.com", "200", 1, "")
            .replace("To: <sip:200@example.com>", "To: <sip:200@example.com>;tag=invented");
        let sent = world.phone(&text);
        assert_eq!(sent.len(), 1, "{method}: {sent:?}");
        assert_eq!(sent[0].first_line(), format!("SIP/2.0 {status}"), "{method}");
    }
}

#[test]
fn who_gives_the_wrong_answer_is_refused_and_who_cannot_be_asked_is_not() {
    let uri = "sip:100@example.com";
    let mut world = world(ChallengePolicy::Always);
    let sent = world.phone(&request("INVITE", uri, "200", 1, ""));
    let refused = sent.iter().find(|sent| sent.first_line().starts_with("SIP/2.0 4")).unwrap();
    assert_eq!(refused.first_line(), "SIP/2.0 407 Proxy Authentication Required");
    let challenge = header(refused, HeaderName::ProxyAuthenticate).unwrap();
    world.phone(&request("ACK", uri, "200", 1, ""));
    let wrong =
        format!("Proxy-Authorization: {}\n", answered(&challenge, "INVITE", uri, "guess", "00000001"));
    let sent = world.phone(&request("INVITE", uri, "200", 2, &wrong));
    assert!(sent.iter().any(|sent| sent.first_line() == "SIP/2.0 403 Forbidden"), "{sent:?}");
    assert_eq!(world.count(Measure::Dropped(DropReason::WrongCredentials)), 1);
    let right =
        format!("Proxy-Authorization: {}\n", answered(&challenge, "INVITE", uri, "secret", "00000001"));
    let sent = world.phone(&request("INVITE", uri, "200", 3, &right));
    assert!(sent.iter().any(|sent| sent.network == SERVERS), "a guess has not used the nonce up");

    for (description, policy, method, to, user) in [
        ("without an entry", ChallengePolicy::Always, Method::Invite, uri, "300"),
        ("an emergency", ChallengePolicy::Always, Method::Invite, "sip:112@example.com", "200"),
        ("while a server serves", ChallengePolicy::Survival, Method::Register, "sip:example.com", "200"),
        ("never", ChallengePolicy::Never, Method::Register, "sip:example.com", "200"),
    ] {
        let mut world = super::prove::world(policy);
        let sent = world.phone(&request(method.as_label(), to, user, 1, ""));
        assert!(sent.iter().any(|sent| sent.network == SERVERS), "{description}: {sent:?}");
    }
}

#[test]
fn a_nonce_that_a_server_wants_next_is_answered_at_once_and_used_once() {
    let mut world = world(ChallengePolicy::Survival);
    let uri = "sip:example.com";
    let first = world.phone(&request("REGISTER", uri, "200", 1, "")).remove(0);
    let again = world.server(&answer(&first, 401, "Unauthorized", "t", SERVERS_CHALLENGE, "")).remove(0);
    let grant = |world: &mut World, sent: &Sent, info: &str| {
        let contact = header(sent, HeaderName::Contact).unwrap();
        let headers = format!("Contact: {contact};expires=60\n{info}");
        world.server(&answer(sent, 200, "OK", "t", &headers, "")).remove(0)
    };
    let ok =
        grant(&mut world, &again, "Authentication-Info: qop=auth, nextnonce=\"n,ext\", rspauth=\"00\"\n");
    assert!(!ok.text().contains("Authentication-Info"), "the phone has answered nothing");

    let refresh = world.phone(&request("REGISTER", uri, "200", 2, "")).remove(0);
    let authorization = header(&refresh, HeaderName::Authorization).expect("at once");
    assert!(
        authorization.contains("nonce=\"n,ext\"") && authorization.contains("nc=00000001"),
        "{authorization}"
    );
    let challenge = "Digest realm=\"pbx\", nonce=\"n,ext\", qop=\"auth\", algorithm=MD5";
    let cnonce = authorization.split("cnonce=\"").nth(1).unwrap().split('"').next().unwrap();
    let asked = Request { method: b"REGISTER", uri: uri.as_bytes(), body: b"" };
    let expected = Challenge::parse(challenge.as_bytes()).unwrap().answer(
        &asked,
        "station200",
        &Secret::Password("secret"),
        cnonce,
    );
    assert_eq!(authorization.as_bytes(), expected);
    grant(&mut world, &refresh, "");
    let third = world.phone(&request("REGISTER", uri, "200", 3, "")).remove(0);
    assert_eq!(header(&third, HeaderName::Authorization), None, "each nonce once");
    assert_eq!(world.count(Measure::ChallengeAnswered), 1);
}

#[test]
fn a_server_that_has_forgotten_its_next_nonce_challenges_and_is_answered() {
    let mut world = world(ChallengePolicy::Survival);
    let uri = "sip:example.com";
    let first = world.phone(&request("REGISTER", uri, "200", 1, "")).remove(0);
    let again = world.server(&answer(&first, 401, "Unauthorized", "t", SERVERS_CHALLENGE, "")).remove(0);
    world.server(&answer(&again, 200, "OK", "t", "Authentication-Info: nextnonce=\"lost\"\n", ""));
    let refresh = world.phone(&request("REGISTER", uri, "200", 2, "")).remove(0);
    assert!(header(&refresh, HeaderName::Authorization).unwrap().contains("nonce=\"lost\""));
    let sent = world.server(&answer(&refresh, 401, "Unauthorized", "t", SERVERS_CHALLENGE, ""));
    let again = &sent[0];
    assert_eq!(again.network, SERVERS, "the phone sees nothing of it");
    assert!(header(again, HeaderName::Authorization).unwrap().contains("nonce=\"abc\""));
    assert_eq!(again.text().matches("Authorization:").count(), 1);
}

#[test]
fn the_next_call_answers_the_nonce_that_the_last_was_told_and_no_bye_uses_it_up() {
    let mut world = world(ChallengePolicy::Survival);
    let contact = "Contact: <sip:200@192.0.2.11:5060>\n";
    let invite =
        from_phone("INVITE", "sip:100@example.com", "i1", 1, "", contact, &sdp("192.0.2.11", 4000, ""));
    let first = find(&world.phone(&invite), SERVERS, "INVITE");
    let challenge = SERVERS_CHALLENGE.replace("WWW-", "Proxy-");
    let sent = world.server(&answer(&first, 407, "Proxy Authentication Required", "t", &challenge, ""));
    let again = find(&sent, SERVERS, "INVITE");
    let told = "Contact: <sip:100@198.51.100.20:5070>\nProxy-Authentication-Info: nextnonce=\"next\"\n";
    world.server(&answer(&again, 200, "OK", "s", told, &sdp("198.51.100.20", 6000, "")));
    world.phone(&from_phone("ACK", "sip:100@192.0.2.1:8060", "a1", 1, ";tag=s", "", ""));
    let bye = find(
        &world.phone(&from_phone("BYE", "sip:100@192.0.2.1:8060", "b1", 2, ";tag=s", "", "")),
        SERVERS,
        "BYE",
    );
    assert_eq!(header(&bye, HeaderName::ProxyAuthorization), None);
    world.server(&answer(&bye, 200, "OK", "s", "", ""));
    let second = invite.replace("Call-ID: c1", "Call-ID: c2").replace("z9hG4bKi1", "z9hG4bKi2");
    let second = find(&world.phone(&second), SERVERS, "INVITE");
    assert!(header(&second, HeaderName::ProxyAuthorization).unwrap().contains("nonce=\"next\""));
}

/// The entry's password is not kept, only what stands for it in these realms.
fn forget_password(world: &mut World, realms: &[&str]) {
    let mut credentials = Credentials::default();
    let credential = Credential {
        registration_id: "200".to_owned(),
        user: "station200".to_owned(),
        password: Zeroizing::default(),
        digests: realms.iter().flat_map(|realm| Ha1::all("station200", realm, "secret")).collect(),
    };
    credentials.add(&credential, &[]);
    world.proxy.set_credentials(credentials);
}

#[test]
fn a_realm_in_which_a_server_has_taken_the_password_is_told_once_it_is_known_no_more() {
    let mut world = world(ChallengePolicy::Survival);
    let uri = "sip:example.com";
    let first = world.phone(&request("REGISTER", uri, "200", 1, "")).remove(0);
    let again = world.server(&answer(&first, 401, "Unauthorized", "t", SERVERS_CHALLENGE, "")).remove(0);
    assert!(world.realms.is_empty(), "it may be wrong");
    world.server(&answer(&again, 200, "OK", "t", "", ""));
    assert_eq!(world.realms, [("200".to_owned(), "pbx".to_owned())]);

    // Without the password, by another hash function: what stands for it is kept for each.
    forget_password(&mut world, &["pbx"]);
    let challenge = SERVERS_CHALLENGE.replace("MD5", "SHA-512-256");
    let refresh = world.phone(&request("REGISTER", uri, "200", 2, "")).remove(0);
    let again = world.server(&answer(&refresh, 401, "Unauthorized", "t", &challenge, "")).remove(0);
    let authorization = header(&again, HeaderName::Authorization).unwrap();
    let cnonce = authorization.split("cnonce=\"").nth(1).unwrap().split('"').next().unwrap();
    let asked = Request { method: b"REGISTER", uri: uri.as_bytes(), body: b"" };
    let value = challenge.trim().strip_prefix("WWW-Authenticate: ").unwrap();
    let expected = Challenge::parse(value.as_bytes()).unwrap();
    let expected = expected.answer(&asked, "station200", &Secret::Password("secret"), cnonce);
    assert_eq!(authorization.as_bytes(), expected, "the same as with the password");
    world.server(&answer(&again, 200, "OK", "t", "", ""));
    assert_eq!(world.realms.len(), 1);

    // Another realm: the phone has to answer for itself.
    let refresh = world.phone(&request("REGISTER", uri, "200", 3, "")).remove(0);
    let other = SERVERS_CHALLENGE.replace("pbx", "elsewhere");
    let sent = world.server(&answer(&refresh, 401, "Unauthorized", "t", &other, ""));
    assert_eq!((sent[0].network, sent[0].first_line().as_str()), (PHONES, "SIP/2.0 401 Unauthorized"));
    assert_eq!(world.count(Measure::CredentialsRefused), 1);
}

#[test]
fn a_phone_is_challenged_in_a_realm_in_which_what_stands_for_its_password_is_kept() {
    let mut world = world(ChallengePolicy::Always);
    forget_password(&mut world, &["pbx"]);
    let uri = "sip:example.com";
    let sent = world.phone(&request("REGISTER", uri, "200", 1, ""));
    let challenge = header(&sent[0], HeaderName::WwwAuthenticate).unwrap();
    assert!(challenge.starts_with("Digest realm=\"pbx\""), "{challenge}");
    for (password, cseq, expected) in [("guess", 2, PHONES), ("secret", 3, SERVERS)] {
        let given = answered(&challenge, "REGISTER", uri, password, "00000001");
        let sent = world.phone(&request("REGISTER", uri, "200", cseq, &format!("Authorization: {given}\n")));
        assert_eq!(sent[0].network, expected, "{password}");
    }
}

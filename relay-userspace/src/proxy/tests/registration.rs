use super::harness::*;
use crate::{proxy::Measure, sip::transaction::Timers};

fn register(branch: &str, cseq: u32, more: &str) -> String {
    format!(
        "REGISTER sip:192.0.2.1:8060 SIP/2.0\nv: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bK{branch};rport\n\
         f: \"Zo\\\"e\" <sip:200@example.com>;tag=r\nt: <sip:200@example.com>\ni: reg@phone\nCSeq: {cseq} REGISTER\n\
         m: \"Zoe\" <sip:200@192.0.2.11:5060;line=7;transport=udp>;q=0.8;+sip.instance=\"<urn:uuid:1>\";reg-id=1\n\
         User-Agent: Phone/1.0 (0004f2aabbcc)\nX-Odd :  kept\n{more}Max-Forwards: 70\nl: 0\n\n"
    )
}

fn at_server(cseq: u32, more: &str) -> String {
    format!(
        "REGISTER sip:198.51.100.9 SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.1:8060;branch=z9hG4bKOURS;rport\n\
         v: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKr{cseq};rport=5060;received=192.0.2.11\n\
         f: \"Zo\\\"e\" <sip:200@example.com>;tag=r\nt: <sip:200@example.com>\ni: reg@phone\nCSeq: {cseq} REGISTER\n\
         m: \"Zoe\" <sip:200@198.51.100.1:8060;line=7;transport=udp;bl=TOKEN>;q=0.8;+sip.instance=\"<urn:uuid:1>\";reg-id=1\n\
         User-Agent: Phone/1.0 (0004f2aabbcc)\nX-Odd :  kept\n{more}Max-Forwards: 69\nl: 0\n\n"
    )
}

#[test]
fn a_registration_with_a_challenge_is_relayed_and_the_contact_comes_back_as_it_was() {
    let mut world = World::new();
    let sent = world.phone(&register("r1", 1, ""));
    assert_eq!((sent.len(), sent[0].to.as_str(), sent[0].network), (1, SERVER, SERVERS));
    assert_eq!(sent[0].text(), at_server(1, ""));

    let challenge =
        answer(&sent[0], 401, "Unauthorized", "st", "WWW-Authenticate: Digest realm=\"x\",nonce=\"n\"\n", "");
    let sent = world.server(&challenge);
    assert_eq!((sent.len(), sent[0].to.as_str()), (1, PHONE));
    assert_eq!(
        sent[0].text(),
        "SIP/2.0 401 Unauthorized\nv: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKr1;rport=5060;received=192.0.2.11\n\
         f: \"Zo\\\"e\" <sip:200@example.com>;tag=r\nt: <sip:200@example.com>;tag=st\ni: reg@phone\nCSeq: 1 REGISTER\n\
         WWW-Authenticate: Digest realm=\"x\",nonce=\"n\"\nContent-Length: 0\n\n"
    );
    assert_eq!(world.proxy.binding_count(), 0);

    let credentials = "Authorization: Digest username=\"200\",uri=\"sip:192.0.2.1:8060\",nc=00000001\n";
    let sent = world.phone(&register("r2", 2, credentials));
    assert_eq!(sent[0].text(), at_server(2, credentials));
    let raw = String::from_utf8(sent[0].payload.to_vec()).unwrap();
    let contact = raw.lines().find_map(|line| line.strip_prefix("m: ")).unwrap();
    let ok = answer(
        &sent[0],
        200,
        "OK",
        "st",
        &format!("Contact: {contact};expires=60, <sip:200@203.0.113.1>;expires=5\nDate: now\n"),
        "",
    );
    let sent = world.server(&ok);
    assert_eq!(
        sent[0].text(),
        "SIP/2.0 200 OK\nv: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKr2;rport=5060;received=192.0.2.11\n\
         f: \"Zo\\\"e\" <sip:200@example.com>;tag=r\nt: <sip:200@example.com>;tag=st\ni: reg@phone\nCSeq: 2 REGISTER\n\
         Contact: \"Zoe\" <sip:200@192.0.2.11:5060;line=7;transport=udp>;q=0.8;+sip.instance=\"<urn:uuid:1>\";reg-id=1;expires=60, \
         <sip:200@203.0.113.1>;expires=5\nDate: now\nContent-Length: 0\n\n"
    );
    assert_eq!(world.proxy.binding_count(), 1);
    assert!(world.measures.iter().any(|measure| matches!(measure, Measure::RegistrationDelay(_))));

    world.wait(MINUTE * 2);
    assert_eq!(world.proxy.binding_count(), 0);
    world.assert_empty();
}

#[test]
fn a_registration_that_nobody_answers_is_repeated_and_its_phone_is_told_as_long_as_it_listens() {
    // RFC 4320: never 408, a 100 when the phone repeats it seldom, and nothing once it has given up.
    let answers = |sent: &[Sent]| -> Vec<String> {
        sent.iter().filter(|sent| sent.network == PHONES).map(Sent::first_line).collect()
    };
    let mut world = World::new();
    world.phone(&register("r1", 1, ""));
    let sent = world.wait(MINUTE);
    assert!(sent.iter().filter(|sent| sent.network == SERVERS).count() > 5);
    assert_eq!(answers(&sent), ["SIP/2.0 100 Trying"]);
    world.wait(MINUTE);
    world.assert_empty();

    let mut settings = settings();
    settings.timers = Timers { other_retries: 4, ..Timers::default() }.into();
    let mut world = World::with(settings);
    world.phone(&register("r1", 1, ""));
    let sent = world.wait(MINUTE);
    assert_eq!(answers(&sent), ["SIP/2.0 100 Trying", "SIP/2.0 504 Server Time-out"]);
    world.wait(MINUTE);
    world.assert_empty();
}

//! The laboratory itself, without an appliance: the branch is a plain router, and the phones call the server.
//! Needs root, and the peers that `cargo xtask setup --for test` installs.

use std::net::SocketAddrV4;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xtask::lab::network::{self, SERVER, phone};
use xtask::lab::sipp::{Job, Scenario};
use xtask::lab::traffic::Via;
use xtask::lab::{Capture, Lab, MediaEndpoint, Plan, Routes, Traffic, capture::Checksum};

const LIMIT: Duration = Duration::from_secs(30);

/// The tests take turns: they share the processors with their own phones.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn phones_register_call_hold_and_are_called_with_media_both_ways() {
    let _turn = turn();
    let lab = Lab::create(Routes::ThroughBranch).unwrap();
    let server_address = SocketAddrV4::new(SERVER, 5060);
    let capture = Capture::start(&lab.office, network::OUTER, "office", lab.dir()).unwrap();
    let office_media = MediaEndpoint::start(&lab.office, 1).unwrap();
    let centre_media = MediaEndpoint::start(&lab.centre, 2).unwrap();
    let mut server =
        Job::new(Scenario::Server, "server", SERVER, 5060, 40_000).start(&lab.centre, lab.dir()).unwrap();
    centre_media.follow(server.orders(), server.media_base()).unwrap();
    std::thread::sleep(Duration::from_millis(300));

    let mut register = Job::new(Scenario::PhoneRegister, "register", phone(0), 5060, 20_000);
    register.destination = Some(server_address);
    register.rows = vec![vec!["1001".into(), "[authentication username=1001 password=secret]".into()]];
    register.calls = Some(1);
    register.keys = vec![("contact_port".into(), "5060".into())];
    let mut register = register.start(&lab.office, lab.dir()).unwrap();
    register.succeed(LIMIT).unwrap();
    let [registered] = register.logged("REGISTERED").try_into().unwrap();
    assert_eq!(registered[0], registered[1], "the Contact that comes back is the phone's own");
    let [binding] = server.logged("BINDING").try_into().unwrap();

    let mut answer = Job::new(Scenario::PhoneAnswer, "answer", phone(0), 5060, 21_000);
    answer.calls = Some(1);
    let mut hold = Job::new(Scenario::PhoneHold, "hold", phone(1), 5060, 22_000);
    hold.destination = Some(server_address);
    hold.rows = vec![vec!["1002".into(), "9002".into()]];
    hold.calls = Some(1);
    hold.pause = Duration::from_secs(1);
    let mut call = Job::new(Scenario::ServerCall, "call", SERVER, 5070, 41_000);
    call.destination = Some(SocketAddrV4::new(phone(0), 5060));
    call.rows = vec![vec!["9001".into(), binding[1].clone()]];
    call.calls = Some(1);
    call.pause = Duration::from_secs(2);
    let mut running = Vec::new();
    for (job, namespace, media) in [
        (&answer, &lab.office, &office_media),
        (&hold, &lab.office, &office_media),
        (&call, &lab.centre, &centre_media),
    ] {
        let sipp = job.start(namespace, lab.dir()).unwrap();
        media.follow(sipp.orders(), sipp.media_base()).unwrap();
        running.push(sipp);
        std::thread::sleep(Duration::from_millis(200));
    }
    for mut sipp in running {
        sipp.succeed(LIMIT).unwrap();
    }
    server.finish().unwrap();

    let office = office_media.stop().unwrap();
    let centre = centre_media.stop().unwrap();
    assert_eq!((office.len(), centre.len()), (2, 2));
    for leg in office.iter().chain(&centre) {
        assert!(leg.closed && leg.sent > 40 && leg.received > 40, "{leg:?}");
        assert!(leg.reports_sent > 0 && leg.reports_received > 0, "{leg:?}");
        assert_eq!((leg.strays, leg.heard.lost()), (0, 0), "{leg:?}");
    }
    let held = office.iter().find(|leg| *leg.local.ip() == phone(1)).unwrap();
    assert!(held.longest_gap > Duration::from_millis(700), "the server was silent on hold: {held:?}");
    assert!(held.sent > held.received + 30, "the phone went on sending on hold: {held:?}");

    let packets = capture.finish().unwrap();
    assert!(packets.iter().all(|packet| packet.ip_checksum == Checksum::Good));
    assert!(packets.iter().all(|packet| packet.udp_checksum == Checksum::Good));
    let rtp = packets.iter().filter(|packet| packet.rtp().is_some() && *packet.source.ip() == SERVER).count();
    assert_eq!(rtp as u64, office.iter().map(|leg| leg.received).sum::<u64>());
}

#[test]
fn without_routes_office_and_centre_do_not_reach_each_other() {
    let _turn = turn();
    let lab = Lab::create(Routes::None).unwrap();
    let reaches = |from: &xtask::lab::Namespace, to: String| from.run("ping", &["-c1", "-W1", &to]).is_ok();
    assert!(reaches(&lab.office, network::APPLIANCE_OFFICE.to_string()));
    assert!(reaches(&lab.centre, network::APPLIANCE_CENTRE.to_string()));
    assert!(!reaches(&lab.office, SERVER.to_string()));
    assert!(!reaches(&lab.centre, phone(0).to_string()));
}

#[test]
fn twenty_calls_overlap_with_media_both_ways_through_a_plain_router() {
    let _turn = turn();
    let lab = Lab::create(Routes::ThroughBranch).unwrap();
    let plan = Plan { calls: 20, talk: Duration::from_secs(6), via: Via::Router };
    let mut traffic = Traffic::begin(&lab, plan).unwrap();
    assert_eq!(traffic.registered, 20);
    traffic.call(&lab).unwrap();
    let outcome = traffic.finish().unwrap();
    assert_eq!(outcome.complaints, Vec::<String>::new());
    assert_eq!(outcome.calls.iter().map(|(_, tally)| tally.successful).sum::<u64>(), 20);
    assert_eq!((outcome.office.len(), outcome.centre.len()), (20, 20));
    for leg in outcome.office.iter().chain(&outcome.centre) {
        assert!(leg.received > 150 && leg.reports_received > 3 && leg.strays == 0, "{leg:?}");
    }
}

//! Phones with SRTP: real ones in the office, one in the centre, Kamailio between them. Where both sides have SRTP it
//! passes through the kernel byte for byte; where only one has, the appliance translates and both hear each other.

use std::{net::SocketAddrV4, time::Duration};

use anyhow::Result;
use branchline::control::{CallView, FlowView, StatusView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{self, APPLIANCE_CENTRE, APPLIANCE_OFFICE, SECOND_SERVER, SERVER, phone};
use xtask::lab::traffic::{APPLIANCE_SIP, PEER_SIP};
use xtask::lab::{Capture, Lab, Packet, Routes, interrupt};

use crate::site::{LIMIT, ask, settings, to_appliance, turn};

const IN_OFFICE: &str = "1001";
const IN_CENTRE: &str = "1002";
/// Sound that a test waits for in each direction: two seconds. Reports come every five.
const ENOUGH: u64 = 100;
/// Bytes of an RTP packet with 20 ms of G.711.
const PLAIN: usize = 12 + 160;

/// The office's phone with SRTP, and the centre's.
fn office_phone() -> Account {
    Account { encryption: Some("srtp-mand"), ..Account::of(0) }
}

fn centre_phone(encryption: Option<&'static str>) -> Account {
    Account { address: SECOND_SERVER.into(), encryption, ..Account::of(1) }
}

/// The appliance with these policies.
fn start(lab: &Lab, office: &str, centre: &str) -> Result<Appliance> {
    let settings = Settings { office: format!("srtp = \"{office}\"\n"), ..settings() };
    let text = settings.configuration(lab.dir());
    let text = text.replace("role = \"servers\"\n", &format!("role = \"servers\"\nsrtp = \"{centre}\"\n"));
    Appliance::start_from(lab, &settings, &text)
}

/// Waits until each party has heard enough of the other, and gives the flows.
fn until_heard(lab: &Lab, appliance: &Appliance) -> Result<Vec<FlowView>> {
    let mut last = Vec::new();
    let heard = interrupt::wait_until(LIMIT, "sound and reports in both directions", || {
        last = ask::<Vec<FlowView>>(appliance, lab, "flows")?;
        let enough = last.iter().all(|flow| match flow.kind.as_str() {
            "rtcp" => flow.rtcp_packets > 0,
            _ => flow.expected > ENOUGH,
        });
        Ok((last.len() == 4 && enough).then_some(()))
    });
    let calls = ask::<Vec<CallView>>(appliance, lab, "calls")?;
    assert!(heard.is_ok(), "{heard:?}\n{calls:#?}\n{last:#?}");
    Ok(last)
}

fn until_over(lab: &Lab, appliance: &Appliance) -> Result<()> {
    interrupt::wait_until(LIMIT, "end of the call", || {
        let status = ask::<StatusView>(appliance, lab, "status")?;
        Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
    })
}

/// The sound packets that came to an address or went from it.
fn sound(packets: &[Packet], matches: impl Fn(&Packet) -> bool) -> Vec<&Packet> {
    packets
        .iter()
        .filter(|packet| packet.payload.len() >= PLAIN && packet.rtp().is_some() && matches(packet))
        .collect()
}

/// Whether this is a tone, as a phone plays it: a sound that repeats itself after `period` samples.
fn is_tone(packet: &Packet, period: usize) -> bool {
    let samples = &packet.payload[12..PLAIN];
    let same = samples.iter().zip(&samples[period..]).filter(|(one, next)| one.abs_diff(**next) <= 2).count();
    same * 10 >= (samples.len() - period) * 9
}

#[test]
fn a_translated_call_goes_on_with_its_keys_after_the_daemon_was_killed() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let mut appliance = start(&lab, "require", "off")?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let with = Baresip::start(&lab, &lab.office, &office_phone(), to_appliance(APPLIANCE_OFFICE))?;
    let _without =
        Baresip::start(&lab, &lab.centre, &centre_phone(None), SocketAddrV4::new(SERVER, PEER_SIP))?;
    with.call(&lab.office, IN_CENTRE)?;
    until_heard(&lab, &appliance)?;
    std::thread::sleep(Duration::from_secs(1));
    // Once, at once again, and once more: nothing that was sent with the keys is sent again.
    for rest in [Duration::ZERO, Duration::from_secs(1), Duration::ZERO] {
        appliance.stop(libc::SIGKILL)?;
        drop(appliance);
        appliance = start(&lab, "require", "off")?;
        assert_eq!(ask::<Vec<CallView>>(&appliance, &lab, "calls")?.len(), 1, "{}", appliance.said());
        std::thread::sleep(rest);
    }
    for flow in until_heard(&lab, &appliance)? {
        assert_eq!(flow.reason.as_deref(), Some("SRTP is translated"));
        let refused = (flow.srtp_authentication, flow.srtp_replay, flow.wrong_source);
        assert_eq!(refused, (0, 0, 0), "{flow:#?}");
    }
    with.hang_up(&lab.office)?;
    until_over(&lab, &appliance)?;
    // What the phone's own libsrtp made of what it was sent by both daemons.
    let said = std::fs::read_to_string(with.log())?;
    for complaint in ["unprotect", "authentication failure", "replay"] {
        assert!(!said.to_lowercase().contains(complaint), "{complaint}:\n{said}");
    }
    Ok(())
}

#[test]
fn a_phone_with_srtp_and_one_without_hear_each_other() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let appliance = start(&lab, "require", "off")?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let office = Capture::start(&lab.office, network::OUTER, "office", lab.dir())?;
    let centre = Capture::start(&lab.centre, network::OUTER, "centre", lab.dir())?;
    let with = Baresip::start(&lab, &lab.office, &office_phone(), to_appliance(APPLIANCE_OFFICE))?;
    let without =
        Baresip::start(&lab, &lab.centre, &centre_phone(None), SocketAddrV4::new(SERVER, PEER_SIP))?;

    // From each to the other.
    for outward in [true, false] {
        if outward {
            with.call(&lab.office, IN_CENTRE)?;
        } else {
            without.call(&lab.centre, IN_OFFICE)?;
        }
        for flow in until_heard(&lab, &appliance)? {
            assert_eq!(
                (flow.datapath.as_str(), flow.reason.as_deref()),
                ("userspace", Some("SRTP is translated"))
            );
            assert_eq!((flow.lost, flow.wrong_source), (0, 0), "{flow:#?}");
            // baresip opens the way for RTCP by one report in clear, before it has keys.
            let strays = u64::from(flow.kind == "rtcp" && flow.network == "office");
            assert!(flow.srtp_authentication <= strays && flow.srtp_replay == 0, "{flow:#?}");
            let srtp = flow.srtp.clone().unwrap_or_default();
            assert_eq!(srtp.ends_with(" to RTP"), flow.network == "office", "{flow:#?}");
        }
        with.hang_up(&lab.office)?;
        until_over(&lab, &appliance)?;
    }

    // A phone of the office that has no SRTP is refused, and told why.
    let second = lab.own_host(2)?;
    let mut plain = Baresip::start(&lab, &second, &Account::of(2), to_appliance(APPLIANCE_OFFICE))?;
    plain.call(&second, IN_CENTRE)?;
    plain.wait_for("488 Not Acceptable Here")?;
    // What the phone itself says of both calls, once it has read its packets by its own libsrtp.
    interrupt::wait_until(LIMIT, "the phone's own words on both calls", || {
        let said = std::fs::read_to_string(with.log())?;
        let summary = |name: &str| -> Vec<Vec<u64>> {
            let lines = said.lines().filter_map(|line| line.strip_prefix(name));
            lines
                .map(|line| line.split_whitespace().filter_map(|count| count.parse().ok()).collect())
                .collect()
        };
        // Sent and received.
        let (packets, errors) = (summary("packets:"), summary("errors:"));
        assert!(packets.iter().flatten().all(|count| *count > ENOUGH / 2), "{packets:?}");
        assert!(errors.iter().flatten().all(|count| *count == 0), "{errors:?}");
        assert!(!said.contains("failed to decrypt RTP packet"), "{said}");
        Ok((packets.len() == 2 && errors.len() == 2).then_some(()))
    })?;

    let (office, centre) = (office.finish()?, centre.finish()?);
    for (place, packets, ours) in
        [("office", &office, APPLIANCE_OFFICE), ("centre", &centre, APPLIANCE_CENTRE)]
    {
        let is_media = |packet: &Packet| {
            [packet.source, packet.destination]
                .iter()
                .any(|end| *end.ip() == ours && end.port() != APPLIANCE_SIP)
        };
        let heard = sound(packets, is_media);
        assert!(heard.len() as u64 > 4 * ENOUGH, "{place}: {} packets", heard.len());
        // The phones' tones have periods of 20 and of 16 samples.
        let tones = heard.iter().filter(|packet| is_tone(packet, 20) || is_tone(packet, 16)).count();
        if place == "centre" {
            assert!(heard.iter().all(|packet| packet.payload.len() == PLAIN), "{place}");
            assert!(tones * 10 > heard.len() * 9, "{place}: {tones} of {} are tones", heard.len());
        } else {
            assert!(heard.iter().all(|packet| packet.payload.len() > PLAIN), "{place}");
            assert_eq!(tones, 0, "{place}: nothing of the sound is to be read");
        }
    }
    Ok(())
}

#[test]
fn srtp_from_end_to_end_passes_through_the_kernel_as_it_is() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let appliance = start(&lab, "pass", "pass")?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let office = Capture::start(&lab.office, network::OUTER, "office", lab.dir())?;
    let centre = Capture::start(&lab.centre, network::OUTER, "centre", lab.dir())?;
    let caller = Baresip::start(&lab, &lab.office, &office_phone(), to_appliance(APPLIANCE_OFFICE))?;
    let account = centre_phone(Some("srtp-mand"));
    let _called = Baresip::start(&lab, &lab.centre, &account, SocketAddrV4::new(SERVER, PEER_SIP))?;
    caller.call(&lab.office, IN_CENTRE)?;
    for flow in until_heard(&lab, &appliance)? {
        assert_eq!((flow.datapath.as_str(), flow.srtp.as_deref()), ("kernel", None), "{flow:#?}");
        // The header is in clear: what is counted from it is there.
        assert_eq!((flow.lost, flow.wrong_source), (0, 0), "{flow:#?}");
        let (kernel, userspace) = (flow.kernel_packets, flow.userspace_packets);
        assert!(flow.kind == "rtcp" || kernel > ENOUGH / 2 && userspace < ENOUGH / 2, "{flow:#?}");
        assert!(flow.kind == "rtcp" || flow.jitter_ms > 0.0 && flow.ssrc.is_some(), "{flow:#?}");
    }
    caller.hang_up(&lab.office)?;
    until_over(&lab, &appliance)?;
    let (office, centre) = (office.finish()?, centre.finish()?);
    let payloads = |packets: &[Packet], matches: &dyn Fn(&Packet) -> bool| -> Vec<Vec<u8>> {
        sound(packets, matches).into_iter().map(|packet| packet.payload.clone()).collect()
    };
    let sent = payloads(&office, &|packet| *packet.source.ip() == phone(0));
    let heard = payloads(&centre, &|packet| *packet.source.ip() == APPLIANCE_CENTRE);
    assert!(sent.len() as u64 > ENOUGH && heard.len() as u64 > ENOUGH);
    assert!(heard.iter().all(|packet| packet.len() > PLAIN && sent.contains(packet)));
    Ok(())
}

#[test]
fn a_phone_that_is_offered_both_takes_srtp_if_it_can_and_rtp_if_not() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let appliance = start(&lab, "offer", "off")?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let caller = Baresip::start(&lab, &lab.centre, &centre_phone(None), SocketAddrV4::new(SERVER, PEER_SIP))?;
    let able = Account { encryption: Some("srtp"), ..Account::of(0) };
    let _able = Baresip::start(&lab, &lab.office, &able, to_appliance(APPLIANCE_OFFICE))?;
    let second = lab.own_host(2)?;
    let _unable = Baresip::start(&lab, &second, &Account::of(2), to_appliance(APPLIANCE_OFFICE))?;
    for (user, datapath) in [(IN_OFFICE, "userspace"), ("1003", "kernel")] {
        caller.call(&lab.centre, user)?;
        for flow in until_heard(&lab, &appliance)? {
            assert_eq!(flow.datapath, datapath, "{user}: {flow:#?}");
            assert_eq!(flow.srtp.is_some(), datapath == "userspace", "{user}: {flow:#?}");
            assert_eq!((flow.lost, flow.wrong_source, flow.srtp_replay), (0, 0, 0), "{user}: {flow:#?}");
        }
        caller.hang_up(&lab.centre)?;
        until_over(&lab, &appliance)?;
    }
    Ok(())
}

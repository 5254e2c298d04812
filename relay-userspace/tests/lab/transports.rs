//! Phones by UDP, TCP and TLS toward a real server by another transport each. The server's certificate is its own, so
//! it is refused, shown, and believed only after it was trusted by command.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result};
use branchline::control::{CertificateView, FlowView, StatusView};
use branchline::tls::Identity;
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::baresip::{Account, Baresip};
use xtask::lab::capture::segments;
use xtask::lab::kamailio::{Certificate, Kamailio};
use xtask::lab::network::{self, APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER};
use xtask::lab::traffic::{APPLIANCE_SIP, PEER_SIP};
use xtask::lab::{Capture, Lab, Routes, interrupt};

use crate::site::{LIMIT, ask, settings, turn};

pub(crate) const USERS: [&str; 2] = ["1001", "1002"];
/// Sound that a test waits for in each direction: two seconds.
const ENOUGH: u64 = 100;
/// The reference's TLS port.
pub(crate) const APPLIANCE_TLS: u16 = APPLIANCE_SIP + 1;

struct Case {
    /// The phones' transport.
    phones: &'static str,
    /// The server, as it is configured.
    server: String,
    /// Its port for that.
    port: u16,
}

pub(crate) fn account(lab: &Lab, transport: &'static str, index: u8) -> Account {
    let authorities = (transport == "tls").then(|| lab.dir().join("state/tls/authority.pem"));
    Account { transport, authorities, ..Account::of(index) }
}

/// A certificate of the server's own, for which nobody vouches.
fn certificate(lab: &Lab) -> Result<Certificate> {
    let dir = lab.dir().join("server");
    Identity::open(&dir, None, None, &["server.lab.example".to_owned()], &[SERVER.into()])?;
    // The appliance has to show one of its own authority's (mutual TLS): that is there before the appliance.
    let state = lab.dir().join("state");
    Identity::open(&state, None, None, &[], &[])?;
    let authority = Some(state.join("tls/authority.pem"));
    Ok(Certificate { chain: dir.join("tls/own.pem"), key: dir.join("tls/own.key"), authority })
}

fn talk(case: &Case) -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    // With a certificate that is not trusted yet it is not ready, and that is what is looked at first.
    let until = if case.server.contains("tls") { "/healthz" } else { "/readyz" };
    let settings = Settings {
        until,
        servers: vec![case.server.clone()],
        upstream: "probe_seconds = 1\n".to_owned(),
        // What is looked at is the way by the server, as soon as it is believed.
        tables: "[survival]\nleave_after_seconds = 0\n".to_owned(),
        ..settings()
    };
    let _server = Kamailio::start_with(
        &lab,
        &lab.centre,
        "kamailio",
        SocketAddrV4::new(SERVER, PEER_SIP),
        Some(&certificate(&lab)?),
    )?;
    let office = Capture::start(&lab.office, network::OUTER, "office", lab.dir())?;
    let centre = Capture::start(&lab.centre, network::OUTER, "centre", lab.dir())?;
    let appliance = Appliance::start_with(&lab, &settings)?;
    let status = || ask::<StatusView>(&appliance, &lab, "status");
    if case.server.contains("tls") {
        let refused = interrupt::wait_until(LIMIT, "refusal of the certificate", || {
            Ok(status()?.servers.first().filter(|server| server.state == "down").cloned())
        })?;
        assert_eq!(refused.step.as_deref(), Some("tls"), "{refused:?}");
        let reason = refused.reason.unwrap_or_default();
        assert!(
            reason.contains("its certificate is not trusted: no trusted authority vouches for it"),
            "{reason}"
        );
        assert!(!status()?.ready);
        let met: Vec<CertificateView> = ask(&appliance, &lab, "certificates")?;
        assert_eq!((met.len(), met[0].server.as_str()), (1, "10.62.0.10"), "{met:#?}");
        assert_eq!(met[0].subject, "CN=server.lab.example, O=Branchline appliance");
        assert_eq!((met[0].version, met[0].signature_algorithm.as_str()), (3, "SHA-256 with RSA"));
        appliance.ask(&lab, &["certificates", "trust", &met[0].fingerprint[..16]])?;
    }
    interrupt::wait_until(LIMIT, "an answer of the server", || {
        Ok(status()?.servers.first().filter(|server| server.state == "up").map(|_| ()))
    })
    .with_context(|| format!("{:#?}", status()))?;

    let port = if case.phones == "tls" { APPLIANCE_TLS } else { APPLIANCE_SIP };
    let proxy = SocketAddrV4::new(APPLIANCE_OFFICE, port);
    let second = lab.own_host(1)?;
    let caller = Baresip::start(&lab, &lab.office, &account(&lab, case.phones, 0), proxy)?;
    let _called = Baresip::start(&lab, &second, &account(&lab, case.phones, 1), proxy)?;
    assert_eq!(status()?.registrations, 2);
    caller.call(&lab.office, USERS[1])?;
    let mut last = Vec::new();
    let heard = interrupt::wait_until(LIMIT, "sound in both directions of both legs", || {
        last = ask::<Vec<FlowView>>(&appliance, &lab, "flows")?;
        let rtp: Vec<&FlowView> = last.iter().filter(|flow| flow.kind == "rtp").collect();
        Ok((rtp.len() == 4 && rtp.iter().all(|flow| flow.expected > ENOUGH)).then_some(()))
    });
    assert!(heard.is_ok(), "{heard:?}\n{last:#?}\n{}", appliance.said());
    caller.hang_up(&lab.office)?;
    interrupt::wait_until(LIMIT, "end of the call", || {
        let status = status()?;
        Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
    })?;

    // On the wire: nothing of SIP by another transport, and all of it marked.
    let files = [office.file().to_owned(), centre.file().to_owned()];
    let (office, centre) = (office.finish()?, centre.finish()?);
    let to_server: Vec<u16> = vec![PEER_SIP, PEER_SIP + 1];
    for (packets, file, stream, ports, own) in [
        (office, &files[0], case.phones != "udp", vec![APPLIANCE_SIP, APPLIANCE_TLS], APPLIANCE_OFFICE),
        (centre, &files[1], !case.server.ends_with(":5060"), to_server, APPLIANCE_CENTRE),
    ] {
        let sip = |address: &SocketAddrV4| ports.contains(&address.port());
        let datagrams =
            packets.iter().filter(|packet| sip(&packet.source) || sip(&packet.destination)).count();
        let segments: Vec<_> =
            segments(file)?.into_iter().filter(|(from, to, _)| sip(from) || sip(to)).collect();
        assert_eq!(
            (datagrams > 0, !segments.is_empty()),
            (!stream, stream),
            "{datagrams} {}",
            segments.len()
        );
        let ours: Vec<u8> =
            segments.iter().filter(|(from, ..)| *from.ip() == own).map(|(.., dscp)| *dscp).collect();
        let unmarked = ours.iter().filter(|dscp| **dscp != 24).count();
        assert_eq!(unmarked, 0, "of {} segments of the appliance's", ours.len());
        if stream && own == APPLIANCE_CENTRE {
            assert!(segments.iter().all(|(from, to, _)| from.port() == case.port || to.port() == case.port));
        }
    }
    Ok(())
}

#[test]
fn phones_by_udp_talk_through_a_server_by_tls_once_its_certificate_is_trusted() -> Result<()> {
    talk(&Case { phones: "udp", server: format!("sip:{SERVER};transport=tls"), port: PEER_SIP + 1 })
}

#[test]
fn phones_by_tcp_talk_through_a_server_by_udp() -> Result<()> {
    talk(&Case { phones: "tcp", server: format!("{SERVER}:{PEER_SIP}"), port: PEER_SIP })
}

#[test]
fn phones_by_tls_talk_through_a_server_by_tcp() -> Result<()> {
    talk(&Case { phones: "tls", server: format!("sip:{SERVER}:{PEER_SIP};transport=tcp"), port: PEER_SIP })
}

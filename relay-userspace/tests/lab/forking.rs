//! A call that rings at two phones behind the server, both of which play something before one is answered: the caller
//! hears each from a port of its own, and speaks to each; the loser's ports are given back.

use std::net::{SocketAddr, SocketAddrV4};

use anyhow::{Context as _, Result};
use branchline::control::StatusView;
use xtask::lab::interrupt;
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE};

use crate::by_hand::{Place, Stage, body, heard, ports, rest, sdp};
use crate::site::{LIMIT, ask};

/// An RTP packet that says who sends it.
fn rtp(ssrc: u8, sequence: u8) -> Vec<u8> {
    [&[0x80, 0, 0, sequence, 0, 0, 0, 160, 0, 0, 0, ssrc][..], &[0xD5; 20]].concat()
}

fn inside(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(APPLIANCE_OFFICE, port))
}

fn outside(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(APPLIANCE_CENTRE, port))
}

fn forked(datapath: &str) -> Result<()> {
    let stage = Stage::start(datapath)?;
    let caller = stage.socket(Place::Office, 20_000)?;
    let rings = [(1, "first", 41_000), (2, "second", 42_000)];
    let media = |port| format!("m=audio {port} RTP/AVP 0\r\n");
    let invite = stage.invite(1, None, &sdp(Place::Office, &media(20_000)))?;
    let offered = outside(ports(body(&invite))[0]);
    let mut branches = Vec::new();
    for (ssrc, tag, port) in rings {
        let answer = stage.answer(&invite, "183 Session Progress", tag, &sdp(Place::Centre, &media(port)))?;
        let announced = inside(ports(body(&answer))[0]);
        branches.push((ssrc, stage.socket(Place::Centre, port)?, announced));
    }
    assert_ne!(branches[0].2, branches[1].2, "ports of their own towards the caller");

    // Early media of both, in turns, and what the caller says to each.
    for sequence in 0..50 {
        for (ssrc, ring, announced) in &branches {
            ring.send_to(&rtp(*ssrc, sequence), offered)?;
            assert_eq!(heard(&caller)?, (*announced, rtp(*ssrc, sequence)));
            caller.send_to(&rtp(9, sequence), announced)?;
            assert_eq!(heard(ring)?, (offered, rtp(9, sequence)));
        }
    }
    let flows = stage.flows()?;
    let shared: Vec<_> = flows.iter().filter(|flow| flow.local == offered.to_string()).collect();
    assert_eq!(shared.len(), 2, "one for each branch: {flows:#?}");
    for flow in shared {
        assert_eq!((flow.datapath.as_str(), flow.expected, flow.lost), ("userspace", 50, 0), "{flow:#?}");
        let reason = flow.reason.as_deref().unwrap_or_default();
        assert!(datapath == "userspace" || reason.contains("forked call"), "{flow:#?}");
    }

    let (_, tag, port) = rings[0];
    let answer = stage.answer(&invite, "200 OK", tag, &sdp(Place::Centre, &media(port)))?;
    assert_eq!(inside(ports(body(&answer))[0]), branches[0].2, "as the early answer said");
    stage.ack(1, &answer)?;
    let [(_, winner, announced), (_, loser, _)] = branches.as_slice() else { unreachable!() };
    let mut sequence = 50;
    interrupt::wait_until(LIMIT, "the winner in its datapath, the loser's ports given back", || {
        sequence = if sequence == u8::MAX { 0 } else { sequence + 1 };
        winner.send_to(&rtp(1, sequence), offered)?;
        assert_eq!(heard(&caller)?, (*announced, rtp(1, sequence)));
        loser.send_to(&rtp(2, sequence), offered)?;
        let status: StatusView = ask(&stage.appliance, &stage.lab, "status")?;
        let used: Vec<usize> = status.networks.iter().map(|network| network.ports_used).collect();
        let flows = stage.flows()?;
        let won = flows.iter().find(|flow| flow.local == offered.to_string()).context("no flow")?;
        Ok((used == [2, 2] && flows.len() == 4 && won.datapath == datapath).then_some(()))
    })
    .with_context(|| format!("{:#?}", stage.flows()))?;
    assert_eq!(rest(&caller)?, [], "the loser is heard no more");
    let flows = stage.flows()?;
    let won = flows.iter().find(|flow| flow.local == offered.to_string()).context("no flow")?;
    assert!(won.wrong_source > 0, "{won:#?}");
    let refused = loser.local_addr()?.to_string();
    assert!(won.refusals.iter().any(|refusal| refusal.source == refused), "{won:#?}");
    Ok(())
}

#[test]
fn early_media_of_each_branch_is_heard_at_its_own_port_and_the_winner_goes_to_the_kernel() -> Result<()> {
    forked("kernel")
}

#[test]
fn early_media_of_each_branch_is_heard_at_its_own_port_in_userspace() -> Result<()> {
    forked("userspace")
}

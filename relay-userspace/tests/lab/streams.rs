//! A call with every kind of stream: audio whose RTCP the phone multiplexes and the server does not, video with RTCP at
//! a port of its own, fax by UDPTL, and one that is refused; then fax in the place of the audio, and all of it back.

use std::collections::{HashMap, hash_map::Entry};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};

use anyhow::Result;
use xtask::lab::interrupt;
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE};

use crate::by_hand::{Place, Stage, body, heard, ports, rest, sdp};
use crate::site::LIMIT;

/// A packet of each kind; the last byte of RTP and UDPTL is free.
const RTP: &[u8] = &[0x80, 0, 0, 1, 0, 0, 0, 160, 0, 0, 0, 9, 0xD5, 0xD5];
const RTCP: &[u8] = &[0x80, 201, 0, 1, 0, 0, 0, 9];
/// UDPTL (ITU-T T.38): a sequence number and an indicator. Its beginning is none of RTP's, STUN's or DTLS's business.
const UDPTL: &[u8] = &[0, 0, 1, 6, 0, 0];

/// One way: who sends from which port to which of the appliance's, what, and who hears it on which port, from which.
struct Way {
    description: &'static str,
    from: (Place, u16),
    to: u16,
    packet: &'static [u8],
    heard: (Place, u16),
    leaves: u16,
}

struct Sockets(HashMap<(&'static str, u16), UdpSocket>);

impl Sockets {
    fn at(&mut self, stage: &Stage, (place, port): (Place, u16)) -> Result<&UdpSocket> {
        let name = if place == Place::Office { "office" } else { "centre" };
        match self.0.entry((name, port)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(stage.socket(place, port)?)),
        }
    }
}

fn appliance(place: Place, port: u16) -> SocketAddr {
    let address = if place == Place::Office { APPLIANCE_OFFICE } else { APPLIANCE_CENTRE };
    SocketAddr::V4(SocketAddrV4::new(address, port))
}

/// Every way works from its first packet on, and comes to be the datapath's that is wanted.
fn check(stage: &Stage, sockets: &mut Sockets, ways: &[Way], datapath: &str) -> Result<()> {
    interrupt::wait_until(LIMIT, "all flows in the wanted datapath", || {
        for way in ways {
            // It exists before anybody sends to it.
            sockets.at(stage, way.heard)?;
            sockets.at(stage, way.from)?.send_to(way.packet, appliance(way.from.0, way.to))?;
            let got = heard(sockets.at(stage, way.heard)?)?;
            assert_eq!(got, (appliance(way.heard.0, way.leaves), way.packet.to_vec()), "{}", way.description);
        }
        let flows = stage.flows()?;
        Ok(flows.iter().all(|flow| flow.datapath == datapath).then_some(()))
    })?;
    for socket in sockets.0.values() {
        assert_eq!(rest(socket)?, [], "nothing came twice or astray");
    }
    let flows = stage.flows()?;
    for flow in &flows {
        let packets = flow.kernel_packets + flow.userspace_packets;
        assert!(packets > 0 && flow.wrong_source == 0 && flow.refused == 0, "{flow:#?}");
        // What a port counted while it carried audio stays counted when it carries fax.
        let has_rtcp = flow.kind == "rtcp" || flow.rtcp_destination.is_some();
        assert!(flow.kind == "opaque" || (flow.rtcp_packets > 0) == has_rtcp, "{flow:#?}");
    }
    Ok(())
}

/// Audio, multiplexed by the phone alone; the server's RTCP is nowhere near its RTP.
fn audio(inside: u16, outside: u16) -> Vec<Way> {
    let (phone, rtp, rtcp) = ((Place::Office, 20_000), (Place::Centre, 40_000), (Place::Centre, 40_009));
    let way =
        |description, from, to, packet, heard, leaves| Way { description, from, to, packet, heard, leaves };
    vec![
        way("audio from the phone", phone, inside, RTP, rtp, outside),
        way("RTCP of the phone, multiplexed", phone, inside, RTCP, rtcp, outside + 1),
        way("audio from the server", rtp, outside, RTP, phone, inside),
        way("RTCP of the server, at its own port", rtcp, outside + 1, RTCP, phone, inside),
    ]
}

fn video(inside: u16, outside: u16) -> Vec<Way> {
    let (near, near_rtcp) = ((Place::Office, 20_010), (Place::Office, 20_019));
    let (far, far_rtcp) = ((Place::Centre, 40_010), (Place::Centre, 40_011));
    let way =
        |description, from, to, packet, heard, leaves| Way { description, from, to, packet, heard, leaves };
    vec![
        way("video from the phone", near, inside, RTP, far, outside),
        way("its RTCP", near_rtcp, inside + 1, RTCP, far_rtcp, outside + 1),
        way("video from the server", far, outside, RTP, near, inside),
        way("RTCP for it", far_rtcp, outside + 1, RTCP, near_rtcp, inside + 1),
    ]
}

fn fax(near: u16, far: u16, inside: u16, outside: u16) -> Vec<Way> {
    let (near, far) = ((Place::Office, near), (Place::Centre, far));
    let way =
        |description, from, to, heard, leaves| Way { description, from, to, packet: UDPTL, heard, leaves };
    vec![
        way("fax from the phone", near, inside, far, outside),
        way("fax from the server", far, outside, near, inside),
    ]
}

const OFFERED_VIDEO: &str = "m=video 20010 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=rtcp:20019\r\n";
const ANSWERED_VIDEO: &str = "m=video 40010 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n";
const NO_VIDEO: &str = "m=video 0 RTP/AVP 96\r\n";

fn streams(datapath: &str) -> Result<()> {
    let stage = Stage::start(datapath)?;
    let mut sockets = Sockets(HashMap::new());
    let negotiate = |number, dialog: Option<&_>, offered: &str, answered: &str| -> Result<_> {
        let invite = stage.invite(number, dialog, &sdp(Place::Office, offered))?;
        let answer = stage.answer(&invite, "200 OK", "server", &sdp(Place::Centre, answered))?;
        let dialog = stage.ack(number, &answer)?;
        Ok((dialog, ports(body(&answer)), ports(body(&invite))))
    };
    let refused = "m=application 0 UDP/BFCP *\r\n";
    let (dialog, inside, outside) = negotiate(
        1,
        None,
        &format!(
            "m=audio 20000 RTP/AVP 0\r\na=rtcp-mux\r\n{OFFERED_VIDEO}m=image 20020 udptl t38\r\n\
             m=application 20030 UDP/BFCP *\r\n"
        ),
        &format!(
            "m=audio 40000 RTP/AVP 0\r\na=rtcp:40009\r\n{ANSWERED_VIDEO}m=image 40020 udptl t38\r\n{refused}"
        ),
    )?;
    assert_eq!((inside.len(), inside[3], outside.len()), (4, 0, 4));
    let mut ways = audio(inside[0], outside[0]);
    ways.extend(video(inside[1], outside[1]));
    ways.extend(fax(20_020, 40_020, inside[2], outside[2]));
    // The refused stream keeps its ports for another branch, and nobody sends there.
    let idle = |flows: Vec<branchline::control::FlowView>| {
        flows.into_iter().filter(|flow| flow.datapath == "learning").count()
    };
    for _ in 0..2 {
        for way in &ways {
            sockets.at(&stage, way.heard)?;
            sockets.at(&stage, way.from)?.send_to(way.packet, appliance(way.from.0, way.to))?;
            let got = heard(sockets.at(&stage, way.heard)?)?;
            assert_eq!(got, (appliance(way.heard.0, way.leaves), way.packet.to_vec()), "{}", way.description);
        }
    }
    assert_eq!(idle(stage.flows()?), 2, "those of the refused stream");

    // Fax in the place of the audio; all else ends.
    let ended = format!("{NO_VIDEO}m=image 0 udptl t38\r\n{refused}");
    let (dialog, inside, outside) = negotiate(
        2,
        Some(&dialog),
        &format!("m=image 20000 udptl t38\r\n{ended}"),
        &format!("m=image 40000 udptl t38\r\n{ended}"),
    )?;
    assert_eq!((&inside[1..], &outside[1..]), (&[0, 0, 0][..], &[0, 0, 0][..]));
    check(&stage, &mut sockets, &fax(20_000, 40_000, inside[0], outside[0]), datapath)?;
    let kinds: Vec<String> = stage.flows()?.into_iter().map(|flow| flow.kind).collect();
    assert_eq!(kinds, ["opaque"; 2]);

    // Back to audio, with video again.
    let (_, inside, outside) = negotiate(
        3,
        Some(&dialog),
        &format!("m=audio 20000 RTP/AVP 0\r\na=rtcp-mux\r\n{OFFERED_VIDEO}m=image 0 udptl t38\r\n{refused}"),
        &format!(
            "m=audio 40000 RTP/AVP 0\r\na=rtcp:40009\r\n{ANSWERED_VIDEO}m=image 0 udptl t38\r\n{refused}"
        ),
    )?;
    let mut ways = audio(inside[0], outside[0]);
    ways.extend(video(inside[1], outside[1]));
    check(&stage, &mut sockets, &ways, datapath)?;
    assert_eq!(stage.flows()?.len(), 3 + 4);
    Ok(())
}

#[test]
fn audio_video_and_fax_of_one_call_pass_and_rtcp_is_split_and_joined_in_the_kernel() -> Result<()> {
    streams("kernel")
}

#[test]
fn audio_video_and_fax_of_one_call_pass_and_rtcp_is_split_and_joined_in_userspace() -> Result<()> {
    streams("userspace")
}

//! What the captures of both networks say about the media that crossed the appliance.
//!
//! A packet is recognised by addresses and ports, and followed from one wire to the other by its source and
//! sequence number. Both captures have the kernel's clock, so the difference of their times is the latency.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;

use crate::lab::Packet;
use crate::lab::capture::Checksum;
use crate::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE};
use crate::lab::rtp::CLOCK_RATE;
use crate::lab::traffic::APPLIANCE_SIP;

/// The appliance's default range of media ports.
const MEDIA_PORTS: std::ops::RangeInclusive<u16> = 16_384..=32_767;

/// From where to where media flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the phones to the servers.
    ToServers,
    /// From the servers to the phones.
    ToPhones,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ToServers, Self::ToPhones];

    /// For a table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ToServers => "phones to servers",
            Self::ToPhones => "servers to phones",
        }
    }
}

/// How many packets were seen with each DSCP.
pub type Marks = BTreeMap<u8, u64>;

/// Times of a set of packets, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Packets measured.
    pub packets: usize,
    /// Half of them were faster.
    pub median_ns: u64,
    /// 99 of 100 were faster.
    pub p99_ns: u64,
    /// The slowest.
    pub max_ns: u64,
}

impl Latency {
    fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
        Self {
            packets: times.len(),
            median_ns: at(50).copied().unwrap_or(0),
            p99_ns: at(99).copied().unwrap_or(0),
            max_ns: times.last().copied().unwrap_or(0),
        }
    }
}

/// One direction as the wires saw it.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    /// RTP packets sent to the appliance.
    pub rtp_sent: u64,
    /// Those of them that left it on the other side.
    pub rtp_arrived: u64,
    /// RTCP packets sent to the appliance.
    pub rtcp_sent: u64,
    /// Those of them that left it on the other side.
    pub rtcp_arrived: u64,
    /// Media packets that left the appliance more than once, or were never sent to it.
    pub unexpected: u64,
    /// DSCP of RTP, of RTCP, and of SIP as they left the appliance.
    pub rtp_marks: Marks,
    /// See `rtp_marks`.
    pub rtcp_marks: Marks,
    /// See `rtp_marks`.
    pub sip_marks: Marks,
    /// Packets from the appliance with a wrong IPv4 or UDP checksum.
    pub bad_checksums: u64,
    /// Largest jitter of a stream as it was sent, and as it left the appliance.
    pub jitter_in_ns: u64,
    /// See `jitter_in_ns`.
    pub jitter_out_ns: u64,
    /// Latency of the streams that the kernel may forward.
    pub latency: Latency,
    /// Latency of the streams that were forced through userspace.
    pub forced_latency: Latency,
}

impl Wire {
    /// RTP packets that did not arrive.
    #[must_use]
    pub fn rtp_lost(&self) -> u64 {
        self.rtp_sent.saturating_sub(self.rtp_arrived)
    }

    /// RTCP packets that did not arrive.
    #[must_use]
    pub fn rtcp_lost(&self) -> u64 {
        self.rtcp_sent.saturating_sub(self.rtcp_arrived)
    }
}

/// Measures one direction. `forced` are the sources of the streams that were forced through userspace.
#[must_use]
pub fn measure(direction: Direction, office: &[Packet], centre: &[Packet], forced: &HashSet<u32>) -> Wire {
    let (near, near_appliance, far, far_appliance) = match direction {
        Direction::ToServers => (office, APPLIANCE_OFFICE, centre, APPLIANCE_CENTRE),
        Direction::ToPhones => (centre, APPLIANCE_CENTRE, office, APPLIANCE_OFFICE),
    };
    let mut wire = Wire::default();
    let mut rtp = HashMap::new();
    let mut rtcp = HashSet::new();
    for packet in near.iter().filter(|packet| {
        *packet.destination.ip() == near_appliance && MEDIA_PORTS.contains(&packet.destination.port())
    }) {
        if let Some(header) = packet.rtp() {
            wire.rtp_sent += 1;
            rtp.insert((header.ssrc, header.sequence), packet.at_ns);
        } else if packet.is_rtcp() {
            wire.rtcp_sent += 1;
            rtcp.insert(packet.payload.as_slice());
        }
    }
    let mut times = Vec::new();
    let mut forced_times = Vec::new();
    for packet in far.iter().filter(|packet| *packet.source.ip() == far_appliance) {
        if packet.ip_checksum == Checksum::Bad || packet.udp_checksum == Checksum::Bad {
            wire.bad_checksums += 1;
        }
        if packet.source.port() == APPLIANCE_SIP {
            *wire.sip_marks.entry(packet.dscp).or_default() += 1;
        } else if !MEDIA_PORTS.contains(&packet.source.port()) {
            continue;
        } else if let Some(header) = packet.rtp() {
            *wire.rtp_marks.entry(packet.dscp).or_default() += 1;
            match rtp.remove(&(header.ssrc, header.sequence)) {
                Some(sent_ns) => {
                    wire.rtp_arrived += 1;
                    let times = if forced.contains(&header.ssrc) { &mut forced_times } else { &mut times };
                    times.push(packet.at_ns.saturating_sub(sent_ns));
                }
                None => wire.unexpected += 1,
            }
        } else if packet.is_rtcp() {
            *wire.rtcp_marks.entry(packet.dscp).or_default() += 1;
            if rtcp.remove(packet.payload.as_slice()) {
                wire.rtcp_arrived += 1;
            } else {
                wire.unexpected += 1;
            }
        }
    }
    wire.latency = Latency::of(times);
    wire.forced_latency = Latency::of(forced_times);
    wire.jitter_in_ns = largest_jitter(near, |packet| *packet.destination.ip() == near_appliance);
    wire.jitter_out_ns = largest_jitter(far, |packet| *packet.source.ip() == far_appliance);
    wire
}

/// The largest jitter (RFC 3550 section 6.4.1) that any of the streams ended with.
fn largest_jitter(packets: &[Packet], ours: impl Fn(&Packet) -> bool) -> u64 {
    let mut streams: HashMap<(u32, Ipv4Addr), (i128, f64)> = HashMap::new();
    for packet in packets.iter().filter(|packet| ours(packet)) {
        let Some(header) = packet.rtp() else { continue };
        let media_ns = i128::from(header.timestamp) * 1_000_000_000 / i128::from(CLOCK_RATE);
        let transit = i128::from(packet.at_ns) - media_ns;
        streams
            .entry((header.ssrc, *packet.destination.ip()))
            .and_modify(|(last, jitter)| {
                *jitter += ((transit - *last).unsigned_abs() as f64 - *jitter) / 16.0;
                *last = transit;
            })
            .or_insert((transit, 0.0));
    }
    streams.values().map(|(_, jitter)| *jitter as u64).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::rtp::Sender;

    fn packet(source: &str, destination: &str, at_ns: u64, dscp: u8, payload: &[u8]) -> Packet {
        Packet {
            at_ns,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            dscp,
            ttl: 63,
            ip_checksum: Checksum::Good,
            udp_checksum: Checksum::Good,
            payload: payload[..payload.len().min(48)].to_vec(),
        }
    }

    #[test]
    fn packets_are_followed_from_one_wire_to_the_other() {
        let mut sender = Sender::new(7, 65_535);
        let (mut office, mut centre) = (Vec::new(), Vec::new());
        for number in 0..10_u64 {
            let at = number * 20_000_000;
            let rtp = sender.next(at);
            office.push(packet("10.61.0.11:20000", "10.61.0.1:16384", at, 0, &rtp));
            if number != 4 {
                centre.push(packet("10.62.0.1:16500", "10.62.0.10:40000", at + 30_000, 46, &rtp));
            }
        }
        centre.push(packet("10.62.0.1:8060", "10.62.0.10:5060", 1, 24, b"INVITE sip:x SIP/2.0\r\n"));
        let wire = measure(Direction::ToServers, &office, &centre, &HashSet::new());
        assert_eq!((wire.rtp_sent, wire.rtp_arrived, wire.rtp_lost(), wire.unexpected), (10, 9, 1, 0));
        assert_eq!(wire.rtp_marks, Marks::from([(46, 9)]));
        assert_eq!(wire.sip_marks, Marks::from([(24, 1)]));
        let expected = Latency { packets: 9, median_ns: 30_000, p99_ns: 30_000, max_ns: 30_000 };
        assert_eq!(wire.latency, expected);
        assert_eq!(wire.jitter_out_ns, 0);
        let back = measure(Direction::ToPhones, &office, &centre, &HashSet::new());
        assert_eq!((back.rtp_sent, back.rtp_arrived), (0, 0));
    }

    #[test]
    fn a_packet_that_nobody_sent_or_that_comes_twice_is_unexpected() {
        let rtp = Sender::new(7, 1).next(0);
        let office = [packet("10.61.0.11:20000", "10.61.0.1:16384", 0, 0, &rtp)];
        let out = packet("10.62.0.1:16500", "10.62.0.10:40000", 5, 46, &rtp);
        let wire = measure(Direction::ToServers, &office, &[out.clone(), out], &HashSet::from([7]));
        assert_eq!((wire.rtp_arrived, wire.unexpected, wire.forced_latency.packets), (1, 1, 1));
    }
}

//! Packets in rows: description, frame in, what is set up, verdict, whole frame out.
//!
//! The same rows run natively through the packet core and, in `relay-userspace`, through the loaded
//! program by `BPF_PROG_TEST_RUN`. What is expected is built by etherparse, which computes every checksum
//! anew and shares no code with the core.

use etherparse::{
    EtherType, IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, SingleVlanHeader, UdpHeader,
    VlanId,
};
use relay_ebpf::{
    Flow, FlowKind, FlowState, NextHop, Reason, headers::Ipv6Address, stats::clock_ticks, tables::Link,
};

pub const PHONE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
pub const PHONE: [u8; 4] = [10, 61, 0, 11];
pub const INSIDE: [u8; 4] = [10, 61, 0, 1];
pub const OUTSIDE: [u8; 4] = [10, 62, 0, 1];
pub const SERVER: [u8; 4] = [10, 62, 0, 10];
pub const PHONE_IPV6: [u8; 16] = [0xFD, 0x61, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11];
pub const INSIDE_IPV6: [u8; 16] = [0xFD, 0x61, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const OUTSIDE_IPV6: [u8; 16] = [0xFD, 0x62, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const SERVER_IPV6: [u8; 16] = [0xFD, 0x62, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
pub const PHONE_PORT: u16 = 4000;
pub const INSIDE_PORT: u16 = 16_384;
pub const OUTSIDE_PORT: u16 = 16_400;
pub const SERVER_PORT: u16 = 30_000;
/// DSCP 46 in its place.
pub const EF: u8 = 46 << 2;
/// The MTU of the way out.
pub const MTU: u16 = 1500;

/// What becomes of the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Forwarded as these bytes.
    Forwarded(Vec<u8>),
    /// Not forwarded, unchanged, counted under this reason.
    Refused(Reason),
}

/// One row.
pub struct Row {
    pub description: &'static str,
    pub frame: Vec<u8>,
    /// The flow behind the inside port.
    pub flow: Flow,
    /// The record by which multiplexed RTCP leaves, if the sender multiplexes it.
    pub apart: Option<Flow>,
    pub next_hop: NextHop,
    pub verdict: Verdict,
}

/// The flow from the phone to the server.
pub fn flow() -> Flow {
    Flow {
        generation: 1,
        state: FlowState::Forwarding as u8,
        kind: FlowKind::Rtp as u8,
        type_of_service: EF,
        source_address: PHONE,
        source_port: PHONE_PORT.to_be_bytes(),
        out_source_address: OUTSIDE,
        out_source_port: OUTSIDE_PORT.to_be_bytes(),
        out_destination_address: SERVER,
        out_destination_port: SERVER_PORT.to_be_bytes(),
        clock_ticks: clock_ticks(8000),
        ..Flow::default()
    }
    .with_deltas(INSIDE, INSIDE_PORT.to_be_bytes())
}

/// Which families a flow's packets come and leave as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    V4ToV4,
    V6ToV6,
    V4ToV6,
    V6ToV4,
}

impl Families {
    pub fn comes_as_ipv6(self) -> bool {
        matches!(self, Self::V6ToV6 | Self::V6ToV4)
    }

    pub fn leaves_as_ipv6(self) -> bool {
        matches!(self, Self::V6ToV6 | Self::V4ToV6)
    }

    /// The flow from the phone to the server.
    pub fn flow(self) -> Flow {
        let both = Flow {
            source_ipv6: Ipv6Address::new(PHONE_IPV6),
            out_source_ipv6: Ipv6Address::new(OUTSIDE_IPV6),
            out_destination_ipv6: Ipv6Address::new(SERVER_IPV6),
            flags: if self.leaves_as_ipv6() { Flow::LEAVES_AS_IPV6 } else { 0 },
            ..flow()
        };
        if self.comes_as_ipv6() {
            both.with_deltas_ipv6(Ipv6Address::new(INSIDE_IPV6), INSIDE_PORT.to_be_bytes())
        } else {
            both.with_deltas(INSIDE, INSIDE_PORT.to_be_bytes())
        }
    }

    /// The ordinary frame.
    pub fn sent(self) -> Sent {
        sent().with(|s| s.ipv6 = self.comes_as_ipv6().then(ipv6))
    }
}

/// The ordinary IPv6 header: traffic class 0, and a flow label.
pub fn ipv6() -> Ipv6Header {
    Ipv6Header {
        flow_label: Ipv6FlowLabel::try_new(0xA_BCDE).unwrap(),
        next_header: IpNumber::UDP,
        hop_limit: 64,
        source: PHONE_IPV6,
        destination: INSIDE_IPV6,
        ..Ipv6Header::default()
    }
}

/// The way to the server.
pub fn next_hop() -> NextHop {
    NextHop {
        destination: Link::new(SERVER_MAC, 1),
        source: Link::new(OUR_MAC, MTU),
        interface: 1,
        index: 1,
        ..NextHop::default()
    }
}

/// A frame from the phone, described by what differs from the ordinary one.
#[derive(Clone)]
pub struct Sent {
    pub vlan: Option<SingleVlanHeader>,
    pub ip: Ipv4Header,
    /// In place of `ip`.
    pub ipv6: Option<Ipv6Header>,
    pub udp: UdpHeader,
    pub payload: Vec<u8>,
    pub zero_checksum: bool,
}

/// The ordinary frame: 20 ms of G.711 from the phone, DSCP 0, TTL 64.
pub fn sent() -> Sent {
    let mut ip = Ipv4Header::new(0, 64, IpNumber::UDP, PHONE, INSIDE).unwrap();
    ip.identification = 0x1234;
    ip.dont_fragment = true;
    Sent {
        vlan: None,
        ip,
        ipv6: None,
        udp: UdpHeader { source_port: PHONE_PORT, destination_port: INSIDE_PORT, length: 0, checksum: 0 },
        payload: rtp(172),
        zero_checksum: false,
    }
}

/// An RTP packet of `length` bytes.
pub fn rtp(length: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 0x00, 0x12, 0x34, 0, 0, 1, 0x40, 0xDE, 0xAD, 0xBE, 0xEF];
    packet.resize(length.max(12), 0xD5);
    packet.truncate(length);
    packet
}

impl Sent {
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The frame with all lengths and checksums computed, as it arrives.
    pub fn frame(&self) -> Vec<u8> {
        self.build(PHONE_MAC, OUR_MAC)
    }

    /// The frame as the flow sends it on, without a tag.
    pub fn forwarded(&self) -> Vec<u8> {
        self.forwarded_as(Families::V4ToV4, None)
    }

    /// The frame as a flow between families sends it on.
    pub fn forwarded_as(&self, families: Families, tag: Option<SingleVlanHeader>) -> Vec<u8> {
        self.forwarded_to(families, tag, 46, [OUTSIDE_PORT, SERVER_PORT])
    }

    /// The same with this DSCP, from and to these ports.
    pub fn forwarded_to(
        &self,
        families: Families,
        tag: Option<SingleVlanHeader>,
        dscp: u8,
        ports: [u16; 2],
    ) -> Vec<u8> {
        let mut out = self.clone();
        out.vlan = tag;
        out.ip = match &self.ipv6 {
            None => self.ip.clone(),
            Some(ip) => Ipv4Header {
                ecn: (ip.traffic_class & 3).try_into().unwrap(),
                dont_fragment: true,
                ..Ipv4Header::new(0, ip.hop_limit, IpNumber::UDP, PHONE, INSIDE).unwrap()
            },
        };
        out.ip.source = OUTSIDE;
        out.ip.destination = SERVER;
        out.ip.time_to_live -= 1;
        out.ip.dscp = dscp.try_into().unwrap();
        out.ipv6 = families.leaves_as_ipv6().then(|| Ipv6Header {
            traffic_class: dscp << 2 | out.ip.ecn.value(),
            flow_label: self.ipv6.as_ref().map(|ip| ip.flow_label).unwrap_or_default(),
            hop_limit: out.ip.time_to_live,
            source: OUTSIDE_IPV6,
            destination: SERVER_IPV6,
            ..ipv6()
        });
        [out.udp.source_port, out.udp.destination_port] = ports;
        out.build(OUR_MAC, SERVER_MAC)
    }

    fn build(&self, source: [u8; 6], destination: [u8; 6]) -> Vec<u8> {
        let mut udp = self.udp.clone();
        udp.length = (8 + self.payload.len()) as u16;
        let (ethertype, ip, checksum) = match &self.ipv6 {
            None => {
                let mut ip = self.ip.clone();
                ip.set_payload_len(usize::from(udp.length)).unwrap();
                ip.header_checksum = ip.calc_header_checksum();
                let checksum = udp.calc_checksum_ipv4(&ip, &self.payload).unwrap();
                ([0x08, 0x00], ip.to_bytes().to_vec(), checksum)
            }
            Some(ip) => {
                let ip = Ipv6Header { payload_length: udp.length, ..ip.clone() };
                let checksum = udp.calc_checksum_ipv6(&ip, &self.payload).unwrap();
                ([0x86, 0xDD], ip.to_bytes().to_vec(), checksum)
            }
        };
        udp.checksum = if self.zero_checksum { 0 } else { checksum };
        let mut frame = Vec::new();
        frame.extend(destination);
        frame.extend(source);
        if let Some(vlan) = &self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(&vlan.to_bytes()[..2]);
        }
        frame.extend(ethertype);
        frame.extend(ip);
        frame.extend(udp.to_bytes());
        frame.extend(&self.payload);
        frame
    }
}

pub fn tag(id: u16) -> SingleVlanHeader {
    SingleVlanHeader {
        pcp: 5.try_into().unwrap(),
        drop_eligible_indicator: false,
        vlan_id: VlanId::try_new(id).unwrap(),
        ether_type: EtherType::IPV4,
    }
}

/// Every row.
pub fn rows() -> Vec<Row> {
    [ipv4_rows(), family_rows(), tag_rows(), rtcp_rows()].into_iter().flatten().collect()
}

/// Where RTCP leaves from and goes to where the server does not multiplex.
pub const OUTSIDE_RTCP_PORT: u16 = 16_401;
pub const SERVER_RTCP_PORT: u16 = 30_009;

/// Packets of a sender that multiplexes RTCP with RTP: RTCP leaves by a record of its own.
fn rtcp_rows() -> Vec<Row> {
    let rtcp = vec![0x80, 201, 0, 1, 1, 2, 3, 4];
    let report = |families: Families| families.sent().with(|s| s.payload = rtcp.clone());
    // CS3 instead of EF, and other ports.
    let leaves = |families: Families, ports: [u16; 2]| {
        let flow = Flow {
            type_of_service: 24 << 2,
            out_source_port: ports[0].to_be_bytes(),
            out_destination_port: ports[1].to_be_bytes(),
            ..families.flow()
        };
        if families.comes_as_ipv6() {
            flow.with_deltas_ipv6(Ipv6Address::new(INSIDE_IPV6), INSIDE_PORT.to_be_bytes())
        } else {
            flow.with_deltas(INSIDE, INSIDE_PORT.to_be_bytes())
        }
    };
    let split = [OUTSIDE_RTCP_PORT, SERVER_RTCP_PORT];
    let row = |description, families: Families, ports: [u16; 2]| Row {
        description,
        frame: report(families).frame(),
        flow: families.flow(),
        apart: Some(leaves(families, ports)),
        next_hop: next_hop(),
        verdict: Verdict::Forwarded(report(families).forwarded_to(families, None, 24, ports)),
    };
    let v4 = Families::V4ToV4;
    let refused = |description, apart: Flow, reason| Row {
        apart: Some(apart),
        verdict: Verdict::Refused(reason),
        ..row(description, v4, split)
    };
    vec![
        row("RTCP, multiplexed on both sides, has its own mark", v4, [OUTSIDE_PORT, SERVER_PORT]),
        row("RTCP, multiplexed by the sender alone, leaves by the RTCP port", v4, split),
        row("IPv6, multiplexed RTCP leaves by the RTCP port", Families::V6ToV6, split),
        row("IPv4 to IPv6, multiplexed RTCP leaves by the RTCP port", Families::V4ToV6, split),
        row("IPv6 to IPv4, multiplexed RTCP leaves by the RTCP port", Families::V6ToV4, split),
        Row {
            description: "RTP of a sender that multiplexes leaves by the RTP port",
            frame: sent().frame(),
            verdict: Verdict::Forwarded(sent().forwarded()),
            ..row("", v4, split)
        },
        Row {
            description: "RTP with payload type 63, the last before RTCP's, with marker",
            frame: sent().with(|s| s.payload[1] = 0x80 | 63).frame(),
            verdict: Verdict::Forwarded(sent().with(|s| s.payload[1] = 0x80 | 63).forwarded()),
            ..row("", v4, split)
        },
        Row {
            description: "RTP with payload type 96, the first after RTCP's, with marker",
            frame: sent().with(|s| s.payload[1] = 0x80 | 96).frame(),
            verdict: Verdict::Forwarded(sent().with(|s| s.payload[1] = 0x80 | 96).forwarded()),
            ..row("", v4, split)
        },
        refused(
            "RTCP where the other party wants none",
            Flow { state: FlowState::Blocked as u8, ..leaves(v4, split) },
            Reason::Blocked,
        ),
        refused(
            "RTCP whose record was given to another flow",
            Flow { generation: 2, ..leaves(v4, split) },
            Reason::StaleSlot,
        ),
    ]
}

/// Packets from and to IPv6.
fn family_rows() -> Vec<Row> {
    let forwarded = |description, families: Families, sent: Sent| Row {
        description,
        frame: sent.frame(),
        flow: families.flow(),
        apart: None,
        next_hop: next_hop(),
        verdict: Verdict::Forwarded(sent.forwarded_as(families, None)),
    };
    let refused = |description, families: Families, frame: Vec<u8>, reason| Row {
        description,
        frame,
        flow: families.flow(),
        apart: None,
        next_hop: next_hop(),
        verdict: Verdict::Refused(reason),
    };
    let v6 = Families::V6ToV6;
    let changed = |offset: usize, value: &[u8]| {
        let mut frame = v6.sent().frame();
        frame[offset..offset + value.len()].copy_from_slice(value);
        frame
    };
    let with_ip = |change: fn(&mut Ipv6Header)| v6.sent().with(|s| change(s.ipv6.as_mut().unwrap()));
    let long = |families: Families, payload: usize| families.sent().with(|s| s.payload = rtp(payload));
    vec![
        forwarded("IPv6", v6, v6.sent()),
        forwarded("IPv4 to IPv6", Families::V4ToV6, Families::V4ToV6.sent()),
        forwarded("IPv6 to IPv4", Families::V6ToV4, Families::V6ToV4.sent()),
        forwarded("IPv6, DSCP is replaced and ECN kept", v6, with_ip(|ip| ip.traffic_class = 0x2B)),
        forwarded(
            "IPv4 to IPv6, ECN is kept",
            Families::V4ToV6,
            Families::V4ToV6.sent().with(|s| s.ip.ecn = 2.try_into().unwrap()),
        ),
        forwarded(
            "IPv6 to IPv4, ECN is kept",
            Families::V6ToV4,
            Families::V6ToV4.sent().with(|s| s.ipv6.as_mut().unwrap().traffic_class = 0xFF),
        ),
        forwarded("IPv6 of odd length", v6, long(v6, 13)),
        forwarded("IPv4 to IPv6 of odd length", Families::V4ToV6, long(Families::V4ToV6, 13)),
        forwarded("IPv6 to IPv4 of odd length", Families::V6ToV4, long(Families::V6ToV4, 13)),
        forwarded("IPv4 to IPv6, as long as the MTU", Families::V4ToV6, long(Families::V4ToV6, 1452)),
        refused(
            "IPv4 to IPv6, longer than the MTU",
            Families::V4ToV6,
            long(Families::V4ToV6, 1453).frame(),
            Reason::ExceedsMtu,
        ),
        forwarded("IPv6 to IPv4, as long as the MTU", Families::V6ToV4, long(Families::V6ToV4, 1472)),
        refused("IPv6, longer than the MTU", v6, long(v6, 1453).frame(), Reason::ExceedsMtu),
        refused(
            "IPv4 without a UDP checksum to IPv6",
            Families::V4ToV6,
            Families::V4ToV6.sent().with(|s| s.zero_checksum = true).frame(),
            Reason::NoChecksum,
        ),
        refused(
            "IPv6 without a UDP checksum",
            v6,
            v6.sent().with(|s| s.zero_checksum = true).frame(),
            Reason::NoChecksum,
        ),
        refused("IPv6, a hop limit of 1", v6, with_ip(|ip| ip.hop_limit = 1).frame(), Reason::TtlExpired),
        refused("IPv6, TCP", v6, changed(20, &[6]), Reason::NotUdp),
        refused("ICMPv6", v6, changed(20, &[58]), Reason::NotUdp),
        refused("IPv6, hop-by-hop options", v6, changed(20, &[0]), Reason::IpOptions),
        refused("IPv6, a routing header", v6, changed(20, &[43]), Reason::IpOptions),
        refused("IPv6, destination options", v6, changed(20, &[60]), Reason::IpOptions),
        refused("IPv6, a fragment", v6, changed(20, &[44]), Reason::Fragment),
        refused("IPv6 for another address", v6, changed(53, &[9]), Reason::NoFlow),
        refused("IPv6, neighbour discovery", v6, changed(38, &[0xFF, 2]), Reason::NoFlow),
        refused("IPv6 from another address", v6, changed(37, &[9]), Reason::WrongSource),
        refused("IPv6 from an address whose first half differs", v6, changed(23, &[9]), Reason::WrongSource),
        refused("IPv6 from another port", v6, changed(55, &[9]), Reason::WrongSource),
        refused("IPv6, a UDP length that exceeds the packet's", v6, changed(58, &[0xFF]), Reason::BadLength),
        refused("IPv6, a jumbogram", v6, changed(18, &[0, 0]), Reason::BadLength),
        refused("IPv6, cut inside its header", v6, v6.sent().frame()[..50].to_vec(), Reason::Truncated),
        refused("IPv6, cut inside the UDP header", v6, v6.sent().frame()[..60].to_vec(), Reason::Truncated),
        refused("IPv6, cut inside the payload", v6, v6.sent().frame()[..100].to_vec(), Reason::Truncated),
        refused("IPv6, not RTP", v6, changed(62, &[0x40]), Reason::NotRtp),
    ]
}

/// Packets that come and leave with an 802.1Q tag, or without.
fn tag_rows() -> Vec<Row> {
    let row = |description, families: Families, came: Option<u16>, leaves: Option<u16>| {
        let sent = families.sent().with(|s| s.vlan = came.map(tag));
        let leaves = leaves.map(tag);
        let control = leaves.as_ref().map_or([0; 2], |tag| [tag.to_bytes()[0], tag.to_bytes()[1]]);
        Row {
            description,
            frame: sent.frame(),
            flow: families.flow(),
            apart: None,
            next_hop: NextHop {
                tag: control,
                flags: u8::from(leaves.is_some()) * NextHop::TAGGED,
                ..next_hop()
            },
            verdict: Verdict::Forwarded(sent.forwarded_as(families, leaves)),
        }
    };
    vec![
        row("a tag is put on", Families::V4ToV4, None, Some(100)),
        row("a tag is kept", Families::V4ToV4, Some(100), Some(100)),
        row("a tag is changed", Families::V4ToV4, Some(100), Some(200)),
        row("a priority tag is taken off", Families::V4ToV4, Some(0), None),
        row("IPv6, a tag is put on", Families::V6ToV6, None, Some(100)),
        row("IPv6, a tag is taken off", Families::V6ToV6, Some(100), None),
        row("IPv6, a tag is changed", Families::V6ToV6, Some(100), Some(4094)),
        row("IPv4 to IPv6, a tag is put on", Families::V4ToV6, None, Some(100)),
        row("IPv4 to IPv6, a tag is taken off", Families::V4ToV6, Some(100), None),
        row("IPv4 to IPv6, a tag is changed", Families::V4ToV6, Some(100), Some(200)),
        row("IPv6 to IPv4, a tag is put on", Families::V6ToV4, None, Some(100)),
        row("IPv6 to IPv4, a tag is taken off", Families::V6ToV4, Some(100), None),
        row("IPv6 to IPv4, a tag is changed", Families::V6ToV4, Some(100), Some(200)),
    ]
}

/// Packets of IPv4 without a tag on the way out.
fn ipv4_rows() -> Vec<Row> {
    let forwarded = |description, sent: Sent| Row {
        description,
        frame: sent.frame(),
        flow: flow(),
        apart: None,
        next_hop: next_hop(),
        verdict: Verdict::Forwarded(sent.forwarded()),
    };
    let refused = |description, frame: Vec<u8>, reason| Row {
        description,
        frame,
        flow: flow(),
        apart: None,
        next_hop: next_hop(),
        verdict: Verdict::Refused(reason),
    };
    let state = |description, state: FlowState, frame: Vec<u8>, reason| Row {
        description,
        frame,
        flow: Flow { state: state as u8, ..flow() },
        apart: None,
        next_hop: next_hop(),
        verdict: Verdict::Refused(reason),
    };
    let changed = |offset: usize, value: &[u8]| {
        let mut frame = sent().frame();
        frame[offset..offset + value.len()].copy_from_slice(value);
        frame
    };
    let rtcp = vec![0x80, 201, 0, 1, 1, 2, 3, 4];
    vec![
        forwarded("20 ms of G.711", sent()),
        forwarded("a UDP checksum of zero stays zero", sent().with(|s| s.zero_checksum = true)),
        forwarded("DSCP that is set already", sent().with(|s| s.ip.dscp = 46.try_into().unwrap())),
        forwarded("another DSCP is replaced", sent().with(|s| s.ip.dscp = 63.try_into().unwrap())),
        forwarded("ECN bits are kept", sent().with(|s| s.ip.ecn = 3.try_into().unwrap())),
        forwarded("the shortest RTP packet", sent().with(|s| s.payload = rtp(12))),
        forwarded("an RTP packet of odd length", sent().with(|s| s.payload = rtp(13))),
        forwarded("a G.711 packet of 60 ms", sent().with(|s| s.payload = rtp(492))),
        forwarded("as long as the MTU", sent().with(|s| s.payload = rtp(1472))),
        forwarded("an empty receiver report on the RTP port", sent().with(|s| s.payload = rtcp.clone())),
        forwarded("a VLAN tag is taken off", sent().with(|s| s.vlan = Some(tag(100)))),
        forwarded("a TTL of 2 leaves as 1", sent().with(|s| s.ip.time_to_live = 2)),
        Row {
            description: "a frame padded to Ethernet's minimum is forwarded with its padding",
            frame: [sent().with(|s| s.payload = rtcp.clone()).frame(), vec![0; 10]].concat(),
            verdict: Verdict::Forwarded(
                [sent().with(|s| s.payload = rtcp.clone()).forwarded(), vec![0; 10]].concat(),
            ),
            ..forwarded("", sent())
        },
        Row {
            description: "any payload on an opaque flow",
            flow: Flow { kind: FlowKind::Opaque as u8, ..flow() },
            ..forwarded("", sent().with(|s| s.payload = vec![0, 1, 2]))
        },
        Row {
            description: "an empty payload on an opaque flow",
            flow: Flow { kind: FlowKind::Opaque as u8, ..flow() },
            ..forwarded("", sent().with(|s| s.payload = vec![]))
        },
        Row {
            description: "RTCP on an RTCP flow",
            flow: Flow { kind: FlowKind::Rtcp as u8, ..flow() },
            ..forwarded("", sent().with(|s| s.payload = rtcp.clone()))
        },
        Row {
            description: "a flow that keeps DSCP leaves it as it came",
            flow: Flow { flags: Flow::KEEP_DSCP, type_of_service: 0, ..flow() },
            ..forwarded("", sent().with(|s| s.ip.dscp = 46.try_into().unwrap()))
        },
        refused("ARP", changed(12, &[0x08, 0x06]), Reason::NotIp),
        refused("an IPv4 header behind IPv6's ethertype", changed(12, &[0x86, 0xDD]), Reason::NotIp),
        refused("an IPv6 header behind IPv4's ethertype", changed(14, &[0x60]), Reason::NotIp),
        refused("a header length below five words", changed(14, &[0x44]), Reason::BadLength),
        refused("IPv4 options", changed(14, &[0x46]), Reason::IpOptions),
        refused("TCP", changed(23, &[6]), Reason::NotUdp),
        refused("ICMP", changed(23, &[1]), Reason::NotUdp),
        refused("two VLAN tags", changed(12, &[0x81, 0, 0, 1, 0x81, 0, 0, 2, 8, 0]), Reason::StackedVlan),
        refused("an 802.1ad tag", changed(12, &[0x88, 0xA8]), Reason::StackedVlan),
        refused("a VLAN tag with ARP behind it", changed(12, &[0x81, 0, 0, 1, 8, 6]), Reason::NotIp),
        refused("half an Ethernet header and a bit", sent().frame()[..20].to_vec(), Reason::Truncated),
        refused("cut inside the UDP header", sent().frame()[..38].to_vec(), Reason::Truncated),
        refused("cut inside the payload", sent().frame()[..100].to_vec(), Reason::Truncated),
        refused(
            "the first fragment",
            sent().with(|s| (s.ip.more_fragments, s.ip.dont_fragment) = (true, false)).frame(),
            Reason::Fragment,
        ),
        refused(
            "a later fragment",
            sent().with(|s| s.ip.fragment_offset = IpFragOffset::try_new(10).unwrap()).frame(),
            Reason::Fragment,
        ),
        refused(
            "another address of this host",
            sent().with(|s| s.ip.destination = [10, 9, 9, 9]).frame(),
            Reason::NoFlow,
        ),
        refused(
            "the SIP port of this host",
            sent().with(|s| s.udp.destination_port = 8060).frame(),
            Reason::NoFlow,
        ),
        refused(
            "a media port without a flow",
            sent().with(|s| s.udp.destination_port += 2).frame(),
            Reason::NoFlow,
        ),
        refused(
            "another address than the flow's",
            sent().with(|s| s.ip.source[3] += 1).frame(),
            Reason::WrongSource,
        ),
        refused(
            "another port than the flow's",
            sent().with(|s| s.udp.source_port += 1).frame(),
            Reason::WrongSource,
        ),
        refused("a TTL of 1", sent().with(|s| s.ip.time_to_live = 1).frame(), Reason::TtlExpired),
        refused("a TTL of 0", sent().with(|s| s.ip.time_to_live = 0).frame(), Reason::TtlExpired),
        refused("a UDP length that exceeds the IPv4 length", changed(38, &[0xFF, 0xFF]), Reason::BadLength),
        refused("a UDP length below its own header", changed(38, &[0, 7]), Reason::BadLength),
        refused("a UDP length shorter than the IPv4 payload", changed(38, &[0, 100]), Reason::BadLength),
        refused(
            "one byte longer than the MTU",
            sent().with(|s| s.payload = rtp(1473)).frame(),
            Reason::ExceedsMtu,
        ),
        refused("RTP cut to 11 bytes", sent().with(|s| s.payload = rtp(11)).frame(), Reason::TooShort),
        refused("seven bytes", sent().with(|s| s.payload = rtp(7)).frame(), Reason::TooShort),
        refused("an empty payload", sent().with(|s| s.payload = vec![]).frame(), Reason::TooShort),
        refused("RTP of version 1", changed(42, &[0x40]), Reason::NotRtp),
        refused("a STUN binding request", changed(42, &[0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42]), Reason::Stun),
        refused("a DTLS handshake", changed(42, &[22, 0xFE, 0xFD]), Reason::Dtls),
        state("a flow that learns", FlowState::Learning, sent().frame(), Reason::Learning),
        state("a flow that userspace carries", FlowState::Userspace, sent().frame(), Reason::Userspace),
        state("a blocked direction", FlowState::Blocked, sent().frame(), Reason::Blocked),
        state(
            "a stranger on a blocked direction",
            FlowState::Blocked,
            sent().with(|s| s.udp.source_port += 1).frame(),
            Reason::WrongSource,
        ),
        Row {
            description: "a slot that was given to another flow",
            flow: Flow { generation: 2, ..flow() },
            ..refused("", sent().frame(), Reason::StaleSlot)
        },
        Row {
            description: "RTP on an RTCP flow",
            flow: Flow { kind: FlowKind::Rtcp as u8, ..flow() },
            ..refused("", sent().frame(), Reason::NotRtp)
        },
        Row {
            description: "a next hop whose hardware address is not known",
            next_hop: NextHop { destination: Link::new([0; 6], 0), ..next_hop() },
            ..refused("", sent().frame(), Reason::NextHopUnknown)
        },
    ]
}

//! The verdict on one packet, and the rewrite of those that are forwarded.
//!
//! What the core needs of its surroundings is the [`Environment`]: in the kernel the frame between `data`
//! and `data_end` and the maps, in tests a byte vector and plain tables. The order of the checks is the
//! order of their reasons' meaning: a packet that is not for a flow is never looked at more closely, and
//! one that is not from the flow's source changes nothing but the counter of such packets.
//!
//! The rewrite follows RFC 1812 in what a forwarder owes a packet (TTL, incremental checksum) and RFC 2474
//! and RFC 3168 in the type-of-service byte: DSCP is set, ECN is kept. A packet that leaves as the other family, or with
//! a tag that it came without, gets new headers and as much more or less room in front (RFC 7915 for what a header of one
//! family becomes in the other). A UDP checksum covers the same in both families but for the addresses, so it is changed
//! by increments too; one of zero is for userspace where IPv6 wants one (RFC 8200 section 8.1).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{
    checksum::Delta,
    guard::Rate,
    headers::{
        ECN_BITS, ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, Ethernet,
        IPV4_LENGTH, IPV4_WITHOUT_OPTIONS, IPV6_EXTENSIONS, IPV6_FRAGMENT, IPV6_LENGTH, IPV6_VERSION, Ipv4,
        Ipv4Udp, Ipv6, Ipv6Address, Ipv6Udp, PROTOCOL_UDP, TAGGED_LENGTH, UDP_LENGTH, Udp, VlanTag,
    },
    leave::Links,
    reason::Reason,
    rtp::{Payload, PayloadStart, RTP_LENGTH, RtpHeader, classify},
    stats::FlowStats,
    tables::{
        Flow, FlowKind, FlowState, LocalAddresses, NextHop, PortEntry, RTCP_COPY, RefusedSource, is_sampled,
        port_index,
    },
};

/// The first version nibble of IPv4, whatever the header's length.
const IPV4_VERSION: u8 = 4;
/// The "don't fragment" bit: a packet with it needs no identification (RFC 6864 section 4).
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];

/// A type that can be borrowed from any bytes of its size.
pub trait Wire: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned {}
impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned> Wire for T {}

/// What the core needs of the machine it runs on.
pub trait Environment {
    /// Bytes of the frame.
    fn length(&self) -> usize;
    /// The header at `offset`, unless the frame ends before it does.
    fn read<T: Wire>(&self, offset: usize) -> Option<&T>;
    /// The same, to be changed.
    fn write<T: Wire>(&mut self, offset: usize) -> Option<&mut T>;
    /// Whether what runs here can send a packet by this way.
    fn reaches(&self, hop: &NextHop) -> bool;
    /// Has a packet leave whose IP header stands at `IP`: [`crate::leave`] has the ways to do it.
    ///
    /// # Errors
    /// [`Reason::SendFailed`] if that cannot be done.
    fn leave<const IP: usize, H: Headers>(
        &mut self,
        flow: &Flow,
        hop: &NextHop,
        links: Links,
    ) -> Result<(), Reason>;
    /// The appliance's own addresses.
    fn local_addresses(&self) -> Option<&LocalAddresses>;
    /// The port entry at an index of [`port_index`].
    fn port(&self, index: u32) -> Option<PortEntry>;
    /// Has the statistics at an index brought near: they are needed soon, and memory takes its time.
    fn touch(&self, index: u32);
    /// The flow in a slot. The tables outlive every packet, and borrowing from them leaves the frame to be written.
    fn flow(&self, slot: u32) -> Option<&'static Flow>;
    /// A next hop.
    fn next_hop(&self, index: u32) -> Option<&'static NextHop>;
    /// Changes a flow's statistics.
    fn change_stats(&self, index: u32, change: impl Change);
    /// Notes that a packet came from a source that the flow refuses.
    fn refuse(&self, source: &RefusedSource);
    /// Takes one packet from what the stream of the flow in a slot may have in a second; false if there is nothing left.
    fn within_rate(&self, slot: u32, rate: &Rate, now_ns: u64) -> bool;
    /// The monotonic clock in nanoseconds. Reading it costs more than the rewrite: once a packet.
    fn now_ns(&self) -> u64;
    /// Notes how long the program took for a sampled packet.
    fn sample(&self, elapsed_ns: u64);
    /// Copies `length` bytes of RTCP at `offset` to userspace, as well as it can.
    fn copy_rtcp(&self, offset: usize, length: usize, stats: u32, now_ns: u64);
}

/// How a packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The interface by which it leaves, as the kernel numbers interfaces; or [`NextHop::ALWAYS_REDIRECT`].
    pub interface: u32,
    /// That interface's place in the map of devices.
    pub device: u32,
    /// That interface, whatever its driver can do.
    pub index: u32,
}

/// An IP header of either family with UDP behind it.
pub trait Headers: Wire + Copy {
    /// The headers of the other family.
    type Other: Headers;
    /// Whether this is IPv6.
    const IPV6: bool;
    /// The ethertype in front of it.
    const ETHERTYPE: [u8; 2];
    /// Bytes of the IP header.
    const IP_LENGTH: usize;

    /// The place of its destination among our own addresses.
    ///
    /// # Errors
    /// The reason why it is no UDP packet for one of them that can be looked at further.
    fn place(&self, local: Option<&LocalAddresses>) -> Result<u32, Reason>;
    /// Why a packet that is too short for these headers at `ip` is not for us.
    fn short_packet<E: Environment>(env: &E, ip: usize) -> Reason;
    /// The UDP header.
    fn udp(&self) -> &Udp;
    /// Bytes of the packet by the IP header.
    fn total_length(&self) -> usize;
    /// Whether the packet comes from a flow's source.
    fn comes_from(&self, flow: &Flow) -> bool;
    /// Where it comes from, as one whose packets the flow with these statistics refuses.
    fn refused(&self, stats: u32) -> RefusedSource;
    /// DSCP and ECN.
    fn class(&self) -> u8;
    /// Time to live, or hop limit.
    fn hops(&self) -> u8;
    /// Makes them what they leave as in the same family. Touches only what changes: on the kernel's byte-aligned view
    /// of a packet everything else would be copied byte by byte.
    fn rewrite(&mut self, flow: &Flow);
    /// The headers as they leave in the other family.
    fn translated(&self, flow: &Flow) -> Self::Other;
}

/// Decides on one packet, and rewrites it if it is to be forwarded.
///
/// # Errors
/// The reason why the packet is not forwarded; it is then unchanged.
#[inline(always)]
pub fn relay<E: Environment>(env: &mut E) -> Result<Way, Reason> {
    let ethernet: &Ethernet = env.read(0).ok_or(Reason::Truncated)?;
    match ethernet.ethertype {
        ETHERTYPE_IPV4 => carry::<ETHERNET_LENGTH, Ipv4Udp, E>(env),
        ETHERTYPE_IPV6 => carry::<ETHERNET_LENGTH, Ipv6Udp, E>(env),
        ETHERTYPE_VLAN => {
            let tag: &VlanTag = env.read(ETHERNET_LENGTH).ok_or(Reason::Truncated)?;
            match tag.ethertype {
                ETHERTYPE_IPV4 => carry::<TAGGED_LENGTH, Ipv4Udp, E>(env),
                ETHERTYPE_IPV6 => carry::<TAGGED_LENGTH, Ipv6Udp, E>(env),
                ETHERTYPE_VLAN | ETHERTYPE_QINQ => Err(Reason::StackedVlan),
                _ => Err(Reason::NotIp),
            }
        }
        ETHERTYPE_QINQ => Err(Reason::StackedVlan),
        _ => Err(Reason::NotIp),
    }
}

/// The same for a packet of the network stack, which has taken the outer tag off.
///
/// # Errors
/// As for [`relay`]; a packet that could not be sent may be changed.
#[inline(always)]
pub fn relay_untagged<E: Environment>(env: &mut E) -> Result<Way, Reason> {
    let ethernet: &Ethernet = env.read(0).ok_or(Reason::Truncated)?;
    match ethernet.ethertype {
        ETHERTYPE_IPV4 => carry::<ETHERNET_LENGTH, Ipv4Udp, E>(env),
        ETHERTYPE_IPV6 => carry::<ETHERNET_LENGTH, Ipv6Udp, E>(env),
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => Err(Reason::StackedVlan),
        _ => Err(Reason::NotIp),
    }
}

/// The same for a packet of a device that has no link layer: a tunnel.
///
/// # Errors
/// As for [`relay_untagged`].
#[inline(always)]
pub fn relay_layer3<E: Environment>(env: &mut E) -> Result<Way, Reason> {
    // Both families have their version in the first byte, and no header is shorter than this.
    let ip: &Ipv4 = env.read(0).ok_or(Reason::Truncated)?;
    match ip.version_and_length >> 4 {
        IPV4_VERSION => carry::<0, Ipv4Udp, E>(env),
        IPV6_VERSION => carry::<0, Ipv6Udp, E>(env),
        _ => Err(Reason::NotIp),
    }
}

/// The same for a packet whose IP header stands at `IP`.
#[inline(always)]
fn carry<const IP: usize, H: Headers, E: Environment>(env: &mut E) -> Result<Way, Reason> {
    let Some(headers) = env.read::<H>(IP) else { return Err(H::short_packet(env, IP)) };
    let place = headers.place(env.local_addresses())?;
    let udp = headers.udp();
    let entry = env.port(port_index(place, udp.destination)).ok_or(Reason::NoFlow)?;
    if entry.generation() == 0 {
        return Err(Reason::NoFlow);
    }
    env.touch(entry.stats());
    let flow = env.flow(entry.slot()).ok_or(Reason::NoFlow)?;
    if flow.generation != entry.generation() {
        return Err(Reason::StaleSlot);
    }
    if flow.state != FlowState::Forwarding as u8 {
        if flow.state == FlowState::Learning as u8 {
            return Err(Reason::Learning);
        }
        if flow.state != FlowState::Blocked as u8 {
            return Err(Reason::Userspace);
        }
    }
    if !headers.comes_from(flow) {
        env.change_stats(flow.stats, FromStranger);
        env.refuse(&headers.refused(flow.stats));
        return Err(Reason::WrongSource);
    }
    if flow.state == FlowState::Blocked as u8 {
        // Whoever is put on hold and goes on sending is still there.
        env.change_stats(flow.stats, Seen { now_ns: env.now_ns() });
        return Err(Reason::Blocked);
    }

    let total_length = headers.total_length();
    let udp_length = usize::from(u16::from_be_bytes(udp.length));
    if total_length != udp_length + H::IP_LENGTH || udp_length < UDP_LENGTH {
        return Err(Reason::BadLength);
    }
    if env.length() < IP + total_length {
        return Err(Reason::Truncated);
    }
    if headers.hops() <= 1 {
        return Err(Reason::TtlExpired);
    }
    let leaves_as_ipv6 = flow.leaves_as_ipv6();
    if (H::IPV6 || leaves_as_ipv6) && udp.checksum == [0, 0] {
        return Err(Reason::NoChecksum);
    }
    let payload = IP + H::IP_LENGTH + UDP_LENGTH;
    let payload_length = udp_length - UDP_LENGTH;
    let content = recognise(env, flow.kind, payload, payload_length)?;
    let leaving = if matches!(content, Payload::Rtcp) { way_of_rtcp(env, flow)? } else { flow };

    let hop = env.next_hop(leaving.next_hop).ok_or(Reason::NextHopUnknown)?;
    let (destination, source) = (hop.destination, hop.source);
    if destination.tail() == 0 {
        return Err(Reason::NextHopUnknown);
    }
    if !env.reaches(hop) {
        return Err(Reason::LeavesByTc);
    }
    let leaving_length = udp_length + if leaves_as_ipv6 { IPV6_LENGTH } else { IPV4_LENGTH };
    if leaving_length > usize::from(source.tail()) {
        return Err(Reason::ExceedsMtu);
    }

    let now_ns = env.now_ns();
    if flow.packet_interval_ns != 0
        && !env.within_rate(entry.slot(), &Rate::of_stream(flow.packet_interval_ns), now_ns)
    {
        return Err(Reason::FlowRate);
    }
    let dscp = headers.class() >> crate::headers::DSCP_SHIFT;
    let clock_ticks = flow.clock_ticks;
    let forwarded = Forwarded { env, content, payload, total_length, dscp, now_ns, clock_ticks };
    env.change_stats(flow.stats, forwarded);
    if let Payload::Rtcp = content {
        env.copy_rtcp(payload, payload_length.min(RTCP_COPY), flow.stats, now_ns);
    }

    env.leave::<IP, H>(leaving, hop, Links { destination, source })?;
    if is_sampled(now_ns) {
        env.sample(env.now_ns().wrapping_sub(now_ns));
    }
    Ok(Way { interface: hop.interface, device: hop.device, index: hop.index })
}

/// The record by which the RTCP of a flow leaves: the flow itself, unless the sender multiplexes it with RTP.
///
/// Both records leave to the same network, and so as the same family.
#[inline(always)]
fn way_of_rtcp<E: Environment>(env: &E, flow: &'static Flow) -> Result<&'static Flow, Reason> {
    if flow.flags & Flow::RTCP_APART == 0 {
        return Ok(flow);
    }
    let apart = env.flow(flow.rtcp_slot).ok_or(Reason::StaleSlot)?;
    if apart.generation != flow.generation {
        return Err(Reason::StaleSlot);
    }
    if apart.state != FlowState::Forwarding as u8 {
        return Err(Reason::Blocked);
    }
    Ok(apart)
}

/// A change of a flow's statistics. Not a closure, for one cannot be told to be inlined, and a call with all that it
/// captures takes longer than the counting.
pub trait Change {
    /// Changes them.
    fn apply(self, stats: &mut FlowStats);
}

/// A packet came from another source than the flow's.
struct FromStranger;

impl Change for FromStranger {
    #[inline(always)]
    fn apply(self, stats: &mut FlowStats) {
        stats.wrong_source = stats.wrong_source.wrapping_add(1);
    }
}

/// A packet came that goes nowhere.
struct Seen {
    now_ns: u64,
}

impl Change for Seen {
    #[inline(always)]
    fn apply(self, stats: &mut FlowStats) {
        stats.last_seen_ns = self.now_ns;
    }
}

/// A packet is forwarded.
struct Forwarded<'a, E> {
    env: &'a E,
    content: Payload,
    /// Where its payload begins.
    payload: usize,
    total_length: usize,
    dscp: u8,
    now_ns: u64,
    clock_ticks: u32,
}

impl<E: Environment> Change for Forwarded<'_, E> {
    #[inline(always)]
    fn apply(self, stats: &mut FlowStats) {
        stats.kernel_packets = stats.kernel_packets.wrapping_add(1);
        stats.kernel_bytes = stats.kernel_bytes.wrapping_add(self.total_length as u64);
        stats.last_seen_ns = self.now_ns;
        stats.dscp = self.dscp;
        match self.content {
            Payload::Rtp => {
                if let Some(header) = self.env.read::<RtpHeader>(self.payload) {
                    stats.record_rtp(header, self.now_ns, self.clock_ticks);
                }
            }
            Payload::Rtcp => stats.rtcp_packets = stats.rtcp_packets.wrapping_add(1),
            Payload::Stun | Payload::Dtls | Payload::Other => {}
        }
    }
}

/// Whether the payload is what the flow carries.
#[inline(always)]
fn recognise<E: Environment>(env: &E, kind: u8, payload: usize, length: usize) -> Result<Payload, Reason> {
    if kind != FlowKind::Rtp as u8 && kind != FlowKind::Rtcp as u8 {
        return Ok(Payload::Other);
    }
    // The frame was found to be as long as its headers say, so a payload that is long enough by its
    // length is there; the verifier wants to see it once more.
    let Some(start) = env.read::<PayloadStart>(payload) else { return Err(Reason::TooShort) };
    accept(kind, classify(start.0[0], start.0[1]), length)
}

/// The rule for the content of a flow, shared with the userspace engine: `length` is that of the payload.
///
/// # Errors
/// The reason why a payload of this kind is not carried on a flow of this kind.
#[inline(always)]
pub fn accept(kind: u8, content: Payload, length: usize) -> Result<Payload, Reason> {
    match content {
        Payload::Rtp if kind == FlowKind::Rtcp as u8 => Err(Reason::NotRtp),
        Payload::Rtp if length < RTP_LENGTH => Err(Reason::TooShort),
        Payload::Rtcp if length < size_of::<PayloadStart>() => Err(Reason::TooShort),
        Payload::Rtp | Payload::Rtcp => Ok(content),
        Payload::Stun => Err(Reason::Stun),
        Payload::Dtls => Err(Reason::Dtls),
        Payload::Other if length < size_of::<PayloadStart>() => Err(Reason::TooShort),
        Payload::Other => Err(Reason::NotRtp),
    }
}

impl Headers for Ipv4Udp {
    type Other = Ipv6Udp;
    const IPV6: bool = false;
    const ETHERTYPE: [u8; 2] = ETHERTYPE_IPV4;
    const IP_LENGTH: usize = IPV4_LENGTH;

    #[inline(always)]
    fn place(&self, local: Option<&LocalAddresses>) -> Result<u32, Reason> {
        if self.ip.version_and_length != IPV4_WITHOUT_OPTIONS {
            return Err(other_header(self.ip.version_and_length));
        }
        if self.ip.protocol != PROTOCOL_UDP {
            return Err(Reason::NotUdp);
        }
        let place = local.and_then(|local| local.place(self.ip.destination)).ok_or(Reason::NoFlow)?;
        if self.ip.is_fragment() {
            return Err(Reason::Fragment);
        }
        Ok(place)
    }

    #[inline(always)]
    fn short_packet<E: Environment>(env: &E, ip: usize) -> Reason {
        match env.read::<Ipv4>(ip) {
            Some(ip) if ip.version_and_length != IPV4_WITHOUT_OPTIONS => other_header(ip.version_and_length),
            Some(ip) if ip.protocol != PROTOCOL_UDP => Reason::NotUdp,
            _ => Reason::Truncated,
        }
    }

    #[inline(always)]
    fn udp(&self) -> &Udp {
        &self.udp
    }

    #[inline(always)]
    fn total_length(&self) -> usize {
        usize::from(u16::from_be_bytes(self.ip.total_length))
    }

    #[inline(always)]
    fn comes_from(&self, flow: &Flow) -> bool {
        self.ip.source == flow.source_address && self.udp.source == flow.source_port
    }

    #[inline(always)]
    fn refused(&self, stats: u32) -> RefusedSource {
        let [a, b, c, d] = self.ip.source;
        let address = Ipv6Address { high: [0; 8], low: [0, 0, 0xFF, 0xFF, a, b, c, d] };
        RefusedSource { stats, port: self.udp.source, reserved: [0; 2], address }
    }

    #[inline(always)]
    fn class(&self) -> u8 {
        self.ip.type_of_service
    }

    #[inline(always)]
    fn hops(&self) -> u8 {
        self.ip.ttl
    }

    #[inline(always)]
    fn rewrite(&mut self, flow: &Flow) {
        let ip = &mut self.ip;
        let (class, ttl) = (marked(flow, ip.type_of_service), ip.ttl.wrapping_sub(1));
        let changed = Delta::NONE
            .word([ip.version_and_length, ip.type_of_service], [ip.version_and_length, class])
            .word([ip.ttl, ip.protocol], [ttl, ip.protocol]);
        ip.checksum = flow.ip_delta.and(changed).apply(ip.checksum);
        ip.type_of_service = class;
        ip.ttl = ttl;
        ip.source = flow.out_source_address;
        ip.destination = flow.out_destination_address;
        redirect(&mut self.udp, flow);
    }

    #[inline(always)]
    fn translated(&self, flow: &Flow) -> Ipv6Udp {
        let ip = Ipv6 {
            version_class_label: [0; 4],
            payload_length: self.udp.length,
            next_header: PROTOCOL_UDP,
            hop_limit: self.ip.ttl.wrapping_sub(1),
            source: flow.out_source_ipv6,
            destination: flow.out_destination_ipv6,
        };
        let class = marked(flow, self.ip.type_of_service);
        let ip = Ipv6 { version_class_label: ip.with_class(class), ..ip };
        Ipv6Udp { ip, udp: redirected(&self.udp, flow) }
    }
}

impl Headers for Ipv6Udp {
    type Other = Ipv4Udp;
    const IPV6: bool = true;
    const ETHERTYPE: [u8; 2] = ETHERTYPE_IPV6;
    const IP_LENGTH: usize = IPV6_LENGTH;

    #[inline(always)]
    fn place(&self, local: Option<&LocalAddresses>) -> Result<u32, Reason> {
        if self.ip.version() != IPV6_VERSION {
            return Err(Reason::NotIp);
        }
        let place = local.and_then(|local| local.place_ipv6(&self.ip.destination)).ok_or(Reason::NoFlow)?;
        match self.ip.next_header {
            PROTOCOL_UDP => Ok(place),
            IPV6_FRAGMENT => Err(Reason::Fragment),
            extension if IPV6_EXTENSIONS.contains(&extension) => Err(Reason::IpOptions),
            _ => Err(Reason::NotUdp),
        }
    }

    #[inline(always)]
    fn short_packet<E: Environment>(env: &E, ip: usize) -> Reason {
        match env.read::<Ipv6>(ip) {
            Some(ip) if ip.version() != IPV6_VERSION => Reason::NotIp,
            Some(ip) if ip.next_header != PROTOCOL_UDP => Reason::NotUdp,
            _ => Reason::Truncated,
        }
    }

    #[inline(always)]
    fn udp(&self) -> &Udp {
        &self.udp
    }

    #[inline(always)]
    fn total_length(&self) -> usize {
        usize::from(u16::from_be_bytes(self.ip.payload_length)) + IPV6_LENGTH
    }

    #[inline(always)]
    fn comes_from(&self, flow: &Flow) -> bool {
        self.ip.source.is(&flow.source_ipv6) && self.udp.source == flow.source_port
    }

    #[inline(always)]
    fn refused(&self, stats: u32) -> RefusedSource {
        RefusedSource { stats, port: self.udp.source, reserved: [0; 2], address: self.ip.source }
    }

    #[inline(always)]
    fn class(&self) -> u8 {
        self.ip.traffic_class()
    }

    #[inline(always)]
    fn hops(&self) -> u8 {
        self.ip.hop_limit
    }

    #[inline(always)]
    fn rewrite(&mut self, flow: &Flow) {
        let ip = &mut self.ip;
        ip.version_class_label = ip.with_class(marked(flow, ip.traffic_class()));
        ip.hop_limit = ip.hop_limit.wrapping_sub(1);
        ip.source.set(&flow.out_source_ipv6);
        ip.destination.set(&flow.out_destination_ipv6);
        redirect(&mut self.udp, flow);
    }

    #[inline(always)]
    fn translated(&self, flow: &Flow) -> Ipv4Udp {
        let total = u16::from_be_bytes(self.udp.length).wrapping_add(IPV4_LENGTH as u16);
        let mut ip = Ipv4 {
            version_and_length: IPV4_WITHOUT_OPTIONS,
            type_of_service: marked(flow, self.ip.traffic_class()),
            total_length: total.to_be_bytes(),
            identification: [0; 2],
            fragment: DONT_FRAGMENT,
            ttl: self.ip.hop_limit.wrapping_sub(1),
            protocol: PROTOCOL_UDP,
            checksum: [0; 2],
            source: flow.out_source_address,
            destination: flow.out_destination_address,
        };
        ip.checksum = flow
            .ip_delta
            .more([ip.version_and_length, ip.type_of_service])
            .more(ip.total_length)
            .more(ip.fragment)
            .more([ip.ttl, ip.protocol])
            .checksum();
        Ipv4Udp { ip, udp: redirected(&self.udp, flow) }
    }
}

/// The type-of-service byte as a flow's packets leave with it.
#[inline(always)]
const fn marked(flow: &Flow, class: u8) -> u8 {
    if flow.flags & Flow::KEEP_DSCP == 0 { flow.type_of_service | class & ECN_BITS } else { class }
}

/// Makes a UDP header what it leaves as.
#[inline(always)]
fn redirect(udp: &mut Udp, flow: &Flow) {
    udp.source = flow.out_source_port;
    udp.destination = flow.out_destination_port;
    udp.checksum = flow.udp_delta.apply_udp(udp.checksum);
}

/// The UDP header as it leaves.
#[inline(always)]
fn redirected(udp: &Udp, flow: &Flow) -> Udp {
    let mut new = *udp;
    redirect(&mut new, flow);
    new
}

/// What a first byte says that is not that of IPv4 without options.
#[inline(always)]
const fn other_header(version_and_length: u8) -> Reason {
    const WORDS: u8 = IPV4_WITHOUT_OPTIONS & 0x0F;
    if version_and_length >> 4 != IPV4_VERSION {
        Reason::NotIp
    } else if version_and_length & 0x0F < WORDS {
        Reason::BadLength
    } else {
        Reason::IpOptions
    }
}

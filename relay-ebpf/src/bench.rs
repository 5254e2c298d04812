//! What the program bench needs in the kernel: a packet that becomes the next one of its stream.

use relay_ebpf::{
    checksum::Delta,
    headers::{
        ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, Ethernet, Ipv4Udp, Ipv6Udp,
        VLAN_LENGTH, VlanTag,
    },
    relay::Environment,
    rtp::RtpHeader,
    tables::BENCH_FLOWS,
};

/// Timestamp units of a 20 ms packet at 8 kHz.
const FRAME_TICKS: u32 = 160;

/// Advances sequence number and timestamp, and gives back the hop that the relay took from TTL or hop limit.
///
/// The UDP checksum is left alone, which the relay neither checks nor needs.
#[inline(always)]
pub fn step<E: Environment>(env: &mut E) -> Option<()> {
    const TAGGED: usize = ETHERNET_LENGTH + VLAN_LENGTH;
    let ethernet: &Ethernet = env.read(0)?;
    match ethernet.ethertype {
        ETHERTYPE_IPV4 => step_ipv4::<ETHERNET_LENGTH, E>(env),
        ETHERTYPE_IPV6 => step_ipv6::<ETHERNET_LENGTH, E>(env),
        ETHERTYPE_VLAN => match env.read::<VlanTag>(ETHERNET_LENGTH)?.ethertype {
            ETHERTYPE_IPV4 => step_ipv4::<TAGGED, E>(env),
            ETHERTYPE_IPV6 => step_ipv6::<TAGGED, E>(env),
            _ => None,
        },
        _ => None,
    }
}

/// Turns an IPv4 packet to the next of [`relay_ebpf::tables::BENCH_FLOWS`] flows: two local addresses that differ in
/// their last bit, and every port of each, in an order that no cache foresees.
///
/// The header's checksum is left alone too: the relay changes it by increments.
#[inline(always)]
pub fn turn<E: Environment>(env: &mut E) -> Option<()> {
    const MULTIPLIER: u32 = 69_069;
    const INCREMENT: u32 = 12_345;
    let headers: &mut Ipv4Udp = env.write(ETHERNET_LENGTH)?;
    let [a, b, c, d] = headers.ip.destination;
    let at = u32::from(d & 1) << u16::BITS | u32::from(u16::from_be_bytes(headers.udp.destination));
    // A full period: the multiplier is 1 modulo 4, and the increment is odd.
    let next = at.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT) % BENCH_FLOWS;
    headers.ip.destination = [a, b, c, d & !1 | (next >> u16::BITS) as u8];
    headers.udp.destination = (next as u16).to_be_bytes();
    Some(())
}

#[inline(always)]
fn step_ipv4<const IP: usize, E: Environment>(env: &mut E) -> Option<()> {
    let headers: &mut Ipv4Udp = env.write(IP)?;
    let ttl = headers.ip.ttl;
    headers.ip.ttl = ttl.wrapping_add(1);
    headers.ip.checksum = Delta::NONE
        .word([ttl, headers.ip.protocol], [headers.ip.ttl, headers.ip.protocol])
        .apply(headers.ip.checksum);
    advance(env.write(IP + size_of::<Ipv4Udp>())?)
}

#[inline(always)]
fn step_ipv6<const IP: usize, E: Environment>(env: &mut E) -> Option<()> {
    let headers: &mut Ipv6Udp = env.write(IP)?;
    headers.ip.hop_limit = headers.ip.hop_limit.wrapping_add(1);
    advance(env.write(IP + size_of::<Ipv6Udp>())?)
}

#[inline(always)]
fn advance(rtp: &mut RtpHeader) -> Option<()> {
    rtp.sequence = u16::from_be_bytes(rtp.sequence).wrapping_add(1).to_be_bytes();
    rtp.timestamp = u32::from_be_bytes(rtp.timestamp).wrapping_add(FRAME_TICKS).to_be_bytes();
    Some(())
}

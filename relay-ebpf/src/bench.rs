//! What the program bench needs in the kernel: a packet that becomes the next one of its stream.

use relay_ebpf::{
    checksum::Delta,
    headers::{ETHERNET_LENGTH, Ipv4Udp},
    relay::Environment,
    rtp::RtpHeader,
};

/// Timestamp units of a 20 ms packet at 8 kHz.
const FRAME_TICKS: u32 = 160;

/// Advances sequence number and timestamp, and gives back the hop that the relay took from the TTL.
///
/// The UDP checksum is left alone, which the relay neither checks nor needs.
#[inline(always)]
pub fn step<E: Environment>(env: &mut E) -> Option<()> {
    let headers: &mut Ipv4Udp = env.write(ETHERNET_LENGTH)?;
    let ttl = headers.ip.ttl;
    headers.ip.ttl = ttl.wrapping_add(1);
    headers.ip.checksum = Delta::NONE
        .word([ttl, headers.ip.protocol], [headers.ip.ttl, headers.ip.protocol])
        .apply(headers.ip.checksum);
    let rtp: &mut RtpHeader = env.write(ETHERNET_LENGTH + size_of::<Ipv4Udp>())?;
    rtp.sequence = u16::from_be_bytes(rtp.sequence).wrapping_add(1).to_be_bytes();
    rtp.timestamp = u32::from_be_bytes(rtp.timestamp).wrapping_add(FRAME_TICKS).to_be_bytes();
    Some(())
}

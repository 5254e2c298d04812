//! Kernel programs to measure with: a generator, a sink, and the least that can stand between them. An object of their own,
//! which no appliance loads but for a trial of its hardware.
//!
//! - `bench_generate` is run on live frames by `BPF_PROG_TEST_RUN`: it makes each frame the next packet of the stream
//!   whose turn it is, and sends it; while none is due it sends nothing.
//! - `bench_sink` counts what arrives, and drops it.
//! - `bench_redirect` is the floor: every packet leaves by the other interface as it came.
//! - `bench_readdress` is the floor of what forwards: the same, but for new addresses of the link layer, without which
//!   no next hop would take a packet. So it waits for the packet's first bytes, which the floor never looks at.
//! - `bench_pass` gives an interface the queue without which it takes no frames.
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the macros of aya-ebpf make public, undocumented entry points"
)]

use aya_ebpf::{
    bindings::xdp_action,
    helpers::bpf_ktime_get_ns,
    macros::{map, xdp},
    maps::{Array, DevMap, PerCpuArray},
    programs::XdpContext,
};
use relay_ebpf::traffic::{
    Arrival, BUCKETS, Content, Heard, MAX_STREAMS, Order, Progress, RTP_HEADER, Received, SRTP_TAG,
    SSRC_MARK, SSRC_STREAM, STAMP, Stream, UDP_PAYLOAD, bucket, fold,
};

#[map(name = "ORDER")]
static ORDER: Array<Order> = Array::with_max_entries(1, 0);
#[map(name = "STREAMS")]
static STREAMS: Array<Stream> = Array::with_max_entries(MAX_STREAMS, 0);
#[map(name = "PROGRESS")]
static PROGRESS: Array<Progress> = Array::with_max_entries(1, 0);
#[map(name = "RECEIVED")]
static RECEIVED: PerCpuArray<Received> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "HEARD")]
static HEARD: Array<Heard> = Array::with_max_entries(MAX_STREAMS, 0);
#[map(name = "DELAYS")]
static DELAYS: PerCpuArray<u64> = PerCpuArray::with_max_entries(BUCKETS, 0);
#[map(name = "OTHER_SIDE")]
static OTHER_SIDE: DevMap = DevMap::with_max_entries(1, 0);

/// IPv4 without options, and its default of hops.
const VERSION_AND_LENGTH: u8 = 0x45;
const HOPS: u8 = 64;
const UDP: u8 = 17;
/// RTP version 2 without padding, extension or contributors (RFC 3550 section 5.1); payload type 0 is PCMU.
const RTP_VERSION: u8 = 0x80;
const PCMU: u8 = 0;
/// Units of the RTP time stamp in 20 ms at 8 kHz.
const FRAME_TICKS: u32 = 160;
const ETHERNET: usize = 14;
const IPV4: usize = 20;

/// Headers up to UDP's payload.
type Headers = [u8; UDP_PAYLOAD];
/// The RTP header, and the time stamp behind it.
type Media = [u8; RTP_HEADER + STAMP];

#[inline(always)]
fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    (start + size_of::<T>() <= ctx.data_end()).then_some(start as *mut T)
}

#[inline(always)]
fn word(bytes: &[u8], offset: usize) -> u64 {
    u64::from(u16::from_be_bytes([bytes[offset], bytes[offset + 1]]))
}

/// The sum of the words of a part of fixed length.
#[inline(always)]
fn words<const FROM: usize, const TO: usize>(bytes: &[u8]) -> u64 {
    let mut sum = 0;
    let mut offset = FROM;
    while offset < TO {
        sum += word(bytes, offset);
        offset += 2;
    }
    sum
}

#[xdp]
pub fn bench_generate(ctx: XdpContext) -> u32 {
    generate(&ctx).unwrap_or(xdp_action::XDP_ABORTED)
}

#[inline(always)]
fn generate(ctx: &XdpContext) -> Option<u32> {
    // SAFETY: the laboratory does not write the order while the generator runs.
    let order = unsafe { &*ORDER.get_ptr(0)? };
    // SAFETY: one generator runs at a time.
    let progress = unsafe { &mut *PROGRESS.get_ptr_mut(0)? };
    if progress.sent >= u64::from(order.limit) {
        return Some(xdp_action::XDP_DROP);
    }
    // The clock costs more than a packet: without a rate it is read for every 64th.
    let unhurried = order.interval_ns != 0 || order.stamped != 0;
    let now = if unhurried || progress.sent & 63 == 0 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    } else {
        progress.last_ns
    };
    if progress.sent == 0 {
        progress.first_ns = now;
    }
    if now - progress.first_ns > order.time_ns {
        return Some(xdp_action::XDP_DROP);
    }
    progress.last_ns = now;
    if order.interval_ns != 0 {
        if progress.left == 0 {
            if now < progress.due_ns {
                return Some(xdp_action::XDP_DROP);
            }
            let interval = order.interval_ns * u64::from(order.together);
            // Who was kept from sending catches up by no more than a burst.
            let earliest = now - order.interval_ns * u64::from(order.burst);
            let due = if progress.due_ns < earliest { earliest } else { progress.due_ns };
            progress.due_ns = due + interval;
            progress.left = order.together;
        }
        progress.left -= 1;
    }
    let index = progress.turn;
    progress.turn = if index + 1 < order.streams { index + 1 } else { 0 };
    // SAFETY: as above.
    let stream = unsafe { &mut *STREAMS.get_ptr_mut(index)? };
    let number = stream.sent;
    stream.sent = number.wrapping_add(1);
    progress.sent += 1;

    let mut sum = u64::from(order.payload_sum);
    if order.content == Content::Rtp as u32 {
        // SAFETY: `at` has compared with the frame's end, and nothing else of the frame is borrowed.
        let media = unsafe { &mut *at::<Media>(ctx, UDP_PAYLOAD)? };
        let time = number.wrapping_mul(FRAME_TICKS).to_be_bytes();
        let ssrc = (SSRC_MARK | index).to_be_bytes();
        let sequence = (number as u16).to_be_bytes();
        let stamp = if order.stamped != 0 { now.to_ne_bytes() } else { [0; STAMP] };
        *media = [
            RTP_VERSION,
            PCMU,
            sequence[0],
            sequence[1],
            time[0],
            time[1],
            time[2],
            time[3],
            ssrc[0],
            ssrc[1],
            ssrc[2],
            ssrc[3],
            stamp[0],
            stamp[1],
            stamp[2],
            stamp[3],
            stamp[4],
            stamp[5],
            stamp[6],
            stamp[7],
        ];
        sum += words::<0, { RTP_HEADER + STAMP }>(media);
    }
    // SAFETY: as above.
    let headers = unsafe { &mut *at::<Headers>(ctx, 0)? };
    let ip_length = ((order.frame as usize - ETHERNET) as u16).to_be_bytes();
    let udp_length = ((order.frame as usize - ETHERNET - IPV4) as u16).to_be_bytes();
    let (link, from, to) = (&order.link, stream.source, stream.destination);
    let (from_port, to_port) = (stream.source_port, stream.destination_port);
    *headers = [
        link[0],
        link[1],
        link[2],
        link[3],
        link[4],
        link[5],
        link[6],
        link[7],
        link[8],
        link[9],
        link[10],
        link[11],
        8,
        0,
        VERSION_AND_LENGTH,
        0,
        ip_length[0],
        ip_length[1],
        0,
        0,
        0x40,
        0,
        HOPS,
        UDP,
        0,
        0,
        from[0],
        from[1],
        from[2],
        from[3],
        to[0],
        to[1],
        to[2],
        to[3],
        from_port[0],
        from_port[1],
        to_port[0],
        to_port[1],
        udp_length[0],
        udp_length[1],
        0,
        0,
    ];
    let checksum = !fold(words::<ETHERNET, { ETHERNET + IPV4 }>(headers));
    [headers[24], headers[25]] = checksum.to_be_bytes();
    // The pseudo header: addresses, protocol, length (RFC 768).
    sum += words::<26, { UDP_PAYLOAD }>(headers) + u64::from(UDP) + word(headers, 38);
    let checksum = match !fold(sum) {
        0 => 0xFFFF,
        checksum => checksum,
    };
    [headers[40], headers[41]] = checksum.to_be_bytes();
    Some(xdp_action::XDP_TX)
}

#[xdp]
pub fn bench_sink(ctx: XdpContext) -> u32 {
    // SAFETY: each CPU has its own.
    let Some(received) = RECEIVED.get_ptr_mut(0).map(|it| unsafe { &mut *it }) else {
        return xdp_action::XDP_ABORTED;
    };
    match sink(&ctx, received) {
        Some(()) => xdp_action::XDP_DROP,
        None => {
            received.foreign += 1;
            xdp_action::XDP_PASS
        }
    }
}

#[inline(always)]
fn sink(ctx: &XdpContext, received: &mut Received) -> Option<()> {
    // SAFETY: the laboratory does not write the order while packets are on their way.
    let order = unsafe { &*ORDER.get_ptr(0)? };
    // SAFETY: `at` has compared with the frame's end, and nothing is written to the frame.
    let (headers, media) = unsafe { (&*at::<Headers>(ctx, 0)?, &*at::<Media>(ctx, UDP_PAYLOAD)?) };
    let ssrc = u32::from_be_bytes([media[8], media[9], media[10], media[11]]);
    let ours = headers[12] == 8
        && headers[13] == 0
        && headers[14] == VERSION_AND_LENGTH
        && headers[23] == UDP
        && media[0] == RTP_VERSION
        && ssrc & !SSRC_STREAM == SSRC_MARK;
    if !ours {
        return None;
    }
    // SAFETY: a stream's packets arrive on one CPU.
    let heard = unsafe { &mut *HEARD.get_ptr_mut(ssrc & SSRC_STREAM)? };
    received.packets += 1;
    if order.type_of_service <= u32::from(u8::MAX) && u32::from(headers[15]) != order.type_of_service {
        received.wrong_service += 1;
    }
    if order.arrival == Arrival::Sealed as u32 {
        // What was sent in the stamp's place is zero, and the tag is behind the payload.
        let stamp = words::<RTP_HEADER, { RTP_HEADER + STAMP }>(media);
        let length = u64::from(order.frame) + SRTP_TAG as u64 - (ETHERNET + IPV4) as u64;
        if stamp == 0 || word(headers, 38) != length {
            received.wrong_content += 1;
        }
    } else {
        let sum = u64::from(order.payload_sum)
            + words::<0, { RTP_HEADER + STAMP }>(media)
            + words::<26, { UDP_PAYLOAD }>(headers)
            + u64::from(UDP)
            + word(headers, 38);
        if (headers[40] != 0 || headers[41] != 0) && fold(sum) != 0xFFFF {
            received.wrong_content += 1;
        }
    }
    let sequence = u16::from_be_bytes([media[2], media[3]]);
    let ahead = sequence.wrapping_sub(heard.next as u16);
    if heard.packets > 0 && ahead > u16::MAX / 2 {
        received.late += 1;
    } else {
        heard.next = u32::from(sequence.wrapping_add(1));
    }
    let first = heard.packets == 0;
    heard.packets = heard.packets.wrapping_add(1);
    if order.stamped != 0 {
        let stamp: [u8; STAMP] =
            [media[12], media[13], media[14], media[15], media[16], media[17], media[18], media[19]];
        // SAFETY: a helper without arguments.
        let delay = unsafe { bpf_ktime_get_ns() }.wrapping_sub(u64::from_ne_bytes(stamp));
        if let Some(count) = DELAYS.get_ptr_mut(bucket(delay)) {
            // SAFETY: each CPU has its own.
            unsafe { *count += 1 };
        }
        if !first && heard.delay_ns != 0 {
            received.variation_ns += heard.delay_ns.abs_diff(delay);
            received.variations += 1;
        }
        heard.delay_ns = delay;
    }
    Some(())
}

#[xdp]
pub fn bench_redirect(_ctx: XdpContext) -> u32 {
    OTHER_SIDE.redirect(0, 0).unwrap_or(xdp_action::XDP_ABORTED)
}

#[xdp]
pub fn bench_readdress(ctx: XdpContext) -> u32 {
    /// Bytes of a link-layer address.
    const ADDRESS: usize = 6;
    let Some(addresses) = at::<[u8; 2 * ADDRESS]>(&ctx, 0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: `at` has compared with the frame's end, and nothing else of the frame is borrowed.
    let addresses = unsafe { &mut *addresses };
    let mut index = 0;
    while index < ADDRESS {
        addresses.swap(index, ADDRESS + index);
        index += 1;
    }
    OTHER_SIDE.redirect(0, 0).unwrap_or(xdp_action::XDP_ABORTED)
}

#[xdp]
pub fn bench_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

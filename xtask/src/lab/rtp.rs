//! RTP (RFC 3550 section 5.1) and RTCP (section 6.4) as the laboratory's endpoint speaks them.

/// An RTP header without contributing sources and extensions, in bytes.
pub const HEADER: usize = 12;
/// 20 ms of G.711 at 8000 samples a second, one byte each.
pub const PAYLOAD: usize = 160;
/// Samples a second of G.711.
pub const CLOCK_RATE: u32 = 8000;
/// G.711 mu-law (RFC 3551).
const PCMU: u8 = 0;
/// Version 2, no padding, no extension, no sources.
const VERSION_2: u8 = 0x80;
/// The marker bit: the first packet of a talk spurt (RFC 3551 section 4.1).
const MARKER: u8 = 0x80;
/// RTCP packet types: sender report, receiver report, source description, goodbye.
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
/// The source description item CNAME.
const CNAME: u8 = 1;
/// Seconds from the NTP era's begin, 1900, to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// What one RTP packet's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in samples.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload type.
    pub payload_type: u8,
}

impl Header {
    /// Reads a header; `None` for what is not RTP version 2, or is RTCP by its type (RFC 5761 section 4).
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<HEADER>()?;
        let second = header[1];
        if header[0] >> 6 != 2 || (192..=223).contains(&second) {
            return None;
        }
        Some(Self {
            sequence: u16::from_be_bytes([header[2], header[3]]),
            timestamp: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            ssrc: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            payload_type: second & !MARKER,
        })
    }
}

/// Whether a packet is RTCP, by its version and type.
#[must_use]
pub fn is_rtcp(packet: &[u8]) -> bool {
    matches!(packet, [first, kind, ..] if first >> 6 == 2 && (192..=223).contains(kind))
}

/// The sending side of a stream.
#[derive(Debug)]
pub struct Sender {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    packets: u32,
    /// Whether the next packet begins a talk spurt.
    spurt: bool,
}

impl Sender {
    /// A stream that begins at the given sequence number, so that some wrap around during a run.
    #[must_use]
    pub fn new(ssrc: u32, first_sequence: u16) -> Self {
        Self { ssrc, sequence: first_sequence, timestamp: ssrc.rotate_left(7), packets: 0, spurt: true }
    }

    /// The next packet: 20 ms of a tone, `sent_ns` in its first eight bytes.
    pub fn next(&mut self, sent_ns: u64) -> [u8; HEADER + PAYLOAD] {
        let mut packet = [0; HEADER + PAYLOAD];
        packet[0] = VERSION_2;
        packet[1] = if std::mem::take(&mut self.spurt) { PCMU | MARKER } else { PCMU };
        packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        packet[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        for (index, sample) in packet[HEADER..].iter_mut().enumerate() {
            // A square wave of 500 Hz: eight samples up, eight down, in mu-law.
            *sample = if index % 16 < 8 { 0x90 } else { 0x10 };
        }
        packet[HEADER..HEADER + 8].copy_from_slice(&sent_ns.to_be_bytes());
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(PAYLOAD as u32);
        self.packets += 1;
        packet
    }

    /// Time passes without a packet: nobody speaks. The next one begins a talk spurt (RFC 3551 section 4.1).
    pub fn keep_silent(&mut self) {
        self.timestamp = self.timestamp.wrapping_add(PAYLOAD as u32);
        self.spurt = true;
    }

    /// Packets made so far.
    #[must_use]
    pub fn packets(&self) -> u32 {
        self.packets
    }
}

/// When a packet was sent, from its payload.
#[must_use]
pub fn sent_ns(packet: &[u8]) -> Option<u64> {
    packet.get(HEADER..)?.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The receiving side of a stream: counts, loss and jitter (RFC 3550 sections 6.4.1 and A.8), latency.
#[derive(Clone, Copy, Debug, Default)]
pub struct Receiver {
    /// The stream's source; a new one begins a new stream.
    pub ssrc: u32,
    /// Packets received.
    pub packets: u64,
    /// Jitter in nanoseconds.
    pub jitter_ns: f64,
    first_extended: u64,
    highest_extended: u64,
    last_transit_ns: Option<i128>,
    /// Sum and maximum of the latency from sender to receiver.
    pub latency_sum_ns: u128,
    /// Longest latency.
    pub latency_max_ns: u64,
    last_report: Option<(u32, u64)>,
}

impl Receiver {
    /// Takes a packet that arrived at `now_ns`, on the clock that the sender's times are of.
    pub fn take(&mut self, header: Header, sent_ns: Option<u64>, now_ns: u64) {
        let sequence = u64::from(header.sequence);
        if self.packets == 0 || self.ssrc != header.ssrc {
            let last_report = self.last_report;
            *self = Self { ssrc: header.ssrc, last_report, ..Self::default() };
            // One cycle up, so that a packet from before the first does not go below zero.
            self.first_extended = sequence + (1 << 16);
            self.highest_extended = self.first_extended;
        } else {
            let ahead = header.sequence.wrapping_sub(self.highest_extended as u16);
            if ahead < 1 << 15 {
                self.highest_extended += u64::from(ahead);
            }
        }
        self.packets += 1;
        let media_ns = i128::from(header.timestamp) * 1_000_000_000 / i128::from(CLOCK_RATE);
        let transit = i128::from(now_ns) - media_ns;
        if let Some(last) = self.last_transit_ns.replace(transit) {
            // The divisor 16 is RFC 3550's noise reduction.
            self.jitter_ns += ((transit - last).unsigned_abs() as f64 - self.jitter_ns) / 16.0;
        }
        if let Some(latency) = sent_ns.and_then(|sent| now_ns.checked_sub(sent)) {
            self.latency_sum_ns += u128::from(latency);
            self.latency_max_ns = self.latency_max_ns.max(latency);
        }
    }

    /// Packets that the sequence numbers promise.
    #[must_use]
    pub fn expected(&self) -> u64 {
        if self.packets == 0 { 0 } else { self.highest_extended - self.first_extended + 1 }
    }

    /// Packets that did not arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.packets)
    }

    /// Notes the other side's sender report: the middle of its NTP time, and when it came.
    pub fn take_report(&mut self, packet: &[u8], now_ns: u64) {
        if let [_, SENDER_REPORT, _, _, _, _, _, _, _, _, a, b, c, d, ..] = packet {
            self.last_report = Some((u32::from_be_bytes([*a, *b, *c, *d]), now_ns));
        }
    }
}

/// Builds a compound packet: a sender report (or a receiver report from one who does not send), with a report
/// block about `heard`, and a source description.
#[must_use]
pub fn rtcp(ssrc: u32, sender: Option<&Sender>, heard: &Receiver, now_ns: u64, unix_ns: u64) -> Vec<u8> {
    let mut packet = Vec::with_capacity(128);
    let blocks = u8::from(heard.packets > 0);
    let kind = if sender.is_some() { SENDER_REPORT } else { RECEIVER_REPORT };
    packet.extend([VERSION_2 | blocks, kind, 0, 0]);
    packet.extend(ssrc.to_be_bytes());
    if let Some(sender) = sender {
        let seconds = unix_ns / 1_000_000_000 + NTP_TO_UNIX;
        let fraction = ((unix_ns % 1_000_000_000) << 32) / 1_000_000_000;
        packet.extend((seconds as u32).to_be_bytes());
        packet.extend((fraction as u32).to_be_bytes());
        packet.extend(sender.timestamp.to_be_bytes());
        packet.extend(sender.packets.to_be_bytes());
        packet.extend((sender.packets.wrapping_mul(PAYLOAD as u32)).to_be_bytes());
    }
    if blocks == 1 {
        packet.extend(heard.ssrc.to_be_bytes());
        let lost = u32::try_from(heard.lost()).unwrap_or(u32::MAX).min(0x7F_FFFF);
        packet.extend(lost.to_be_bytes());
        packet.extend((heard.highest_extended as u32).to_be_bytes());
        packet.extend(((heard.jitter_ns * f64::from(CLOCK_RATE) / 1e9) as u32).to_be_bytes());
        let (last, since) = heard.last_report.map_or((0, 0), |(middle, at_ns)| {
            // In units of 1/65536 s.
            (middle, (u128::from(now_ns.saturating_sub(at_ns)) << 16) / 1_000_000_000)
        });
        packet.extend(last.to_be_bytes());
        packet.extend((since as u32).to_be_bytes());
    }
    close(&mut packet, 0);
    let start = packet.len();
    let name = b"lab@lab.example";
    packet.extend([VERSION_2 | 1, SOURCE_DESCRIPTION, 0, 0]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend([CNAME, name.len() as u8]);
    packet.extend(name);
    // At least one null ends the list, and more fill the last word.
    packet.push(0);
    while (packet.len() - start) % 4 != 0 {
        packet.push(0);
    }
    close(&mut packet, start);
    packet
}

/// Writes the length, in words less one, of the packet that begins at `start`.
fn close(packet: &mut [u8], start: usize) {
    let words = ((packet.len() - start) / 4 - 1) as u16;
    packet[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_counted_across_the_wrap_of_sequence_numbers() {
        let mut sender = Sender::new(7, 65_530);
        let mut receiver = Receiver::default();
        for number in 0..20_u64 {
            let packet = sender.next(number);
            if ![3, 9, 10].contains(&number) {
                receiver.take(Header::read(&packet).unwrap(), sent_ns(&packet), number + 5);
            }
        }
        assert_eq!((receiver.packets, receiver.expected(), receiver.lost()), (17, 20, 3));
        assert_eq!(receiver.latency_max_ns, 5);
    }

    #[test]
    fn an_even_stream_has_no_jitter() {
        let mut sender = Sender::new(7, 0);
        let mut receiver = Receiver::default();
        for number in 0..50_u64 {
            let now = number * 20_000_000;
            receiver.take(Header::read(&sender.next(now)).unwrap(), None, now + 1000);
        }
        assert!(receiver.jitter_ns < 1.0, "{}", receiver.jitter_ns);
    }

    #[test]
    fn reports_are_rtcp_with_lengths_that_add_up() {
        let mut sender = Sender::new(7, 0);
        let mut receiver = Receiver::default();
        let packet = sender.next(1);
        receiver.take(Header::read(&packet).unwrap(), None, 1);
        for (description, packet) in [
            ("sender report with a block", rtcp(7, Some(&sender), &receiver, 2, 3)),
            ("sender report alone", rtcp(7, Some(&sender), &Receiver::default(), 2, 3)),
            ("receiver report", rtcp(7, None, &receiver, 2, 3)),
        ] {
            assert!(is_rtcp(&packet) && Header::read(&packet).is_none(), "{description}");
            let mut rest = packet.as_slice();
            while let [_, _, high, low, ..] = rest {
                let length = (usize::from(u16::from_be_bytes([*high, *low])) + 1) * 4;
                rest = &rest[length..];
            }
            assert!(rest.is_empty(), "{description}");
        }
    }
}

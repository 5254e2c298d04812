//! Reading RTCP: sender and receiver reports (RFC 3550 section 6.4), and the VoIP metrics of extended reports (RFC 3611
//! section 4.7). What else a compound packet has (source descriptions, goodbyes, feedback) is stepped over.
//!
//! A copy may end before its packet does: what is whole is read. What cannot be read, SRTCP above all, gives nothing or
//! reports about sources that nobody sends from; so whoever uses a report asks for the source that it is about.

/// Packet types (RFC 3550 section 12.1, RFC 3611 section 2).
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const EXTENDED_REPORT: u8 = 207;
/// Bytes of an RTCP header with its sender's SSRC.
const HEADER: usize = 8;
/// Bytes of a sender report's sender information.
const SENDER_INFORMATION: usize = 20;
/// Bytes of a report block.
const BLOCK: usize = 24;
/// Block type of the VoIP metrics, and bytes of what follows its four bytes of header (RFC 3611 section 4.7).
const VOIP_METRICS: u8 = 7;
const VOIP_LENGTH: usize = 32;
/// "Unavailable" of ratings and scores (RFC 3611 section 4.7.5), and 0 of times.
const UNAVAILABLE: u8 = 127;
/// Blocks of one compound packet that are looked at: a phone reports on one or two sources.
const MOST_BLOCKS: usize = 8;

/// A report block: what one receiver says of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source that it is about.
    pub ssrc: u32,
    /// Loss since the report before, in units of 1/256.
    pub fraction_lost: u8,
    /// Loss since the beginning, in packets; less than 0 when duplicates outnumber the lost.
    pub lost: i32,
    /// Highest sequence number received, with its cycles above bit 16.
    pub highest_sequence: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// The middle 32 bits of the NTP time of the last sender report; 0: none was received.
    pub last_report: u32,
    /// Time since then, in units of 1/65536 s.
    pub delay: u32,
}

/// The VoIP metrics of RFC 3611 section 4.7; fields that the sender calls unavailable are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoipMetrics {
    /// The source that they are about.
    pub ssrc: u32,
    /// Loss in the network, in units of 1/256.
    pub loss_rate: u8,
    /// Packets that came too late or too early for the jitter buffer, in units of 1/256.
    pub discard_rate: u8,
    /// From the reporter to the other end and back, in milliseconds.
    pub round_trip_ms: Option<u16>,
    /// What the reporter's own machinery adds, in milliseconds.
    pub end_system_delay_ms: Option<u16>,
    /// The rating R, 0 to 100.
    pub r_factor: Option<u8>,
    /// Listening score, in tenths.
    pub mos_listening_tenths: Option<u8>,
    /// Conversational score, in tenths.
    pub mos_conversational_tenths: Option<u8>,
    /// Nominal delay of the jitter buffer in milliseconds.
    pub buffer_ms: Option<u16>,
}

/// What is read of a compound packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compound {
    /// The middle 32 bits of the sender report's NTP time, if there is a sender report.
    pub ntp_middle: Option<u32>,
    /// Report blocks, at most 8.
    pub blocks: Vec<ReportBlock>,
    /// VoIP metrics, at most 8.
    pub voip: Vec<VoipMetrics>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl ReportBlock {
    fn read(block: &[u8; BLOCK]) -> Option<Self> {
        let loss = word(block, 4)?;
        Some(Self {
            ssrc: word(block, 0)?,
            fraction_lost: block[4],
            // 24 bits with a sign.
            lost: (loss << 8) as i32 >> 8,
            highest_sequence: word(block, 8)?,
            jitter: word(block, 12)?,
            last_report: word(block, 16)?,
            delay: word(block, 20)?,
        })
    }
}

impl VoipMetrics {
    fn read(block: &[u8; VOIP_LENGTH]) -> Option<Self> {
        let time = |at| half(block, at).filter(|ms| *ms != 0);
        let available = |at: usize, most: u8| {
            block.get(at).copied().filter(|value| *value != UNAVAILABLE && *value <= most)
        };
        Some(Self {
            ssrc: word(block, 0)?,
            loss_rate: block[4],
            discard_rate: block[5],
            round_trip_ms: time(12),
            end_system_delay_ms: time(14),
            r_factor: available(20, 100),
            mos_listening_tenths: available(22, 50).filter(|score| *score >= 10),
            mos_conversational_tenths: available(23, 50).filter(|score| *score >= 10),
            buffer_ms: time(26),
        })
    }
}

/// Reads a compound packet as far as it can be read.
#[must_use]
pub fn read(packet: &[u8]) -> Compound {
    let mut found = Compound::default();
    let mut rest = packet;
    while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
        if header[0] >> 6 != 2 {
            break;
        }
        let length = (usize::from(u16::from_be_bytes([header[2], header[3]])) + 1) * 4;
        let (count, kind) = (usize::from(header[0] & 0x1F), header[1]);
        let part = rest.get(..length).unwrap_or(rest);
        match kind {
            SENDER_REPORT => {
                // The middle of the eight bytes behind the header.
                found.ntp_middle = word(part, HEADER + 2).or(found.ntp_middle);
                blocks(part.get(HEADER + SENDER_INFORMATION..), count, &mut found.blocks);
            }
            RECEIVER_REPORT => blocks(part.get(HEADER..), count, &mut found.blocks),
            EXTENDED_REPORT => extended(part.get(HEADER..).unwrap_or_default(), &mut found.voip),
            _ => {}
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    found
}

fn blocks(bytes: Option<&[u8]>, count: usize, found: &mut Vec<ReportBlock>) {
    let room = MOST_BLOCKS.saturating_sub(found.len());
    let blocks = bytes.unwrap_or_default().as_chunks::<BLOCK>().0;
    found.extend(blocks.iter().take(count.min(room)).filter_map(ReportBlock::read));
}

fn extended(mut rest: &[u8], found: &mut Vec<VoipMetrics>) {
    while let Some(([kind, _, high, low], body)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])) * 4;
        if *kind == VOIP_METRICS
            && length == VOIP_LENGTH
            && found.len() < MOST_BLOCKS
            && let Some(block) = body.first_chunk::<VOIP_LENGTH>()
        {
            found.extend(VoipMetrics::read(block));
        }
        rest = body.get(length..).unwrap_or_default();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A report block about a source.
    pub(in crate::quality) fn block(
        ssrc: u32,
        fraction: u8,
        lost: i32,
        highest: u32,
        jitter: u32,
    ) -> Vec<u8> {
        let mut bytes = ssrc.to_be_bytes().to_vec();
        bytes.extend((lost as u32 & 0xFF_FFFF | u32::from(fraction) << 24).to_be_bytes());
        bytes.extend(highest.to_be_bytes());
        bytes.extend(jitter.to_be_bytes());
        bytes.extend([0; 8]);
        bytes
    }

    /// A receiver report with these blocks, and a source description behind it.
    pub(in crate::quality) fn receiver_report(blocks: &[Vec<u8>]) -> Vec<u8> {
        let words = 1 + 6 * blocks.len() as u16;
        let mut packet = vec![0x80 | blocks.len() as u8, RECEIVER_REPORT];
        packet.extend(words.to_be_bytes());
        packet.extend([0, 0, 0, 2]);
        packet.extend(blocks.concat());
        packet.extend([0x81, 202, 0, 1, 0, 0, 0, 2]);
        packet
    }

    /// The example values of a VoIP metrics block.
    const METRICS: [u8; 36] = [
        7, 0, 0, 8, // VoIP metrics, eight words
        0, 0, 0, 7, // about source 7
        13, 26, 128, 2, // lost 5 %, discarded 10 %, densities
        0, 60, 16, 0, // durations
        0, 80, 0, 120, // round trip, end system
        0xF0, 0xB0, 127, 16, // levels, echo unavailable, Gmin
        82, 127, 41, 127, // R, external R unavailable, listening, conversational unavailable
        0x30, 0, 0, 60, 0, 80, 0, 120, // configuration, reserved, jitter buffer
    ];

    #[test]
    fn reports_in_compound_packets_are_read_field_by_field() {
        let mut packet = vec![0x81, SENDER_REPORT, 0, 12, 0, 0, 0, 1, 0xAA, 0xBB, 1, 2, 3, 4, 0xCC, 0xDD];
        packet.extend([0; 12]);
        packet.extend(block(7, 64, -3, 0x0001_0005, 80));
        packet.extend([0x81, 202, 0, 1, 0, 0, 0, 2]);
        packet.extend([0x80, EXTENDED_REPORT, 0, 10, 0, 0, 0, 1]);
        packet.extend(METRICS);
        packet.extend([0x81, 203, 0, 1, 0, 0, 0, 1]);
        let expected = Compound {
            ntp_middle: Some(0x0102_0304),
            blocks: vec![ReportBlock {
                ssrc: 7,
                fraction_lost: 64,
                lost: -3,
                highest_sequence: 0x0001_0005,
                jitter: 80,
                last_report: 0,
                delay: 0,
            }],
            voip: vec![VoipMetrics {
                ssrc: 7,
                loss_rate: 13,
                discard_rate: 26,
                round_trip_ms: Some(80),
                end_system_delay_ms: Some(120),
                r_factor: Some(82),
                mos_listening_tenths: Some(41),
                mos_conversational_tenths: None,
                buffer_ms: Some(60),
            }],
        };
        assert_eq!(read(&packet), expected);
    }

    #[test]
    fn what_is_cut_off_or_no_report_gives_what_is_whole() {
        let two = receiver_report(&[block(7, 0, 1, 2, 3), block(8, 0, 1, 2, 3)]);
        for (description, packet, blocks) in [
            ("whole", &two[..], 2),
            ("the second block is cut off", &two[..50], 1),
            ("the first block is cut off", &two[..20], 0),
            ("more blocks are promised than there are", &[&[0x9F], &two[1..]].concat(), 2),
            ("another version", &[&[0x42], &two[1..]].concat(), 0),
            ("nothing", &[], 0),
        ] {
            assert_eq!(read(packet).blocks.len(), blocks, "{description}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_within_bounds(
            kind in prop::sample::select(vec![0u8, 200, 201, 207]),
            mut packet in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            if let [first, second, ..] = packet.as_mut_slice() {
                (*first, *second) = (*first & 0x1F | 0x80, kind);
            }
            let found = read(&packet);
            prop_assert!(found.blocks.len() <= MOST_BLOCKS && found.voip.len() <= MOST_BLOCKS);
        }
    }
}

//! Statistics of one flow, counted on arrival: RFC 3550 extended sequence numbers (appendix A.1), loss
//! (A.3) and interarrival jitter (A.8), with duplicates and reordering told apart by a window of the last
//! 64 sequence numbers.
//!
//! One record serves both datapaths: the userspace relay counts into it while a flow learns its source and
//! whenever the kernel passes a packet up; the kernel counts what it forwards. So the sequence has no seam.
//! The record is shared memory without a lock: a reader may see one field a packet newer than another, and
//! two writers in the same few nanoseconds may lose one of two counts.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::rtp::RtpHeader;

/// A sequence number this far ahead is a gap in the stream, not a new stream (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3000;
/// A sequence number this far behind is a late packet, not a new stream (RFC 3550 A.1).
const MAX_MISORDER: u16 = 100;
/// Sequence numbers that the window remembers.
const WINDOW: u16 = u64::BITS as u16;
/// The jitter is kept times 16, so that its filter works in integers (RFC 3550 A.8).
const JITTER_SHIFT: u32 = 4;
/// The marker bit above the payload type.
const PAYLOAD_TYPE_MASK: u8 = 0x7F;
/// The payload type of comfort noise at 8000 Hz (RFC 3551 section 6, table 4).
pub const COMFORT_NOISE: u8 = 13;

/// Statistics of one flow, in two cache lines: the first holds what every packet touches.
///
/// All zero is the valid beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct FlowStats {
    /// Packets that the kernel forwarded.
    pub kernel_packets: u64,
    /// Bytes that the kernel forwarded, IP headers included.
    pub kernel_bytes: u64,
    /// When the last packet arrived, on the kernel's monotonic clock, in nanoseconds.
    pub last_seen_ns: u64,
    /// Which of the last 64 sequence numbers arrived; bit 0 is the highest.
    window: u64,
    /// Highest sequence number received, with its cycles above bit 16.
    highest: u32,
    /// First sequence number of this source, extended likewise.
    base: u32,
    /// Synchronization source of the stream.
    pub ssrc: u32,
    /// RTP timestamp of the last packet that advanced it.
    timestamp: u32,
    /// Arrival minus timestamp of that packet, in timestamp units.
    transit: u32,
    /// Interarrival jitter in timestamp units, times 16.
    jitter: u32,
    /// Different sequence numbers received from this source; 0: none yet.
    received: u32,
    /// The sequence number that would confirm a jump, plus one; 0: no jump is suspected.
    suspect: u16,
    /// Payload type of the last packet.
    pub payload_type: u8,
    /// DSCP of the last packet as it arrived, 0-63.
    pub dscp: u8,

    /// Packets that the userspace relay sent on.
    pub relayed_packets: u64,
    /// Bytes that the userspace relay sent on, IP headers included.
    pub relayed_bytes: u64,
    /// Packets lost from sources that this stream has left behind.
    lost_before: u64,
    /// Packets expected from sources that this stream has left behind.
    expected_before: u64,
    /// Packets that had already arrived.
    pub duplicates: u32,
    /// Packets that arrived after one with a higher sequence number.
    pub reordered: u32,
    /// Changes of synchronization source, and jumps of its sequence.
    pub restarts: u32,
    /// RTCP packets among all packets.
    pub rtcp_packets: u32,
    /// Packets that either datapath dropped because they came from another source.
    pub wrong_source: u32,
    /// Runs of lost packets: adjacent sequence numbers that are missing count once.
    pub gaps: u32,
    /// Packets with the marker bit: beginnings of talk spurts, for audio (RFC 3551 section 4.1).
    pub markers: u32,
    /// Packets of comfort noise (RFC 3389): the sender is silent and says so.
    pub comfort_noise: u32,
}

const _: () = assert!(size_of::<FlowStats>() == 128);

impl FlowStats {
    /// The beginning: nothing counted.
    pub const ZERO: Self = Self {
        kernel_packets: 0,
        kernel_bytes: 0,
        last_seen_ns: 0,
        window: 0,
        highest: 0,
        base: 0,
        ssrc: 0,
        timestamp: 0,
        transit: 0,
        jitter: 0,
        received: 0,
        suspect: 0,
        payload_type: 0,
        dscp: 0,
        relayed_packets: 0,
        relayed_bytes: 0,
        lost_before: 0,
        expected_before: 0,
        duplicates: 0,
        reordered: 0,
        restarts: 0,
        rtcp_packets: 0,
        wrong_source: 0,
        gaps: 0,
        markers: 0,
        comfort_noise: 0,
    };

    /// Counts one RTP packet.
    ///
    /// `now_ns` is its time of arrival in nanoseconds; `ticks` is the clock of its timestamps as
    /// [`clock_ticks`] gives it.
    #[inline(always)]
    pub fn record_rtp(&mut self, header: &RtpHeader, now_ns: u64, ticks: u32) {
        let ssrc = u32::from_be_bytes(header.ssrc);
        let sequence = u16::from_be_bytes(header.sequence);
        let timestamp = u32::from_be_bytes(header.timestamp);
        self.payload_type = header.marker_and_type & PAYLOAD_TYPE_MASK;
        // Both are rare, so the second cache line is seldom touched.
        if header.marker_and_type & !PAYLOAD_TYPE_MASK != 0 {
            self.markers = self.markers.wrapping_add(1);
        }
        if self.payload_type == COMFORT_NOISE {
            self.comfort_noise = self.comfort_noise.wrapping_add(1);
        }

        if self.received == 0 || self.ssrc != ssrc {
            self.restart(ssrc, sequence);
            self.timestamp = timestamp;
            self.transit = transit(now_ns, ticks, timestamp);
            return;
        }
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead == 1 || (ahead != 0 && ahead < MAX_DROPOUT) {
            self.highest = self.highest.wrapping_add(u32::from(ahead));
            if ahead > 1 {
                self.gaps = self.gaps.wrapping_add(1);
            }
            self.window = if ahead < WINDOW { self.window << ahead | 1 } else { 1 };
            self.received = self.received.wrapping_add(1);
            self.suspect = 0;
        } else if ahead == 0 || ahead > MAX_MISORDER.wrapping_neg() {
            if !self.record_late(ahead.wrapping_neg()) {
                return;
            }
        } else if self.suspect != 0 && sequence == self.suspect.wrapping_sub(1) {
            // Two in a row: the sender has jumped (RFC 3550 A.1). The first of them went uncounted.
            self.restart(ssrc, sequence.wrapping_sub(1));
            self.highest = self.highest.wrapping_add(1);
            self.window = 0b11;
            self.received = 2;
            self.timestamp = timestamp;
            self.transit = transit(now_ns, ticks, timestamp);
            return;
        } else {
            // 0 is the mark for "no suspicion", so the expected number is kept plus one.
            self.suspect = sequence.wrapping_add(2);
            return;
        }
        // The packets of one DTMF event share a timestamp (RFC 4733 section 2.5.1.2), as do those of one
        // video frame: only the first of them says something about the network's delay variation.
        if timestamp != self.timestamp {
            let transit = transit(now_ns, ticks, timestamp);
            let distance = transit.wrapping_sub(self.transit) as i32;
            self.transit = transit;
            self.timestamp = timestamp;
            let magnitude = distance.unsigned_abs();
            self.jitter =
                self.jitter.wrapping_add(magnitude).wrapping_sub(self.jitter.wrapping_add(8) >> JITTER_SHIFT);
        }
    }

    /// Counts a packet `behind` the highest one; false if it had arrived before.
    #[inline(always)]
    fn record_late(&mut self, behind: u16) -> bool {
        if behind < WINDOW {
            let bit = 1u64 << behind;
            if self.window & bit != 0 {
                self.duplicates = self.duplicates.wrapping_add(1);
                return false;
            }
            self.window |= bit;
            // A late packet may fill a gap, take away at one of its ends, or make two of one.
            let newer = self.window & bit >> 1 != 0;
            let older = behind + 1 >= WINDOW || self.window & bit << 1 != 0;
            // One from before the first fills nothing.
            if self.highest.wrapping_sub(u32::from(behind)).wrapping_sub(self.base) as i32 > 0 {
                match (newer, older) {
                    (true, true) => self.gaps = self.gaps.saturating_sub(1),
                    (false, false) => self.gaps = self.gaps.wrapping_add(1),
                    _ => {}
                }
            }
        }
        let extended = self.highest.wrapping_sub(u32::from(behind));
        if (extended.wrapping_sub(self.base) as i32) < 0 {
            self.base = extended;
        }
        self.reordered = self.reordered.wrapping_add(1);
        self.received = self.received.wrapping_add(1);
        true
    }

    /// Begins to count a new source or a new sequence.
    #[inline(always)]
    fn restart(&mut self, ssrc: u32, sequence: u16) {
        if self.received != 0 {
            self.lost_before = self.lost();
            self.expected_before = self.expected();
            self.restarts = self.restarts.wrapping_add(1);
        }
        self.ssrc = ssrc;
        // Starting one cycle up leaves room below for packets that were overtaken by the first.
        self.highest = 1 << 16 | u32::from(sequence);
        self.base = self.highest;
        self.window = 1;
        self.received = 1;
        self.suspect = 0;
    }

    /// Packets that the sequence numbers say were sent, over all sources.
    #[must_use]
    pub const fn expected(&self) -> u64 {
        if self.received == 0 {
            return self.expected_before;
        }
        self.expected_before.wrapping_add(self.highest.wrapping_sub(self.base) as u64 + 1)
    }

    /// Packets that never arrived, over all sources.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        if self.received == 0 {
            return self.lost_before;
        }
        let expected = self.highest.wrapping_sub(self.base) as u64 + 1;
        self.lost_before.wrapping_add(expected.saturating_sub(self.received as u64))
    }

    /// These statistics, and all that another flow has counted since `then`: for a flow whose packets are counted
    /// where they arrived first, and not again on it. The stream's state is that flow's.
    #[must_use]
    pub const fn joined_with(&self, now: &Self, then: &Self) -> Self {
        const fn more(own: u64, now: u64, then: u64) -> u64 {
            own.wrapping_add(now.wrapping_sub(then))
        }
        const fn more32(own: u32, now: u32, then: u32) -> u32 {
            own.wrapping_add(now.wrapping_sub(then))
        }
        Self {
            kernel_packets: more(self.kernel_packets, now.kernel_packets, then.kernel_packets),
            kernel_bytes: more(self.kernel_bytes, now.kernel_bytes, then.kernel_bytes),
            relayed_packets: self.relayed_packets,
            relayed_bytes: self.relayed_bytes,
            // What is left behind makes up for what the two counted apart, so that the sums come out right.
            lost_before: more(now.lost_before, self.lost(), then.lost()),
            expected_before: more(now.expected_before, self.expected(), then.expected()),
            duplicates: more32(self.duplicates, now.duplicates, then.duplicates),
            reordered: more32(self.reordered, now.reordered, then.reordered),
            restarts: more32(self.restarts, now.restarts, then.restarts),
            rtcp_packets: more32(self.rtcp_packets, now.rtcp_packets, then.rtcp_packets),
            wrong_source: self.wrong_source,
            gaps: more32(self.gaps, now.gaps, then.gaps),
            markers: more32(self.markers, now.markers, then.markers),
            comfort_noise: more32(self.comfort_noise, now.comfort_noise, then.comfort_noise),
            ..*now
        }
    }

    /// Whether any RTP packet was counted.
    #[must_use]
    pub const fn has_rtp(&self) -> bool {
        self.received != 0
    }

    /// Highest sequence number, with its cycles above bit 16 counted from the first packet's.
    #[must_use]
    pub const fn extended_sequence(&self) -> u32 {
        self.highest.wrapping_sub(1 << 16)
    }

    /// Interarrival jitter in seconds, for timestamps of `clock_rate` hertz (RFC 3550 section 6.4.1).
    #[must_use]
    pub fn jitter_seconds(&self, clock_rate: u32) -> f64 {
        if clock_rate == 0 {
            return 0.0;
        }
        f64::from(self.jitter) / f64::from(1u32 << JITTER_SHIFT) / f64::from(clock_rate)
    }

    /// Packets over both datapaths.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.kernel_packets + self.relayed_packets
    }

    /// Bytes over both datapaths.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.kernel_bytes + self.relayed_bytes
    }
}

/// A media clock as the statistics want it: timestamp units a nanosecond, times 2^32.
///
/// The rounding is below 8 parts in a million for every audio clock.
#[must_use]
pub const fn clock_ticks(clock_rate: u32) -> u32 {
    const NANOSECONDS: u64 = 1_000_000_000;
    let ticks = (((clock_rate as u64) << 32) + NANOSECONDS / 2) / NANOSECONDS;
    ticks as u32
}

/// Arrival minus timestamp, in timestamp units, of which only differences mean something.
///
/// Bits 32 to 63 of the product are right even where the product itself overflows 64 bits.
#[inline(always)]
const fn transit(now_ns: u64, ticks: u32, timestamp: u32) -> u32 {
    ((now_ns.wrapping_mul(ticks as u64) >> 32) as u32).wrapping_sub(timestamp)
}

#[cfg(test)]
mod tests;

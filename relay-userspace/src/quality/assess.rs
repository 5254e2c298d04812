//! The figures of one direction of a stream: what the appliance has measured, what the far end has reported, and the
//! scores that follow.

use std::time::Duration;

use relay_ebpf::FlowStats;

use super::{
    book::Heard,
    codec::{Codec, Format},
    emodel::{Impairments, Scale, delay_impairment, effective_equipment_impairment, mos_of_rating, rating},
};

/// Packets before a stream is rated: a second of it.
const ENOUGH: u64 = 50;
/// What sound waits for on its way besides the network: a packet of 20 ms to be full, and its codec's few milliseconds.
const PACKET_MS: f64 = 25.0;
/// What a phone's jitter buffer adds unless it tells (RFC 3611): two packets, where most begin.
const BUFFER_MS: f64 = 40.0;
/// Units of the fractions in reports.
const FRACTION: f64 = 256.0;

/// What is known of a direction.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// What was counted on arrival.
    pub stats: &'a FlowStats,
    /// Clock of the timestamps in hertz, where the format is not known.
    pub clock_rate: u32,
    /// What was agreed on.
    pub formats: &'a [Format],
    /// RTCP of the party that sends this direction.
    pub sender: Option<&'a Heard>,
    /// RTCP of the party that it goes to.
    pub receiver: Option<&'a Heard>,
}

/// What the far end has reported of this direction. Empty what it has not.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reported {
    /// Packets lost on the whole way; less than 0 when duplicates outnumber them.
    pub lost: i32,
    /// The same in percent of the packets sent until its last report.
    pub loss_percent: f64,
    /// Loss between its last two reports, in percent.
    pub recent_loss_percent: f64,
    /// Interarrival jitter in milliseconds.
    pub jitter_ms: f64,
    /// Packets that its jitter buffer threw away, in percent.
    pub discarded_percent: Option<f64>,
    /// Its jitter buffer's nominal delay in milliseconds.
    pub buffer_ms: Option<f64>,
    /// Its own listening score.
    pub mos_listening: Option<f64>,
    /// Its own conversational score.
    pub mos_conversational: Option<f64>,
}

/// The figures of a direction. Empty what is not known.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// The codec.
    pub codec: Option<&'static Codec>,
    /// Loss before the appliance, in percent of the packets expected.
    pub loss_percent: Option<f64>,
    /// How much longer runs of lost packets are than chance would make them; none without loss.
    pub burst_ratio: Option<f64>,
    /// Interarrival jitter at the appliance in milliseconds.
    pub jitter_ms: Option<f64>,
    /// What the far end reported.
    pub reported: Option<Reported>,
    /// Loss beyond the appliance: what the far end reports over what the appliance has seen, in percent.
    pub beyond_percent: Option<f64>,
    /// From the appliance to the sender and back.
    pub round_trip: Option<Duration>,
    /// Estimate of the network's delay from sender to receiver in milliseconds: half of both round trips.
    pub one_way_ms: Option<f64>,
    /// The rating R, with delay if it is known.
    pub rating: Option<f64>,
    /// Listening score: codec and loss.
    pub mos_listening: Option<f64>,
    /// Conversational score: delay too.
    pub mos_conversational: Option<f64>,
}

impl Figures {
    /// The model that the scores are of.
    #[must_use]
    pub fn scale(&self) -> Option<Scale> {
        self.codec.filter(|_| self.rating.is_some()).map(|codec| codec.cost.band)
    }
}

/// Puts together what is known of a direction.
#[must_use]
pub fn assess(seen: &Seen<'_>) -> Figures {
    let Seen { stats, formats, sender, receiver, .. } = *seen;
    let heard = stats.has_rtp();
    let codec = Codec::of_stream(formats, stats.payload_type).filter(|_| heard);
    let (expected, lost) = (stats.expected(), stats.lost());
    let percent = |part: f64| part * 100.0 / expected as f64;
    let loss_percent = heard.then(|| percent(lost as f64));
    let burst_ratio = (lost > 0 && stats.gaps > 0)
        .then(|| lost as f64 / f64::from(stats.gaps) * (1.0 - lost as f64 / expected as f64))
        .map(|ratio| ratio.max(1.0));
    let reported = receiver.filter(|_| heard).and_then(|receiver| reported(seen, receiver));
    let beyond_percent = reported.zip(loss_percent).map(|(far, near)| (far.loss_percent - near).max(0.0));
    let times = [sender, receiver].map(|party| party.and_then(|party| party.round_trip));
    let one_way_ms = match times {
        [Some(here), Some(there)] => Some((here + there).as_secs_f64() * 1000.0 / 2.0),
        _ => None,
    };

    let rated = codec.filter(|_| expected >= ENOUGH).map(|codec| {
        let cost = codec.cost;
        let far = reported.map_or(0.0, |far| far.loss_percent);
        let discarded = reported.and_then(|far| far.discarded_percent).unwrap_or(0.0);
        let loss = loss_percent.unwrap_or(0.0).max(far) + discarded;
        let equipment = effective_equipment_impairment(cost.ie, cost.bpl, loss, burst_ratio.unwrap_or(1.0));
        let score = |delay| {
            let r = rating(cost.band, Impairments { delay, equipment });
            (r, mos_of_rating(cost.band, r))
        };
        let buffer = reported.and_then(|far| far.buffer_ms).unwrap_or(BUFFER_MS);
        let with_delay = one_way_ms.map(|way| score(delay_impairment(way + PACKET_MS + buffer)));
        (score(0.0), with_delay)
    });
    Figures {
        codec,
        loss_percent,
        burst_ratio,
        jitter_ms: heard.then(|| stats.jitter_seconds(seen.clock_rate) * 1000.0),
        reported,
        beyond_percent,
        round_trip: times[0],
        one_way_ms,
        rating: rated.map(|(listening, conversation)| conversation.unwrap_or(listening).0),
        mos_listening: rated.map(|(listening, _)| listening.1),
        mos_conversational: rated.and_then(|(_, conversation)| conversation.map(|score| score.1)),
    }
}

/// What the receiver says of the source that sends.
fn reported(seen: &Seen<'_>, receiver: &Heard) -> Option<Reported> {
    let stats = seen.stats;
    let block = receiver.block(stats.ssrc)?;
    let clock_rate = seen
        .formats
        .iter()
        .find(|format| format.payload_type == stats.payload_type)
        .map_or(seen.clock_rate, |format| format.clock_rate)
        .max(1);
    // What was sent since that report is not in it. Its cycles may be counted from elsewhere: 16 bits are compared.
    let since = (stats.extended_sequence() as u16).wrapping_sub(block.highest_sequence as u16);
    let sent = stats.expected().saturating_sub(u64::from(since)).max(1);
    let voip = receiver.voip(stats.ssrc);
    let tenths = |score: Option<u8>| score.map(|tenths| f64::from(tenths) / 10.0);
    Some(Reported {
        lost: block.lost,
        loss_percent: (f64::from(block.lost.max(0)) * 100.0 / sent as f64).min(100.0),
        recent_loss_percent: f64::from(block.fraction_lost) * 100.0 / FRACTION,
        jitter_ms: f64::from(block.jitter) * 1000.0 / f64::from(clock_rate),
        discarded_percent: voip.map(|voip| f64::from(voip.discard_rate) * 100.0 / FRACTION),
        buffer_ms: voip.and_then(|voip| voip.buffer_ms).map(f64::from),
        mos_listening: voip.and_then(|voip| tenths(voip.mos_listening_tenths)),
        mos_conversational: voip.and_then(|voip| tenths(voip.mos_conversational_tenths)),
    })
}

#[cfg(test)]
mod tests {
    use relay_ebpf::rtp::RtpHeader;

    use super::{
        super::{
            book::Book,
            rtcp::tests::{block, receiver_report},
        },
        *,
    };

    const SSRC: u32 = 7;

    /// A stream of 20 ms packets of mu-law in which these places are missing.
    fn stream(packets: u16, missing: impl Fn(u16) -> bool) -> FlowStats {
        let mut stats = FlowStats::ZERO;
        for place in (0..packets).filter(|place| !missing(*place)) {
            let header = RtpHeader {
                flags: 0x80,
                marker_and_type: 0,
                sequence: place.to_be_bytes(),
                timestamp: (u32::from(place) * 160).to_be_bytes(),
                ssrc: SSRC.to_be_bytes(),
            };
            let now = 1_000_000_000 + u64::from(place) * 20_000_000;
            stats.record_rtp(&header, now, relay_ebpf::stats::clock_ticks(8000));
        }
        stats
    }

    fn figures(stats: &FlowStats, sender: Option<&Heard>, receiver: Option<&Heard>) -> Figures {
        assess(&Seen { stats, clock_rate: 8000, formats: &[], sender, receiver })
    }

    /// What is heard of a party whose receiver report has this block.
    fn party(about: &[u8]) -> Heard {
        let (local, pair) = ("10.0.0.1:2".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        let mut book = Book::default();
        book.packet(local, pair, 1, &receiver_report(&[about.to_vec()]));
        book.heard(local).unwrap().clone()
    }

    #[test]
    fn a_whole_stream_of_g_711_has_its_score_and_nothing_that_nobody_told() {
        let found = figures(&stream(500, |_| false), None, None);
        assert_eq!((found.loss_percent, found.burst_ratio, found.jitter_ms), (Some(0.0), None, Some(0.0)));
        assert_eq!((found.reported, found.beyond_percent), (None, None));
        assert_eq!((found.round_trip, found.one_way_ms, found.mos_conversational), (None, None, None));
        assert_eq!(found.mos_listening.map(|mos| (mos * 100.0).round()), Some(441.0));
    }

    #[test]
    fn a_stream_without_packets_has_no_figures_at_all() {
        let found = figures(&FlowStats::ZERO, None, None);
        assert_eq!((found.codec, found.loss_percent, found.jitter_ms), (None, None, None));
        assert_eq!((found.rating, found.mos_listening), (None, None));
    }

    #[test]
    fn lost_packets_in_bursts_cost_more_than_as_many_alone() {
        let alone = figures(&stream(1000, |place| place % 20 == 10), None, None);
        let bursts = figures(&stream(1000, |place| (10..15).contains(&(place % 100))), None, None);
        assert_eq!((alone.loss_percent, bursts.loss_percent), (Some(5.0), Some(5.0)));
        assert_eq!((alone.burst_ratio, bursts.burst_ratio), (Some(1.0), Some(4.75)));
        assert!(alone.mos_listening > bursts.mos_listening, "{alone:?} {bursts:?}");
    }

    #[test]
    fn what_the_far_end_reports_beyond_our_loss_was_lost_beyond_us() {
        let stats = stream(500, |place| place % 100 == 50);
        // Its report is 100 packets old, when 400 had been sent: 5 of them were lost before us, it misses 28.
        let receiver = party(&block(SSRC, 64, 28, 399, 240));
        let found = figures(&stats, None, Some(&receiver));
        let reported = found.reported.unwrap();
        assert_eq!((found.loss_percent, reported.lost), (Some(1.0), 28));
        assert_eq!((reported.loss_percent, reported.recent_loss_percent), (7.0, 25.0));
        assert_eq!((reported.jitter_ms, found.beyond_percent), (30.0, Some(6.0)));
        let whole = figures(&stats, None, None);
        assert!(found.mos_listening < whole.mos_listening, "{found:?} {whole:?}");
    }

    #[test]
    fn a_report_about_another_source_as_srtcp_seems_to_be_is_no_report() {
        let receiver = party(&block(SSRC + 1, 64, 28, 399, 240));
        assert_eq!(figures(&stream(500, |_| false), None, Some(&receiver)).reported, None);
    }

    #[test]
    fn delay_is_half_of_both_round_trips_and_counts_in_conversation_alone() {
        let party = |ms| {
            let mut party = Heard::default();
            party.round_trip = Some(Duration::from_millis(ms));
            party
        };
        let (near, far) = (party(20), party(380));
        let found = figures(&stream(500, |_| false), Some(&near), Some(&far));
        assert_eq!((found.round_trip, found.one_way_ms), (Some(Duration::from_millis(20)), Some(200.0)));
        assert_eq!(found.mos_listening.map(|mos| (mos * 100.0).round()), Some(441.0));
        assert!(found.mos_conversational < Some(4.3), "{found:?}");
        let half = figures(&stream(500, |_| false), Some(&near), None);
        assert_eq!(
            (half.one_way_ms, half.mos_conversational),
            (None, None),
            "one round trip is half the way"
        );
    }
}

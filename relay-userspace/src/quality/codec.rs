//! What codecs cost: the equipment impairment factor of each and how well it takes loss, by the names that session
//! descriptions use (IANA's RTP payload formats).
//!
//! Sources: ITU-T G.113 (11/2007) appendix I for narrowband, appendix IV for wideband. Where G.113 has no value, one is
//! assumed from a codec of the same making, and [`Provenance`] says so.

use super::emodel::Scale;

/// A payload type of a stream, as the session description maps it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Format {
    /// The payload type, 0 to 127.
    pub payload_type: u8,
    /// The encoding's name as written, for example `PCMU`.
    pub encoding: String,
    /// Clock of its timestamps in hertz.
    pub clock_rate: u32,
}

/// What a codec carries.
pub type Band = Scale;

/// Where a codec's figures come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// Both are in G.113.
    Published,
    /// The impairment is in G.113, the robustness is assumed.
    RobustnessAssumed,
    /// G.113 has neither.
    Assumed,
}

/// What a codec costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CodecCost {
    /// The model that it is rated by.
    pub band: Band,
    /// The equipment impairment factor `Ie` (`Ie,wb` for wideband), without loss.
    pub ie: f64,
    /// The packet-loss robustness factor `Bpl`.
    pub bpl: f64,
    /// Where these come from.
    pub provenance: Provenance,
}

/// A codec by its names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Codec {
    /// The encoding's name in session descriptions.
    pub encoding: &'static str,
    /// The name that people use.
    pub name: &'static str,
    /// What it costs.
    pub cost: CodecCost,
}

/// `Bpl` of G.711 with the packet loss concealment of its appendix I (G.113 table I.4): what phones have.
const G711_CONCEALED: f64 = 25.1;
/// `Bpl` of G.711 without concealment (G.113 table I.4); also for ADPCM, of which it is assumed.
const UNCONCEALED: f64 = 4.3;
/// `Bpl` of GSM-EFR (G.113 table I.4); assumed of others whose concealment repeats and mutes as its does.
const GSM_EFR: f64 = 10.0;

const fn row(
    encoding: &'static str,
    name: &'static str,
    band: Band,
    ie: f64,
    bpl: f64,
    provenance: Provenance,
) -> Codec {
    Codec { encoding, name, cost: CodecCost { band, ie, bpl, provenance } }
}

use Provenance::{Assumed, Published, RobustnessAssumed};
use Scale::{Narrowband, Wideband};

/// All codecs that are known.
pub(super) const CODECS: [Codec; 19] = [
    row("PCMU", "G.711 mu-law", Narrowband, 0.0, G711_CONCEALED, Published),
    row("PCMA", "G.711 A-law", Narrowband, 0.0, G711_CONCEALED, Published),
    // With voice activity detection: table I.4 has it with, and without it costs 1 less.
    row("G729", "G.729A", Narrowband, 11.0, 19.0, Published),
    row("G723", "G.723.1", Narrowband, 15.0, 16.1, Published),
    row("G726-16", "G.726", Narrowband, 50.0, UNCONCEALED, RobustnessAssumed),
    row("G726-24", "G.726", Narrowband, 25.0, UNCONCEALED, RobustnessAssumed),
    row("G726-32", "G.726", Narrowband, 7.0, UNCONCEALED, RobustnessAssumed),
    row("G726-40", "G.726", Narrowband, 2.0, UNCONCEALED, RobustnessAssumed),
    row("G728", "G.728", Narrowband, 7.0, UNCONCEALED, RobustnessAssumed),
    row("GSM", "GSM full rate", Narrowband, 20.0, GSM_EFR, RobustnessAssumed),
    row("GSM-HR-08", "GSM half rate", Narrowband, 23.0, GSM_EFR, RobustnessAssumed),
    row("GSM-EFR", "GSM enhanced full rate", Narrowband, 5.0, GSM_EFR, Published),
    // At 12.2 kbit/s it is GSM-EFR; a lower mode costs more, and no description says which is used.
    row("AMR", "AMR", Narrowband, 5.0, GSM_EFR, Published),
    // Its frames do not depend on each other (RFC 3951 section 1): it takes loss better than the others of its rate.
    row("iLBC", "iLBC", Narrowband, 11.0, G711_CONCEALED, Assumed),
    row("G722", "G.722", Wideband, 13.0, GSM_EFR, RobustnessAssumed),
    // At 12.65 kbit/s, its usual mode.
    row("AMR-WB", "AMR-WB", Wideband, 13.0, GSM_EFR, RobustnessAssumed),
    row("G7221", "G.722.1", Wideband, 19.0, GSM_EFR, RobustnessAssumed),
    // As AMR-WB at its best (Ie,wb = 1), which listening tests find Opus to reach; it conceals and may repeat itself.
    row("opus", "Opus", Wideband, 1.0, G711_CONCEALED, Assumed),
    row("SILK", "SILK", Wideband, 1.0, GSM_EFR, Assumed),
];

/// The names of RFC 3551's static payload types (table 4).
#[must_use]
pub(super) fn static_encoding(payload_type: u8) -> Option<&'static str> {
    Some(match payload_type {
        0 => "PCMU",
        2 => "G726-32",
        3 => "GSM",
        4 => "G723",
        8 => "PCMA",
        9 => "G722",
        13 => "CN",
        15 => "G728",
        18 => "G729",
        _ => return None,
    })
}

impl Format {
    /// A payload type that has its meaning without a map (RFC 3551 table 4), or that has none here.
    #[must_use]
    pub fn of_static(payload_type: u8, clock_rate: u32) -> Option<Self> {
        let encoding = static_encoding(payload_type)?.to_owned();
        Some(Self { payload_type, encoding, clock_rate })
    }
}

impl Codec {
    /// The codec of this name, whatever its case (RFC 4855 section 3).
    #[must_use]
    pub fn named(encoding: &str) -> Option<&'static Self> {
        CODECS.iter().find(|codec| codec.encoding.eq_ignore_ascii_case(encoding))
    }

    /// The codec of a stream: that of the payload type that came last, or the first one that was agreed on, for the last
    /// packet may have been a digit or comfort noise.
    #[must_use]
    pub fn of_stream(formats: &[Format], payload_type: u8) -> Option<&'static Self> {
        let of = |format: &Format| Self::named(&format.encoding);
        let mapped = formats.iter().find(|format| format.payload_type == payload_type);
        match mapped {
            Some(format) => of(format),
            None => static_encoding(payload_type).and_then(Self::named),
        }
        .or_else(|| formats.iter().find_map(of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(payload_type: u8, encoding: &str) -> Format {
        Format { payload_type, encoding: encoding.to_owned(), clock_rate: 8000 }
    }

    #[test]
    fn codecs_of_g_113_cost_what_it_says() {
        for (encoding, ie, bpl) in [
            ("PCMU", 0.0, 25.1),
            ("pcma", 0.0, 25.1),
            ("G729", 11.0, 19.0),
            ("G723", 15.0, 16.1),
            ("GSM-EFR", 5.0, 10.0),
        ] {
            let cost = Codec::named(encoding).unwrap().cost;
            assert_eq!((cost.ie, cost.bpl, cost.provenance), (ie, bpl, Published), "{encoding}");
        }
        for (encoding, ie) in [("G726-32", 7.0), ("G728", 7.0), ("GSM", 20.0), ("G722", 13.0)] {
            assert_eq!(Codec::named(encoding).unwrap().cost.ie, ie, "{encoding}");
        }
        assert_eq!(Codec::named("telephone-event"), None);
    }

    #[test]
    fn a_stream_has_the_codec_of_its_payload_type_or_the_first_that_was_agreed_on() {
        let offered = [format(101, "telephone-event"), format(96, "opus"), format(0, "PCMU")];
        for (description, formats, payload_type, expected) in [
            ("a mapped one", &offered[..], 96, Some("opus")),
            ("one of the static ones", &offered[..], 0, Some("PCMU")),
            ("a digit came last", &offered[..], 101, Some("opus")),
            ("comfort noise came last", &offered[..], 13, Some("opus")),
            ("nothing is mapped", &[][..], 8, Some("PCMA")),
            ("nothing is known", &[][..], 97, None),
        ] {
            let found = Codec::of_stream(formats, payload_type).map(|codec| codec.encoding);
            assert_eq!(found, expected, "{description}");
        }
    }
}

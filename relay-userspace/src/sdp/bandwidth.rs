//! What a description may take of a line, in kbit/s and one direction, headers of IP, UDP and RTP included.
//!
//! A stream that says it by `b=AS` is believed (RFC 8866 section 5.8: with the headers). Otherwise audio takes what its
//! codecs take in frames of 20 ms, video and others a usual rate. It is an estimate for admission, not a measurement.

use super::{Media, Session};

/// 40 bytes of IPv4, UDP and RTP headers, 50 times a second, in kbit/s.
const HEADERS: u32 = 16;
/// What a codec without an entry takes: as G.711.
const UNKNOWN_AUDIO: u32 = 64;
/// A stream of video that does not say.
const VIDEO: u32 = 1024;
/// Fax and the like.
const DATA: u32 = 32;
/// A stream that says more is not believed beyond this.
const MOST: u32 = 100_000;

/// Codecs of audio by name, in kbit/s of payload.
const CODECS: [(&[u8], u32); 12] = [
    (b"PCMU", 64),
    (b"PCMA", 64),
    (b"G722", 64),
    (b"G729", 8),
    (b"G723", 6),
    (b"GSM", 13),
    (b"iLBC", 15),
    (b"AMR", 13),
    (b"AMR-WB", 24),
    (b"G726-32", 32),
    (b"opus", 64),
    (b"speex", 25),
];
/// Not audio of their own.
const NO_CODECS: [&[u8]; 2] = [b"telephone-event", b"CN"];

/// Which of several codecs counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The one that takes most: an offer may come to that.
    Offer,
    /// The first, which is the one that will be used.
    Answer,
}

impl Session<'_> {
    /// What all its streams may take together, in kbit/s in one direction.
    #[must_use]
    pub fn bandwidth_kbps(&self, of: Of) -> u32 {
        self.media.iter().filter(|media| !media.is_disabled()).map(|media| stream(media, of)).sum()
    }
}

fn stream(media: &Media<'_>, of: Of) -> u32 {
    let said = media.raw.split(|byte| *byte == b'\n').find_map(|line| {
        let number = line.strip_prefix(b"b=AS:")?.trim_ascii();
        std::str::from_utf8(number).ok()?.parse::<u32>().ok()
    });
    if let Some(said) = said {
        return said.min(MOST);
    }
    match media.kind {
        b"audio" => {
            let mut rates = media.payload_types().filter_map(|payload_type| audio(media, payload_type));
            let rate = match of {
                Of::Offer => rates.max(),
                Of::Answer => rates.next(),
            };
            rate.unwrap_or(UNKNOWN_AUDIO) + HEADERS
        }
        b"video" => VIDEO,
        _ => DATA,
    }
}

/// What a payload type of audio takes; `None` for one that is no audio of its own.
fn audio(media: &Media<'_>, payload_type: u8) -> Option<u32> {
    let named = media.rtpmaps.iter().find(|map| map.payload_type == payload_type).map(|map| map.encoding);
    // RFC 3551 table 4.
    let name = named.unwrap_or(match payload_type {
        0 => b"PCMU",
        3 => b"GSM",
        4 => b"G723",
        8 => b"PCMA",
        9 => b"G722",
        13 => b"CN",
        18 => b"G729",
        _ => b"",
    });
    if NO_CODECS.iter().any(|other| other.eq_ignore_ascii_case(name)) {
        return None;
    }
    let known = CODECS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    Some(known.map_or(UNKNOWN_AUDIO, |(_, rate)| *rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_takes_what_it_says_or_what_its_codecs_take() {
        let audio = "m=audio 4000 RTP/AVP 18 0 101\r\na=rtpmap:101 telephone-event/8000\r\n";
        let rows = [
            ("an offer may come to its greediest codec", audio, Of::Offer, 80),
            ("an answer comes to its first", audio, Of::Answer, 24),
            ("it says so", "m=audio 4000 RTP/AVP 0\r\nb=AS:30\r\n", Of::Offer, 30),
            ("a codec by name", "m=audio 4000 RTP/AVP 97\r\na=rtpmap:97 iLBC/8000\r\n", Of::Answer, 31),
            (
                "events alone",
                "m=audio 4000 RTP/AVP 101\r\na=rtpmap:101 telephone-event/8000\r\n",
                Of::Answer,
                80,
            ),
            (
                "video beside it",
                "m=audio 4000 RTP/AVP 8\r\nm=video 4002 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
                Of::Offer,
                1104,
            ),
            ("a refused stream", "m=audio 0 RTP/AVP 8\r\n", Of::Answer, 0),
            ("fax", "m=image 4000 udptl t38\r\n", Of::Answer, 32),
            ("a boast", "m=audio 4000 RTP/AVP 0\r\nb=AS:4000000000\r\n", Of::Offer, MOST),
        ];
        for (description, media, of, expected) in rows {
            let text =
                format!("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n{media}");
            let session = Session::parse(text.as_bytes()).unwrap();
            assert_eq!(session.bandwidth_kbps(of), expected, "{description}");
        }
    }
}

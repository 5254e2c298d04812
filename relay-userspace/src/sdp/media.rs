//! One media description: an `m=` line and what follows it.

use super::{
    limits,
    parse::{Attribute, Connection, Problem, number, words},
};
use crate::splice;

/// Which way media flows, as seen by the description's sender (RFC 8866 6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// The sender only sends: it has put the other side on hold.
    SendOnly,
    /// The sender only receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    pub(super) fn recognise(attribute: &[u8]) -> Option<Self> {
        match attribute {
            b"sendrecv" => Some(Self::SendRecv),
            b"sendonly" => Some(Self::SendOnly),
            b"recvonly" => Some(Self::RecvOnly),
            b"inactive" => Some(Self::Inactive),
            _ => None,
        }
    }
}

/// The transport of a media description, as far as a relay cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `RTP/AVP`, `RTP/AVPF`.
    Rtp,
    /// `RTP/SAVP`, `RTP/SAVPF`: keys by SDES or by DTLS announced in attributes.
    Srtp,
    /// `UDP/TLS/RTP/SAVP`, `UDP/TLS/RTP/SAVPF`.
    DtlsSrtp,
    /// `udptl`: T.38 fax.
    Udptl,
    /// `udp` and other datagrams without RTP.
    Udp,
    /// TCP and everything unknown: left alone.
    Other,
}

impl Protocol {
    fn recognise(name: &[u8]) -> Self {
        match name.to_ascii_uppercase().as_slice() {
            b"RTP/AVP" | b"RTP/AVPF" => Self::Rtp,
            b"RTP/SAVP" | b"RTP/SAVPF" => Self::Srtp,
            b"UDP/TLS/RTP/SAVP" | b"UDP/TLS/RTP/SAVPF" => Self::DtlsSrtp,
            b"UDPTL" => Self::Udptl,
            b"UDP" | b"UDP/BFCP" | b"UDP/DTLS/SCTP" | b"UDP/TLS/UDPTL" => Self::Udp,
            _ => Self::Other,
        }
    }

    /// Whether its packets are RTP, encrypted or not, and RTCP goes beside them.
    #[must_use]
    pub fn is_rtp(self) -> bool {
        matches!(self, Self::Rtp | Self::Srtp | Self::DtlsSrtp)
    }

    /// Whether its packets are UDP datagrams that a relay can carry.
    #[must_use]
    pub fn is_datagram(self) -> bool {
        self != Self::Other
    }
}

/// An `a=rtcp` attribute (RFC 3605).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtcp<'a> {
    /// Its port.
    pub port: u16,
    /// Its address, when it has one.
    pub connection: Option<Connection<'a>>,
    /// The attribute's value as written: what is replaced.
    pub raw: &'a [u8],
}

impl<'a> Rtcp<'a> {
    fn parse(raw: &'a [u8]) -> Option<Self> {
        let port_text = words(raw).next()?;
        let end = splice::offset_in(raw, port_text)?.end;
        let rest = raw.get(end..)?;
        let connection = match words(rest).next() {
            None => None,
            Some(first) => Some(Connection::parse(rest.get(splice::offset_in(rest, first)?.start..)?)?),
        };
        Some(Self { port: number(port_text)?, connection, raw })
    }
}

/// An `a=rtpmap` attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpMap<'a> {
    /// The payload type, 0 to 127.
    pub payload_type: u8,
    /// The encoding's name as written.
    pub encoding: &'a [u8],
    /// The clock rate in Hz.
    pub clock_rate: u32,
}

impl<'a> RtpMap<'a> {
    /// `None` for one that cannot be read: it is passed on all the same, only its clock rate stays unknown.
    fn parse(value: &'a [u8]) -> Option<Self> {
        let mut words = words(value);
        let payload_type = u8::try_from(number(words.next()?)?).ok().filter(|number| *number < 128)?;
        let mut parts = words.next()?.split(|byte| *byte == b'/');
        let encoding = parts.next().filter(|name| !name.is_empty())?;
        let clock_rate = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        Some(Self { payload_type, encoding, clock_rate })
    }
}

/// A media description, borrowed.
#[derive(Clone, Debug)]
pub struct Media<'a> {
    /// `audio`, `video`, `image`, ...
    pub kind: &'a [u8],
    /// The port; 0 is a stream that is refused or ended.
    pub port: u16,
    /// The number of ports, when written (`m=audio 49170/2 ...`).
    pub port_count: Option<u16>,
    /// The port as written, without the count: what is replaced.
    pub port_raw: &'a [u8],
    /// The protocol as written.
    pub protocol_raw: &'a [u8],
    /// The protocol.
    pub protocol: Protocol,
    /// The formats as written, separated by blanks: payload types for RTP.
    pub formats_raw: &'a [u8],
    /// The `m=` line with its line end.
    pub line: &'a [u8],
    /// The description's own `c=` line.
    pub connection: Option<Connection<'a>>,
    /// The description's own direction attribute.
    pub direction: Option<Direction>,
    /// The `a=rtcp` attribute.
    pub rtcp: Option<Rtcp<'a>>,
    /// Whether `a=rtcp-mux` (or `a=rtcp-mux-only`, RFC 8858) is there.
    pub rtcp_mux: bool,
    /// The `a=rtpmap` attributes that can be read.
    pub rtpmaps: Vec<RtpMap<'a>>,
    /// The description's attributes, in order.
    pub attributes: Vec<Attribute<'a>>,
    /// From the `m=` line to the end of the description's last line.
    pub raw: &'a [u8],
    /// The line after which a `c=` line of its own would stand: the `m=` line, or its `i=` line (RFC 8866 5).
    pub(super) before_connection: &'a [u8],
}

impl<'a> Media<'a> {
    pub(super) fn parse(value: &'a [u8], line: &'a [u8]) -> Option<Self> {
        let mut words = words(value);
        let (kind, ports, protocol_raw) = (words.next()?, words.next()?, words.next()?);
        let mut ports = ports.splitn(2, |byte| *byte == b'/');
        let port_raw = ports.next()?;
        let port = number(port_raw)?;
        let port_count = match ports.next() {
            Some(count) => Some(number(count).filter(|count| *count > 0)?),
            None => None,
        };
        let after = splice::offset_in(value, protocol_raw)?.end;
        let formats = value.get(after..)?;
        let first = words.next()?;
        let formats_raw = formats.get(splice::offset_in(formats, first)?.start..)?;
        Some(Self {
            kind,
            port,
            port_count,
            port_raw,
            protocol_raw,
            protocol: Protocol::recognise(protocol_raw),
            formats_raw,
            line,
            connection: None,
            direction: None,
            rtcp: None,
            rtcp_mux: false,
            rtpmaps: Vec::new(),
            attributes: Vec::new(),
            raw: line,
            before_connection: line,
        })
    }

    pub(super) fn attribute(&mut self, attribute: Attribute<'a>) -> Result<(), Problem> {
        match (attribute.name, attribute.value) {
            (b"rtcp", Some(value)) => {
                let rtcp = Rtcp::parse(value).ok_or(Problem::Rtcp)?;
                if self.rtcp.replace(rtcp).is_some() {
                    return Err(Problem::SecondAttribute("rtcp"));
                }
            }
            (b"rtcp-mux", None) if self.find("rtcp-mux").is_some() => {
                return Err(Problem::SecondAttribute("rtcp-mux"));
            }
            (b"rtcp-mux" | b"rtcp-mux-only", None) => self.rtcp_mux = true,
            (b"crypto", Some(value)) => {
                let tag = words(value).next();
                let known = self.attributes.iter().filter(|attribute| attribute.name == b"crypto");
                if known.filter_map(|attribute| attribute.value).any(|value| words(value).next() == tag) {
                    return Err(Problem::SecondCrypto);
                }
            }
            (b"rtpmap", Some(value)) if self.rtpmaps.len() < limits::RTPMAPS => {
                self.rtpmaps.extend(RtpMap::parse(value));
            }
            (name, None) => self.direction = self.direction.or(Direction::recognise(name)),
            _ => {}
        }
        self.attributes.push(attribute);
        Ok(())
    }

    /// Takes one more line into the description.
    pub(super) fn extend(&mut self, whole: &'a [u8], line: &'a [u8]) {
        let (Some(mine), Some(more)) = (splice::offset_in(whole, self.raw), splice::offset_in(whole, line))
        else {
            return;
        };
        self.raw = whole.get(mine.start..more.end).unwrap_or(self.raw);
        if line.starts_with(b"i=") && self.connection.is_none() && self.attributes.is_empty() {
            self.before_connection = line;
        }
    }

    /// Whether the stream is refused or ended (port 0). In a bundle it may still be in use (`a=bundle-only`).
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.port == 0
    }

    /// The formats in order.
    pub fn formats(&self) -> impl Iterator<Item = &'a [u8]> {
        words(self.formats_raw)
    }

    /// The payload types among the formats; empty when the protocol is not RTP.
    pub fn payload_types(&self) -> impl Iterator<Item = u8> {
        let rtp = self.protocol.is_rtp();
        self.formats()
            .filter(move |_| rtp)
            .filter_map(|format| u8::try_from(number(format)?).ok().filter(|number| *number < 128))
    }

    /// The clock rate of a payload type in Hz: from its `a=rtpmap`, else from the static table.
    #[must_use]
    pub fn clock_rate(&self, payload_type: u8) -> Option<u32> {
        self.rtpmaps
            .iter()
            .find(|map| map.payload_type == payload_type)
            .map(|map| map.clock_rate)
            .or_else(|| static_clock_rate(payload_type))
    }

    /// The first attribute of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Attribute<'a>> {
        self.attributes.iter().find(|attribute| attribute.name == name.as_bytes()).copied()
    }
}

/// The clock rate in Hz of the payload types that RFC 3551 section 6 (tables 4 and 5) assigns for good.
#[must_use]
pub fn static_clock_rate(payload_type: u8) -> Option<u32> {
    match payload_type {
        // PCMU, GSM, G723, DVI4, LPC, PCMA, G722 (8000 by an old error, RFC 3551 4.5.2), QCELP, CN, G728, G729
        0 | 3..=5 | 7..=9 | 12 | 13 | 15 | 18 => Some(8_000),
        6 => Some(16_000),                                     // DVI4
        10 | 11 => Some(44_100),                               // L16
        16 => Some(11_025),                                    // DVI4
        17 => Some(22_050),                                    // DVI4
        14 | 25 | 26 | 28 | 31 | 32 | 33 | 34 => Some(90_000), // MPA and video
        _ => None,
    }
}

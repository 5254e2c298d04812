//! Reading a description.

use std::{fmt, net::IpAddr};

use super::{
    limits,
    media::{Direction, Media},
};

/// What is wrong with a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Longer than [`limits::BODY`].
    #[error("description is too long")]
    TooLong,
    /// Longer than [`limits::LINE`].
    #[error("line is too long")]
    LineTooLong,
    /// More than [`limits::LINES`].
    #[error("too many lines")]
    TooManyLines,
    /// More than [`limits::MEDIA`].
    #[error("too many media descriptions")]
    TooManyMedia,
    /// The first line is not `v=0`.
    #[error("does not begin with v=0")]
    NoVersion,
    /// A line is not `letter=value`.
    #[error("not a letter, an equals sign and a value")]
    NotALine,
    /// A `c=` line is not `IN IP4 address` or `IN IP6 address`.
    #[error("malformed connection line")]
    Connection,
    /// An `m=` line is not `media port protocol formats`.
    #[error("malformed media line")]
    Media,
    /// An `a=rtcp` attribute is not `port [IN IP4 address]`.
    #[error("malformed rtcp attribute")]
    Rtcp,
    /// A second `c=` line at one level: several are for layered multicast alone (RFC 8866 5.7), and a relay that would
    /// set one of them would hand on the others.
    #[error("second connection line")]
    SecondConnection,
    /// A second `a=rtcp` or `a=rtcp-mux` attribute in one media description.
    #[error("second {0} attribute")]
    SecondAttribute(&'static str),
    /// Two `a=crypto` attributes of one media description have the same tag (RFC 4568 5.1.1).
    #[error("second crypto attribute with the same tag")]
    SecondCrypto,
    /// A media description in use has no connection address at all.
    #[error("media description without a connection address")]
    NoConnection,
}

/// A problem and the line it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub problem: Problem,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session description, line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for Error {}

/// A connection address as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address<'a> {
    /// An address.
    Ip(IpAddr),
    /// A host name: legal, but nothing a relay can check a source against.
    Name(&'a [u8]),
}

impl Address<'_> {
    /// The address; `None` for a name.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(ip),
            Self::Name(_) => None,
        }
    }

    /// Whether it is the `0.0.0.0` (or `::`) by which RFC 2543 put a call on hold.
    #[must_use]
    pub fn is_hold(self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }
}

/// A connection: a `c=` line, or the address of an `a=rtcp` attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection<'a> {
    /// `IN IP4 address` as written: what is replaced.
    pub raw: &'a [u8],
    /// The address, without the TTL or count of a multicast group.
    pub address: Address<'a>,
}

impl<'a> Connection<'a> {
    pub(super) fn parse(raw: &'a [u8]) -> Option<Self> {
        let mut words = words(raw);
        let (net, family, address) = (words.next()?, words.next()?, words.next()?);
        if !net.eq_ignore_ascii_case(b"IN") || words.next().is_some() {
            return None;
        }
        let version = match family.to_ascii_uppercase().as_slice() {
            b"IP4" => 4,
            b"IP6" => 6,
            _ => return None,
        };
        let host = address.split(|byte| *byte == b'/').next().filter(|host| !host.is_empty())?;
        let ip = std::str::from_utf8(host).ok().and_then(|text| text.parse::<IpAddr>().ok());
        let address = match ip {
            Some(ip) if ip.is_ipv4() == (version == 4) => Address::Ip(ip),
            Some(_) => return None,
            None => Address::Name(host),
        };
        Some(Self { raw, address })
    }
}

/// One `a=` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// What stands before the colon.
    pub name: &'a [u8],
    /// What stands after it; `None` for a flag.
    pub value: Option<&'a [u8]>,
    /// The whole line with its line end.
    pub line: &'a [u8],
}

impl<'a> Attribute<'a> {
    fn parse(value: &'a [u8], line: &'a [u8]) -> Self {
        match value.iter().position(|byte| *byte == b':') {
            Some(at) => Self { name: value.get(..at).unwrap_or_default(), value: value.get(at + 1..), line },
            None => Self { name: value, value: None, line },
        }
    }
}

/// A description, borrowed from its bytes.
#[derive(Clone, Debug)]
pub struct Session<'a> {
    /// All of it.
    pub raw: &'a [u8],
    /// The session's `c=` line.
    pub connection: Option<Connection<'a>>,
    /// The session's direction attribute.
    pub direction: Option<Direction>,
    /// The value of `o=`, when there is one.
    pub origin: Option<&'a [u8]>,
    /// The session's attributes, in order.
    pub attributes: Vec<Attribute<'a>>,
    /// The media descriptions, in order.
    pub media: Vec<Media<'a>>,
}

impl<'a> Session<'a> {
    /// Reads a description. Lines may end with LF alone and the last one with nothing; empty lines at the end
    /// are passed over.
    ///
    /// # Errors
    ///
    /// The first problem and its line.
    pub fn parse(raw: &'a [u8]) -> Result<Self, Error> {
        if raw.len() > limits::BODY {
            return Err(Error { problem: Problem::TooLong, line: 1 });
        }
        let mut session = Session {
            raw,
            connection: None,
            direction: None,
            origin: None,
            attributes: Vec::new(),
            media: Vec::new(),
        };
        let mut rest = raw;
        let mut number = 0;
        let mut blank = false;
        while !rest.is_empty() {
            number += 1;
            let fail = |problem| Err(Error { problem, line: number });
            if number > limits::LINES {
                return fail(Problem::TooManyLines);
            }
            let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |feed| feed + 1);
            let (line, after) = rest.split_at(length);
            rest = after;
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if text.is_empty() {
                blank = true;
                continue;
            }
            if text.len() > limits::LINE {
                return fail(Problem::LineTooLong);
            }
            let &[letter, b'=', ref value @ ..] = text else { return fail(Problem::NotALine) };
            if !letter.is_ascii_lowercase() || blank || text.contains(&b'\r') {
                return fail(Problem::NotALine);
            }
            if number == 1 && text != b"v=0" {
                return fail(Problem::NoVersion);
            }
            session.line(letter, value, line).map_err(|problem| Error { problem, line: number })?;
        }
        if number == 0 {
            return Err(Error { problem: Problem::NoVersion, line: 1 });
        }
        Ok(session)
    }

    fn line(&mut self, letter: u8, value: &'a [u8], line: &'a [u8]) -> Result<(), Problem> {
        match letter {
            b'm' => {
                if self.media.len() >= limits::MEDIA {
                    return Err(Problem::TooManyMedia);
                }
                self.media.push(Media::parse(value, line).ok_or(Problem::Media)?);
            }
            b'c' => {
                let connection = Connection::parse(value).ok_or(Problem::Connection)?;
                let place = match self.media.last_mut() {
                    Some(media) => &mut media.connection,
                    None => &mut self.connection,
                };
                if place.replace(connection).is_some() {
                    return Err(Problem::SecondConnection);
                }
            }
            b'o' if self.media.is_empty() => self.origin = Some(value),
            b'a' => {
                let attribute = Attribute::parse(value, line);
                match self.media.last_mut() {
                    Some(media) => media.attribute(attribute)?,
                    None => {
                        self.direction = self.direction.or(Direction::recognise(value));
                        self.attributes.push(attribute);
                    }
                }
            }
            _ => {}
        }
        if let Some(media) = self.media.last_mut() {
            media.extend(self.raw, line);
        }
        Ok(())
    }

    /// The connection that holds for a media description: its own `c=` line, else the session's.
    #[must_use]
    pub fn connection_of(&self, media: &Media<'a>) -> Option<Connection<'a>> {
        media.connection.or(self.connection)
    }

    /// The direction that holds for a media description; `sendrecv` when none is written (RFC 8866 6.7).
    #[must_use]
    pub fn direction_of(&self, media: &Media<'a>) -> Direction {
        media.direction.or(self.direction).unwrap_or(Direction::SendRecv)
    }

    /// Whether the sender of this description has this media on hold: by direction, or by an address of zeros.
    #[must_use]
    pub fn is_held(&self, media: &Media<'a>) -> bool {
        matches!(self.direction_of(media), Direction::SendOnly | Direction::Inactive)
            || self.connection_of(media).is_some_and(|connection| connection.address.is_hold())
    }

    /// Whether every media description in use is on hold, and there is one.
    #[must_use]
    pub fn all_held(&self) -> bool {
        let mut used = self.media.iter().filter(|media| !media.is_disabled()).peekable();
        used.peek().is_some() && used.all(|media| self.is_held(media))
    }

    /// Checks that every media description in use has a connection address (RFC 8866 5.7).
    ///
    /// # Errors
    ///
    /// [`Problem::NoConnection`] with the line of the first `m=` without one.
    pub fn check_connections(&self) -> Result<(), Error> {
        let without =
            self.media.iter().find(|media| !media.is_disabled() && self.connection_of(media).is_none());
        match without {
            None => Ok(()),
            Some(media) => Err(Error { problem: Problem::NoConnection, line: self.line_of(media.line) }),
        }
    }

    /// The number, from 1, of the line that `part` lies in.
    fn line_of(&self, part: &[u8]) -> usize {
        let at = crate::splice::offset_in(self.raw, part).map_or(0, |range| range.start);
        1 + memchr::memchr_iter(b'\n', self.raw.get(..at).unwrap_or_default()).count()
    }
}

/// Words separated by blanks.
pub(super) fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty())
}

/// A decimal number of 16 bits.
pub(super) fn number(text: &[u8]) -> Option<u16> {
    if text.is_empty() || text.len() > 5 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

//! Editing a description: addresses, ports and single lines are replaced, all else is copied.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    media::Direction,
    parse::{Connection, Session},
};
use crate::splice::{self, Splices};

/// Which part of a description an edit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The session level.
    Session,
    /// The media description of that index.
    Media(usize),
}

/// What becomes of ICE lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ice {
    /// They stay.
    Keep,
    /// They go: with candidates in the description, both sides would find a way past the relay.
    Remove,
}

/// The attributes of RFC 8839 section 5 and of trickle ICE (RFC 8840).
const ICE: [&str; 10] = [
    "candidate",
    "remote-candidates",
    "end-of-candidates",
    "ice-ufrag",
    "ice-pwd",
    "ice-options",
    "ice-lite",
    "ice-mismatch",
    "ice-pacing",
    "ice2",
];

/// Collects edits of one description.
#[derive(Debug)]
pub struct Rewriter<'s, 'a> {
    session: &'s Session<'a>,
    splices: Splices,
}

impl<'s, 'a> Rewriter<'s, 'a> {
    /// No edits yet.
    #[must_use]
    pub fn new(session: &'s Session<'a>) -> Self {
        Self { session, splices: Splices::new() }
    }

    /// Sets every connection address there is, at session and at media level, to `address`. An address of zeros
    /// stays one: it is a hold, and turning it into a real address would resume the call (RFC 2543
    /// B.5, RFC 6337 5.3).
    pub fn set_all_connections(&mut self, address: IpAddr) {
        self.set_connection(Target::Session, address);
        for index in 0..self.session.media.len() {
            if self.session.media.get(index).is_some_and(|media| media.connection.is_some()) {
                self.set_connection(Target::Media(index), address);
            }
        }
    }

    /// Sets the connection address of one part; an address of zeros stays. A media description without a `c=` line
    /// of its own gets one; a session without one does not.
    pub fn set_connection(&mut self, target: Target, address: IpAddr) {
        match self.connection(target) {
            (Some(connection), _) => self.set(&connection, address),
            (None, Some(line)) => self.insert_after(line, format_args!("c={}", Written(address))),
            (None, None) => {}
        }
    }

    /// The same for an address that is one of zeros, or becomes one.
    pub fn place_connection(&mut self, target: Target, address: IpAddr) {
        match self.connection(target) {
            (Some(connection), _) => self.replace(connection.raw, format_args!("{}", Written(address))),
            (None, Some(line)) => self.insert_after(line, format_args!("c={}", Written(address))),
            (None, None) => {}
        }
    }

    /// The `c=` line of a part, and the line that one would stand behind.
    fn connection(&self, target: Target) -> (Option<Connection<'a>>, Option<&'a [u8]>) {
        match target {
            Target::Session => (self.session.connection, None),
            Target::Media(index) => match self.session.media.get(index) {
                Some(media) => (media.connection, Some(media.before_connection)),
                None => (None, None),
            },
        }
    }

    /// Sets the direction of a media description.
    pub fn set_direction(&mut self, index: usize, direction: Direction) {
        let Some(media) = self.session.media.get(index) else { return };
        let written =
            media.attributes.iter().find(|attribute| Direction::recognise(attribute.name).is_some());
        match written {
            Some(attribute) => self.replace(attribute.name, format_args!("{}", direction.as_str())),
            None => self.add_attribute(index, format_args!("{}", direction.as_str())),
        }
    }

    fn set(&mut self, connection: &Connection<'a>, address: IpAddr) {
        let hold = connection.address.ip().filter(IpAddr::is_unspecified);
        match hold {
            None => self.replace(connection.raw, format_args!("{}", Written(address))),
            // In the family that the reader knows.
            Some(zeros) if zeros.is_ipv4() != address.is_ipv4() => {
                let zeros = match address {
                    IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                };
                self.replace(connection.raw, format_args!("{}", Written(zeros)));
            }
            Some(_) => {}
        }
    }

    /// Sets the address of the `o=` line if it is of the other family than `address`: some parties take the family
    /// of the whole description from it. Otherwise it stays: it names a session, not a place (RFC 4566 5.2).
    pub fn set_origin_family(&mut self, address: IpAddr) {
        let Some(origin) = self.session.origin else { return };
        let other = if address.is_ipv4() { &b" IN IP6 "[..] } else { &b" IN IP4 "[..] };
        if let Some(at) = memchr::memmem::find(origin, other)
            && let Some(place) = origin.get(at + 1..)
        {
            self.replace(place, format_args!("{}", Written(address)));
        }
    }

    /// Sets the port of a media description. A count of ports stays.
    pub fn set_port(&mut self, index: usize, port: u16) {
        if let Some(media) = self.session.media.get(index) {
            self.replace(media.port_raw, format_args!("{port}"));
        }
    }

    /// Sets the `a=rtcp` attribute of a media description. An existing one keeps its form: the address is set
    /// only where one stands, and an address of zeros stays. Otherwise a line with the port alone is added at the
    /// description's end.
    pub fn set_rtcp(&mut self, index: usize, port: u16, address: IpAddr) {
        let Some(media) = self.session.media.get(index) else { return };
        match &media.rtcp {
            Some(rtcp) => match rtcp.connection {
                Some(connection) if !connection.address.is_hold() => {
                    self.replace(rtcp.raw, format_args!("{port} {}", Written(address)));
                }
                Some(connection) => {
                    let kept = String::from_utf8_lossy(connection.raw);
                    self.replace(rtcp.raw, format_args!("{port} {kept}"));
                }
                None => self.replace(rtcp.raw, format_args!("{port}")),
            },
            None => self.insert_after(media.raw, format_args!("a=rtcp:{port}")),
        }
    }

    /// Sets the protocol of a media description: `RTP/SAVP` and the like.
    pub fn set_protocol(&mut self, index: usize, protocol: &str) {
        if let Some(media) = self.session.media.get(index) {
            self.replace(media.protocol_raw, format_args!("{protocol}"));
        }
    }

    /// Adds an attribute line at the end of a media description.
    pub fn add_attribute(&mut self, index: usize, attribute: fmt::Arguments<'_>) {
        if let Some(media) = self.session.media.get(index) {
            self.insert_after(media.raw, format_args!("a={attribute}"));
        }
    }

    /// Adds an attribute line at the end of the session level.
    pub fn add_session_attribute(&mut self, attribute: fmt::Arguments<'_>) {
        let end =
            self.session.media.first().and_then(|media| splice::offset_in(self.session.raw, media.line));
        let Some(at) = end.map(|range| range.start).filter(|at| *at > 0) else { return };
        let line = self.session.raw.get(..at).unwrap_or_default();
        self.insert_after(line, format_args!("a={attribute}"));
    }

    /// Takes out every attribute of that name at a level. Do not set and remove one in the same rewrite.
    pub fn remove_attributes(&mut self, target: Target, name: &str) {
        let attributes = match target {
            Target::Session => &self.session.attributes,
            Target::Media(index) => match self.session.media.get(index) {
                Some(media) => &media.attributes,
                None => return,
            },
        };
        for attribute in attributes.iter().filter(|attribute| attribute.name == name.as_bytes()) {
            if let Some(range) = splice::offset_in(self.session.raw, attribute.line) {
                self.splices.remove(range);
            }
        }
    }

    /// Takes out or keeps the ICE lines at all levels.
    pub fn ice(&mut self, ice: Ice) {
        if ice == Ice::Keep {
            return;
        }
        for name in ICE {
            self.remove_attributes(Target::Session, name);
            for index in 0..self.session.media.len() {
                self.remove_attributes(Target::Media(index), name);
            }
        }
    }

    fn replace(&mut self, part: &[u8], with: fmt::Arguments<'_>) {
        if let Some(range) = splice::offset_in(self.session.raw, part) {
            self.splices.replace_fmt(range, with);
        }
    }

    /// Adds a line after another, with the line end that the description uses.
    fn insert_after(&mut self, line: &[u8], text: fmt::Arguments<'_>) {
        let Some(range) = splice::offset_in(self.session.raw, line) else { return };
        let crlf = memchr::memchr(b'\n', self.session.raw)
            .is_none_or(|feed| feed > 0 && self.session.raw.get(feed - 1) == Some(&b'\r'));
        let end = if crlf { "\r\n" } else { "\n" };
        let at = range.end..range.end;
        if line.ends_with(b"\n") {
            self.splices.replace_fmt(at, format_args!("{text}{end}"));
        } else {
            // The description's last line has no end: the new last line has none either.
            self.splices.replace_fmt(at, format_args!("{end}{text}"));
        }
    }

    /// The edited description.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.splices.apply(self.session.raw)
    }
}

/// `IN IP4 address` or `IN IP6 address`.
struct Written(IpAddr);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IN {} {}", if self.0.is_ipv4() { "IP4" } else { "IP6" }, self.0)
    }
}

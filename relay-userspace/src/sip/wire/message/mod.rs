//! A message: its bytes and an index over them.

mod parse;

use std::ops::Range;

use bytes::Bytes;

use super::{
    address::NameAddr,
    error::Rejected,
    header::{Header, HeaderName},
    method::Method,
    scan::{self, Params},
    uri::Uri,
    via::Via,
};
use crate::splice;

/// What a datagram on a SIP port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// Only line ends, blanks or zero bytes: it keeps a NAT binding open and wants no answer.
    KeepAlive,
    /// CRLF CRLF: answered with one CRLF (RFC 5626 3.5.1).
    Ping,
    /// STUN by its first bits and magic cookie (RFC 8489 section 5).
    Stun,
    /// To be parsed as SIP.
    Sip,
}

/// Tells keep-alives and STUN from SIP by the first bytes.
#[must_use]
pub fn classify(datagram: &[u8]) -> Datagram {
    const STUN_COOKIE: &[u8] = &[0x21, 0x12, 0xa4, 0x42];
    const STUN_HEADER: usize = 20;
    if datagram == b"\r\n\r\n" {
        return Datagram::Ping;
    }
    if datagram.iter().all(|byte| scan::is_space(*byte) || *byte == 0) {
        return Datagram::KeepAlive;
    }
    if datagram.len() >= STUN_HEADER
        && datagram.first().is_some_and(|byte| *byte < 4)
        && datagram.get(4..8) == Some(STUN_COOKIE)
    {
        return Datagram::Stun;
    }
    Datagram::Sip
}

/// A range of the message in half the size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of(self, raw: &[u8]) -> &[u8] {
        raw.get(self.range()).unwrap_or_default()
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Messages are at most 65,535 bytes, so nothing is cut here.
    fn new(range: Range<usize>) -> Self {
        Self {
            start: u32::try_from(range.start).unwrap_or(u32::MAX),
            end: u32::try_from(range.end).unwrap_or(u32::MAX),
        }
    }

    fn within(raw: &[u8], part: &[u8]) -> Self {
        splice::offset_in(raw, part).map_or(Self::default(), Self::new)
    }
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartLine {
    /// `METHOD uri SIP/2.0`
    Request,
    /// `SIP/2.0 status reason`
    Response {
        /// 100 to 699.
        status: u16,
    },
}

#[derive(Clone, Copy, Debug)]
struct Line {
    name: HeaderName,
    line: Span,
    spelling: Span,
    value: Span,
}

/// A SIP message that passed the checks every part of the relay relies on: a readable start line, Via, From, To,
/// Call-ID and CSeq, single-value headers once, a body as long as Content-Length says.
#[derive(Clone, Debug)]
pub struct Message {
    raw: Bytes,
    start: StartLine,
    /// Of the request line, or of CSeq in a response.
    method: Method,
    /// The Request-URI, or the reason phrase.
    subject: Span,
    lines: Vec<Line>,
    /// Where the empty line begins.
    head_end: u32,
    body: Span,
    via: ViaSpans,
    from: Span,
    to: Span,
    from_tag: Option<Span>,
    to_tag: Option<Span>,
    call_id: Span,
    cseq: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct ViaSpans {
    value: Span,
    transport: Span,
    sent_by: Span,
    host: Span,
    port: Option<u16>,
    params: Span,
}

impl Message {
    /// Reads a datagram.
    ///
    /// Empty lines before the start line are skipped, bytes after the body that Content-Length announces are
    /// discarded (RFC 3261 7.5, 18.3).
    ///
    /// # Errors
    ///
    /// The first fault found; with the message as far as it was read when a response to it can be built.
    pub fn parse(datagram: &Bytes) -> Result<Self, Rejected> {
        parse::Parser::new(datagram).run()
    }

    /// All bytes, from the start line to the end of the body.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Bytes of memory that it takes, its index included.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.raw.len() + self.lines.capacity() * size_of::<Line>()
    }

    /// Request or response.
    #[must_use]
    pub fn start(&self) -> &StartLine {
        &self.start
    }

    /// Whether it is a request.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.start == StartLine::Request
    }

    /// The request's method; in a response the method that CSeq names.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The status code of a response.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self.start {
            StartLine::Response { status } => Some(status),
            StartLine::Request => None,
        }
    }

    /// The reason phrase of a response; empty for a request.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        if self.is_request() { &[] } else { self.subject.of(&self.raw) }
    }

    /// The Request-URI's bytes; empty for a response.
    #[must_use]
    pub fn request_uri(&self) -> &[u8] {
        if self.is_request() { self.subject.of(&self.raw) } else { &[] }
    }

    /// The Request-URI taken apart; `None` for a response or a URI that cannot be.
    #[must_use]
    pub fn parsed_request_uri(&self) -> Option<Uri<'_>> {
        Uri::parse(self.request_uri())
    }

    /// The headers in their order.
    pub fn headers(&self) -> impl DoubleEndedIterator<Item = Header<'_>> {
        self.lines.iter().map(|line| Header {
            name: line.name,
            spelling: line.spelling.of(&self.raw),
            value: line.value.of(&self.raw),
            line: line.line.of(&self.raw),
        })
    }

    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: HeaderName) -> Option<Header<'_>> {
        self.headers().find(|header| header.name == name)
    }

    /// The comma-separated values of all headers of that name, in order.
    pub fn values(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> {
        self.headers().filter(move |header| header.name == name).flat_map(|h| scan::split_commas(h.value))
    }

    /// The values of Contact, Route or Record-Route, those that can be read.
    pub fn addresses(&self, name: HeaderName) -> impl Iterator<Item = NameAddr<'_>> {
        self.values(name).filter_map(NameAddr::parse)
    }

    /// The topmost Via.
    #[must_use]
    pub fn via(&self) -> Via<'_> {
        let raw = &self.raw;
        Via {
            value: self.via.value.of(raw),
            transport: self.via.transport.of(raw),
            sent_by: self.via.sent_by.of(raw),
            host: self.via.host.of(raw),
            port: self.via.port,
            params: Params(self.via.params.of(raw)),
        }
    }

    /// The value of From.
    #[must_use]
    pub fn from_value(&self) -> &[u8] {
        self.from.of(&self.raw)
    }

    /// The value of To.
    #[must_use]
    pub fn to_value(&self) -> &[u8] {
        self.to.of(&self.raw)
    }

    /// The From tag; empty for peers of RFC 2543.
    #[must_use]
    pub fn from_tag(&self) -> &[u8] {
        self.from_tag.map_or(&[], |span| span.of(&self.raw))
    }

    /// The To tag.
    #[must_use]
    pub fn to_tag(&self) -> Option<&[u8]> {
        self.to_tag.map(|span| span.of(&self.raw))
    }

    /// The Call-ID.
    #[must_use]
    pub fn call_id(&self) -> &[u8] {
        self.call_id.of(&self.raw)
    }

    /// The Call-ID, sharing the message's memory.
    #[must_use]
    pub fn call_id_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.call_id())
    }

    /// The CSeq number.
    #[must_use]
    pub fn cseq(&self) -> u32 {
        self.cseq
    }

    /// Max-Forwards; `None` when it is missing.
    #[must_use]
    pub fn max_forwards(&self) -> Option<u32> {
        self.header(HeaderName::MaxForwards).and_then(|header| scan::number(header.value))
    }

    /// The Expires header in seconds; `None` when it is missing or not a number.
    #[must_use]
    pub fn expires(&self) -> Option<u32> {
        self.header(HeaderName::Expires).and_then(|header| scan::number(header.value))
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.body.of(&self.raw)
    }

    /// Where the body lies.
    pub(super) fn body_range(&self) -> Range<usize> {
        self.body.range()
    }

    /// Where the empty line begins: the place of a header added at the end.
    pub(super) fn head_end(&self) -> usize {
        self.head_end as usize
    }

    /// Where the first header begins.
    pub(super) fn headers_start(&self) -> usize {
        self.lines.first().map_or(self.head_end as usize, |line| line.line.start as usize)
    }

    /// The line end that the message uses, for lines added to it.
    #[must_use]
    pub fn line_end(&self) -> &'static [u8] {
        match self.raw.get(..self.headers_start()) {
            Some([.., b'\r', b'\n']) => b"\r\n",
            _ => b"\n",
        }
    }

    /// The media type of the body without parameters, and its parameters.
    #[must_use]
    pub fn content_type(&self) -> Option<(&[u8], Params<'_>)> {
        let value = self.header(HeaderName::ContentType)?.value;
        let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
        let (kind, params) = value.split_at_checked(end)?;
        Some((scan::trim(kind), Params(params)))
    }
}

//! A message: its bytes and an index over them.

use std::ops::Range;

use bytes::Bytes;

use super::{
    address::NameAddr,
    error::{Fault, ParseError, Rejected},
    header::{Header, HeaderName},
    limits,
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
        Parser::new(datagram).run()
    }

    /// All bytes, from the start line to the end of the body.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
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

/// What every message has and every response copies (RFC 3261 8.1.1, 8.2.6.2).
const NEEDED: [HeaderName; 5] =
    [HeaderName::Via, HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];

/// One pass over a datagram. Goes on after a fault that leaves the headers readable, because the answer needs them.
struct Parser {
    raw: Bytes,
    skipped: usize,
    fault: Option<ParseError>,
    /// A header that a response copies holds a bare carriage return: a copy would hand on what was refused.
    tainted: bool,
}

impl Parser {
    fn new(datagram: &Bytes) -> Self {
        let skipped = datagram.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let raw = datagram.slice(skipped..);
        Self { raw, skipped, fault: None, tainted: false }
    }

    fn fault(&mut self, fault: Fault, at: usize) {
        if self.fault.is_none() {
            self.fault = Some(ParseError { fault, at: self.skipped + at });
        }
    }

    fn run(mut self) -> Result<Message, Rejected> {
        if self.raw.len() > limits::MESSAGE {
            self.fault(Fault::TooLarge, limits::MESSAGE);
            return Err(self.reject(None));
        }
        let raw = self.raw.clone();
        let Some((start, method, subject, mut at)) = self.start_line(&raw) else {
            self.fault(Fault::NotSip, 0);
            return Err(self.reject(None));
        };
        let mut message = Message {
            raw: raw.clone(),
            start,
            method,
            subject,
            lines: Vec::with_capacity(24),
            head_end: 0,
            body: Span::default(),
            via: ViaSpans::default(),
            from: Span::default(),
            to: Span::default(),
            from_tag: None,
            to_tag: None,
            call_id: Span::default(),
            cseq: 0,
        };
        let mut ended = false;
        while let Some((end, next)) = line_at(&raw, at) {
            if end == at {
                message.head_end = u32::try_from(at).unwrap_or(u32::MAX);
                at = next;
                ended = true;
                break;
            }
            let (end, next) = self.unfold(&raw, end, next);
            if message.lines.len() >= limits::HEADERS {
                self.fault(Fault::TooManyHeaders, at);
                return Err(self.reject(None));
            }
            if let Some(line) = self.header_line(&raw, at, end, next) {
                message.lines.push(line);
            }
            at = next;
        }
        if !ended {
            self.fault(Fault::NoEmptyLine, raw.len());
            message.head_end = u32::try_from(raw.len()).unwrap_or(u32::MAX);
            at = raw.len();
        }
        let answerable = self.index(&mut message) && !self.tainted;
        self.body(&mut message, at);
        match self.fault {
            None => Ok(message),
            Some(_) => Err(self.reject((answerable && message.is_request()).then_some(message))),
        }
    }

    fn reject(self, message: Option<Message>) -> Rejected {
        let error = self.fault.unwrap_or(ParseError { fault: Fault::NotSip, at: 0 });
        Rejected { error, answerable: message.map(Box::new) }
    }

    /// The first line: what it is, the method or an empty one, the Request-URI or reason, and where the next begins.
    fn start_line(&mut self, raw: &Bytes) -> Option<(StartLine, Method, Span, usize)> {
        let (end, next) = line_at(raw, 0)?;
        let line = raw.get(..end)?;
        if line.len() > limits::START_LINE {
            self.fault(Fault::StartLineTooLong, limits::START_LINE);
            return None;
        }
        self.no_bare_return(line, 0);
        let space = line.iter().position(|byte| *byte == b' ')?;
        let (first, rest) = (line.get(..space)?, line.get(space + 1..)?);
        if first.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"SIP/")) {
            if !first.eq_ignore_ascii_case(b"SIP/2.0") {
                self.fault(Fault::Version, 0);
            }
            let code = rest.get(..3).and_then(scan::number).and_then(|code| u16::try_from(code).ok());
            let after = rest.get(3..).unwrap_or_default();
            let status = match code {
                Some(code @ 100..=699) if matches!(after.first(), None | Some(b' ')) => code,
                _ => {
                    self.fault(Fault::StatusLine, space + 1);
                    return None;
                }
            };
            let reason = Span::within(raw, after.get(1..).unwrap_or(after));
            return Some((StartLine::Response { status }, Method::Ack, reason, next));
        }
        if !scan::is_token(first) {
            return None;
        }
        let method = Method::recognise(raw, first);
        // Without a version the line is faulty but the headers may still tell whom to answer.
        let last = rest.iter().rposition(|byte| *byte == b' ').unwrap_or(rest.len());
        let (uri, version) = (rest.get(..last)?, rest.get(last + 1..).unwrap_or_default());
        if !version.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"SIP/")) {
            self.fault(Fault::RequestLine, space + 2 + last);
        } else if !version.eq_ignore_ascii_case(b"SIP/2.0") {
            self.fault(Fault::Version, space + 2 + last);
        }
        if Uri::parse(uri).is_none() {
            self.fault(Fault::RequestUri, space + 1);
        }
        Some((StartLine::Request, method, Span::within(raw, uri), next))
    }

    fn no_bare_return(&mut self, line: &[u8], at: usize) {
        if let Some(place) = memchr::memchr(b'\r', line) {
            self.fault(Fault::BareCarriageReturn, at + place);
        }
    }

    /// Extends a line over its continuation lines.
    fn unfold(&mut self, raw: &[u8], mut end: usize, mut next: usize) -> (usize, usize) {
        while matches!(raw.get(next), Some(b' ' | b'\t')) {
            let Some((more_end, more_next)) = line_at(raw, next) else { break };
            // A line of blanks ends the value but not the head: it folds into white space.
            (end, next) = (more_end, more_next);
        }
        (end, next)
    }

    fn header_line(&mut self, raw: &[u8], at: usize, end: usize, next: usize) -> Option<Line> {
        let line = raw.get(at..end)?;
        if line.len() > limits::HEADER_LINE {
            self.fault(Fault::LineTooLong, at);
            return None;
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            self.fault(Fault::NoColon, at);
            return None;
        };
        let spelling = scan::trim(line.get(..colon)?);
        if !scan::is_token(spelling) || matches!(line.first(), Some(b' ' | b'\t')) {
            self.fault(Fault::Name, at);
            return None;
        }
        let name = HeaderName::recognise(spelling);
        let mut from = 0;
        while let Some(place) = memchr::memchr(b'\r', line.get(from..)?) {
            if line.get(from + place + 1) != Some(&b'\n') {
                self.fault(Fault::BareCarriageReturn, at + from + place);
                self.tainted |= NEEDED.contains(&name);
                break;
            }
            from += place + 1;
        }
        Some(Line {
            name,
            line: Span::new(at..next),
            spelling: Span::within(raw, spelling),
            value: Span::within(raw, scan::trim(line.get(colon + 1..)?)),
        })
    }

    /// Checks and indexes the headers that every message has. Says whether a response could be built of them.
    fn index(&mut self, message: &mut Message) -> bool {
        let raw = self.raw.clone();
        let raw = &raw[..];
        let mut seen = [None; 5];
        let mut singles: Vec<HeaderName> = Vec::with_capacity(8);
        let mut good = true;
        for line in &message.lines {
            if line.name.is_single() {
                if singles.contains(&line.name) {
                    self.fault(Fault::Repeated(line.name), line.line.start as usize);
                }
                singles.push(line.name);
            }
            if let Some(slot) = NEEDED.iter().position(|name| *name == line.name)
                && let Some(entry @ None) = seen.get_mut(slot)
            {
                *entry = Some(line.value);
            }
        }
        for (name, span) in NEEDED.into_iter().zip(seen) {
            let Some(span) = span else {
                self.fault(Fault::Missing(name), message.head_end as usize);
                good = false;
                continue;
            };
            let read = match name {
                HeaderName::Via => Self::index_via(message, raw, span),
                HeaderName::From | HeaderName::To => Self::index_party(message, raw, name, span),
                HeaderName::CallId => {
                    message.call_id = span;
                    let id = span.of(raw);
                    !id.is_empty() && id.len() <= limits::KEY && !id.iter().any(|byte| scan::is_space(*byte))
                }
                _ => self.index_cseq(message, span),
            };
            if !read {
                self.fault(Fault::Malformed(name), span.start as usize);
                good = false;
            }
        }
        if let Some(line) = message.lines.iter().find(|line| line.name == HeaderName::MaxForwards)
            && scan::number(line.value.of(raw)).is_none()
        {
            self.fault(Fault::Malformed(HeaderName::MaxForwards), line.value.start as usize);
        }
        good
    }

    fn index_via(message: &mut Message, raw: &[u8], span: Span) -> bool {
        let Some(via) = scan::split_commas(span.of(raw)).next().and_then(Via::parse) else { return false };
        message.via = ViaSpans {
            value: Span::within(raw, via.value),
            transport: Span::within(raw, via.transport),
            sent_by: Span::within(raw, via.sent_by),
            host: Span::within(raw, via.host),
            port: via.port,
            params: Span::within(raw, via.params.0),
        };
        via.branch().is_none_or(|branch| branch.len() <= limits::KEY)
    }

    fn index_party(message: &mut Message, raw: &[u8], name: HeaderName, span: Span) -> bool {
        let Some(party) = NameAddr::parse(span.of(raw)) else { return false };
        let tag = party.tag();
        let tag_span = tag.map(|tag| Span::within(raw, tag));
        if name == HeaderName::From {
            (message.from, message.from_tag) = (span, tag_span);
        } else {
            (message.to, message.to_tag) = (span, tag_span);
        }
        tag.is_none_or(|tag| tag.len() <= limits::KEY) && !party.is_wildcard()
    }

    fn index_cseq(&mut self, message: &mut Message, span: Span) -> bool {
        let raw = self.raw.clone();
        let value = span.of(&raw);
        let Some(space) = value.iter().position(|byte| scan::is_space(*byte)) else { return false };
        let (number, method) =
            (value.get(..space).unwrap_or_default(), value.get(space..).unwrap_or_default());
        let method = scan::trim(method);
        let Some(number) = scan::number(number).filter(|number| *number < limits::CSEQ) else { return false };
        if !scan::is_token(method) {
            return false;
        }
        message.cseq = number;
        let method = Method::recognise(&raw, method);
        if !message.is_request() {
            message.method = method;
        } else if method != message.method {
            self.fault(Fault::CSeqMethod, span.start as usize);
        }
        true
    }

    fn body(&mut self, message: &mut Message, at: usize) {
        let have = self.raw.len().saturating_sub(at);
        let announced = message.lines.iter().find(|line| line.name == HeaderName::ContentLength);
        let length = match announced {
            None => have,
            Some(line) => match scan::number(line.value.of(&self.raw)) {
                Some(length) if length as usize <= have => length as usize,
                Some(_) => {
                    self.fault(Fault::BodyShort, self.raw.len());
                    have
                }
                None => {
                    self.fault(Fault::Malformed(HeaderName::ContentLength), line.value.start as usize);
                    have
                }
            },
        };
        message.body = Span::new(at..at + length);
        message.raw = self.raw.slice(..at + length);
    }
}

/// The line that begins at `at`: where its text ends and where the next begins. `None` when no line end follows.
fn line_at(raw: &[u8], at: usize) -> Option<(usize, usize)> {
    let feed = at + memchr::memchr(b'\n', raw.get(at..)?)?;
    let end = if feed > at && raw.get(feed - 1) == Some(&b'\r') { feed - 1 } else { feed };
    Some((end, feed + 1))
}

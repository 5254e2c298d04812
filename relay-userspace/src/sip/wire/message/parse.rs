//! Framing: one pass over a datagram that finds the lines, checks them and fills the index.
//!
//! It is lenient or strict as the wire room says; what is refused is refused with the first fault and its place.
//! RFC 3261 sections 7 and 18.3.

use bytes::Bytes;

use super::{
    super::{
        address::NameAddr,
        error::{Fault, ParseError, Rejected},
        header::HeaderName,
        limits,
        method::Method,
        scan,
        uri::Uri,
        via::Via,
    },
    Line, Message, Span, StartLine, ViaSpans,
};

/// What every message has and every response copies (RFC 3261 8.1.1, 8.2.6.2).
const NEEDED: [HeaderName; 5] =
    [HeaderName::Via, HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];

/// One pass over a datagram. Goes on after a fault that leaves the headers readable, because the answer needs them.
pub(super) struct Parser {
    raw: Bytes,
    skipped: usize,
    fault: Option<ParseError>,
    /// A header that a response copies holds a bare carriage return: a copy would hand on what was refused.
    tainted: bool,
}

impl Parser {
    pub(super) fn new(datagram: &Bytes) -> Self {
        let skipped = datagram.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let raw = datagram.slice(skipped..);
        Self { raw, skipped, fault: None, tainted: false }
    }

    fn fault(&mut self, fault: Fault, at: usize) {
        if self.fault.is_none() {
            self.fault = Some(ParseError { fault, at: self.skipped + at });
        }
    }

    pub(super) fn run(mut self) -> Result<Message, Rejected> {
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
        // Headers have no place there, and must not be handed on (RFC 3261 19.1.1, RFC 4475 3.1.2.11).
        if Uri::parse(uri).is_none_or(|uri| uri.is_sip() && !uri.headers.is_empty()) {
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
                HeaderName::Via => self.index_via(message, raw, span),
                HeaderName::From | HeaderName::To => self.index_party(message, raw, name, span),
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

    fn index_via(&mut self, message: &mut Message, raw: &[u8], span: Span) -> bool {
        let mut values = scan::split_commas(span.of(raw));
        let Some(via) = values.next().and_then(Via::parse) else { return false };
        if values.any(|other| Via::parse(other).is_none()) {
            self.fault(Fault::Malformed(HeaderName::Via), span.start as usize);
        }
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

    /// One that cannot be read can still be copied into an answer (RFC 4475 3.1.2.6).
    fn index_party(&mut self, message: &mut Message, raw: &[u8], name: HeaderName, span: Span) -> bool {
        let Some(party) = NameAddr::parse(span.of(raw)) else {
            self.fault(Fault::Malformed(name), span.start as usize);
            if name == HeaderName::From {
                message.from = span;
            } else {
                message.to = span;
            }
            return !span.of(raw).is_empty();
        };
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
        if !scan::is_token(method) {
            return false;
        }
        let Some(number) = scan::number(number).filter(|number| *number < limits::CSEQ) else {
            // A number that is too large can still be copied into an answer (RFC 4475 3.1.2.4).
            self.fault(Fault::Malformed(HeaderName::CSeq), span.start as usize);
            return !number.is_empty() && number.iter().all(u8::is_ascii_digit);
        };
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

//! Edits of a message that leave every other byte as it was.

use std::{fmt, net::SocketAddr};

use bytes::Bytes;

use super::{
    header::HeaderName,
    message::Message,
    scan::{self},
    via::Via,
};
use crate::splice::{self, Splices};

/// Collects edits of one message. Parts to be replaced are named by the slices that the message's own accessors
/// hand out; a slice from elsewhere is ignored.
#[derive(Debug)]
pub struct Editor<'m> {
    message: &'m Message,
    splices: Splices,
}

impl<'m> Editor<'m> {
    /// No edits yet.
    #[must_use]
    pub fn new(message: &'m Message) -> Self {
        Self { message, splices: Splices::new() }
    }

    /// The message that is edited.
    #[must_use]
    pub fn message(&self) -> &'m Message {
        self.message
    }

    /// Puts `with` in the place of `part`.
    pub fn replace(&mut self, part: &[u8], with: &[u8]) {
        if let Some(range) = splice::offset_in(self.message.raw(), part) {
            self.splices.replace(range, with);
        }
    }

    /// [`Editor::replace`] with formatted text.
    pub fn replace_fmt(&mut self, part: &[u8], with: fmt::Arguments<'_>) {
        if let Some(range) = splice::offset_in(self.message.raw(), part) {
            self.splices.replace_fmt(range, with);
        }
    }

    /// Adds a header line below all others.
    pub fn append_header(&mut self, name: &str, value: fmt::Arguments<'_>) {
        let at = self.message.head_end();
        let end = if self.message.line_end() == b"\r\n" { "\r\n" } else { "\n" };
        self.splices.replace_fmt(at..at, format_args!("{name}: {value}{end}"));
    }

    /// Replaces the Request-URI.
    pub fn request_uri(&mut self, uri: &[u8]) {
        self.replace(self.message.request_uri(), uri);
    }

    /// Adds a header line above all others. Lines added so stand in the order of the calls. Above the message's
    /// own is right for Via and Record-Route, whose order counts, and harmless for the rest.
    pub fn add_header(&mut self, name: &str, value: fmt::Arguments<'_>) {
        let at = self.message.headers_start();
        let end = if self.message.line_end() == b"\r\n" { "\r\n" } else { "\n" };
        self.splices.replace_fmt(at..at, format_args!("{name}: {value}{end}"));
    }

    /// Writes `received` and `rport` into the topmost Via where RFC 3261 18.2.1 and RFC 3581 4 want them.
    pub fn stamp_via(&mut self, source: SocketAddr) {
        let via = self.message.via();
        if let Some(stamped) = stamped(&via, source) {
            self.replace(via.value, &stamped);
        }
    }

    /// Takes the topmost Via value out, and its header line when it held no other.
    pub fn pop_via(&mut self) {
        self.drop_values(HeaderName::Via, 1);
    }

    /// Takes the first `count` Route values out, and the header lines that held only them.
    pub fn drop_routes(&mut self, count: usize) {
        self.drop_values(HeaderName::Route, count);
    }

    fn drop_values(&mut self, name: HeaderName, mut count: usize) {
        let whole = self.message.raw();
        for header in self.message.headers().filter(|header| header.name == name) {
            if count == 0 {
                return;
            }
            let mut values = scan::split_commas(header.value);
            let first =
                values.by_ref().take(count).fold((0, None), |(n, first), v| (n + 1, first.or(Some(v))));
            let next = values.next();
            match (first, next) {
                ((taken, Some(from)), Some(next)) => {
                    let (from, to) = (splice::offset_in(whole, from), splice::offset_in(whole, next));
                    if let (Some(from), Some(to)) = (from, to) {
                        self.splices.remove(from.start..to.start);
                    }
                    count -= taken;
                }
                ((taken, _), None) => {
                    self.replace(header.line, b"");
                    count -= taken;
                }
                ((_, None), Some(_)) => {}
            }
        }
    }

    /// Sets Max-Forwards, adding the header when it is missing (RFC 3261 16.6 step 3).
    pub fn max_forwards(&mut self, hops: u32) {
        match self.message.header(HeaderName::MaxForwards) {
            Some(header) => self.replace_fmt(header.value, format_args!("{hops}")),
            None => self.add_header("Max-Forwards", format_args!("{hops}")),
        }
    }

    /// Sets the number in CSeq; the method stays.
    pub fn cseq(&mut self, number: u32) {
        let Some(header) = self.message.header(HeaderName::CSeq) else { return };
        let digits = header.value.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if let Some(old) = header.value.get(..digits) {
            self.replace_fmt(old, format_args!("{number}"));
        }
    }

    /// Replaces the body and sets Content-Length, adding the header when it is missing.
    pub fn body(&mut self, body: &[u8]) {
        self.splices.replace(self.message.body_range(), body);
        match self.message.header(HeaderName::ContentLength) {
            Some(header) => self.replace_fmt(header.value, format_args!("{}", body.len())),
            None => {
                let at = self.message.head_end();
                let end = if self.message.line_end() == b"\r\n" { "\r\n" } else { "\n" };
                self.splices.replace_fmt(at..at, format_args!("Content-Length: {}{end}", body.len()));
            }
        }
    }

    /// The edited message. Without edits it is the message's own memory.
    #[must_use]
    pub fn finish(self) -> Bytes {
        if self.splices.is_empty() {
            return self.message.raw().clone();
        }
        self.splices.apply(self.message.raw()).into()
    }
}

/// A Via value with `received` and `rport` as the request's source demands; `None` when nothing changes.
pub(super) fn stamped(via: &Via<'_>, source: SocketAddr) -> Option<Vec<u8>> {
    if !via.needs_received(source.ip()) {
        return None;
    }
    let mut splices = Splices::new();
    let place = |part: &[u8]| splice::offset_in(via.value, part);
    // What the sender put there itself would be believed by nobody but us: it goes.
    for param in via.params.iter().filter(|param| param.name.eq_ignore_ascii_case(b"received")) {
        splices.remove(place(param.whole)?);
    }
    if let Some(rport) = via.params.get("rport") {
        splices.replace_fmt(place(rport.whole)?, format_args!(";rport={}", source.port()));
    }
    let end = via.value.len();
    splices.replace_fmt(end..end, format_args!(";received={}", source.ip()));
    Some(splices.apply(via.value))
}

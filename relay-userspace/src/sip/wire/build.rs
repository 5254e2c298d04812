//! Messages that the relay originates: its own responses, CANCEL, and the ACK of a failure.

use std::{io::Write as _, net::SocketAddr};

use bytes::Bytes;

use super::{
    edit,
    header::{Header, HeaderName},
    message::Message,
    scan,
};

/// What a response of ours says besides what it copies from the request.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Status code.
    pub status: u16,
    /// Reason phrase, without line ends.
    pub reason: &'a str,
    /// Added to To when it has none; a 100 has none (RFC 3261 8.2.6.2).
    pub to_tag: Option<&'a [u8]>,
    /// Further header lines, each with its line end.
    pub headers: &'a [u8],
}

impl<'a> Reply<'a> {
    /// A response with the usual reason phrase.
    #[must_use]
    pub fn new(status: u16, to_tag: &'a [u8]) -> Self {
        Self { status, reason: default_reason(status), to_tag: Some(to_tag), headers: b"" }
    }

    /// 100 Trying.
    #[must_use]
    pub fn trying() -> Self {
        Self { status: 100, reason: default_reason(100), to_tag: None, headers: b"" }
    }
}

/// The reason phrase of RFC 3261 21 for the codes that the relay sends itself.
#[must_use]
pub fn default_reason(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        500 => "Server Internal Error",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        _ => "Failure",
    }
}

/// A response to `request`, which came from `source`. Via, From, To, Call-ID and CSeq are copied as they are
/// (RFC 3261 8.2.6.2), the topmost Via with `received` and `rport`.
#[must_use]
pub fn respond(request: &Message, source: SocketAddr, reply: &Reply<'_>) -> Bytes {
    let mut out = Vec::with_capacity(512);
    let end = request.line_end();
    // Writing to a Vec cannot fail.
    let _ = write!(out, "SIP/2.0 {} {}", reply.status, reply.reason);
    out.extend_from_slice(end);
    let mut via_stamped = false;
    let mut copied: [Option<HeaderName>; 4] = [None; 4];
    for header in request.headers() {
        match header.name {
            HeaderName::Via if !via_stamped => {
                via_stamped = true;
                let via = request.via();
                match edit::stamped(&via, source) {
                    Some(value) => copy_with(&mut out, &header, via.value, &value),
                    None => out.extend_from_slice(header.line),
                }
            }
            HeaderName::Via => out.extend_from_slice(header.line),
            HeaderName::From | HeaderName::To | HeaderName::CallId | HeaderName::CSeq => {
                // A message that is refused for a repeated header is answered with the first of them.
                if copied.contains(&Some(header.name)) {
                    continue;
                }
                if let Some(slot) = copied.iter_mut().find(|slot| slot.is_none()) {
                    *slot = Some(header.name);
                }
                match reply.to_tag {
                    Some(tag) if header.name == HeaderName::To && request.to_tag().is_none() => {
                        let mut value = header.value.to_vec();
                        value.extend_from_slice(b";tag=");
                        value.extend_from_slice(tag);
                        copy_with(&mut out, &header, header.value, &value);
                    }
                    _ => out.extend_from_slice(header.line),
                }
            }
            _ => {}
        }
    }
    // The last line of a message without an empty line may lack its end.
    if !out.ends_with(b"\n") {
        out.extend_from_slice(end);
    }
    out.extend_from_slice(reply.headers);
    out.extend_from_slice(b"Content-Length: 0");
    out.extend_from_slice(end);
    out.extend_from_slice(end);
    out.into()
}

/// Copies a header line with one part of it replaced.
fn copy_with(out: &mut Vec<u8>, header: &Header<'_>, part: &[u8], with: &[u8]) {
    match crate::splice::offset_in(header.line, part) {
        Some(range) => {
            out.extend_from_slice(header.line.get(..range.start).unwrap_or_default());
            out.extend_from_slice(with);
            out.extend_from_slice(header.line.get(range.end..).unwrap_or_default());
        }
        None => out.extend_from_slice(header.line),
    }
}

/// The CANCEL of a request as it was sent (RFC 3261 9.1): one Via, the topmost; Route as in the request.
/// `headers` are further lines, such as the Reason that came with the CANCEL being relayed.
#[must_use]
pub fn cancel(sent: &Message, headers: &[u8]) -> Bytes {
    hop_request(sent, "CANCEL", None, headers)
}

/// The ACK of a response of 300 and above to an INVITE as it was sent (RFC 3261 17.1.1.3): To from the response.
#[must_use]
pub fn ack_for_failure(sent: &Message, response: &Message) -> Bytes {
    hop_request(sent, "ACK", Some(response.to_value()), b"")
}

fn hop_request(sent: &Message, method: &str, to: Option<&[u8]>, headers: &[u8]) -> Bytes {
    const HOPS: u32 = 70;
    let mut out = Vec::with_capacity(512);
    let mut line = |parts: &[&[u8]]| {
        for part in parts {
            out.extend_from_slice(part);
        }
        out.extend_from_slice(b"\r\n");
    };
    line(&[method.as_bytes(), b" ", sent.request_uri(), b" SIP/2.0"]);
    line(&[b"Via: ", sent.via().value]);
    for header in sent.headers().filter(|header| header.name == HeaderName::Route) {
        line(&[b"Route: ", header.value]);
    }
    line(&[b"Max-Forwards: ", HOPS.to_string().as_bytes()]);
    line(&[b"From: ", sent.from_value()]);
    line(&[b"To: ", to.unwrap_or_else(|| sent.to_value())]);
    line(&[b"Call-ID: ", sent.call_id()]);
    line(&[b"CSeq: ", sent.cseq().to_string().as_bytes(), b" ", method.as_bytes()]);
    if !headers.is_empty() {
        line(&[headers.strip_suffix(b"\r\n").unwrap_or(headers)]);
    }
    line(&[b"Content-Length: 0"]);
    line(&[]);
    debug_assert!(scan::is_token(method.as_bytes()));
    out.into()
}

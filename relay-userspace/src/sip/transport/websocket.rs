//! SIP over WebSocket, for softphones in browsers and elsewhere: each message of the WebSocket, text or binary, is one of
//! SIP. RFC 7118, RFC 6455.
//!
//! Invariant: who is no WebSocket client of SIP is told so in HTTP, with a status and a sentence, before anything of it
//! is kept; head, messages and what waits are bounded as they are for other connections.

use std::{
    convert::Infallible,
    future::ready,
    sync::{Arc, OnceLock},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1,
    service::service_fn, upgrade::Upgraded,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use sha1::{Digest as _, Sha1};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    connection::{IDLE, MESSAGE, Stream, WRITE},
    framing::FramingError,
    queue::{Queue, Waiting},
    streams::{Direction, Event, Shared, Why},
};
use crate::sip::{Hop, wire::limits};

/// The subprotocol (RFC 7118 section 4).
const SUBPROTOCOL: &str = "sip";
/// The only version there is (RFC 6455 section 4.1).
const VERSION: &str = "13";
/// What is hashed with the client's key (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a key, which is sent in base64.
const KEY: usize = 16;
/// Bytes of a request's head, and of what is read at a time.
const BUFFER: usize = 8 * 1024;
/// How often the peer is pinged: address translators and proxies in between forget a connection that is silent, and
/// browsers do not ping.
const PING: Duration = Duration::from_secs(30);
/// How long the last word may take.
const CLOSE: Duration = Duration::from_secs(1);

/// A WebSocket that speaks SIP.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Why a request does not become a WebSocket.
type Refusal = (StatusCode, &'static str);

/// Takes the request of HTTP by which a WebSocket begins.
///
/// # Errors
/// What was wrong; the peer was told.
pub(super) async fn accept(stream: Box<dyn Stream>, origins: &[String]) -> Result<Socket, String> {
    let asked = OnceLock::new();
    let service = service_fn(|mut request: Request<Incoming>| {
        let key = check(request.method(), request.headers(), origins);
        // There is one request: after it the connection is another thing, or ends.
        let _ = asked.set(key.map(|_| hyper::upgrade::on(&mut request)));
        ready(Ok::<_, Infallible>(answer(key)))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await
        .map_err(|error| format!("no request of HTTP: {error}"))?;
    let upgraded = match asked.into_inner() {
        Some(Ok(upgrade)) => upgrade.await.map_err(|error| error.to_string())?,
        Some(Err((status, why))) => return Err(format!("{}: {why}", status.as_u16())),
        None => return Err("no request came".to_owned()),
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * limits::MESSAGE)
        .max_message_size(Some(limits::MESSAGE))
        .max_frame_size(Some(limits::MESSAGE));
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await)
}

/// Whether a request asks for a WebSocket that speaks SIP, and may; what proves that it was understood.
fn check(method: &Method, headers: &HeaderMap, origins: &[String]) -> Result<[u8; 20], Refusal> {
    let tokens = |name| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(str::trim)
    };
    let has = |name, token: &str| tokens(name).any(|found| found.eq_ignore_ascii_case(token));
    if method != Method::GET {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "a WebSocket begins with GET"));
    }
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err((StatusCode::UPGRADE_REQUIRED, "this port is for SIP over WebSocket (RFC 7118) only"));
    }
    if !has(header::SEC_WEBSOCKET_VERSION, VERSION) {
        return Err((
            StatusCode::UPGRADE_REQUIRED,
            "version 13 of WebSocket (RFC 6455) is what is spoken here",
        ));
    }
    if let Some(origin) = headers.get(header::ORIGIN)
        && !origins.is_empty()
        && !origins.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
    {
        return Err((StatusCode::FORBIDDEN, "pages of this origin may not connect (sip.websocket_origins)"));
    }
    if !has(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err((StatusCode::BAD_REQUEST, "the subprotocol \"sip\" has to be asked for (RFC 7118)"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(|key| key.as_bytes());
    match key.filter(|key| BASE64.decode(key).is_ok_and(|key| key.len() == KEY)) {
        Some(key) => Ok(Sha1::new().chain_update(key).chain_update(GUID).finalize().into()),
        None => Err((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64")),
    }
}

/// The response to the request.
fn answer(key: Result<[u8; 20], Refusal>) -> Response<Full<Bytes>> {
    let (status, text) = match key {
        Ok(_) => (StatusCode::SWITCHING_PROTOCOLS, String::new()),
        Err((status, why)) => (status, format!("{why}\n")),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let mut put = |name, value| drop(headers.insert(name, header::HeaderValue::from_static(value)));
    match status {
        StatusCode::SWITCHING_PROTOCOLS => {
            put(header::CONNECTION, "Upgrade");
            put(header::UPGRADE, "websocket");
            put(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        }
        StatusCode::UPGRADE_REQUIRED => {
            put(header::UPGRADE, "websocket");
            put(header::SEC_WEBSOCKET_VERSION, VERSION);
        }
        StatusCode::METHOD_NOT_ALLOWED => put(header::ALLOW, "GET"),
        _ => {}
    }
    if status != StatusCode::SWITCHING_PROTOCOLS {
        put(header::CONTENT_TYPE, "text/plain; charset=utf-8");
        put(header::CONNECTION, "close");
    }
    if let Ok(hash) = key
        && let Ok(value) = header::HeaderValue::from_str(&BASE64.encode(hash))
    {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, value);
    }
    response
}

/// Carries messages until the WebSocket ends; says why it did, and whether anything depends on it.
pub(super) async fn carry(
    shared: &Arc<Shared>,
    hop: Hop,
    mut socket: Socket,
    replies: &Queue,
    mut queue: Waiting,
) -> (Why, bool) {
    shared.tell(Event::Connected { hop, direction: Direction::Accepted }).await;
    let mut used = false;
    // Who connects has something to say; keep-alives alone are nothing.
    let mut deadline = Instant::now() + MESSAGE;
    let mut pings = interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let why = loop {
        tokio::select! {
            () = sleep_until(deadline) => break Why::Silent,
            received = socket.next() => {
                let payload = match received {
                    None | Some(Ok(Message::Close(_))) => break Why::Peer,
                    Some(Err(error)) => break why(&error),
                    Some(Ok(Message::Text(text))) => Bytes::from(text),
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    // A ping is answered by what reads it.
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Bytes::new(),
                };
                if payload.iter().all(u8::is_ascii_whitespace) {
                    // RFC 5626 3.5.1, as some clients do it here too.
                    if payload == b"\r\n\r\n"[..] {
                        let _ = replies.offer(Bytes::from_static(b"\r\n"));
                    }
                } else {
                    used = true;
                    shared.tell(Event::Message { hop, payload }).await;
                }
                if used {
                    deadline = Instant::now() + IDLE;
                }
            }
            payload = queue.next() => {
                let Some(payload) = payload else { break Why::Own };
                let length = payload.len();
                if let Err(why) = send(&mut socket, message(payload)).await {
                    break why;
                }
                queue.written(length);
            }
            _ = pings.tick() => {
                if let Err(why) = send(&mut socket, Message::Ping(Bytes::new())).await {
                    break why;
                }
            }
        }
    };
    let _ = timeout(CLOSE, socket.close(None)).await;
    (why, used)
}

/// As text where it is text: not every client reads the other kind.
fn message(payload: Bytes) -> Message {
    match Utf8Bytes::try_from(payload.clone()) {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(payload),
    }
}

async fn send(socket: &mut Socket, message: Message) -> Result<(), Why> {
    match timeout(WRITE, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(why(&error)),
        Err(_) => Err(Why::Unread),
    }
}

fn why(error: &Error) -> Why {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Why::Peer,
        Error::Capacity(_) => Why::Framing(FramingError::TooLarge),
        other => Why::Broken(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455 section 1.3, for SIP.
    const GOOD: [(&str, &str); 6] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "chat, sip"),
        ("origin", "https://phone.example.com"),
    ];

    fn headers(changed: &str, value: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, good) in GOOD {
            let value = if name == changed { value } else { Some(good) };
            if let Some(value) = value {
                headers.insert(name, header::HeaderValue::from_static(value));
            }
        }
        headers
    }

    #[test]
    fn a_request_is_answered_by_what_it_asks_for() {
        let any: &[String] = &[];
        let office: &[String] = &["https://PHONE.example.com".to_owned()];
        let other: &[String] = &["https://other.example.com".to_owned()];
        type Row<'a> = (&'a str, &'a str, Option<&'static str>, &'a [String], u16);
        let rows: [Row<'_>; 14] = [
            ("all is well", "", None, any, 101),
            ("a page of the office", "", None, office, 101),
            ("a page of somebody else", "", None, other, 403),
            ("a program, which has no origin", "origin", None, other, 101),
            ("a page without an origin of its own", "origin", Some("null"), office, 403),
            ("a browser that looks by", "upgrade", None, any, 426),
            ("HTTP/2 is wanted", "upgrade", Some("h2c"), any, 426),
            ("no upgrade in Connection", "connection", Some("keep-alive"), any, 426),
            ("an old draft", "sec-websocket-version", Some("8"), any, 426),
            ("no version", "sec-websocket-version", None, any, 426),
            ("no subprotocol", "sec-websocket-protocol", None, any, 400),
            ("another subprotocol", "sec-websocket-protocol", Some("xmpp"), any, 400),
            ("no key", "sec-websocket-key", None, any, 400),
            ("a short key", "sec-websocket-key", Some("c2hvcnQ="), any, 400),
        ];
        for (description, changed, value, origins, expected) in rows {
            let response = answer(check(&Method::GET, &headers(changed, value), origins));
            assert_eq!(response.status().as_u16(), expected, "{description}");
            let version = response.headers().get("sec-websocket-version").is_some();
            assert_eq!(version, expected == 426, "{description}");
        }
        let response = answer(check(&Method::POST, &headers("", None), any));
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &"GET".parse().unwrap())
        );
    }

    #[test]
    fn the_key_is_answered_as_the_rfc_says() {
        let response = answer(check(&Method::GET, &headers("", None), &[]));
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["sec-websocket-protocol"], "sip");
    }
}

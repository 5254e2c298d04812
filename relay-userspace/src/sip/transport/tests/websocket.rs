//! SIP over WebSocket, over loopback.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest as _},
};

use super::*;

/// A WebSocket as a softphone opens it, on a connection that is there.
async fn websocket<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    headers: &[(&'static str, &'static str)],
) -> Result<WebSocketStream<S>, tungstenite::Error> {
    let mut request = "ws://branch.example/sip".into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    timeout(LIMIT, client_async(request, stream)).await.unwrap().map(|(socket, _)| socket)
}

const SIP: (&str, &str) = ("sec-websocket-protocol", "sip");

#[tokio::test]
async fn each_message_of_a_websocket_is_one_of_sip_and_the_answer_goes_down_it_as_text() {
    let mut bed = bed(Limits::default());
    let stream = TcpStream::connect(bed.ws).await.unwrap();
    let hop = to(Transport::Ws, stream.local_addr().unwrap());
    let mut phone = websocket(stream, &[SIP, ("origin", "https://phone.example.com")]).await.unwrap();
    for message in [Message::text(OPTIONS), Message::binary(OPTIONS)] {
        phone.send(message).await.unwrap();
        assert_eq!(bed.message().await, (hop, Bytes::from_static(OPTIONS.as_bytes())));
    }
    // Two keep-alives of two RFCs, and neither is a message.
    phone.send(Message::text("\r\n\r\n")).await.unwrap();
    assert_eq!(timeout(LIMIT, phone.next()).await.unwrap().unwrap().unwrap(), Message::text("\r\n"));
    phone.send(Message::Ping(Bytes::from_static(b"?"))).await.unwrap();
    let pong = Message::Pong(Bytes::from_static(b"?"));
    assert_eq!(timeout(LIMIT, phone.next()).await.unwrap().unwrap().unwrap(), pong);
    bed.streams.send(hop, Bytes::from_static(b"answer"));
    bed.streams.send(hop, Bytes::from_static(b"\xff\xfe"));
    assert_eq!(phone.next().await.unwrap().unwrap(), Message::text("answer"));
    assert_eq!(phone.next().await.unwrap().unwrap(), Message::binary(&b"\xff\xfe"[..]), "what is no text");
    phone.close(None).await.unwrap();
    match bed.next().await {
        Event::Disconnected { hop: ended, why: Why::Peer, used: true } => assert_eq!(ended, hop),
        other => panic!("{other:?}"),
    }
    // Nobody listens where a softphone was.
    bed.streams.send(hop, Bytes::from_static(b"lost"));
    match bed.next().await {
        Event::Unreachable { hop: gone, step: Step::Route, error } => {
            assert_eq!(gone, hop);
            assert!(error.contains("its own connection only"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_websocket_in_tls_is_one_of_another_transport() {
    let mut bed = bed(Limits::default());
    let stream = TcpStream::connect(bed.wss).await.unwrap();
    let hop = to(Transport::Wss, stream.local_addr().unwrap());
    // The appliance's own way out, which sees the certificate first.
    let name = || rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&bed.streams.settings().client));
    assert!(connector.connect(name(), stream).await.is_err());
    bed.trust.set([bed.trust.take_seen()[0].fingerprint]);
    assert!(matches!(bed.next().await, Event::Refused { step: Step::Tls, .. }));
    let stream = TcpStream::connect(bed.wss).await.unwrap();
    let hop = Hop { address: stream.local_addr().unwrap(), ..hop };
    let stream = connector.connect(name(), stream).await.unwrap();
    let mut phone = websocket(stream, &[SIP]).await.unwrap();
    phone.send(Message::text(OPTIONS)).await.unwrap();
    assert_eq!(bed.message().await, (hop, Bytes::from_static(OPTIONS.as_bytes())));
}

#[tokio::test]
async fn who_is_no_websocket_of_sip_is_told_so_in_http() {
    let mut bed = bed(Limits::default());
    let other = [
        ("no subprotocol", vec![], 400),
        ("another origin", vec![SIP, ("origin", "https://evil.example")], 403),
    ];
    for (description, headers, status) in other {
        let stream = TcpStream::connect(bed.ws).await.unwrap();
        match websocket(stream, &headers).await {
            Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), status, "{description}"),
            other => panic!("{description}: {other:?}"),
        }
        assert!(matches!(bed.next().await, Event::Refused { step: Step::WebSocket, .. }), "{description}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let rows = [
        ("a browser", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 426 "),
        ("a form", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 "),
        ("SIP over TCP", OPTIONS, "HTTP/1.1 400 "),
        ("too long a head", &long, "HTTP/1.1 431 "),
    ];
    for (description, request, status) in rows {
        let mut peer = TcpStream::connect(bed.ws).await.unwrap();
        let _ = peer.write_all(request.as_bytes()).await;
        let mut said = Vec::new();
        let _ = timeout(LIMIT, peer.read_to_end(&mut said)).await.unwrap();
        let said = String::from_utf8_lossy(&said);
        assert!(said.starts_with(status), "{description}: {said}");
        assert!(matches!(bed.next().await, Event::Refused { step: Step::WebSocket, .. }), "{description}");
    }
    assert!(bed.streams.is_empty());
}

#[tokio::test]
async fn a_websocket_with_too_long_a_message_is_closed() {
    let mut bed = bed(Limits::default());
    let stream = TcpStream::connect(bed.ws).await.unwrap();
    let mut phone = websocket(stream, &[SIP]).await.unwrap();
    assert!(matches!(bed.next().await, Event::Connected { .. }));
    let _ = phone.send(Message::text("x".repeat(limits::MESSAGE + 1))).await;
    match bed.next().await {
        Event::Disconnected { why: Why::Framing(FramingError::TooLarge), used: false, .. } => {}
        other => panic!("{other:?}"),
    }
}

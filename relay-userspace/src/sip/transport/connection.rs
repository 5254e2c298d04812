//! One connection, from its making to its end.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    framing::{Frame, Framer},
    queue::{Queue, Waiting},
    socket,
    streams::{Direction, Event, Shared, Step, Why},
    websocket,
};
use crate::{net::Transport, sip::Hop, tls};

/// How long a TLS handshake of a peer may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a peer may take from the first byte of a message to its last, and from connecting to its first message.
pub(super) const MESSAGE: Duration = Duration::from_secs(30);
/// How long a connection may be silent. Phones refresh their registrations or send keep-alives more often.
pub(super) const IDLE: Duration = Duration::from_secs(2 * 3600);
/// How long a write may take.
pub(super) const WRITE: Duration = Duration::from_secs(10);
/// Bytes that are read at a time.
const READ: usize = 8 * 1024;

/// What a connection begins with.
pub(super) enum Origin {
    /// The appliance makes it.
    Connect,
    /// A peer made it.
    Accept(TcpStream),
}

/// A failure on the way to a connection.
struct Failed {
    step: Step,
    error: String,
}

impl Failed {
    fn at(step: Step) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            let no_way = matches!(
                error.kind(),
                io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::AddrNotAvailable
            );
            Self { step: if no_way { Step::Route } else { step }, error: error.to_string() }
        }
    }

    fn late(step: Step, limit: Duration) -> Self {
        Self { step, error: format!("nothing within {} ms", limit.as_millis()) }
    }
}

/// Makes the connection, carries messages both ways, and tells what becomes of it.
pub(super) async fn run(
    shared: Arc<Shared>,
    hop: Hop,
    id: u64,
    origin: Origin,
    replies: Queue,
    queue: Waiting,
) {
    let direction = match origin {
        Origin::Connect => Direction::Connected,
        Origin::Accept(_) => Direction::Accepted,
    };
    let carrier = match origin {
        Origin::Connect => connect(&shared, hop).await.map(Carrier::Stream),
        Origin::Accept(stream) => accept(&shared, hop, id, stream).await,
    };
    let ended = match carrier {
        Ok(Carrier::Stream(stream)) => Ok(serve(&shared, hop, direction, stream, &replies, queue).await),
        Ok(Carrier::WebSocket(socket)) => Ok(websocket::carry(&shared, hop, *socket, &replies, queue).await),
        Err(failed) => Err(failed),
    };
    // Out of the table first: who hears of the end and sends again gets a new connection.
    let targets = shared.leave(hop, id);
    let event = match ended {
        Ok((why, used)) => Event::Disconnected { hop, why, used },
        Err(Failed { step, error }) if direction == Direction::Connected => {
            Event::Unreachable { hop, step, error }
        }
        Err(Failed { step, error }) => Event::Refused { hop, step, error },
    };
    shared.tell(event).await;
    for hop in targets {
        shared.tell(Event::Released { hop }).await;
    }
}

/// A stream, in TLS or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What messages come and go by.
enum Carrier {
    /// They are cut out of a stream.
    Stream(Box<dyn Stream>),
    /// Each is one of the WebSocket's.
    WebSocket(Box<websocket::Socket>),
}

async fn connect(shared: &Shared, hop: Hop) -> Result<Box<dyn Stream>, Failed> {
    let own = shared.own(hop.network).ok_or_else(|| Failed {
        step: Step::Route,
        error: "the appliance has no address there".to_owned(),
    })?;
    let limit = shared.connect_timeout();
    let stream = timeout(limit, socket::connect(own, hop.address, shared.marking()))
        .await
        .map_err(|_| Failed::late(Step::Tcp, limit))?
        .map_err(Failed::at(Step::Tcp))?;
    if hop.transport != Transport::Tls {
        return Ok(Box::new(stream));
    }
    let name = shared.name(hop.address);
    let name = ServerName::try_from(name.clone()).map_err(|_| Failed {
        step: Step::Tls,
        error: format!("{name:?} is no name that a certificate could have"),
    })?;
    let stream = timeout(limit.max(HANDSHAKE), TlsConnector::from(shared.client()).connect(name, stream))
        .await
        .map_err(|_| Failed::late(Step::Tls, limit.max(HANDSHAKE)))?
        .map_err(Failed::at(Step::Tls))?;
    Ok(Box::new(stream))
}

async fn accept(shared: &Shared, hop: Hop, id: u64, stream: TcpStream) -> Result<Carrier, Failed> {
    socket::prepare(&stream, shared.marking()).map_err(Failed::at(Step::Tcp))?;
    let stream: Box<dyn Stream> = match hop.transport {
        Transport::Udp | Transport::Tcp | Transport::Ws => Box::new(stream),
        Transport::Tls | Transport::Wss => {
            let stream = timeout(HANDSHAKE, TlsAcceptor::from(shared.server()).accept(stream))
                .await
                .map_err(|_| Failed::late(Step::Tls, HANDSHAKE))?
                .map_err(Failed::at(Step::Tls))?;
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            if let Some(shown) = shown {
                shared.prove(hop, id, tls::names_of(shown));
            }
            Box::new(stream)
        }
        Transport::LegacyTls => {
            let stream = timeout(HANDSHAKE, shared.legacy().accept(stream)).await;
            Box::new(stream.map_err(|_| Failed::late(Step::Tls, HANDSHAKE))?.map_err(Failed::at(Step::Tls))?)
        }
    };
    if !matches!(hop.transport, Transport::Ws | Transport::Wss) {
        return Ok(Carrier::Stream(stream));
    }
    let socket = timeout(HANDSHAKE, websocket::accept(stream, shared.origins()))
        .await
        .map_err(|_| Failed::late(Step::WebSocket, HANDSHAKE))?
        .map_err(|error| Failed { step: Step::WebSocket, error })?;
    Ok(Carrier::WebSocket(Box::new(socket)))
}

/// Carries messages until the connection ends; says why it did, and whether anything depends on it.
async fn serve(
    shared: &Shared,
    hop: Hop,
    direction: Direction,
    stream: Box<dyn Stream>,
    replies: &Queue,
    queue: Waiting,
) -> (Why, bool) {
    shared.tell(Event::Connected { hop, direction }).await;
    let (reader, writer) = tokio::io::split(stream);
    let mut used = direction == Direction::Connected;
    let why = tokio::select! {
        why = read(shared, hop, direction, reader, replies, &mut used) => why,
        why = write(writer, queue) => why,
    };
    (why, used)
}

async fn read(
    shared: &Shared,
    hop: Hop,
    direction: Direction,
    mut reader: impl AsyncRead + Unpin,
    replies: &Queue,
    used: &mut bool,
) -> Why {
    let mut framer = Framer::default();
    // Who connects has something to say; keep-alives alone are nothing.
    let first = if direction == Direction::Accepted { MESSAGE } else { IDLE };
    let mut deadline = Instant::now() + first;
    loop {
        framer.buffer().reserve(READ);
        match timeout_at(deadline, reader.read_buf(framer.buffer())).await {
            Err(_) if framer.is_partial() => return Why::Slow,
            Err(_) => return Why::Silent,
            Ok(Ok(0)) => return Why::Peer,
            Ok(Err(error)) => return Why::Broken(error.to_string()),
            Ok(Ok(_)) => {}
        }
        let mut whole = false;
        loop {
            match framer.frame() {
                Ok(Some(Frame::Message(payload))) => {
                    whole = true;
                    *used = true;
                    shared.tell(Event::Message { hop, payload }).await;
                }
                Ok(Some(Frame::Ping)) => {
                    whole = true;
                    // RFC 5626 3.5.1. A peer that pings faster than it reads gets fewer answers.
                    let _ = replies.offer(Bytes::from_static(b"\r\n"));
                }
                Ok(None) => break,
                Err(error) => return Why::Framing(error),
            }
        }
        deadline = next_deadline(
            deadline,
            Instant::now(),
            Heard { whole, partial: framer.is_partial(), used: *used },
        );
    }
}

/// What a read has brought.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// The end of a message or a keep-alive.
    whole: bool,
    /// The beginning of a message without its end.
    partial: bool,
    /// Whether anything depends on the connection: a message came, or the appliance made it.
    used: bool,
}

/// Until when the next byte has to come.
fn next_deadline(deadline: Instant, now: Instant, heard: Heard) -> Instant {
    match heard {
        // From the first byte of a message on it has its time, whatever dribbles in.
        Heard { partial: true, whole: true, .. } => now + MESSAGE,
        Heard { partial: true, .. } => deadline.min(now + MESSAGE),
        Heard { used: true, .. } => now + IDLE,
        // Keep-alives alone do not keep a connection that nobody uses.
        Heard { .. } => deadline,
    }
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut queue: Waiting) -> Why {
    while let Some(payload) = queue.next().await {
        let written = async {
            writer.write_all(&payload).await?;
            writer.flush().await
        };
        match timeout(WRITE, written).await {
            Ok(Ok(())) => queue.written(payload.len()),
            Ok(Err(error)) => return Why::Broken(error.to_string()),
            Err(_) => return Why::Unread,
        }
    }
    Why::Own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_dribbling_nor_keep_alives_win_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let connected = start + MESSAGE;
        let heard = |whole, partial, used| Heard { whole, partial, used };
        let rows = [
            ("the first bytes of a first message", connected, 5, heard(false, true, false), connected),
            ("more of them", connected, 25, heard(false, true, false), connected),
            ("a keep-alive before any message", connected, 25, heard(true, false, false), connected),
            ("a message", connected, 5, heard(true, false, true), at(5) + IDLE),
            ("a keep-alive after it", at(5) + IDLE, 65, heard(true, false, true), at(65) + IDLE),
            ("the beginning of another", at(65) + IDLE, 70, heard(false, true, true), at(70) + MESSAGE),
            ("more of it", at(70) + MESSAGE, 90, heard(false, true, true), at(70) + MESSAGE),
            ("its end and the beginning of a third", at(100), 95, heard(true, true, true), at(95) + MESSAGE),
        ];
        for (description, deadline, now, heard, expected) in rows {
            assert_eq!(next_deadline(deadline, at(now), heard), expected, "{description}");
        }
    }
}

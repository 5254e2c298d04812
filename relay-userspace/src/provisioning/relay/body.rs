//! Bodies: streams of bytes with an idle timeout, and one that can be sent again as long as nobody has read of it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::timeout;

/// A body on its way to either side.
pub(super) type Stream = UnsyncBoxBody<Bytes, io::Error>;

/// Nothing.
pub(super) fn empty() -> Stream {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// What is in memory.
pub(super) fn full(bytes: impl Into<Bytes>) -> Stream {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The next piece of a body's data; trailers are left out.
pub(super) async fn next<B>(body: &mut B, idle: Duration) -> Option<io::Result<Bytes>>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        let Ok(frame) = timeout(idle, body.frame()).await else {
            return Some(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came for too long")));
        };
        match frame? {
            Err(error) => return Some(Err(io::Error::other(error))),
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
        }
    }
}

/// A body that fails when nothing comes for too long, or more than `most` bytes do.
pub(super) fn watched<B>(body: B, idle: Duration, most: u64) -> Stream
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let frames = stream::unfold(Some((body, 0u64)), move |state| async move {
        let (mut body, before) = state?;
        match next(&mut body, idle).await? {
            Ok(data) => {
                let total = before + data.len() as u64;
                if total > most {
                    let error = io::Error::new(io::ErrorKind::FileTooLarge, "more came than is taken");
                    return Some((Err(error), None));
                }
                Some((Ok(Frame::data(data)), Some((body, total))))
            }
            Err(error) => Some((Err(error), None)),
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// What a phone sends, to be offered to one server after the other until one begins to read it.
#[derive(Clone)]
pub(super) enum Upload {
    /// Nothing.
    None,
    /// A short one, which can be sent any number of times.
    Buffered(Bytes),
    /// A long one, which can be read once.
    Once(Arc<Shared>, Option<u64>),
}

impl Upload {
    /// A body of so many bytes, if that is known, that can be read once.
    pub(super) fn once(body: Stream, length: Option<u64>) -> Self {
        let shared =
            Shared { body: Mutex::new(body), begun: AtomicBool::new(false), broken: Mutex::new(None) };
        Self::Once(Arc::new(shared), length)
    }

    /// Why it ended before its end, if it did: no fault of the server's.
    pub(super) fn broken(&self) -> Option<io::ErrorKind> {
        match self {
            Self::None | Self::Buffered(_) => None,
            Self::Once(shared, _) => *shared.broken.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Whether it can be sent once more.
    pub(super) fn can_be_sent(&self) -> bool {
        match self {
            Self::None | Self::Buffered(_) => true,
            Self::Once(shared, _) => !shared.begun.load(Ordering::Acquire),
        }
    }

    /// A body for one attempt.
    pub(super) fn body(&self) -> Stream {
        match self {
            Self::None => empty(),
            Self::Buffered(bytes) => full(bytes.clone()),
            Self::Once(shared, length) => {
                BodyExt::boxed_unsync(Attempt { shared: Arc::clone(shared), length: *length })
            }
        }
    }
}

/// A body that several attempts hold, of which one reads.
pub(super) struct Shared {
    body: Mutex<Stream>,
    begun: AtomicBool,
    broken: Mutex<Option<io::ErrorKind>>,
}

struct Attempt {
    shared: Arc<Shared>,
    length: Option<u64>,
}

impl Body for Attempt {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.shared.begun.store(true, Ordering::Release);
        let mut body = self.shared.body.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = Pin::new(&mut *body).poll_frame(cx);
        if let Poll::Ready(Some(Err(error))) = &frame {
            *self.shared.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.kind());
        }
        frame
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// Counts a body's bytes and tells the sum when it ends, whole or not.
pub(super) struct Counted<F: FnOnce(u64)> {
    body: Stream,
    bytes: u64,
    told: Option<F>,
}

impl<F: FnOnce(u64)> Counted<F> {
    pub(super) fn new(body: Stream, told: F) -> Self {
        Self { body, bytes: 0, told: Some(told) }
    }
}

impl<F: FnOnce(u64) + Unpin> Body for Counted<F> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<F: FnOnce(u64)> Drop for Counted<F> {
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            told(self.bytes);
        }
    }
}

//! Streams to peers that may stop reading.
//!
//! A peer whose window is shut acknowledges the kernel's questions for ever: TCP itself never gives it up. And a peer
//! that is refused while it still sends would not see why: closing a socket with unread bytes in it resets the
//! connection, answer and all (RFC 9112 section 9.6).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// How long, and for how many bytes, what still comes is read and dropped after the last answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// A stream whose writes fail when the other side takes nothing for too long, and that after its end of writing takes
/// in for a moment what is still under way.
#[derive(Debug)]
pub struct Patient<S> {
    stream: S,
    idle: Duration,
    waiting: Pin<Box<Sleep>>,
    is_waiting: bool,
    /// Bytes that may still be dropped; none before the end of writing.
    lingering: Option<usize>,
}

impl<S> Patient<S> {
    /// Writes to `stream` may wait for so long.
    pub fn new(stream: S, idle: Duration) -> Self {
        Self { stream, idle, waiting: Box::pin(sleep(idle)), is_waiting: false, lingering: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.is_waiting = false;
            return polled;
        }
        if !std::mem::replace(&mut self.is_waiting, true) {
            self.waiting.as_mut().reset(Instant::now() + self.idle);
        }
        ready!(self.waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was taken for too long")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + Unpin> Patient<S> {
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 4096];
        while let Some(left) = self.lingering.filter(|left| *left > 0) {
            let mut dropped = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut dropped) {
                Poll::Ready(Ok(())) if !dropped.filled().is_empty() => {
                    self.lingering = Some(left.saturating_sub(dropped.filled().len()));
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    ready!(self.waiting.as_mut().poll(cx));
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.watch(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        this.watch(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            let polled = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.watch(cx, polled))?;
            this.lingering = Some(LINGER_BYTES);
            this.waiting.as_mut().reset(Instant::now() + LINGER);
        }
        this.poll_linger(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_write_that_nobody_takes_fails_after_its_time_and_others_do_not() {
        let (near, mut far) = duplex(16);
        let mut patient = Patient::new(near, Duration::from_millis(50));
        patient.write_all(&[1; 16]).await.unwrap();
        let error = patient.write_all(&[2]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        tokio::io::AsyncReadExt::read_exact(&mut far, &mut [0; 16]).await.unwrap();
        patient.write_all(&[3; 16]).await.unwrap();
    }

    #[tokio::test]
    async fn who_is_refused_in_the_middle_of_what_it_sends_can_read_why() {
        use tokio::{
            io::AsyncReadExt as _,
            net::{TcpListener, TcpStream},
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = tokio::spawn(async move {
            let mut patient = Patient::new(listener.accept().await.unwrap().0, Duration::from_secs(5));
            patient.read_exact(&mut [0; 10]).await.unwrap();
            patient.write_all(b"too much").await.unwrap();
            patient.shutdown().await.unwrap();
        });
        client.write_all(&[b'x'; 100_000]).await.unwrap();
        client.shutdown().await.unwrap();
        server.await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "too much");
    }
}

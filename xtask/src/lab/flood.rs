//! A flood of small packets from inside a namespace of the laboratory, bounded in number and in time.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::netns::Namespace;

/// Packets that go out with one system call.
const BATCH: usize = 256;
/// Nobody needs a longer flood.
const LONGEST: Duration = Duration::from_secs(60);

/// What a flood was.
#[derive(Clone, Copy, Debug)]
pub struct Flooded {
    /// Packets that left.
    pub packets: u64,
    /// For how long.
    pub time: Duration,
}

impl Flooded {
    /// Packets a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.packets as f64 / self.time.as_secs_f64()
    }
}

/// A flood under way.
#[derive(Debug)]
pub struct Flood {
    thread: JoinHandle<Option<std::io::Result<Flooded>>>,
}

impl Flood {
    /// Sends `payload` from `source` to `target` as fast as one core can, until so many packets have left or the time
    /// is up.
    ///
    /// # Errors
    /// The source address is not the namespace's, or the time is too long for a test.
    pub fn start(
        namespace: &Namespace,
        source: SocketAddr,
        target: SocketAddr,
        payload: &[u8],
        packets: u64,
        time: Duration,
    ) -> Result<Self> {
        ensure!(time <= LONGEST, "a flood of {} s is too long", time.as_secs());
        let socket = namespace.enter(move || {
            UdpSocket::bind(source).and_then(|socket| socket.connect(target).map(|()| socket))
        })?;
        let socket = socket.with_context(|| format!("cannot send from {source} to {target}"))?;
        let payload = payload.to_vec();
        let thread = namespace.spawn(move || send(&socket, &payload, packets, time))?;
        Ok(Self { thread })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It could not be sent.
    pub fn finish(self) -> Result<Flooded> {
        let result = self.thread.join().ok().flatten().context("the flood's thread panicked")?;
        Ok(result?)
    }
}

fn send(socket: &UdpSocket, payload: &[u8], packets: u64, time: Duration) -> std::io::Result<Flooded> {
    let mut part = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    // SAFETY: all zeros is a valid message header: no address, no parts, no control data.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = &raw mut part;
    message.msg_hdr.msg_iovlen = 1;
    let mut messages = vec![message; BATCH];
    let (start, mut sent) = (Instant::now(), 0u64);
    while sent < packets && start.elapsed() < time {
        let wanted = BATCH.min((packets - sent) as usize);
        // SAFETY: the headers, the part that all of them share and the payload outlive the call.
        let count = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), wanted as u32, 0) };
        match count {
            0.. => sent += count as u64,
            _ => match std::io::Error::last_os_error() {
                // The other end's queue is full, or it refuses: a flood does not care.
                error
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ENOBUFS | libc::EAGAIN | libc::ECONNREFUSED)
                    ) => {}
                error => return Err(error),
            },
        }
    }
    Ok(Flooded { packets: sent, time: start.elapsed() })
}

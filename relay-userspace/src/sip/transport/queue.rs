//! What waits to be written to one connection: so many messages, and so many bytes.
//!
//! Invariant: a peer that does not read holds no more than [`BYTES`] and one message, however large its messages are.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Messages that may wait.
const MESSAGES: usize = 128;
/// Bytes that may wait: a hundred messages of the usual size, four of the largest.
const BYTES: usize = 256 << 10;

/// The end into which messages are put.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

/// The end from which they are written.
#[derive(Debug)]
pub(super) struct Waiting {
    receiver: mpsc::Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
}

/// There is no room, or nobody takes anything any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

pub(super) fn queue() -> (Queue, Waiting) {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let bytes = Arc::<AtomicUsize>::default();
    (Queue { sender, bytes: Arc::clone(&bytes) }, Waiting { receiver, bytes })
}

impl Queue {
    /// Puts a message in; one always fits into an empty queue.
    pub(super) fn offer(&self, payload: Bytes) -> Result<(), Full> {
        let length = payload.len();
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        if (before > 0 && before.saturating_add(length) > BYTES) || self.sender.try_send(payload).is_err() {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            return Err(Full);
        }
        Ok(())
    }
}

impl Waiting {
    /// The next message; it counts as waiting until [`Waiting::written`]. None when the last [`Queue`] is gone.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        self.receiver.recv().await
    }

    /// A message of so many bytes is out.
    pub(super) fn written(&self, length: usize) {
        self.bytes.fetch_sub(length, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_and_bytes_that_wait_are_bounded_and_one_message_always_fits() {
        for (description, length, fit) in [
            ("small ones", 100, MESSAGES),
            ("large ones", 64 << 10, 4),
            ("one that is larger than the bound", BYTES + 1, 1),
        ] {
            let (queue, mut waiting) = queue();
            let message = Bytes::from(vec![b'x'; length]);
            let taken = (0..2 * MESSAGES).filter(|_| queue.offer(message.clone()).is_ok()).count();
            assert_eq!(taken, fit, "{description}");
            let next = waiting.next().await.unwrap();
            assert_eq!(queue.offer(message.clone()).is_ok(), length == 100, "{description}: not written yet");
            waiting.written(next.len());
            assert_eq!(queue.offer(message).is_ok(), length != 100, "{description}: written");
        }
    }
}

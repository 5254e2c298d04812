//! One message, as it is shown, stored and handed out.

use std::net::SocketAddr;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{datapath::Way, net::Transport};

/// A message that came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// When, in microseconds since 1970.
    pub unix_us: u64,
    /// The name of the network.
    pub network: String,
    /// What carried it.
    pub transport: Transport,
    /// Whether it came or went.
    pub direction: Way,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Ours: of TCP and TLS the one that is listened on.
    pub local: SocketAddr,
    /// The message, its secrets masked; bytes that are no text are replaced.
    pub message: String,
    /// Its bytes, base64 (RFC 4648 section 4), where they are no text.
    pub message_base64: Option<String>,
}

/// A message's bytes, as text and where that is not enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TracedBytes {
    /// As text.
    pub(super) text: String,
    /// As base64, if they are no text.
    pub(super) base64: Option<String>,
}

impl TracedBytes {
    /// Those of a message.
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { text: text.to_owned(), base64: None },
            Err(_) => Self {
                text: String::from_utf8_lossy(bytes).into_owned(),
                base64: Some(BASE64_STANDARD.encode(bytes)),
            },
        }
    }
}

impl Traced {
    /// The message's bytes.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        let decoded = self.message_base64.as_ref().and_then(|text| BASE64_STANDARD.decode(text).ok());
        decoded.map_or_else(|| Bytes::copy_from_slice(self.message.as_bytes()), Bytes::from)
    }

    /// From where it came.
    #[must_use]
    pub fn source(&self) -> SocketAddr {
        if self.direction == Way::In { self.remote } else { self.local }
    }

    /// Where it went.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        if self.direction == Way::In { self.local } else { self.remote }
    }

    /// Bytes that it takes where it is handed out.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.message.len() + self.message_base64.as_ref().map_or(0, String::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests_support::traced;

    #[test]
    fn bytes_that_are_no_text_come_out_as_they_went_in() {
        for bytes in [&b"OPTIONS a SIP/2.0\r\n\r\n"[..], b"Subject: M\xfcller\r\n\r\n\0\xff"] {
            let TracedBytes { text, base64 } = TracedBytes::of(bytes);
            let message = Traced { message: text, message_base64: base64, ..traced(0, Way::In, "a", "") };
            let again: Traced = serde_json::from_str(&serde_json::to_string(&message).unwrap()).unwrap();
            assert_eq!(again, message);
            assert_eq!(again.bytes(), bytes);
        }
    }
}

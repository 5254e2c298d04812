//! SIP methods: the ones the relay treats specially by name, any other as its bytes.

use std::fmt;

use bytes::Bytes;

/// A method. Compared with case, as RFC 3261 7.1 has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// RFC 3261 13.
    Invite,
    /// RFC 3261 17.1.1.3 and 13.2.2.4.
    Ack,
    /// RFC 3261 15.
    Bye,
    /// RFC 3261 9.
    Cancel,
    /// RFC 3261 10.
    Register,
    /// RFC 3261 11.
    Options,
    /// RFC 6086.
    Info,
    /// RFC 3428.
    Message,
    /// RFC 6665.
    Notify,
    /// RFC 6665.
    Subscribe,
    /// RFC 3903.
    Publish,
    /// RFC 3515.
    Refer,
    /// RFC 3311.
    Update,
    /// RFC 3262.
    Prack,
    /// Any other token.
    Other(Bytes),
}

impl Method {
    /// The method of that name. `whole` is the datagram `name` lies in: an unknown name shares its memory.
    #[must_use]
    pub(super) fn recognise(whole: &Bytes, name: &[u8]) -> Self {
        match name {
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"BYE" => Self::Bye,
            b"CANCEL" => Self::Cancel,
            b"REGISTER" => Self::Register,
            b"OPTIONS" => Self::Options,
            b"INFO" => Self::Info,
            b"MESSAGE" => Self::Message,
            b"NOTIFY" => Self::Notify,
            b"SUBSCRIBE" => Self::Subscribe,
            b"PUBLISH" => Self::Publish,
            b"REFER" => Self::Refer,
            b"UPDATE" => Self::Update,
            b"PRACK" => Self::Prack,
            _ => match crate::splice::offset_in(whole, name) {
                Some(range) => Self::Other(whole.slice(range)),
                None => Self::Other(Bytes::copy_from_slice(name)),
            },
        }
    }

    /// The name as on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Other(name) => name,
            known => known.as_label().as_bytes(),
        }
    }

    /// A name for metrics: `other` for every method not listed here, so that labels stay few.
    #[must_use]
    pub fn as_label(&self) -> &'static str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Register => "REGISTER",
            Self::Options => "OPTIONS",
            Self::Info => "INFO",
            Self::Message => "MESSAGE",
            Self::Notify => "NOTIFY",
            Self::Subscribe => "SUBSCRIBE",
            Self::Publish => "PUBLISH",
            Self::Refer => "REFER",
            Self::Update => "UPDATE",
            Self::Prack => "PRACK",
            Self::Other(_) => "other",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

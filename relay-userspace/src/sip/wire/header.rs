//! Header names, their compact forms, and one header of a message.

/// The headers that something in the relay looks at; every other one is `Other` and passes untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderName {
    /// `Via`, `v`.
    Via,
    /// `From`, `f`.
    From,
    /// `To`, `t`.
    To,
    /// `Call-ID`, `i`.
    CallId,
    /// `CSeq`.
    CSeq,
    /// `Max-Forwards`.
    MaxForwards,
    /// `Contact`, `m`.
    Contact,
    /// `Route`.
    Route,
    /// `Record-Route`.
    RecordRoute,
    /// `Content-Length`, `l`.
    ContentLength,
    /// `Content-Type`, `c`.
    ContentType,
    /// `Content-Disposition`.
    ContentDisposition,
    /// `Content-Encoding`, `e`.
    ContentEncoding,
    /// `Expires`.
    Expires,
    /// `Require`.
    Require,
    /// `Proxy-Require`.
    ProxyRequire,
    /// `Supported`, `k`.
    Supported,
    /// `User-Agent`.
    UserAgent,
    /// `Server`.
    Server,
    /// `RSeq` (RFC 3262).
    RSeq,
    /// `RAck` (RFC 3262).
    RAck,
    /// `Event`, `o` (RFC 6665).
    Event,
    /// `Subscription-State` (RFC 6665).
    SubscriptionState,
    /// `Reason` (RFC 3326).
    Reason,
    /// `WWW-Authenticate`.
    WwwAuthenticate,
    /// `Proxy-Authenticate`.
    ProxyAuthenticate,
    /// `Authorization`.
    Authorization,
    /// `Proxy-Authorization`.
    ProxyAuthorization,
    /// `P-Associated-URI` (RFC 7315).
    PAssociatedUri,
    /// Any other name.
    Other,
}

/// Name, long form, compact form (RFC 3261 7.3.3 and the IANA registry).
const NAMES: [(HeaderName, &str, Option<u8>); 29] = [
    (HeaderName::Via, "Via", Some(b'v')),
    (HeaderName::From, "From", Some(b'f')),
    (HeaderName::To, "To", Some(b't')),
    (HeaderName::CallId, "Call-ID", Some(b'i')),
    (HeaderName::CSeq, "CSeq", None),
    (HeaderName::MaxForwards, "Max-Forwards", None),
    (HeaderName::Contact, "Contact", Some(b'm')),
    (HeaderName::Route, "Route", None),
    (HeaderName::RecordRoute, "Record-Route", None),
    (HeaderName::ContentLength, "Content-Length", Some(b'l')),
    (HeaderName::ContentType, "Content-Type", Some(b'c')),
    (HeaderName::ContentDisposition, "Content-Disposition", None),
    (HeaderName::ContentEncoding, "Content-Encoding", Some(b'e')),
    (HeaderName::Expires, "Expires", None),
    (HeaderName::Require, "Require", None),
    (HeaderName::ProxyRequire, "Proxy-Require", None),
    (HeaderName::Supported, "Supported", Some(b'k')),
    (HeaderName::UserAgent, "User-Agent", None),
    (HeaderName::Server, "Server", None),
    (HeaderName::RSeq, "RSeq", None),
    (HeaderName::RAck, "RAck", None),
    (HeaderName::Event, "Event", Some(b'o')),
    (HeaderName::SubscriptionState, "Subscription-State", None),
    (HeaderName::Reason, "Reason", None),
    (HeaderName::WwwAuthenticate, "WWW-Authenticate", None),
    (HeaderName::ProxyAuthenticate, "Proxy-Authenticate", None),
    (HeaderName::Authorization, "Authorization", None),
    (HeaderName::ProxyAuthorization, "Proxy-Authorization", None),
    (HeaderName::PAssociatedUri, "P-Associated-URI", None),
];

impl HeaderName {
    /// The header of that name, long or compact, without case.
    #[must_use]
    pub fn recognise(name: &[u8]) -> Self {
        if let [letter] = name {
            let letter = letter.to_ascii_lowercase();
            return NAMES
                .iter()
                .find(|(_, _, compact)| *compact == Some(letter))
                .map_or(Self::Other, |(header, ..)| *header);
        }
        NAMES
            .iter()
            .find(|(_, long, _)| long.as_bytes().eq_ignore_ascii_case(name))
            .map_or(Self::Other, |(header, ..)| *header)
    }

    /// The long form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        NAMES.iter().find(|(header, ..)| *header == self).map_or("header", |(_, long, _)| long)
    }

    /// Whether a message may hold this header only once; two would let two readers disagree.
    #[must_use]
    pub(super) fn is_single(self) -> bool {
        matches!(
            self,
            Self::From | Self::To | Self::CallId | Self::CSeq | Self::MaxForwards | Self::ContentLength
        )
    }
}

/// One header of a message, borrowed from it.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// Which header.
    pub name: HeaderName,
    /// The name as written.
    pub spelling: &'a [u8],
    /// The value without white space around it; inner line folds are still there.
    pub value: &'a [u8],
    /// The whole line or lines with their line ends.
    pub line: &'a [u8],
}

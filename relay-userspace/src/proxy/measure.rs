//! What the proxy counts and times. RFC 6076 for the delays.

use std::time::Duration;

use crate::net::{NetworkId, Transport};

/// What became of a REGISTER by which the appliance registers a phone with a second server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondRegistration {
    /// It was granted.
    Registered,
    /// The server refused it.
    Refused,
    /// It did not answer.
    Unanswered,
}

impl SecondRegistration {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Registered, Self::Refused, Self::Unanswered];

    /// The name in metrics.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
        }
    }
}

/// One observation, to be counted by whoever keeps the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// A SIP message came in.
    Received {
        /// On which network.
        network: NetworkId,
        /// Its method; `other` for one without a name here.
        method: &'static str,
        /// Its status code, for a response.
        status: Option<u16>,
    },
    /// A SIP message goes out.
    Sent {
        /// On which network.
        network: NetworkId,
        /// Its method.
        method: &'static str,
        /// Its status code, for a response.
        status: Option<u16>,
    },
    /// A message was dropped or refused.
    Dropped(DropReason),
    /// A source has sent what is no SIP, or what it has no right to send.
    Offence(std::net::IpAddr),
    /// A peer, by a connection, calls itself by the name of a program that looks for open servers.
    Scanner(std::net::IpAddr),
    /// Registration request delay (RFC 6076 4.1): REGISTER to its 2xx.
    RegistrationDelay(Duration),
    /// Session request delay (RFC 6076 4.3): INVITE to the first response that says more than 100 and is no challenge.
    SessionRequestDelay(Duration),
    /// Session disconnect delay (RFC 6076 4.4): BYE to its final response.
    SessionDisconnectDelay(Duration),
    /// A call was attempted: counted with its first response that is no challenge, since the INVITE that answers a
    /// challenge is the same attempt.
    CallAttempt,
    /// A call was answered.
    CallAnswered,
    /// A call is over.
    CallEnded(Outcome),
    /// The media room refused a session description.
    MediaRefused,
    /// A server's challenge was answered for a phone.
    ChallengeAnswered,
    /// A server did not take the credentials of an authentication entry.
    CredentialsRefused,
    /// A phone's second registration was made or refreshed, or was not.
    SecondRegistration(SecondRegistration),
    /// A request went to another server because the one before failed.
    FailedOver,
    /// An emergency call was made.
    EmergencyCall(EmergencyWay),
    /// The office is on its own from now on.
    SurvivalEntered,
    /// A call was made without a server.
    SurvivalCall(SurvivalCall),
    /// A phone was registered here.
    RegisteredHere,
    /// A request that is too large for UDP went by TCP; or by UDP all the same, since there was no connection.
    Large(Transport),
    /// A STUN binding request was answered.
    StunAnswered,
    /// Something was converted for a peer.
    Converted(Conversion),
}

macro_rules! labelled {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All of them, for metrics that begin at zero.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in metrics.
            #[must_use]
            pub fn as_label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

labelled! {
    /// Why a message was not relayed.
    DropReason {
        /// It cannot be read and no response can be built.
        Unreadable = "unreadable",
        /// It cannot be read; it was answered 400, 505 or 513.
        Malformed = "malformed",
        /// STUN that is no binding request, or comes from one who is not served.
        Stun = "stun",
        /// A program that looks for open servers; not answered.
        Scanner = "scanner",
        /// It came on a network that is not configured.
        UnknownNetwork = "unknown_network",
        /// A request on the servers' network from an address that is not trusted; answered 403.
        Untrusted = "untrusted",
        /// A response to nothing that was asked, or too late.
        StrayResponse = "stray_response",
        /// A response without a further Via: it has nowhere to go.
        ResponseWithoutVia = "response_without_via",
        /// A response that came after the request was answered otherwise.
        LateResponse = "late_response",
        /// An ACK that belongs to no dialog.
        AckWithoutDialog = "ack_without_dialog",
        /// Max-Forwards is used up; answered 483.
        TooManyHops = "too_many_hops",
        /// The request has been here before, unchanged; answered 482.
        Loop = "loop",
        /// Proxy-Require asks for something unknown; answered 420.
        UnknownExtension = "unknown_extension",
        /// No phone is registered for it; answered 404.
        NoBinding = "no_binding",
        /// It belongs to no dialog; answered 481.
        NoDialog = "no_dialog",
        /// A phone that is not registered wants to be called through without a server; answered 403.
        NotRegistered = "not_registered",
        /// A registration that the office, on its own, does not accept; answered 403.
        StrangePhone = "strange_phone",
        /// A phone that has to prove itself gave the wrong answer; answered 403.
        WrongCredentials = "wrong_credentials",
        /// It gave the right answer, but to an old nonce, or for the second time; it was challenged again.
        StaleCredentials = "stale_credentials",
        /// There is no server to send it to; answered 503.
        NoDestination = "no_destination",
        /// A network takes no more calls, or its line no more media; answered 503.
        NetworkFull = "network_full",
        /// Who calls does not want to be known, and more of it than can be kept back.
        PrivacyNotPossible = "privacy_not_possible",
        /// There are as many calls or transactions as allowed; answered 503.
        Overload = "overload",
        /// The registrar has no room or cannot read a Contact; answered 503 or 400.
        RegistrationRefused = "registration_refused",
        /// There are no media ports left; answered 503.
        NoPorts = "no_ports",
        /// There are no descriptors left for sockets of media ports; answered 503.
        NoDescriptors = "no_descriptors",
        /// A session timer that is too short; answered 422.
        SessionTimer = "session_timer",
        /// A REFER that asks for what cannot be done; answered 4xx or 501.
        ReferRefused = "refer_refused",
        /// An offer of the appliance's own is under way in the call; answered 491.
        Glare = "glare",
        /// The session description was refused; answered 488 or 500.
        SessionRefused = "session_refused",
    }
}

labelled! {
    /// What was converted for a peer.
    Conversion {
        /// A session timer was kept for a side that knows none.
        SessionTimer = "session_timer",
        /// An INVITE without a session description got one.
        DelayedOffer = "delayed_offer",
        /// A REFER became a re-INVITE: the transfer was made.
        Refer = "refer",
        /// The same, but the transfer has failed.
        ReferFailed = "refer_failed",
    }
}

labelled! {
    /// By which way an emergency call left first.
    EmergencyWay {
        /// By a local trunk.
        Trunk = "trunk",
        /// By the servers: no trunk carries emergency calls.
        Servers = "servers",
    }
}

labelled! {
    /// Where a call went that was made without a server.
    SurvivalCall {
        /// To a phone of the office.
        Phone = "phone",
        /// By a trunk.
        Trunk = "trunk",
    }
}

labelled! {
    /// How a call ended.
    Outcome {
        /// It was answered and hung up.
        Answered = "answered",
        /// 486 or 600.
        Busy = "busy",
        /// The caller gave up.
        Cancelled = "cancelled",
        /// 603, 403 and other refusals by the other side.
        Declined = "declined",
        /// 408 or 480.
        NoAnswer = "no_answer",
        /// 404, 410, 484 or 604.
        NotFound = "not_found",
        /// 3xx: the caller was sent elsewhere.
        Redirected = "redirected",
        /// 5xx.
        ServerFailure = "server_failure",
        /// No media ports were left.
        NoPorts = "no_ports",
        /// No descriptors were left for its media ports.
        NoDescriptors = "no_descriptors",
        /// The next hop did not answer at all.
        Timeout = "timeout",
        /// Its media stopped for longer than is allowed.
        MediaTimeout = "media_timeout",
        /// The appliance ended it, on an operator's word or because it stops.
        Terminated = "terminated",
    }
}

impl Outcome {
    /// The outcome that a failure response to the first INVITE means.
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Answered,
            300..=399 => Self::Redirected,
            404 | 410 | 484 | 604 => Self::NotFound,
            408 | 480 => Self::NoAnswer,
            486 | 600 => Self::Busy,
            487 => Self::Cancelled,
            500..=599 => Self::ServerFailure,
            _ => Self::Declined,
        }
    }
}

//! The surface that a signalling front end drives: offer, answer, delete.

use std::time::Instant;

use thiserror::Error;

use crate::net::NetworkId;

/// A session description that proposes media (RFC 3264 section 5).
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Names the call: the same bytes in every offer, answer and deletion that belongs to it.
    pub call: &'a [u8],
    /// The party that offers.
    pub from_tag: &'a [u8],
    /// The party that the offer is for, once it is known (not in a call's first offer).
    pub to_tag: Option<&'a [u8]>,
    /// The network of the party that offers.
    pub from: NetworkId,
    /// The network of the party that the offer is for.
    pub to: NetworkId,
    /// The session description, an SDP body (RFC 8866).
    pub sdp: &'a [u8],
}

/// A session description that accepts, changes or refuses what was offered (RFC 3264 section 6).
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Names the call, as in the offer.
    pub call: &'a [u8],
    /// The party that offered.
    pub from_tag: &'a [u8],
    /// The party that answers. One offer can have several answers, each by another party (forking).
    pub to_tag: &'a [u8],
    /// The network of the party that offered.
    pub from: NetworkId,
    /// The network of the party that answers.
    pub to: NetworkId,
    /// The session description, an SDP body (RFC 8866).
    pub sdp: &'a [u8],
}

/// Why a session description could not be served.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MediaError {
    /// Every media port of a network is in use.
    #[error("no free media ports on network \"{network}\": {used} of {total} are in use")]
    NoPorts {
        /// Name of the network.
        network: String,
        /// Ports in use.
        used: usize,
        /// Ports configured.
        total: usize,
    },
    /// Every media port takes a socket, and there are no descriptors for more of them.
    #[error(
        "no descriptors for media: {used} of {most} are in use, the limit of {limit} less {kept} kept for the rest; raise \
         LimitNOFILE of the service, or see branchline doctor for why the kernel does not carry media"
    )]
    NoDescriptors {
        /// Sockets of media that are open.
        used: usize,
        /// How many may be.
        most: usize,
        /// What the process may open in all.
        limit: usize,
        /// What is kept for all that is not media.
        kept: usize,
    },
    /// The session description cannot be read.
    #[error("session description refused: {0}")]
    Sdp(String),
    /// The networks' policies on SRTP allow nothing that this description has.
    #[error("SRTP: {0}")]
    Srtp(String),
    /// An answer for a call that has no offer.
    #[error("an answer came for a call that has no offer")]
    UnknownCall,
    /// A limit of the appliance was reached.
    #[error("{what}: the limit is {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// A flow could not be installed.
    #[error("the datapath refused a flow: {0}")]
    Datapath(String),
}

/// What a signalling front end may ask of the media plane.
///
/// The signalling state machines are given an implementation with each input, so that they can be tested
/// against a plain one, while the daemon's installs flows in the kernel.
pub trait MediaRelay {
    /// Takes an offer and returns it rewritten for the other party. When this returns, the flows behind
    /// the ports that the rewritten description announces are installed.
    ///
    /// # Errors
    /// See [`MediaError`]; nothing of a failed first offer stays behind.
    fn offer(&mut self, now: Instant, offer: &Offer<'_>) -> Result<Vec<u8>, MediaError>;

    /// Takes the answer to the call's last offer and returns it rewritten for the party that offered.
    ///
    /// # Errors
    /// See [`MediaError`].
    fn answer(&mut self, now: Instant, answer: &Answer<'_>) -> Result<Vec<u8>, MediaError>;

    /// Ends a branch of a forked call, by the tag of the party that answered there: another branch was answered, or this
    /// one has ended before the others. The ports that were this branch's alone are given back. The last branch stays
    /// until the call ends; unknown ones are ignored.
    fn release(&mut self, now: Instant, call: &[u8], tag: &[u8]);

    /// Ends the call's media: flows are removed and ports given back. Unknown calls are ignored, so that
    /// it may be called more than once.
    fn delete(&mut self, now: Instant, call: &[u8]);
}

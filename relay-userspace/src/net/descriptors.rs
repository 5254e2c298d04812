//! How many descriptors this process may have open, and how many of them are for media.
//!
//! Where the kernel does not steer, each media port is a socket. They share the limit with everything else that the
//! appliance opens, and a process without descriptors can do nothing at all: take no connection, write no file, not even
//! look at itself. So a part is kept for the rest. Invariant: sockets of media never take what is kept.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What is kept for the rest at most: 256 connections to the pages, 512 of phones that fetch files, some 1,000 of SIP over
/// TCP and TLS, and the database, the logs, captures and the sockets that are always there.
const KEPT: usize = 2048;
/// Of a limit that is smaller than twice that, the rest gets its half.
const SHARE: usize = 2;

/// Sockets of a call with one stream, where media ports take some: RTP and RTCP on each network.
pub const SOCKETS_OF_A_CALL: usize = 4;

/// Descriptors that this process may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// All of them: RLIMIT_NOFILE (getrlimit(2)).
    pub limit: usize,
    /// Those that are kept for all that is not media.
    pub kept: usize,
}

impl Descriptors {
    /// What a limit is shared into.
    #[must_use]
    pub fn of(limit: usize) -> Self {
        Self { limit, kept: KEPT.min(limit / SHARE) }
    }

    /// As it is at the moment; others may change it (prlimit(1)).
    #[must_use]
    pub fn now() -> Self {
        // The one error is an address that is none.
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(limit, _)| limit);
        Self::of(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// As it would be at most: what the administrator allows (the hard limit of getrlimit(2)).
    #[must_use]
    pub fn most() -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, limit)| limit);
        Self::of(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// Those that media may have.
    #[must_use]
    pub fn for_media(self) -> usize {
        self.limit - self.kept
    }
}

/// Takes all that the administrator allows: shells and service managers mostly give 1,024, for programs that use
/// select(2), and allow more. Gives the limit from now on.
pub fn raise_limit() -> Descriptors {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // What is refused stays as it was.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    Descriptors::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_half_of_a_small_limit_and_enough_of_a_large_one() {
        for (limit, kept, media) in [
            (0, 0, 0),
            (1, 0, 1),
            (256, 128, 128),
            (1024, 512, 512),
            (4096, 2048, 2048),
            (20_000, 2048, 17_952),
            (65_536, 2048, 63_488),
        ] {
            let descriptors = Descriptors::of(limit);
            assert_eq!((descriptors.kept, descriptors.for_media()), (kept, media), "{limit}");
        }
    }
}

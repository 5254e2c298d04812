//! Peers beside the central servers, each with a name and a health of its own: [`Trunks`](super::Trunks), and the
//! destinations of [`Plans`](super::Plans). What is the same of both is here; which of them is taken for a call is theirs.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{
    group::Group,
    server::{Evidence, Failure, Output, Resolution, ServerState, Settings},
};
use crate::{config::ServerUri, sip::Hop};

/// What is told of a peer.
pub trait Peer {
    /// Its name, which no other has.
    fn name(&self) -> &str;
    /// The other end, and how its health is found out.
    fn settings(&self) -> &Settings;
}

/// One peer, and what is known of it.
#[derive(Debug)]
pub(super) struct Known<P> {
    pub(super) peer: P,
    pub(super) group: Group,
}

/// How a peer is.
#[derive(Debug)]
pub struct PeerState {
    /// Its name.
    pub name: String,
    /// Its other end, at each of its addresses.
    pub servers: Vec<ServerState>,
}

/// All peers of a kind.
#[derive(Debug)]
pub struct Peers<P>(Vec<Known<P>>);

impl<P> Default for Peers<P> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<P: Peer> Peers<P> {
    /// Peers of which nothing is known yet.
    #[must_use]
    pub fn new(peers: Vec<P>, now: Instant) -> Self {
        let mut new = Self::default();
        new.set(peers, now);
        new
    }

    /// Takes other settings. What is known of peers that stay is kept.
    pub fn set(&mut self, peers: Vec<P>, now: Instant) {
        let mut old = std::mem::take(&mut self.0);
        for peer in peers {
            let is_same = |known: &Known<P>| {
                known.peer.name() == peer.name() && known.peer.settings().network == peer.settings().network
            };
            let group = match old.iter().position(is_same) {
                Some(known) => {
                    let mut group = old.swap_remove(known).group;
                    group.set(peer.settings().clone(), now);
                    group
                }
                None => Group::new(peer.settings().clone(), now),
            };
            self.0.push(Known { peer, group });
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Known<P>> {
        self.0.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The peer that is at a hop.
    #[must_use]
    pub fn at(&self, hop: Hop) -> Option<&P> {
        let found = self.0.iter().find(|known| {
            known.peer.settings().network == hop.network
                && known.group.addresses().any(|address| address == hop.address.ip())
        });
        found.map(|known| &known.peer)
    }

    /// Where they are.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().flat_map(|known| known.group.addresses())
    }

    /// The names that they have to prove by their certificates, by address.
    pub fn names(&self) -> impl Iterator<Item = (SocketAddr, String)> {
        self.0.iter().flat_map(|known| known.group.names())
    }

    /// One has answered.
    pub fn succeeded(&mut self, now: Instant, hop: Hop, evidence: Evidence) {
        self.groups().for_each(|group| group.succeeded(now, hop, evidence));
    }

    /// One was heard of otherwise.
    pub fn heard(&mut self, now: Instant, hop: Hop, evidence: Evidence) {
        self.groups().for_each(|group| group.heard(now, hop, evidence));
    }

    /// One could not be reached, did not answer, or says that it cannot serve.
    pub fn failed(&mut self, now: Instant, hop: Hop, failure: &Failure) {
        self.groups().for_each(|group| group.failed(now, hop, failure.clone()));
    }

    /// One has not answered when it was asked how it is, or cannot be reached at all.
    pub fn found_down(&mut self, now: Instant, hop: Hop, failure: &Failure) {
        self.groups().for_each(|group| group.found_down(now, hop, failure.clone()));
    }

    /// What a name resolved to, or why it did not.
    pub fn resolved(&mut self, now: Instant, uri: &ServerUri, result: &Result<Resolution, String>) {
        self.groups().for_each(|group| group.resolved(now, uri, result.clone()));
    }

    /// When [`Peers::handle_timeout`] has to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.0.iter().filter_map(|known| known.group.poll_timeout()).min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.groups().for_each(|group| group.handle_timeout(now));
    }

    /// The next thing to do, and for which peer.
    pub fn poll_output(&mut self) -> Option<(String, Output)> {
        self.0.iter_mut().find_map(|known| Some((known.peer.name().to_owned(), known.group.poll_output()?)))
    }

    /// How they are, in their order.
    #[must_use]
    pub fn states(&self) -> Vec<PeerState> {
        let state = |known: &Known<P>| PeerState {
            name: known.peer.name().to_owned(),
            servers: known.group.states(),
        };
        self.0.iter().map(state).collect()
    }

    fn groups(&mut self) -> impl Iterator<Item = &mut Group> {
        self.0.iter_mut().map(|known| &mut known.group)
    }
}

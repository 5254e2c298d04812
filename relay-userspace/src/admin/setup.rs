//! The one-time link with the addresses by which the pages can be reached.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::access::SetupLink;
use crate::control::SetupLinkView;

/// For how many hours a link can be used; see [`SetupLink`].
const VALID_HOURS: u64 = 24;

/// The link, and where it leads.
#[derive(Debug)]
pub struct Setup {
    link: Mutex<SetupLink>,
    places: Vec<SocketAddr>,
}

impl Setup {
    /// No link yet. `listen` is where the pages are served, `own` the appliance's addresses.
    #[must_use]
    pub fn new(listen: SocketAddr, own: &[IpAddr]) -> Self {
        let places = if listen.ip().is_unspecified() {
            own.iter().map(|ip| SocketAddr::new(*ip, listen.port())).collect()
        } else {
            vec![listen]
        };
        Self { link: Mutex::default(), places }
    }

    /// Makes a link; the last one becomes invalid.
    #[must_use]
    pub fn issue(&self, now: Instant) -> SetupLinkView {
        let token = self.link.lock().unwrap_or_else(PoisonError::into_inner).issue(now);
        let link = |place: &SocketAddr| format!("https://{place}/setup?token={}", token.as_str());
        SetupLinkView { links: self.places.iter().map(link).collect(), valid_hours: VALID_HOURS }
    }

    pub(super) fn is_valid(&self, now: Instant, token: &str) -> bool {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).is_valid(now, token)
    }

    pub(super) fn redeem(&self, now: Instant, token: &str) -> bool {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).redeem(now, token)
    }
}

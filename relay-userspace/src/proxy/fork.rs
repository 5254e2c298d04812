//! Forking: one INVITE to several phones of one number at once, and one answer of all theirs.
//!
//! The phone that is answered first has the call; the others are told that it is over. If none is, the caller gets the
//! best of their answers, when the last has come. RFC 3261 section 16.7, steps 5 to 10.

use bytes::Bytes;

use crate::sip::transaction::ClientId;

/// The branches of one request.
#[derive(Debug, Default)]
pub(super) struct Fork {
    /// Those that have not ended.
    pub(super) open: Vec<ClientId>,
    /// The best final answer of those that have failed, and its message.
    best: Option<(u16, Bytes)>,
    /// Whether one was answered.
    pub(super) answered: bool,
}

impl Fork {
    /// A branch begins.
    pub(super) fn begin(&mut self, client: ClientId) {
        self.open.push(client);
    }

    /// A branch has ended, or another takes its place.
    pub(super) fn end(&mut self, client: ClientId) {
        self.open.retain(|other| *other != client);
    }

    /// A branch has failed. Returns what the caller is told, when that was the last.
    pub(super) fn fail(&mut self, client: ClientId, status: u16, payload: Bytes) -> Option<(u16, Bytes)> {
        self.end(client);
        if self.best.as_ref().is_none_or(|(best, _)| rank(status) < rank(*best)) {
            self.best = Some((status, payload));
        }
        if self.open.is_empty() { self.best.take() } else { None }
    }
}

/// Smaller is better (RFC 3261 16.7 step 6): a 6xx is for all branches; then the lowest class; within 4xx those that tell
/// the caller what to do differently.
fn rank(status: u16) -> (u16, u16) {
    match status {
        600..=699 => (0, 0),
        401 | 407 | 415 | 420 | 484 => (status / 100, 0),
        // A phone that is out of order says less than one that is busy.
        408 | 487 | 503 => (status / 100, 2),
        _ => (status / 100, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::transaction::Transactions;

    #[test]
    fn the_caller_is_told_the_best_when_the_last_has_failed() {
        let rows: [(&str, &[u16], u16); 5] = [
            ("one", &[486], 486),
            ("busy says more than silence", &[408, 486, 408], 486),
            ("a refusal for all", &[486, 603, 404], 603),
            ("a lower class", &[503, 404], 404),
            ("a challenge", &[486, 407], 407),
        ];
        for (description, statuses, expected) in rows {
            let mut transactions = Transactions::new(
                crate::sip::transaction::Timers::default(),
                crate::sip::transaction::Limits { count: 10, bytes: 1000 },
                [1, 2],
            );
            let mut fork = Fork::default();
            let clients: Vec<ClientId> = statuses.iter().map(|_| transactions.reserve(0).0).collect();
            clients.iter().for_each(|client| fork.begin(*client));
            let told: Vec<Option<u16>> = clients
                .iter()
                .zip(statuses)
                .map(|(client, status)| fork.fail(*client, *status, Bytes::new()).map(|(status, _)| status))
                .collect();
            let (last, before) = told.split_last().unwrap();
            assert!(before.iter().all(Option::is_none), "{description}");
            assert_eq!(*last, Some(expected), "{description}");
        }
    }
}

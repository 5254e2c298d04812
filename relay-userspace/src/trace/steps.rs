//! What each message of a trace is, and of those that went, from which one that came it was made.
//!
//! A relayed message is the one that came with its Call-ID, tags, method or status; usually with its CSeq, too, but for a
//! phone whose challenges the appliance answers the numbers are shifted (`proxy::credentials`). So the last one that came
//! and was not sent on yet is taken, the one with the same number first; a request that goes to several places, by
//! forking or because a server failed, is made from the one that was sent on already. What a proxy answers or
//! says for itself (100, CANCEL, an ACK of a failure) is made from none. RFC 3261 sections 16.6, 16.7, 16.10 and 17.1.1.3.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Change, Traced, changes::changes, head};
use crate::{
    datapath::Way,
    sip::wire::{Message, Method},
};

/// Trying: every hop says it for itself (RFC 3261 section 16.7).
const TRYING: u16 = 100;

/// What a message is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its number in the trace, from 1.
    pub number: usize,
    /// Milliseconds since the first one.
    pub at_ms: f64,
    /// Method, or status and reason.
    pub what: String,
    /// The Request-URI; none in a response.
    pub uri: Option<String>,
    /// Number and method of CSeq; none if it cannot be read.
    pub cseq: Option<String>,
    /// The number of the message whose bytes it has again.
    pub repeats: Option<usize>,
    /// The number of the message that came and that it was made from.
    pub made_from: Option<usize>,
    /// What is different from that one.
    pub changes: Vec<Change>,
}

/// By what messages of one Call-ID are told apart.
#[derive(PartialEq, Eq)]
struct Identity {
    method: Method,
    status: Option<u16>,
    from_tag: Bytes,
    to_tag: Option<Bytes>,
    cseq: u32,
}

impl Identity {
    fn of(message: &Message) -> Self {
        Self {
            method: message.method().clone(),
            status: message.status(),
            from_tag: Bytes::copy_from_slice(message.from_tag()),
            to_tag: message.to_tag().map(Bytes::copy_from_slice),
            cseq: message.cseq(),
        }
    }

    /// Whether it can be made from another one.
    fn is_relayed(&self) -> bool {
        self.status != Some(TRYING) && self.method != Method::Cancel
    }

    fn is_of(&self, other: &Self) -> bool {
        // An ACK belongs to the number of its INVITE.
        let may_shift = self.method != Method::Ack || self.cseq == other.cseq;
        let same_kind = self.method == other.method && self.status == other.status;
        same_kind && may_shift && self.from_tag == other.from_tag && self.to_tag == other.to_tag
    }
}

/// A message that came.
struct Came {
    number: usize,
    identity: Identity,
    is_used: bool,
}

/// What each of the messages is, in their order.
#[must_use]
pub fn steps(messages: &[Traced]) -> Vec<Step> {
    let begun = messages.first().map_or(0, |message| message.unix_us);
    let raw: Vec<Bytes> = messages.iter().map(Traced::bytes).collect();
    let mut seen = HashMap::new();
    let mut came: Vec<Came> = Vec::new();
    let mut steps: Vec<Step> = Vec::new();
    for ((number, message), bytes) in (1..).zip(messages).zip(&raw) {
        let parsed = Message::parse(bytes).or_else(|rejected| rejected.answerable.map(|m| *m).ok_or(()));
        let parsed = parsed.ok();
        let place = (message.direction, message.transport, message.remote, &message.network, bytes);
        let repeats = seen.get(&place).copied();
        seen.entry(place).or_insert(number);
        let mut made_from = None;
        if let Some(identity) = parsed.as_ref().map(Identity::of).filter(|_| repeats.is_none()) {
            match message.direction {
                Way::In => came.push(Came { number, identity, is_used: false }),
                Way::Out if identity.is_relayed() => {
                    let elsewhere = |came: &Came| {
                        messages.get(came.number - 1).is_some_and(|other| {
                            (&other.network, other.remote) != (&message.network, message.remote)
                        })
                    };
                    made_from = find(&mut came, &identity, elsewhere);
                }
                Way::Out => {}
            }
        }
        let changes = made_from.and_then(|from| raw.get(from - 1)).map(|from| changes(from, bytes));
        steps.push(Step {
            number,
            at_ms: (message.unix_us as f64 - begun as f64) / 1000.0,
            what: what(bytes, parsed.as_ref()),
            uri: parsed
                .as_ref()
                .filter(|message| message.is_request())
                .map(|message| text(message.request_uri())),
            cseq: parsed
                .as_ref()
                .map(|message| format!("{} {}", message.cseq(), message.method().as_label())),
            repeats,
            made_from,
            changes: changes.unwrap_or_default(),
        });
    }
    steps
}

/// The message that came and that this one was made from.
fn find(came: &mut [Came], wanted: &Identity, elsewhere: impl Fn(&Came) -> bool) -> Option<usize> {
    let mut best: Option<(usize, &mut Came)> = None;
    for one in came.iter_mut().rev().filter(|one| wanted.is_of(&one.identity) && elsewhere(one)) {
        let rank = match (one.is_used, one.identity.cseq == wanted.cseq) {
            (false, true) => 3,
            (false, false) => 2,
            (true, true) => 1,
            (true, false) => 0,
        };
        if best.as_ref().is_none_or(|(known, _)| rank > *known) {
            best = Some((rank, one));
        }
    }
    let (_, one) = best?;
    one.is_used = true;
    Some(one.number)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn what(bytes: &[u8], parsed: Option<&Message>) -> String {
    match (head::start(bytes), parsed) {
        (head::Start::Response(status), Some(message)) => format!("{status} {}", text(message.reason())),
        (head::Start::Response(status), None) => format!("{status}"),
        (head::Start::Request(method), _) => text(method),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests_support::{OURS, PHONE, call, message, traced};

    /// What, from which, again as which.
    fn told(messages: &[Traced]) -> Vec<(String, Option<usize>, Option<usize>)> {
        let steps = steps(messages);
        steps.into_iter().map(|step| (step.what, step.made_from, step.repeats)).collect()
    }

    #[test]
    fn what_went_is_made_from_what_came_and_a_repetition_is_told_as_one() {
        let row = |what: &str, from, again| (what.to_owned(), from, again);
        let expected = [
            row("INVITE", None, None),
            row("100 Trying", None, None),
            row("INVITE", Some(1), None),
            row("INVITE", None, Some(3)),
            row("100 Trying", None, None),
            row("200 OK", None, None),
            row("200 OK", Some(6), None),
            row("ACK", None, None),
            row("ACK", Some(8), None),
            row("BYE", None, None),
            row("BYE", Some(10), None),
            row("200 OK", None, None),
            row("200 OK", Some(12), None),
        ];
        assert_eq!(told(&call()), expected);
        let steps = steps(&call());
        assert_eq!((steps[2].at_ms, steps[2].cseq.as_deref()), (0.48, Some("1 INVITE")));
        let changed = &steps[2].changes;
        assert_eq!(changed.iter().filter(|change| change.removed.is_none()).count(), 1, "{changed:?}");
    }

    #[test]
    fn numbers_that_were_shifted_requests_that_go_twice_and_bursts_are_told_apart() {
        let end = "\r\n";
        let request = |way, network: &str, cseq: &str| {
            let via = if network == "office" { PHONE } else { OURS };
            traced(0, way, network, &message("INFO sip:a SIP/2.0", cseq, "t", via, end))
        };
        let burst = [
            request(Way::In, "office", "3 INFO"),
            request(Way::In, "office", "4 INFO"),
            request(Way::Out, "centre", "3 INFO"),
            request(Way::Out, "centre", "4 INFO"),
        ];
        let of = |messages: &[Traced]| told(messages).into_iter().map(|row| row.1).collect::<Vec<_>>();
        assert_eq!(of(&burst), [None, None, Some(1), Some(2)], "a burst");
        let shifted = [
            request(Way::In, "office", "1 INFO"),
            request(Way::Out, "centre", "1 INFO"),
            request(Way::Out, "centre", "2 INFO"),
            request(Way::In, "office", "2 INFO"),
            request(Way::Out, "centre", "3 INFO"),
        ];
        assert_eq!(of(&shifted), [None, Some(1), Some(1), None, Some(4)], "with credentials, then shifted");
        let mut second = request(Way::Out, "centre", "1 INFO");
        second.remote = "10.62.0.11:5060".parse().unwrap();
        let twice = [request(Way::In, "office", "1 INFO"), request(Way::Out, "centre", "1 INFO"), second];
        assert_eq!(of(&twice), [None, Some(1), Some(1)], "to two servers");
        let own = [
            traced(0, Way::In, "office", &message("BYE sip:a SIP/2.0", "2 BYE", "t", PHONE, end)),
            traced(0, Way::Out, "office", &message("SIP/2.0 481 None", "2 BYE", "t", PHONE, end)),
            traced(0, Way::Out, "office", "nonsense"),
        ];
        assert_eq!(of(&own), [None, None, None], "answers of our own, and what cannot be read");
    }
}

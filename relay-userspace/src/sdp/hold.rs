//! How one party puts another on hold, turned into the other's way of doing it.
//!
//! RFC 2543 (appendix B.5) held a call by an address of zeros: "send me nothing". RFC 3264 (section 8.4) holds it by a
//! direction, and still asks for the old way to be understood. Not every party understands both: one that sends to
//! `0.0.0.0`, one that goes on talking under `a=sendonly`, one that tears the call down. What is offered in one way is
//! turned into the other, and the answer into one that the offer allows (RFC 3264 section 6.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Direction, Rewriter, Session, Target};

/// How a party is told that nothing is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldBy {
    /// By the direction alone (RFC 3264).
    Direction,
    /// By an address of zeros, with the direction beside it (RFC 2543).
    ZeroAddress,
}

/// Turns a description into one for a party that holds, and is held, in one way. `own` takes the place of an address of
/// zeros. `None` where nothing changes.
#[must_use]
pub fn hold_by(session: &Session<'_>, way: HoldBy, own: IpAddr) -> Option<Vec<u8>> {
    let mut rewriter = Rewriter::new(session);
    let mut changed = false;
    let is_zero = |index: usize| {
        let media = session.media.get(index);
        let connection = media.and_then(|media| session.connection_of(media));
        connection.is_some_and(|connection| connection.address.is_hold())
    };
    if way == HoldBy::Direction && session.connection.is_some_and(|connection| connection.address.is_hold()) {
        rewriter.place_connection(Target::Session, own);
        changed = true;
    }
    for (index, media) in session.media.iter().enumerate().filter(|(_, media)| !media.is_disabled()) {
        let written = session.direction_of(media);
        let meant = if is_zero(index) { without_receiving(written) } else { written };
        match way {
            HoldBy::Direction if is_zero(index) => {
                if media.connection.is_some() {
                    rewriter.place_connection(Target::Media(index), own);
                }
                changed = true;
            }
            HoldBy::ZeroAddress if !receives(meant) && !is_zero(index) => {
                rewriter.place_connection(Target::Media(index), zeros(own));
                changed = true;
            }
            HoldBy::Direction | HoldBy::ZeroAddress => {}
        }
        if meant != written {
            rewriter.set_direction(index, meant);
            changed = true;
        }
    }
    changed.then(|| rewriter.finish())
}

/// Turns an answer into one that its offer allows: who is held does not ask for anything to be sent to him. `None` where it
/// is one already.
#[must_use]
pub fn fitting_answer(answer: &Session<'_>, offer: &Session<'_>) -> Option<Vec<u8>> {
    let mut rewriter = Rewriter::new(answer);
    let mut changed = false;
    for (index, (answered, offered)) in answer.media.iter().zip(&offer.media).enumerate() {
        if answered.is_disabled() {
            continue;
        }
        let written = answer.direction_of(answered);
        let zero = offer.connection_of(offered).is_some_and(|connection| connection.address.is_hold());
        let wanted = offer.direction_of(offered);
        let wanted = if zero { without_receiving(wanted) } else { wanted };
        let fitting = direction(sends(written) && receives(wanted), receives(written) && sends(wanted));
        if fitting != written {
            rewriter.set_direction(index, fitting);
            changed = true;
        }
    }
    changed.then(|| rewriter.finish())
}

fn sends(direction: Direction) -> bool {
    matches!(direction, Direction::SendRecv | Direction::SendOnly)
}

fn receives(direction: Direction) -> bool {
    matches!(direction, Direction::SendRecv | Direction::RecvOnly)
}

fn direction(sends: bool, receives: bool) -> Direction {
    match (sends, receives) {
        (true, true) => Direction::SendRecv,
        (true, false) => Direction::SendOnly,
        (false, true) => Direction::RecvOnly,
        (false, false) => Direction::Inactive,
    }
}

fn without_receiving(written: Direction) -> Direction {
    direction(sends(written), false)
}

fn zeros(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "192.0.2.1";

    fn description(session: &str, media: &[&str]) -> String {
        let mut text = format!("v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\n{session}t=0 0\r\n");
        media.iter().for_each(|media| text.push_str(media));
        text
    }

    #[test]
    fn a_hold_is_turned_into_the_other_partys_way() {
        const PLAIN: &str = "c=IN IP4 10.0.0.1\r\n";
        const ZERO: &str = "c=IN IP4 0.0.0.0\r\n";
        type Row = (&'static str, HoldBy, String, Option<String>);
        let audio = |more: &str| format!("m=audio 4000 RTP/AVP 0\r\n{more}");
        let rows: [Row; 8] = [
            (
                "zeros for a modern party",
                HoldBy::Direction,
                description(ZERO, &[&audio("")]),
                Some(description("c=IN IP4 192.0.2.1\r\n", &[&audio("a=sendonly\r\n")])),
            ),
            (
                "zeros that come with a direction",
                HoldBy::Direction,
                description(PLAIN, &[&audio("c=IN IP4 0.0.0.0\r\na=inactive\r\n")]),
                Some(description(PLAIN, &[&audio("c=IN IP4 192.0.2.1\r\na=inactive\r\n")])),
            ),
            (
                "zeros and recvonly: nothing either way",
                HoldBy::Direction,
                description(ZERO, &[&audio("a=recvonly\r\n")]),
                Some(description("c=IN IP4 192.0.2.1\r\n", &[&audio("a=inactive\r\n")])),
            ),
            ("no hold for a modern party", HoldBy::Direction, description(PLAIN, &[&audio("")]), None),
            (
                "a direction for an old party",
                HoldBy::ZeroAddress,
                description(PLAIN, &[&audio("a=sendonly\r\n")]),
                Some(description(PLAIN, &[&audio("c=IN IP4 0.0.0.0\r\na=sendonly\r\n")])),
            ),
            (
                "one of two streams",
                HoldBy::ZeroAddress,
                description(PLAIN, &[&audio("a=inactive\r\n"), &audio("a=recvonly\r\n")]),
                Some(description(
                    PLAIN,
                    &[&audio("c=IN IP4 0.0.0.0\r\na=inactive\r\n"), &audio("a=recvonly\r\n")],
                )),
            ),
            ("no hold for an old party", HoldBy::ZeroAddress, description(PLAIN, &[&audio("")]), None),
            (
                "a stream that is refused",
                HoldBy::ZeroAddress,
                description(PLAIN, &["m=audio 0 RTP/AVP 0\r\na=inactive\r\n"]),
                None,
            ),
        ];
        for (what, way, before, expected) in rows {
            let session = Session::parse(before.as_bytes()).unwrap();
            let found = hold_by(&session, way, OWN.parse().unwrap());
            let found = found.map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn an_answer_asks_for_nothing_that_its_offer_does_not_give() {
        let text = |direction: &str| {
            description("c=IN IP4 10.0.0.1\r\n", &[&format!("m=audio 4000 RTP/AVP 0\r\n{direction}")])
        };
        let rows = [
            ("a=sendonly\r\n", "", Some("a=recvonly\r\n")),
            ("a=inactive\r\n", "a=sendrecv\r\n", Some("a=inactive\r\n")),
            ("a=sendonly\r\n", "a=sendonly\r\n", Some("a=inactive\r\n")),
            ("a=sendonly\r\n", "a=recvonly\r\n", None),
            ("", "", None),
            ("", "a=sendonly\r\n", None),
        ];
        for (offer, answer, expected) in rows {
            let (offered, answered) = (text(offer), text(answer));
            let (offered, answered) =
                (Session::parse(offered.as_bytes()).unwrap(), Session::parse(answered.as_bytes()).unwrap());
            let found = fitting_answer(&answered, &offered).map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(found, expected.map(text), "{offer:?} answered by {answer:?}");
        }
    }
}

//! The `o=` line that a side of a call knows the other one by.
//!
//! All descriptions of one dialog have to name one session, with a version that is one higher when something has changed
//! (RFC 3264 section 8). Where the appliance offers first and the caller speaks later, or where a transfer gives a side
//! another party, they would name two. From then on that side is told the line that it knows, with versions of the
//! appliance's own; until then it is told what the other side has said.

use serde::{Deserialize, Serialize};

use crate::{
    proxy::call::{Call, Party},
    sdp,
    sip::transaction::keyed_hash,
    splice,
};

/// What a side was told of the other one's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::proxy) struct Origin {
    /// User and number of the session.
    session: String,
    /// The last version.
    version: u64,
    /// Network, family and address.
    place: String,
    /// Of all the other lines that it was told last.
    rest: u64,
    /// Whether the versions are the appliance's own.
    own: bool,
}

/// User with number, version, and place of an `o=` line (RFC 8866 section 5.2).
fn parts(line: &[u8]) -> Option<(String, u64, String)> {
    let words: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
    let [user, number, version, net, family, address] = words[..] else { return None };
    Some((format!("{user} {number}"), version.parse().ok()?, format!("{net} {family} {address}")))
}

impl Origin {
    /// A description as it goes to the side.
    fn tell(known: &mut Option<Self>, description: Vec<u8>) -> Vec<u8> {
        let Some(place) = sdp::Session::parse(&description)
            .ok()
            .and_then(|session| splice::offset_in(&description, session.origin?))
        else {
            return description;
        };
        let (before, after) = (description.get(..place.start), description.get(place.end..));
        let (Some(before), Some(after)) = (before, after) else { return description };
        let Some((session, version, address)) = description.get(place.clone()).and_then(parts) else {
            return description;
        };
        let rest = keyed_hash([0, 0], &[before, after]);
        let Some(origin) = known else {
            *known = Some(Self { session, version, place: address, rest, own: false });
            return description;
        };
        if !origin.own && origin.session == session && version >= origin.version {
            (origin.version, origin.rest) = (version, rest);
            return description;
        }
        origin.own = true;
        if origin.rest != rest {
            origin.version = origin.version.saturating_add(1);
            origin.rest = rest;
        }
        let line = format!("{} {} {}", origin.session, origin.version, origin.place);
        [before, line.as_bytes(), after].concat()
    }
}

/// A description as it goes to a side of a call.
pub(in crate::proxy) fn told(call: &mut Call, toward: Party, description: Vec<u8>) -> Vec<u8> {
    match call.conversing.as_deref_mut() {
        Some(conversing) => Origin::tell(conversing.origin(toward), description),
        None => description,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_told_one_session_with_versions_that_rise_when_something_changes() {
        let sdp = |origin: &str, port: u16| {
            format!("v=0\r\no={origin}\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n")
        };
        let rows = [
            ("the first", "a 1 7 IN IP4 h", 4000, "a 1 7 IN IP4 h"),
            ("the next of the same", "a 1 8 IN IP4 h", 4002, "a 1 8 IN IP4 h"),
            ("another party", "b 2 1 IN IP4 i", 4004, "a 1 9 IN IP4 h"),
            ("the same again", "b 2 1 IN IP4 i", 4004, "a 1 9 IN IP4 h"),
            ("a change of it", "b 2 2 IN IP4 i", 4006, "a 1 10 IN IP4 h"),
            ("the first party again", "a 1 8 IN IP4 h", 4008, "a 1 11 IN IP4 h"),
        ];
        let mut known = None;
        for (description, origin, port, expected) in rows {
            let told = Origin::tell(&mut known, sdp(origin, port).into_bytes());
            assert_eq!(String::from_utf8(told).unwrap(), sdp(expected, port), "{description}");
        }
        for nonsense in ["", "v=0\r\n", "v=0\r\no=x\r\n", "v=0\r\no=a 1 x IN IP4 h\r\n"] {
            assert_eq!(Origin::tell(&mut known, nonsense.into()), nonsense.as_bytes(), "{nonsense}");
        }
    }
}

//! What is different between a message as it came and as it went: lines that were added, removed or changed.
//!
//! Messages are edited by splicing (`sip::wire`), so that the lines that differ are all that the appliance did. Lines of
//! the head are compared with those that they are folded into, those of the body one by one. Made when somebody looks,
//! never when a message passes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use similar::{Algorithm, DiffOp, capture_diff_slices};

/// Lines of a head or body that are compared one by one; of a longer one only that it differs is told.
const MOST_LINES: usize = 2000;

/// What of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The first line and the headers.
    Head,
    /// The body.
    Body,
}

/// A line that was removed, added, or changed if it is both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Where.
    pub part: Part,
    /// As it came.
    pub removed: Option<String>,
    /// As it went.
    pub added: Option<String>,
}

/// What is different, in the order of the message.
pub(super) fn changes(came: &Bytes, went: &Bytes) -> Vec<Change> {
    let ((head, body), (new_head, new_body)) = (parts(came), parts(went));
    let mut changes = compare(Part::Head, &head, &new_head);
    changes.extend(compare(Part::Body, &body, &new_body));
    changes
}

/// The lines of head and body.
fn parts(message: &[u8]) -> (Vec<&[u8]>, Vec<&[u8]>) {
    let (mut head, mut at) = (Vec::<(usize, usize)>::new(), 0);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        let begin = at;
        at += line.len();
        match (line.first(), head.last_mut()) {
            (Some(b'\r' | b'\n'), Some(_)) => break,
            // Folded: it belongs to the one before.
            (Some(b' ' | b'\t'), Some(last)) => last.1 = at,
            _ => head.push((begin, at)),
        }
    }
    let text = |(begin, end)| without_end(message.get(begin..end).unwrap_or_default());
    let body = message.get(at..).unwrap_or_default();
    let body = body.split_inclusive(|byte| *byte == b'\n').map(without_end);
    (head.into_iter().map(text).collect(), body.collect())
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn compare(part: Part, old: &[&[u8]], new: &[&[u8]]) -> Vec<Change> {
    if old.len() > MOST_LINES || new.len() > MOST_LINES {
        let told = |lines: &[&[u8]]| Some(format!("({} lines)", lines.len()));
        let change = Change { part, removed: told(old), added: told(new) };
        return if old == new { Vec::new() } else { vec![change] };
    }
    let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
    let removed = |line: &&[u8]| Change { part, removed: Some(text(line)), added: None };
    let added = |line: &&[u8]| Change { part, removed: None, added: Some(text(line)) };
    let mut changes = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, old, new) {
        let (old, new) = (old.get(op.old_range()), new.get(op.new_range()));
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        match op {
            DiffOp::Equal { .. } => {}
            DiffOp::Delete { .. } => changes.extend(old.iter().map(removed)),
            DiffOp::Insert { .. } => changes.extend(new.iter().map(added)),
            DiffOp::Replace { .. } => replaced(part, old, new, &mut changes),
        }
    }
    changes
}

/// Lines in the place of others: those of one name are one line that was changed. Where lines were added before the one
/// of the same name, as a Via is, the later ones are those that were there before.
fn replaced(part: Part, old: &[&[u8]], new: &[&[u8]], changes: &mut Vec<Change>) {
    let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
    let mut next = new;
    for line in old {
        let Some(at) = next.iter().position(|other| name(other) == name(line)) else {
            changes.push(Change { part, removed: Some(text(line)), added: None });
            continue;
        };
        let (before, rest) = next.split_at(at);
        changes.extend(before.iter().map(|line| Change { part, removed: None, added: Some(text(line)) }));
        let changed = rest.first().map(|line| text(line));
        changes.push(Change { part, removed: Some(text(line)), added: changed });
        next = rest.get(1..).unwrap_or_default();
    }
    changes.extend(next.iter().map(|line| Change { part, removed: None, added: Some(text(line)) }));
}

/// What a line is about: a header's name, a description's letter; all first lines are about the same.
fn name(line: &[u8]) -> Vec<u8> {
    let end = line.iter().position(|byte| matches!(byte, b':' | b'=' | b' '));
    line.get(..end.unwrap_or(line.len())).unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(came: &str, went: &str) -> Vec<String> {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let changes = changes(&bytes(came), &bytes(went));
        let line = |change: &Change| {
            let part = if change.part == Part::Head { "head" } else { "body" };
            let side = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{part}: {} -> {}", side(&change.removed), side(&change.added))
        };
        changes.iter().map(line).collect()
    }

    #[test]
    fn lines_that_were_added_removed_and_changed_are_told_in_their_order() {
        let came = "INVITE sip:a SIP/2.0\r\nVia: phone\r\nMax-Forwards: 70\r\nContact: <sip:p>\r\nTo: x\r\n y\r\nRoute: r\r\n\r\n\
                    v=0\r\nc=IN IP4 1\r\nm=audio 1 RTP/AVP 0\r\na=ice\r\n";
        let went = "INVITE sip:b SIP/2.0\r\nVia: ours\r\nVia: phone\r\nMax-Forwards: 69\r\nContact: <sip:o>\r\nTo: x\r\n y\r\n\r\n\
                    v=0\r\nc=IN IP4 2\r\nm=audio 2 RTP/AVP 0\r\n";
        let expected = [
            "head: INVITE sip:a SIP/2.0 -> INVITE sip:b SIP/2.0",
            "head:  -> Via: ours",
            "head: Max-Forwards: 70 -> Max-Forwards: 69",
            "head: Contact: <sip:p> -> Contact: <sip:o>",
            "head: Route: r -> ",
            "body: c=IN IP4 1 -> c=IN IP4 2",
            "body: m=audio 1 RTP/AVP 0 -> m=audio 2 RTP/AVP 0",
            "body: a=ice -> ",
        ];
        assert_eq!(told(came, went), expected);
        assert_eq!(told(came, came), Vec::<String>::new());
        let long = format!("BYE a\r\n\r\n{}", "a=x\r\n".repeat(MOST_LINES + 1));
        assert_eq!(told(&long, "BYE a\r\n\r\na=x\r\n"), ["body: (2001 lines) -> (1 lines)"]);
    }

    proptest! {
        #[test]
        fn what_is_removed_was_there_and_what_is_added_is_there(
            came in "(a: [xy]\r\n|b: z\r\n| f\r\n){0,8}(\r\n(v=1\n|c=[de]\n){0,6})?",
            went in "(a: [xy]\r\n|b: z\r\n| f\r\n){0,8}(\r\n(v=1\n|c=[de]\n){0,6})?",
        ) {
            let (came, went) = (Bytes::from(came), Bytes::from(went));
            let changes = changes(&came, &went);
            prop_assert_eq!(changes.is_empty(), parts(&came) == parts(&went));
            // Taking out what was removed and putting in what was added leaves as many lines of each as there are.
            let mut lines: Vec<String> = Vec::new();
            for (message, sign) in [(&came, 1), (&went, 0)] {
                let (head, body) = parts(message);
                let all = head.into_iter().chain(body).map(|line| String::from_utf8_lossy(line).into_owned());
                if sign == 1 { lines.extend(all); continue; }
                let mut now = lines.clone();
                for change in &changes {
                    if let Some(removed) = &change.removed {
                        let at = now.iter().position(|line| line == removed);
                        prop_assert!(at.is_some());
                        now.remove(at.unwrap());
                    }
                    now.extend(change.added.clone());
                }
                let mut expected: Vec<String> = all.collect();
                now.sort();
                expected.sort();
                prop_assert_eq!(now, expected);
            }
        }
    }
}

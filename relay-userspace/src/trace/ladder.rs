//! A trace as a picture in text: a column for each peer, an arrow for each message. Pure.
//!
//! The peer that spoke first stands to the left of the appliance, all others to its right. What peers say is escaped: a
//! terminal must not obey it.

use std::fmt::Write as _;

use time::{OffsetDateTime, macros::format_description};

use super::{Change, Part, Step, Summary, Traced};
use crate::{datapath::Way, log::escaped};

/// Peers that have a column of their own; messages of further ones are drawn to the last column.
const MOST_PEERS: usize = 6;
/// Characters from one column to the next, at least.
const GAP: usize = 26;
/// Before the first column: number, milliseconds, and half of its label.
const BEFORE: usize = 18;
/// The appliance's column.
const APPLIANCE: usize = 1;
/// Characters of what a peer has said in one place.
const MOST: usize = 100;

/// Characters of a Request-URI.
const MOST_URI: usize = 60;

/// What of a trace is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The arrows.
    Arrows,
    /// Below those that were made from another message, what was changed.
    Changes,
    /// After the arrows, the messages.
    Messages,
    /// All of it.
    Everything,
}

impl Detail {
    fn has_changes(self) -> bool {
        matches!(self, Self::Changes | Self::Everything)
    }

    fn has_messages(self) -> bool {
        matches!(self, Self::Messages | Self::Everything)
    }
}

/// The columns, from left to right.
struct Columns {
    /// Network and address, twice empty for the appliance.
    labels: Vec<[String; 2]>,
    gap: usize,
}

impl Columns {
    fn of(messages: &[Traced]) -> Self {
        let mut labels: Vec<[String; 2]> = Vec::new();
        for message in messages {
            let label = Self::label(message);
            if labels.len() < MOST_PEERS && !labels.contains(&label) {
                labels.push(label);
            }
        }
        if let Some(label) = messages.iter().map(Self::label).find(|label| !labels.contains(label))
            && let Some(last) = labels.last_mut()
        {
            *last = ["others".to_owned(), label[1].clone() + " ..."];
        }
        labels.insert(labels.len().min(APPLIANCE), [String::new(), "branchline".to_owned()]);
        let widest = labels.iter().flatten().map(|label| label.chars().count()).max().unwrap_or(0);
        Self { labels, gap: GAP.max(widest + 2) }
    }

    fn label(message: &Traced) -> [String; 2] {
        [escaped(&message.network, MOST), message.remote.to_string()]
    }

    fn of_peer(&self, message: &Traced) -> usize {
        let label = Self::label(message);
        self.labels.iter().position(|known| *known == label).unwrap_or(self.labels.len() - 1)
    }

    fn place(&self, column: usize) -> usize {
        BEFORE + column * self.gap
    }

    /// A line of labels, each below the middle of its column.
    fn titles(&self, row: usize) -> String {
        let mut line = String::new();
        for (column, label) in self.labels.iter().enumerate() {
            let text = &label[row];
            let begin = (self.place(column) + 1).saturating_sub(text.chars().count().div_ceil(2));
            let length = line.chars().count();
            line.extend(std::iter::repeat_n(' ', begin.saturating_sub(length)));
            line.push_str(text);
        }
        line.trim_end().to_owned()
    }

    /// The columns, with an arrow from one to another.
    fn arrow(&self, from: usize, to: usize, what: &str) -> String {
        let mut line = vec![' '; self.place(self.labels.len() - 1) + 1];
        for column in 0..self.labels.len() {
            line[self.place(column)] = '|';
        }
        let (left, right) = (self.place(from.min(to)), self.place(from.max(to)));
        line[left + 1..right].fill('-');
        let room = right - left - 5;
        for (place, character) in line[left + 3..].iter_mut().zip(escaped(what, room).chars().take(room)) {
            *place = character;
        }
        if from < to {
            line[right - 1] = '>';
        } else {
            line[left + 1] = '<';
        }
        line.into_iter().collect()
    }
}

/// The picture.
#[must_use]
pub fn ladder(summary: &Summary, messages: &[Traced], steps: &[Step], detail: Detail) -> String {
    let mut text = String::new();
    let left_out = match summary.left_out {
        0 => String::new(),
        some => format!("; {some} more are not kept"),
    };
    for (name, value) in [
        ("Call-ID", escaped(&summary.call_id, usize::MAX)),
        ("From", escaped(&summary.from, MOST)),
        ("To", escaped(&summary.to, MOST)),
        ("Begun", moment(summary.begun_unix_us)),
        ("Messages", format!("{}{left_out}", messages.len())),
    ] {
        let _ = writeln!(text, "{name:<9} {value}");
    }
    let columns = Columns::of(messages);
    text.push('\n');
    for row in 0..2 {
        let _ = writeln!(text, "{}", columns.titles(row));
    }
    for (message, step) in messages.iter().zip(steps) {
        let peer = columns.of_peer(message);
        let (from, to) = if message.direction == Way::In { (peer, APPLIANCE) } else { (APPLIANCE, peer) };
        let arrow = columns.arrow(from, to, &step.what);
        let arrow = arrow.get(BEFORE..).unwrap_or_default();
        let cseq = escaped(step.cseq.as_deref().unwrap_or("-"), MOST);
        let uri = step.uri.as_ref().map(|uri| format!(" {}", escaped(uri, MOST_URI))).unwrap_or_default();
        let note = match (step.repeats, step.made_from) {
            (Some(again), _) => format!(", again ({again})"),
            (None, Some(from)) => format!(", from {from}"),
            (None, None) => String::new(),
        };
        let transport = message.transport.as_label();
        let (number, at) = (step.number, step.at_ms);
        let _ = writeln!(text, "{number:>4} {at:>11.1}  {arrow}  {transport} {cseq}{uri}{note}");
        if detail.has_changes() && step.made_from.is_some() {
            changed(&mut text, &step.changes);
        }
    }
    if detail.has_messages() {
        for (message, step) in messages.iter().zip(steps) {
            whole(&mut text, message, step);
        }
    }
    text
}

fn changed(text: &mut String, changes: &[Change]) {
    let mut part = Part::Head;
    for change in changes {
        if change.part != part {
            part = change.part;
            let _ = writeln!(text, "{:BEFORE$}  body:", "");
        }
        for (sign, line) in [('-', &change.removed), ('+', &change.added)] {
            if let Some(line) = line {
                let _ = writeln!(text, "{:BEFORE$}  {sign} {}", "", escaped(line, usize::MAX));
            }
        }
    }
    if changes.is_empty() {
        let _ = writeln!(text, "{:BEFORE$}  nothing was changed", "");
    }
}

fn whole(text: &mut String, message: &Traced, step: &Step) {
    let _ = writeln!(
        text,
        "\n[{}] {}  {} {}  {} -> {}",
        step.number,
        moment(message.unix_us),
        escaped(&message.network, MOST),
        message.transport.as_label(),
        message.source(),
        message.destination()
    );
    for line in message.message.split_terminator('\n') {
        let _ = writeln!(text, "{}", escaped(line.strip_suffix('\r').unwrap_or(line), usize::MAX));
    }
}

/// A time, UTC, to the microsecond.
fn moment(unix_us: u64) -> String {
    let format =
        format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6] UTC");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_us) * 1000)
        .ok()
        .and_then(|at| at.format(format).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trace::{
        steps,
        tests_support::{call, traced},
    };

    fn summary(messages: &[Traced]) -> Summary {
        Summary {
            call_id: "c@lab".to_owned(),
            method: "INVITE".to_owned(),
            from: "\"Ann\" <sip:1001@lab>".to_owned(),
            to: "<sip:9001@lab>".to_owned(),
            begun_unix_us: messages[0].unix_us,
            last_unix_us: messages[messages.len() - 1].unix_us,
            messages: messages.len() as u64,
            left_out: 2,
            status: None,
            state: "ended".to_owned(),
        }
    }

    fn drawn(messages: &[Traced], detail: Detail) -> String {
        ladder(&summary(messages), messages, &steps(messages), detail)
    }

    #[test]
    fn a_call_is_drawn_as_a_ladder() {
        assert_eq!(drawn(&call(), Detail::Arrows), include_str!("ladder/call.txt"));
    }

    #[test]
    fn what_was_changed_stands_below_the_message_and_whole_messages_after_all() {
        assert_eq!(drawn(&call()[..3], Detail::Everything), include_str!("ladder/everything.txt"));
    }

    proptest! {
        #[test]
        fn whatever_peers_send_is_drawn_in_columns_and_without_control_characters(
            rows in prop::collection::vec((
                any::<bool>(),
                0u8..9,
                prop_oneof![
                    "\\PC{0,40}",
                    "[A-Z]{0,50}[\\x00-\\x1f]{0,9} sip:[a-z\\x00-\\x1f]{0,9} SIP/2.0\r\n(a: b\r\n){0,3}\r\n[a-z\r\n]{0,20}",
                    Just(call()[0].message.clone()),
                    Just(call()[6].message.clone()),
                ],
            ), 0..20),
        ) {
            let mut messages = Vec::new();
            for (at, (comes, peer, text)) in (0u64..).zip(rows) {
                let way = if comes { Way::In } else { Way::Out };
                let mut message = traced(at, way, "office", &text);
                message.remote.set_port(5060 + u16::from(peer));
                messages.push(message);
            }
            let summary = Summary { begun_unix_us: 0, last_unix_us: 0, ..summary(&call()) };
            let drawn = ladder(&summary, &messages, &steps(&messages), Detail::Everything);
            prop_assert!(drawn.chars().all(|character| character == '\n' || !character.is_control()));
            let columns = Columns::of(&messages);
            for line in drawn.lines().filter(|line| line.contains("->|") || line.contains("|<-")).take(messages.len()) {
                let line: Vec<char> = line.chars().collect();
                let ends = [columns.place(0), columns.place(columns.labels.len() - 1)];
                prop_assert!(ends.iter().all(|place| line.get(*place) == Some(&'|')), "{}", drawn);
            }
        }
    }

    #[test]
    fn many_peers_share_the_last_column_and_nothing_that_they_say_reaches_the_terminal() {
        let mut messages = Vec::new();
        for number in 0..9u64 {
            let mut message = traced(number, Way::Out, "office", "INVI\u{1b}[2JTE sip:a SIP/2.0\r\n\r\n");
            message.remote = format!("10.61.0.{}:5060", 11 + number).parse().unwrap();
            messages.push(message);
        }
        let drawn = drawn(&messages, Detail::Everything);
        assert!(!drawn.contains('\u{1b}') && drawn.contains("\\u{1b}[2J"), "{drawn}");
        assert!(drawn.contains("10.61.0.17:5060 ..."), "{drawn}");
        let last = drawn.lines().filter(|line| line.contains("->|  udp"));
        assert_eq!(last.count(), 4, "{drawn}");
    }
}

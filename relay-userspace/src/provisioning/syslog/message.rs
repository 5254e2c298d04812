//! One datagram as a line.

use syslog_loose::{Protocol, Variant, parse_message};

use crate::{log::escaped, metrics::names};

/// Characters of a line that are kept: what every receiver should take (RFC 5424 section 6.1).
const MOST_TEXT: usize = 2048;
/// Characters of a name in it (RFC 5424 section 6: the longest is the host's, 255).
const MOST_NAME: usize = 255;

/// A line of a log, fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// `emerg` to `debug`; `unknown` where there is none.
    pub(super) severity: &'static str,
    pub(super) facility: Option<&'static str>,
    /// When the phone says that it was written.
    pub(super) sent: Option<String>,
    pub(super) host: Option<String>,
    pub(super) application: Option<String>,
    /// Structured data, as it came.
    pub(super) data: Option<String>,
    pub(super) text: String,
}

impl Line {
    /// Reads a datagram. What follows neither RFC is a line of text with nothing known about it.
    pub(super) fn read(datagram: &[u8]) -> Self {
        let text = String::from_utf8_lossy(datagram);
        // RFC 5424 section 6.4: a byte order mark may begin the text; senders end lines in their own ways.
        let text = text.trim_end_matches(['\0', '\r', '\n']);
        let message = parse_message(text, Variant::Either);
        let name = |name: Option<&str>| {
            name.map(|name| escaped(name, MOST_NAME)).filter(|name| !name.is_empty() && name != "-")
        };
        let is_5424 = matches!(message.protocol, Protocol::RFC5424(_));
        let data: Vec<String> = message.structured_data.iter().map(ToString::to_string).collect();
        Self {
            severity: message.severity.map_or(names::syslog::UNKNOWN_SEVERITY, |severity| severity.as_str()),
            facility: message.facility.map(|facility| facility.as_str()),
            // The older form has neither year nor zone, so it says less than the time of arrival.
            sent: message.timestamp.filter(|_| is_5424).map(|time| time.to_rfc3339()),
            host: name(message.hostname),
            application: name(message.appname),
            data: Some(escaped(&data.concat(), MOST_TEXT)).filter(|data| !data.is_empty()),
            text: escaped(message.msg.trim_start_matches('\u{feff}'), MOST_TEXT),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes of the longest escape, that of U+E0001 or the like.
    const ESCAPED: usize = 10;

    #[test]
    fn lines_of_both_rfcs_and_of_neither_are_read() {
        let line = |severity, facility, text: &str| Line {
            severity,
            facility,
            sent: None,
            host: None,
            application: None,
            data: None,
            text: text.to_owned(),
        };
        let rows: [(&str, &[u8], Line); 7] = [
            (
                "RFC 5424 section 6.5, example 3",
                b"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"Application\"] \xEF\xBB\xBFAn application event",
                Line {
                    sent: Some("2003-10-11T22:14:15.003+00:00".to_owned()),
                    host: Some("mymachine.example.com".to_owned()),
                    application: Some("evntslog".to_owned()),
                    data: Some("[exampleSDID@32473 iut=\"3\" eventSource=\"Application\"]".to_owned()),
                    ..line("notice", Some("local4"), "An application event")
                },
            ),
            (
                "RFC 3164 section 5.4, example 1",
                b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
                Line {
                    host: Some("mymachine".to_owned()),
                    application: Some("su".to_owned()),
                    ..line("crit", Some("auth"), "'su root' failed for lonvick on /dev/pts/8")
                },
            ),
            ("neither", b"0101000000|cfg  |4|00|Prov|hello\r\n", line("unknown", None, "0101000000|cfg  |4|00|Prov|hello")),
            ("an empty datagram", b"", line("unknown", None, "")),
            ("bytes that are no UTF-8", b"\xff\xfe", line("unknown", None, "\u{fffd}\u{fffd}")),
            (
                "an escape sequence for a terminal",
                b"\x1b[2J\x1b]0;owned\x07",
                line("unknown", None, "\\u{1b}[2J\\u{1b}]0;owned\\u{7}"),
            ),
            ("a second line made up by a line feed", b"a\nb", line("unknown", None, "a\\u{a}b")),
        ];
        for (description, datagram, expected) in rows {
            assert_eq!(Line::read(datagram), expected, "{description}");
        }
    }

    proptest! {
        #[test]
        fn any_datagram_becomes_a_line_of_bounded_length_without_control_characters(
            bytes in prop::collection::vec(any::<u8>(), 0..4000),
            head in prop::sample::select(vec!["", "<34>", "<165>1 ", "<165>1 2003-10-11T22:14:15.003Z - - - - ["]),
        ) {
            let line = Line::read(&[head.as_bytes(), &bytes].concat());
            let fields = [Some(line.text), line.data, line.host, line.application];
            for field in fields.into_iter().flatten() {
                prop_assert!(field.len() <= MOST_TEXT * ESCAPED);
                prop_assert!(!field.chars().any(char::is_control));
            }
        }
    }
}

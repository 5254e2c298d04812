//! What peers say, fit for lines of a log, tables and pages.

/// Text with control characters escaped, cut after `most` characters of it. Beside the ASCII ones, those that turn
/// the direction of writing are escaped: they could make a terminal show something else than is there.
#[must_use]
pub fn escaped(text: &str, most: usize) -> String {
    let mut result = String::with_capacity(text.len().min(most));
    for character in text.chars().take(most) {
        let turns =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns || character == '\u{2028}' || character == '\u{2029}' {
            result.extend(character.escape_unicode());
        } else {
            result.push(character);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_sends_makes_neither_lines_nor_colours_nor_turns_the_writing() {
        let rows = [
            ("plain", "Ann Müller", 200, "Ann Müller"),
            ("a line of its own", "a\r\n 2026 ERROR b", 200, "a\\u{d}\\u{a} 2026 ERROR b"),
            ("a terminal's escape, in one byte and in two", "\u{9b}2J\u{1b}[2J", 200, "\\u{9b}2J\\u{1b}[2J"),
            ("right to left", "a\u{202e}b", 200, "a\\u{202e}b"),
            ("too long", "abcdef", 3, "abc"),
        ];
        for (description, text, most, expected) in rows {
            assert_eq!(escaped(text, most), expected, "{description}");
        }
    }
}

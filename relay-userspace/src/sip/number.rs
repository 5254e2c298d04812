//! Telephone numbers as they are dialled: what is only there for the eye goes. RFC 3966 section 5.1.1.

/// A number, or what stands in its place in a URI: digits, `*`, `#`, `+`, or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Number(String);

/// Longer ones are nobody's: E.164 has 15 digits, dial strings with prefixes and codes some more.
const LONGEST: usize = 64;

impl Number {
    /// Reads the user part of a URI, or a `tel:` URI's number. What is a number but for visual separators loses these
    /// and its parameters; `None` for what is empty, too long, or no text.
    #[must_use]
    pub fn parse(user: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(user).ok()?;
        let bare = text.split(';').next().unwrap_or_default();
        let is_separator = |c: char| matches!(c, '-' | '.' | '(' | ')' | ' ');
        let unescaped = bare.replace("%23", "#").replace("%2A", "*").replace("%2a", "*").replace("%20", " ");
        let dialled: String = unescaped.chars().filter(|c| !is_separator(*c)).collect();
        let digits = dialled.strip_prefix('+').unwrap_or(&dialled);
        let is_number =
            !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '*' | '#'));
        let number = if is_number { dialled } else { text.to_owned() };
        (!number.is_empty() && number.len() <= LONGEST && !number.chars().any(char::is_control))
            .then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its digits, without the `+` of a global number; `None` for names and for codes with `*` or `#`.
    #[must_use]
    pub fn digits(&self) -> Option<&str> {
        let digits = self.0.strip_prefix('+').unwrap_or(&self.0);
        (!digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())).then_some(digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_for_the_eye_goes_and_names_stay() {
        let rows: [(&str, &[u8], Option<&str>); 9] = [
            ("digits", b"1001", Some("1001")),
            ("separators", b"+1-(212).555 0100", Some("+12125550100")),
            ("parameters of a tel URI", b"+49711;phone-context=x", Some("+49711")),
            ("star codes", b"*901", Some("*901")),
            ("an escaped hash", b"%2321%23", Some("#21#")),
            ("a name keeps its signs", b"john.doe-2", Some("john.doe-2")),
            ("nothing", b"", None),
            ("no text", b"\xff", None),
            ("too long", &[b'1'; 65], None),
        ];
        for (description, user, expected) in rows {
            let number = Number::parse(user);
            assert_eq!(number.as_ref().map(Number::as_str), expected, "{description}");
        }
    }
}

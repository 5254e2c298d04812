//! `name-addr` and `addr-spec`: what stands in From, To, Contact, Route. RFC 3261 20.10, 25.1.

use super::{
    scan::{self, Brackets, Params},
    uri::Uri,
};

/// One address value, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// All of it.
    pub value: &'a [u8],
    /// The display name as written, quotes included; empty when none.
    pub display: &'a [u8],
    /// The URI's bytes, without angle brackets.
    pub uri: &'a [u8],
    /// Whether the URI stands in angle brackets. Without them every parameter is the header's.
    pub bracketed: bool,
    /// The header parameters.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Takes one value apart; `None` when brackets do not close or there is no URI.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = scan::trim(value);
        if let Some(open) = scan::find_outside(value, b"<", Brackets::Plain) {
            let after = value.get(open + 1..)?;
            let close = after.iter().position(|byte| *byte == b'>')?;
            let uri = scan::trim(after.get(..close)?);
            let params = after.get(close + 1..)?;
            let params_ok = scan::trim(params).first().is_none_or(|byte| *byte == b';');
            if uri.is_empty() || !params_ok {
                return None;
            }
            let display = scan::trim(value.get(..open)?);
            return Some(Self { value, display, uri, bracketed: true, params: Params(params) });
        }
        let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
        let (uri, params) = value.split_at_checked(end)?;
        let uri = scan::trim(uri);
        if uri.is_empty() || uri.contains(&b'"') || uri.contains(&b'>') {
            return None;
        }
        Some(Self { value, display: value.get(..0)?, uri, bracketed: false, params: Params(params) })
    }

    /// The URI taken apart; `None` when it cannot be.
    #[must_use]
    pub fn parsed_uri(&self) -> Option<Uri<'a>> {
        Uri::parse(self.uri)
    }

    /// The `tag` parameter.
    #[must_use]
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.params.value("tag").filter(|tag| !tag.is_empty())
    }

    /// The `q` parameter in thousandths, from 0 to 1000; 1000 without one (RFC 3261 section 20.10).
    #[must_use]
    pub fn preference(&self) -> u32 {
        let Some(value) = self.params.value("q") else { return 1000 };
        let text = std::str::from_utf8(value).unwrap_or_default();
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let thousandths = format!("{part:0<3}").get(..3).and_then(|digits| digits.parse::<u32>().ok());
        let whole = whole.parse::<u32>().unwrap_or(0).min(1);
        (whole * 1000 + thousandths.unwrap_or(0)).min(1000)
    }

    /// The `expires` parameter of a Contact.
    #[must_use]
    pub fn expires(&self) -> Option<u32> {
        self.params.value("expires").and_then(scan::number)
    }

    /// Whether the value is the `*` of RFC 3261 10.2.2.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        !self.bracketed && self.uri == b"*"
    }

    /// What a person would call this party: display name, else user, else the URI.
    #[must_use]
    pub fn label(&self) -> String {
        let display = scan::unquote(self.display);
        let bytes = if display.is_empty() {
            self.parsed_uri().and_then(|uri| uri.user).unwrap_or(self.uri)
        } else {
            display
        };
        String::from_utf8_lossy(bytes).into_owned()
    }
}

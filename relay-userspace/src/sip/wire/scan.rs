//! Scanning of header values: white space, commas, quotes, parameters.
//!
//! Values may be folded, so CR and LF count as white space here. RFC 3261 section 25.1.

/// Whether a byte is linear white space, folding included.
#[must_use]
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A value without white space around it.
#[must_use]
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = value
        && is_space(*first)
    {
        value = rest;
    }
    while let [rest @ .., last] = value
        && is_space(*last)
    {
        value = rest;
    }
    value
}

/// Whether a byte may stand in a token.
#[must_use]
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

/// Whether a value is a non-empty token.
#[must_use]
pub fn is_token(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|byte| is_token_byte(*byte))
}

/// A decimal number without sign; `None` when empty, too large or not a number.
#[must_use]
pub fn number(value: &[u8]) -> Option<u32> {
    if value.is_empty() || value.len() > 20 {
        return None;
    }
    value.iter().try_fold(0u32, |sum, byte| {
        if !byte.is_ascii_digit() {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u32::from(byte - b'0'))
    })
}

/// The place of the first of `stops` outside quotes and, when `in_brackets` says so, outside angle brackets.
#[must_use]
pub fn find_outside(value: &[u8], stops: &[u8], brackets: Brackets) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    let mut angle = false;
    for (at, &byte) in value.iter().enumerate() {
        if escaped {
            escaped = false;
        } else if quoted {
            match byte {
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
        } else if angle {
            angle = byte != b'>';
        } else if stops.contains(&byte) {
            return Some(at);
        } else if byte == b'"' {
            quoted = true;
        } else if byte == b'<' && brackets == Brackets::Skip {
            angle = true;
        }
    }
    None
}

/// Whether a scan steps over what stands in angle brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brackets {
    /// `<...>` is opaque.
    Skip,
    /// `<` is a byte like others.
    Plain,
}

/// The values of a comma-separated header line, trimmed; empty ones are passed over.
pub fn split_commas(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        loop {
            let value = rest?;
            let (item, after) = match find_outside(value, b",", Brackets::Skip) {
                Some(at) => (value.get(..at).unwrap_or_default(), value.get(at + 1..)),
                None => (value, None),
            };
            rest = after;
            let item = trim(item);
            if !item.is_empty() {
                return Some(item);
            }
        }
    })
}

/// One `;name=value` parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// The name as written.
    pub name: &'a [u8],
    /// The value as written, quotes included; `None` for a flag.
    pub value: Option<&'a [u8]>,
    /// From the semicolon to the end of the value.
    pub whole: &'a [u8],
}

/// A `;a=b;c` list. Iterates in order; look-up is without case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Params<'a>(pub &'a [u8]);

impl<'a> Params<'a> {
    /// The first parameter of that name.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Param<'a>> {
        self.iter().find(|param| param.name.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The value of the first parameter of that name; `None` when absent or a flag.
    #[must_use]
    pub fn value(self, name: &str) -> Option<&'a [u8]> {
        self.get(name)?.value
    }

    /// Whether a parameter of that name is there.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The parameters in their order.
    pub fn iter(self) -> impl Iterator<Item = Param<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            loop {
                let start = find_outside(rest, b";", Brackets::Plain)?;
                let after = rest.get(start + 1..)?;
                let length = find_outside(after, b";", Brackets::Plain).unwrap_or(after.len());
                let whole = rest.get(start..start + 1 + length)?;
                let text = after.get(..length)?;
                rest = after.get(length..)?;
                let (name, value) = match text.iter().position(|byte| *byte == b'=') {
                    Some(at) => (trim(text.get(..at)?), Some(trim(text.get(at + 1..)?))),
                    None => (trim(text), None),
                };
                if !name.is_empty() {
                    let kept = whole.len() - (whole.iter().rev().take_while(|b| is_space(**b)).count());
                    return Some(Param { name, value, whole: whole.get(..kept)? });
                }
            }
        })
    }
}

/// A quoted string without its quotes; other values as they are. Escapes stay.
#[must_use]
pub fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

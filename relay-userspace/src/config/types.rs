//! Values with a syntax of their own.

use std::ops::RangeInclusive;

use serde::Deserialize;

/// Media ports, written as `"16384-32767"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PortRange(RangeInclusive<u16>);

impl PortRange {
    /// The first and the last port.
    #[must_use]
    pub fn range(&self) -> RangeInclusive<u16> {
        self.0.clone()
    }

    /// Whether two ranges have a port in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.start() <= other.0.end() && other.0.start() <= self.0.end()
    }
}

impl Default for PortRange {
    fn default() -> Self {
        /// The reference products' range.
        const RANGE: RangeInclusive<u16> = 16_384..=32_767;
        Self(RANGE)
    }
}

impl TryFrom<String> for PortRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        /// Below are the ports of well-known services.
        const LOWEST: u16 = 1024;
        let wrong =
            |why: &str| format!("{text:?} is not a range of ports: {why}; write for example \"16384-32767\"");
        let (first, last) = text.split_once('-').ok_or_else(|| wrong("there is no '-'"))?;
        let number =
            |part: &str| part.trim().parse::<u16>().map_err(|_| wrong(&format!("{part:?} is not a port")));
        let (first, last) = (number(first)?, number(last)?);
        if first < LOWEST {
            return Err(wrong(&format!("it begins below {LOWEST}")));
        }
        if last < first.saturating_add(3) {
            return Err(wrong("a call needs four ports"));
        }
        Ok(Self(first..=last))
    }
}

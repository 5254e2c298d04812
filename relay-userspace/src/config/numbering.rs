//! The office's place in the world's numbering.

use serde::Deserialize;

/// How numbers are dialled here (ITU-T E.164).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Numbering {
    /// The country code; without one numbers are compared as they are.
    pub country_code: String,
    /// The area code, without the national prefix.
    pub area_code: String,
    /// What is dialled before an area code within the country.
    pub national_prefix: String,
    /// What is dialled before a country code.
    pub international_prefix: String,
    /// How many digits a national number has that may be dialled without a prefix; 0: none may.
    pub national_digits: usize,
    /// What phones dial for a line to the telephone network.
    pub outside_prefix: Option<String>,
}

impl Numbering {
    /// Checks what is written.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        /// Longest prefix or code.
        const LONGEST: usize = 8;
        /// Most digits of a national number: E.164 has 15 with a country code of one.
        const MOST_DIGITS: usize = 14;
        let outside = self.outside_prefix.as_deref().unwrap_or_default();
        for (key, text) in [
            ("numbering.country_code", self.country_code.as_str()),
            ("numbering.area_code", &self.area_code),
            ("numbering.national_prefix", &self.national_prefix),
            ("numbering.international_prefix", &self.international_prefix),
            ("numbering.outside_prefix", outside),
        ] {
            if text.len() > LONGEST || !text.chars().all(|c| c.is_ascii_digit()) {
                return Err((key, format!("{text:?} is none: at most {LONGEST} digits, without +")));
            }
        }
        if self.national_digits > MOST_DIGITS {
            let message = format!("{} is out of range: 0 to {MOST_DIGITS}", self.national_digits);
            return Err(("numbering.national_digits", message));
        }
        let others = [&self.area_code, &self.national_prefix, &self.international_prefix];
        let any = others.iter().any(|text| !text.is_empty()) || self.outside_prefix.is_some();
        if self.country_code.is_empty() && any {
            let message = "without the country code the others mean nothing: give it, for example \"49\"";
            return Err(("numbering.country_code", message.to_owned()));
        }
        if !self.country_code.is_empty() && self.international_prefix.is_empty() {
            let message = "say what is dialled before a country code, for example \"00\" or \"011\"";
            return Err(("numbering.international_prefix", message.to_owned()));
        }
        if self.outside_prefix.as_ref().is_some_and(String::is_empty) {
            return Err(("numbering.outside_prefix", "leave it out where nothing is dialled".to_owned()));
        }
        Ok(())
    }
}

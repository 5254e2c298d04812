//! The office's numbering: how what is dialled here becomes a number of E.164, and back.
//!
//! One telephone has many spellings: `+49 711 5551001` is `0049711…`, `0711…`, `5551001` and, behind a private exchange,
//! `0 0711…`. With the office's place known, they are all the same number: a trunk's prefix fits any of them, a phone is
//! found by each, and a gateway is sent the one that it wants. Without it numbers are compared as they are.
//! ITU-T E.164 section 6, RFC 3966 section 5.1.4 (global and local numbers).

use crate::sip::Number;

/// Most digits of a number of E.164 (section 6.2.1).
const MOST_DIGITS: usize = 15;

/// Where the office is in the world's numbering, and what its phones dial before a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The country code, digits.
    pub country: String,
    /// The area code, without the national prefix; empty where there are none.
    pub area: String,
    /// What stands before an area code within the country; may be empty.
    pub national: String,
    /// What stands before a country code.
    pub international: String,
    /// How many digits a national number has that is dialled without a prefix; `None` where none is.
    pub national_digits: Option<usize>,
    /// What phones dial for a line to the telephone network; `None` where they dial numbers directly.
    pub outside: Option<String>,
}

/// How a number is written for the other end of a trunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As it was dialled.
    #[default]
    AsDialled,
    /// `+49711…`
    E164,
    /// `0711…`; a number of another country with the international prefix.
    National,
    /// `0049711…`
    International,
}

/// The numbering of the office; the default knows nothing of its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbering(Option<Place>);

impl Numbering {
    /// The numbering of an office at a known place.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self(Some(place))
    }

    /// The number of E.164 that a phone has dialled, as `+` and digits; `None` for extensions, codes and names.
    #[must_use]
    pub fn dialled(&self, number: &Number) -> Option<String> {
        let place = self.0.as_ref()?;
        let digits = number.digits()?;
        if number.as_str().starts_with('+') {
            return global(digits);
        }
        match &place.outside {
            None => place.prefixed(digits),
            Some(outside) => {
                let rest = digits.strip_prefix(outside.as_str()).filter(|rest| !rest.is_empty())?;
                place.prefixed(rest).or_else(|| {
                    let known = !place.area.is_empty() || place.national.is_empty();
                    // Service codes (116117, 115, 411) are no subscriber's: they mean nothing outside the country.
                    let service = rest.len() <= 3 || rest.starts_with("11");
                    (known && !service)
                        .then(|| global(&[&place.country, &place.area, rest].concat()))
                        .flatten()
                })
            }
        }
    }

    /// What has been dialled without what phones dial for a line.
    #[must_use]
    pub fn without_outside_prefix<'n>(&self, number: &'n Number) -> &'n str {
        let outside = self.0.as_ref().and_then(|place| place.outside.as_deref());
        let rest = outside.and_then(|outside| number.as_str().strip_prefix(outside));
        rest.filter(|rest| !rest.is_empty()).unwrap_or(number.as_str())
    }

    /// The spellings that a number may be known by elsewhere, as it is first.
    #[must_use]
    pub fn spellings(&self, number: &Number) -> Vec<String> {
        let mut all = vec![number.as_str().to_owned()];
        let plain = || self.0.as_ref().and_then(|place| place.prefixed(number.digits()?));
        if let Some(e164) = self.dialled(number).or_else(plain) {
            let forms = [Form::E164, Form::National, Form::International];
            let bare = e164.trim_start_matches('+').to_owned();
            for spelling in forms.map(|form| self.written(&e164, form)).into_iter().chain([bare]) {
                if !all.contains(&spelling) {
                    all.push(spelling);
                }
            }
        }
        all
    }

    /// A number of E.164 (`+` and digits) in another form; as it is where the office's place is not known.
    #[must_use]
    pub fn written(&self, e164: &str, form: Form) -> String {
        let digits = e164.trim_start_matches('+');
        let Some(place) = &self.0 else { return e164.to_owned() };
        let home = digits.strip_prefix(place.country.as_str());
        match (form, home) {
            (Form::AsDialled | Form::E164, _) => format!("+{digits}"),
            (Form::National, Some(rest)) => format!("{}{rest}", place.national),
            (Form::National | Form::International, _) => format!("{}{digits}", place.international),
        }
    }
}

impl Place {
    /// A number that says by its prefix, or by its length, how it is meant.
    fn prefixed(&self, digits: &str) -> Option<String> {
        // The longer prefix first: `00` begins with `0`.
        if let Some(rest) = digits.strip_prefix(self.international.as_str()).filter(|rest| !rest.is_empty()) {
            return global(rest);
        }
        let rest = digits.strip_prefix(self.national.as_str()).filter(|_| !self.national.is_empty());
        let by_length = self.national_digits.is_some_and(|length| digits.len() == length);
        match rest {
            Some(rest) if self.national_digits.is_none_or(|length| rest.len() == length) => {
                global(&format!("{}{rest}", self.country))
            }
            _ if by_length => global(&format!("{}{digits}", self.country)),
            _ => None,
        }
    }
}

/// Digits as a number of E.164, if they can be one.
fn global(digits: &str) -> Option<String> {
    let fits = digits.chars().all(|c| c.is_ascii_digit()) && !digits.starts_with('0');
    (fits && (4..=MOST_DIGITS).contains(&digits.len())).then(|| format!("+{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text.as_bytes()).unwrap()
    }

    fn germany(outside: Option<&str>) -> Numbering {
        Numbering::new(Place {
            country: "49".into(),
            area: "711".into(),
            national: "0".into(),
            international: "00".into(),
            national_digits: None,
            outside: outside.map(str::to_owned),
        })
    }

    fn america() -> Numbering {
        Numbering::new(Place {
            country: "1".into(),
            area: "212".into(),
            national: "1".into(),
            international: "011".into(),
            national_digits: Some(10),
            outside: Some("9".into()),
        })
    }

    #[test]
    fn what_is_dialled_becomes_a_number_of_e164_where_it_is_one() {
        let rows: [(&str, Numbering, &str, Option<&str>); 18] = [
            ("a service code", germany(Some("0")), "0116117", None),
            ("a shorter one", america(), "9411", None),
            ("a global number", germany(None), "+49 711 5551001", Some("+497115551001")),
            ("of another country", germany(None), "0044 20 7946 0000", Some("+442079460000")),
            ("of this country", germany(None), "0711 5551001", Some("+497115551001")),
            ("an extension", germany(None), "1001", None),
            ("a code", germany(None), "*21", None),
            ("a name", germany(None), "anna", None),
            ("too long for E.164", germany(None), "00441234567890123456", None),
            (
                "a line and a number of this country",
                germany(Some("0")),
                "007115551001",
                Some("+497115551001"),
            ),
            ("a line and a local number", germany(Some("0")), "05551001", Some("+497115551001")),
            ("a line and another country", germany(Some("0")), "000442079460000", Some("+442079460000")),
            ("an extension where lines are dialled for", germany(Some("0")), "5551001", None),
            ("the line alone", germany(Some("0")), "0", None),
            ("ten digits", america(), "92125550100", Some("+12125550100")),
            ("with the national prefix", america(), "912125550100", Some("+12125550100")),
            ("a local number", america(), "95550100", Some("+12125550100")),
            ("another country", america(), "9011442079460000", Some("+442079460000")),
        ];
        for (description, numbering, dialled, expected) in rows {
            assert_eq!(numbering.dialled(&number(dialled)).as_deref(), expected, "{description}");
        }
        assert_eq!(Numbering::default().dialled(&number("+497115551001")), None, "no place is known");
    }

    #[test]
    fn a_number_is_written_as_the_other_end_wants_it() {
        let rows = [
            (Form::E164, "+497115551001", "+497115551001"),
            (Form::National, "+497115551001", "07115551001"),
            (Form::International, "+497115551001", "00497115551001"),
            (Form::National, "+442079460000", "00442079460000"),
        ];
        for (form, e164, expected) in rows {
            assert_eq!(germany(None).written(e164, form), expected, "{form:?}");
        }
    }

    #[test]
    fn a_number_is_known_by_all_its_spellings_and_by_itself_first() {
        let all = germany(Some("0")).spellings(&number("00711 5551001"));
        assert_eq!(
            all,
            ["007115551001", "+497115551001", "07115551001", "00497115551001", "497115551001"],
            "0 for a line is no part of the number, and 00711 is no country"
        );
        assert_eq!(germany(None).spellings(&number("1001")), ["1001"]);
        assert_eq!(Numbering::default().spellings(&number("0711")), ["0711"]);
    }

    #[test]
    fn what_phones_dial_for_a_line_is_taken_off() {
        let numbering = germany(Some("0"));
        for (dialled, rest) in [("0112", "112"), ("112", "112"), ("0", "0")] {
            assert_eq!(numbering.without_outside_prefix(&number(dialled)), rest, "{dialled}");
        }
    }
}

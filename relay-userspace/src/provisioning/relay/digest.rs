//! Digest authentication toward the servers of files (RFC 7616), without sockets: challenge in, header out.

use hyper::{HeaderMap, Method, header};
use md5::Md5;
use sha2::{Digest as _, Sha256};

/// Characters of a challenge that is read.
const MOST_CHALLENGE: usize = 4096;

/// A user's name and password.
#[derive(Clone)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password.
    pub password: zeroize::Zeroizing<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials of {}", self.user)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    /// The hash in lower-case hexadecimal.
    fn hash(self, text: &str) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Md5 => hex(&Md5::digest(text)),
            Self::Sha256 => hex(&Sha256::digest(text)),
        }
    }
}

/// A server's challenge, and how often it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Algorithm,
    /// Whether quality of protection `auth` is offered; without, it is RFC 2069's form.
    with_auth: bool,
    count: u32,
}

impl Session {
    /// The first challenge of a 401 that can be answered.
    pub(super) fn from_challenge(headers: &HeaderMap) -> Option<Self> {
        headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .filter(|value| value.len() <= MOST_CHALLENGE)
            .flat_map(challenges)
            .find_map(|parameters| Self::from_parameters(&parameters))
    }

    fn from_parameters(parameters: &[(String, String)]) -> Option<Self> {
        let get =
            |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        let algorithm = match get("algorithm").as_deref().unwrap_or("MD5") {
            name if name.eq_ignore_ascii_case("MD5") => Algorithm::Md5,
            name if name.eq_ignore_ascii_case("SHA-256") => Algorithm::Sha256,
            _ => return None,
        };
        let qop = get("qop");
        let with_auth = match &qop {
            None => false,
            Some(list) if list.split(',').any(|word| word.trim().eq_ignore_ascii_case("auth")) => true,
            Some(_) => return None,
        };
        let (realm, nonce, opaque) = (get("realm")?, get("nonce")?, get("opaque"));
        // They are repeated between quotes.
        let quotable = |text: &str| !text.contains(['"', '\\']) && !text.chars().any(char::is_control);
        if ![Some(&realm), Some(&nonce), opaque.as_ref()].into_iter().flatten().all(|text| quotable(text)) {
            return None;
        }
        Some(Self { realm, nonce, opaque, algorithm, with_auth, count: 0 })
    }

    /// The value of `Authorization` for the next request. `cnonce` is random.
    pub(super) fn authorize(
        &mut self,
        credentials: &Credentials,
        method: &Method,
        uri: &str,
        cnonce: &str,
    ) -> String {
        self.count = self.count.wrapping_add(1);
        let Self { realm, nonce, opaque, algorithm, with_auth, count } = self;
        let user = &credentials.user;
        let secret = algorithm
            .hash(zeroize::Zeroizing::new(format!("{user}:{realm}:{}", *credentials.password)).as_str());
        let request = algorithm.hash(&format!("{method}:{uri}"));
        let mut text = format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", algorithm={}",
            algorithm.name()
        );
        let response = if *with_auth {
            text += &format!(", qop=auth, nc={count:08x}, cnonce=\"{cnonce}\"");
            algorithm.hash(&format!("{secret}:{nonce}:{count:08x}:{cnonce}:auth:{request}"))
        } else {
            algorithm.hash(&format!("{secret}:{nonce}:{request}"))
        };
        text += &format!(", response=\"{response}\"");
        if let Some(opaque) = opaque {
            text += &format!(", opaque=\"{opaque}\"");
        }
        text
    }
}

/// The parameters of each Digest challenge in a header's value (RFC 9110 section 11.6.1).
fn challenges(value: &str) -> Vec<Vec<(String, String)>> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for piece in pieces(value) {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        let name = match name.trim().rsplit_once(char::is_whitespace) {
            // `Digest realm="..."`: a challenge begins.
            Some((scheme, name)) => {
                found.push((scheme.trim().to_ascii_lowercase(), Vec::new()));
                name
            }
            None if value.is_empty() => {
                found.push((name.trim().to_ascii_lowercase(), Vec::new()));
                continue;
            }
            None => name.trim(),
        };
        if let Some((_, parameters)) = found.last_mut() {
            let value = value.trim();
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            parameters.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
    found.into_iter().filter(|(scheme, _)| scheme == "digest").map(|(_, parameters)| parameters).collect()
}

/// What stands between commas that are not quoted.
fn pieces(value: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |character| {
            if escaped {
                escaped = false;
                return false;
            }
            match character {
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                _ => {}
            }
            character == ',' && !quoted
        })
        .map(str::trim)
        .filter(|piece| !piece.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn session(values: &[&'static str]) -> Option<Session> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        Session::from_challenge(&headers)
    }

    fn mufasa(password: &str) -> Credentials {
        Credentials { user: "Mufasa".to_owned(), password: password.to_owned().into() }
    }

    /// RFC 7616 section 3.9.1.
    const SHA: &str = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=SHA-256, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
    const MD5: &str = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=MD5, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
    const CNONCE: &str = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";

    #[test]
    fn the_rfcs_own_examples_come_out() {
        for (challenge, algorithm, response) in [
            (MD5, "MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            (SHA, "SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let mut session = session(&[challenge]).unwrap();
            let header =
                session.authorize(&mufasa("Circle of Life"), &Method::GET, "/dir/index.html", CNONCE);
            assert_eq!(
                header,
                format!(
                    "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
                     nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", uri=\"/dir/index.html\", \
                     algorithm={algorithm}, qop=auth, nc=00000001, cnonce=\"{CNONCE}\", \
                     response=\"{response}\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
                )
            );
            let again = session.authorize(&mufasa("x"), &Method::GET, "/", CNONCE);
            assert!(again.contains("nc=00000002"), "{again}");
        }
    }

    #[test]
    fn the_form_without_quality_of_protection_is_answered_in_kind() {
        // RFC 2069 section 2.4, with the response of its errata 749.
        let mut session = session(&["Digest realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\""]).unwrap();
        let header = session.authorize(&mufasa("CircleOfLife"), &Method::GET, "/dir/index.html", CNONCE);
        assert!(header.contains("response=\"1949323746fe6a43ef61f9606e7febea\""), "{header}");
        assert!(!header.contains("qop"), "{header}");
    }

    #[test]
    fn the_first_challenge_that_can_be_answered_is_taken() {
        let rows: [(&str, &[&'static str], Option<Algorithm>); 10] = [
            ("only Basic", &["Basic realm=\"x\""], None),
            ("in the server's order", &[SHA, MD5], Some(Algorithm::Sha256)),
            (
                "an algorithm that is not known",
                &["Digest realm=\"x\", nonce=\"y\", algorithm=SHA-512-256", MD5],
                Some(Algorithm::Md5),
            ),
            ("sessions are not known", &["Digest realm=\"x\", nonce=\"y\", algorithm=MD5-sess"], None),
            (
                "two in one header",
                &["Basic realm=\"a, b\", Digest realm=\"x\", nonce=\"y\", qop=\"auth\""],
                Some(Algorithm::Md5),
            ),
            (
                "a scheme without parameters before it",
                &["Negotiate, Digest realm=\"x\", nonce=\"y\""],
                Some(Algorithm::Md5),
            ),
            ("only integrity", &["Digest realm=\"x\", nonce=\"y\", qop=\"auth-int\""], None),
            ("no nonce", &["Digest realm=\"x\""], None),
            ("a quote in the realm", &["Digest realm=\"x\\\"y\", nonce=\"y\""], None),
            ("nothing", &[], None),
        ];
        for (description, values, expected) in rows {
            assert_eq!(session(values).map(|session| session.algorithm), expected, "{description}");
        }
    }
}

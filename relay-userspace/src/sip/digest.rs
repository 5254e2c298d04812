//! Digest access authentication: reading a challenge and answering it.
//!
//! RFC 7616 and RFC 8760 (SHA-256 and SHA-512/256 for SIP), RFC 3261 section 22. Of several challenges for one realm the
//! first that can be computed is answered, as RFC 8760 section 2.4 has it: servers list what they like best first.

use std::fmt::{self, Write as _};

use md5::Md5;
use sha2::{Sha256, Sha512_256};
use subtle::ConstantTimeEq as _;

use super::wire::scan;

/// Bytes of a challenge's parameters that are copied into an answer.
const LONGEST_VALUE: usize = 1024;

/// What somebody knows who may answer.
#[derive(Clone, Copy, Debug)]
pub enum Secret<'a> {
    /// The password.
    Password(&'a str),
    /// The hash of user name, realm and password that stands for it in one realm and by one hash function, in
    /// hexadecimal (RFC 7616 section 3.4.2, H(A1) without a session).
    Ha1(&'a str),
}

/// The hash that stands for a password in one realm.
#[derive(Clone, PartialEq, Eq)]
pub struct Ha1 {
    /// The name of the hash function, as a challenge names it.
    pub algorithm: String,
    /// The realm.
    pub realm: String,
    /// The hash in hexadecimal.
    pub hash: String,
}

impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is as good as the password in its realm.
        write!(f, "Ha1({} {:?})", self.algorithm, self.realm)
    }
}

impl Ha1 {
    /// Those of a password in a realm by every hash function that is known here: a server may choose another one tomorrow.
    #[must_use]
    pub fn all(user: &str, realm: &str, password: &str) -> Vec<Self> {
        let user = escaped(user);
        let of = |hash: Hash| {
            let algorithm = Algorithm { hash, session: false };
            let hash = algorithm.hash(&[user.as_bytes(), realm.as_bytes(), password.as_bytes()]);
            Self { algorithm: algorithm.to_string(), realm: realm.to_owned(), hash }
        };
        [Hash::Md5, Hash::Sha256, Hash::Sha512Trunc256].map(of).into()
    }
}

/// A hash function, and whether the session variant is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm {
    hash: Hash,
    session: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Md5,
    Sha256,
    Sha512Trunc256,
}

impl Algorithm {
    fn parse(text: &[u8]) -> Option<Self> {
        /// RFC 7616 section 6.1.
        const NAMES: [(&str, Hash); 3] =
            [("MD5", Hash::Md5), ("SHA-256", Hash::Sha256), ("SHA-512-256", Hash::Sha512Trunc256)];
        let (name, session) = match text.len().checked_sub(5).and_then(|at| text.split_at_checked(at)) {
            Some((name, suffix)) if suffix.eq_ignore_ascii_case(b"-sess") => (name, true),
            _ => (text, false),
        };
        let (_, hash) = NAMES.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))?;
        Some(Self { hash, session })
    }

    /// The name of the hash function alone.
    fn function(self) -> String {
        Self { session: false, ..self }.to_string()
    }

    /// The hash in lower-case hexadecimal.
    fn hash(self, parts: &[&[u8]]) -> String {
        fn run<D: sha2::Digest>(parts: &[&[u8]]) -> Vec<u8> {
            let mut digest = D::new();
            for (position, part) in parts.iter().enumerate() {
                if position > 0 {
                    digest.update(b":");
                }
                digest.update(part);
            }
            digest.finalize().to_vec()
        }
        let bytes = match self.hash {
            Hash::Md5 => run::<Md5>(parts),
            Hash::Sha256 => run::<Sha256>(parts),
            Hash::Sha512Trunc256 => run::<Sha512_256>(parts),
        };
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.hash {
            Hash::Md5 => "MD5",
            Hash::Sha256 => "SHA-256",
            Hash::Sha512Trunc256 => "SHA-512-256",
        })?;
        f.write_str(if self.session { "-sess" } else { "" })
    }
}

/// What the answer protects besides the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protection {
    /// RFC 2069: nothing is said.
    None,
    /// `auth`
    Auth,
    /// `auth-int`: the body too.
    Body,
}

/// A challenge that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// The realm, as quoted.
    pub realm: &'a [u8],
    nonce: &'a [u8],
    opaque: Option<&'a [u8]>,
    algorithm: Algorithm,
    named: bool,
    protection: Protection,
    /// The credentials were right, only the nonce was old.
    pub stale: bool,
}

impl<'a> Challenge<'a> {
    /// Reads the value of a WWW-Authenticate or Proxy-Authenticate header; `None` for another scheme, an algorithm or
    /// protection that is not known, or without a nonce.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let parameter = parameters(value)?;
        let named = parameter("algorithm");
        let algorithm = match named {
            Some(name) => Algorithm::parse(name)?,
            None => Algorithm { hash: Hash::Md5, session: false },
        };
        let protection = match parameter("qop") {
            None => Protection::None,
            Some(list) => {
                let has = |name: &[u8]| {
                    list.split(|byte| *byte == b',').any(|item| scan::trim(item).eq_ignore_ascii_case(name))
                };
                if has(b"auth") {
                    Protection::Auth
                } else if has(b"auth-int") {
                    Protection::Body
                } else {
                    return None;
                }
            }
        };
        Some(Self {
            realm: parameter("realm")?,
            nonce: parameter("nonce")?,
            opaque: parameter("opaque"),
            algorithm,
            named: named.is_some(),
            protection,
            stale: parameter("stale").is_some_and(|stale| stale.eq_ignore_ascii_case(b"true")),
        })
    }

    /// The name of its hash function, without a session.
    #[must_use]
    pub fn hash_function(&self) -> String {
        self.algorithm.function()
    }

    /// The same challenge with another nonce, as it would stand in its header: what a server wants answered next
    /// (RFC 7616 section 3.5).
    #[must_use]
    pub fn with_nonce(&self, nonce: &[u8]) -> Vec<u8> {
        let mut out = b"Digest realm=\"".to_vec();
        out.extend_from_slice(self.realm);
        out.extend_from_slice(b"\", nonce=\"");
        out.extend_from_slice(nonce);
        out.push(b'"');
        if self.named {
            out.extend_from_slice(format!(", algorithm={}", self.algorithm).as_bytes());
        }
        match self.protection {
            Protection::None => {}
            Protection::Auth => out.extend_from_slice(b", qop=\"auth\""),
            Protection::Body => out.extend_from_slice(b", qop=\"auth-int\""),
        }
        if let Some(opaque) = self.opaque {
            out.extend_from_slice(b", opaque=\"");
            out.extend_from_slice(opaque);
            out.push(b'"');
        }
        out
    }

    /// The value of the Authorization or Proxy-Authorization header that answers it. `cnonce` is random, and new for
    /// each answer.
    #[must_use]
    pub fn answer(&self, request: &Request<'_>, user: &str, secret: &Secret<'_>, cnonce: &str) -> Vec<u8> {
        /// A nonce is used once here: what the server gave is answered at once.
        const COUNT: &str = "00000001";
        let Self { realm, nonce, algorithm, .. } = self;
        let user = escaped(user);
        let hash = |parts: &[&[u8]]| algorithm.hash(parts);
        let mut secret = match secret {
            Secret::Password(password) => hash(&[user.as_bytes(), realm, password.as_bytes()]),
            Secret::Ha1(known) => (*known).to_owned(),
        };
        if algorithm.session {
            secret = hash(&[secret.as_bytes(), nonce, cnonce.as_bytes()]);
        }
        let (what, qop) = match self.protection {
            Protection::None => (hash(&[request.method, request.uri]), None),
            Protection::Auth => (hash(&[request.method, request.uri]), Some("auth")),
            Protection::Body => {
                let body = hash(&[request.body]);
                (hash(&[request.method, request.uri, body.as_bytes()]), Some("auth-int"))
            }
        };
        let response = match qop {
            None => hash(&[secret.as_bytes(), nonce, what.as_bytes()]),
            Some(qop) => hash(&[
                secret.as_bytes(),
                nonce,
                COUNT.as_bytes(),
                cnonce.as_bytes(),
                qop.as_bytes(),
                what.as_bytes(),
            ]),
        };
        let mut out = b"Digest username=\"".to_vec();
        out.extend_from_slice(user.as_bytes());
        for (name, value) in [("realm", Some(*realm)), ("nonce", Some(*nonce)), ("uri", Some(request.uri))] {
            out.extend_from_slice(format!("\", {name}=\"").as_bytes());
            out.extend_from_slice(value.unwrap_or_default());
        }
        out.extend_from_slice(format!("\", response=\"{response}\"").as_bytes());
        if self.named {
            out.extend_from_slice(format!(", algorithm={algorithm}").as_bytes());
        }
        if let Some(qop) = qop {
            out.extend_from_slice(format!(", qop={qop}, nc={COUNT}").as_bytes());
        }
        if qop.is_some() || algorithm.session {
            out.extend_from_slice(format!(", cnonce=\"{cnonce}\"").as_bytes());
        }
        if let Some(opaque) = self.opaque {
            out.extend_from_slice(b", opaque=\"");
            out.extend_from_slice(opaque);
            out.push(b'"');
        }
        out
    }
}

/// The answer to a challenge, as it stands in Authorization or Proxy-Authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given<'a> {
    /// Who answers.
    pub user: &'a [u8],
    /// The realm that was asked for.
    pub realm: &'a [u8],
    /// The nonce that was given.
    pub nonce: &'a [u8],
    uri: &'a [u8],
    response: &'a [u8],
    algorithm: Algorithm,
    count: Option<&'a [u8]>,
    cnonce: Option<&'a [u8]>,
    qop: Option<&'a [u8]>,
}

impl<'a> Given<'a> {
    /// Reads the header's value; `None` for another scheme, an unknown algorithm or protection, or a missing part.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let parameter = parameters(value)?;
        let algorithm = match parameter("algorithm") {
            Some(name) => Algorithm::parse(name)?,
            None => Algorithm { hash: Hash::Md5, session: false },
        };
        Some(Self {
            user: parameter("username")?,
            realm: parameter("realm")?,
            nonce: parameter("nonce")?,
            uri: parameter("uri")?,
            response: parameter("response")?,
            algorithm,
            count: parameter("nc"),
            cnonce: parameter("cnonce"),
            qop: parameter("qop"),
        })
    }

    /// How often it says that the nonce was used, this time included (RFC 7616 section 3.4); `None` if it does not say.
    #[must_use]
    pub fn count(&self) -> Option<u32> {
        // Without it the count is protected by nothing (RFC 2069 knows none).
        self.qop?;
        u32::from_str_radix(std::str::from_utf8(self.count?).ok()?, 16).ok()
    }

    /// The name of the algorithm, as a challenge names it.
    #[must_use]
    pub fn algorithm(&self) -> String {
        self.algorithm.to_string()
    }

    /// The name of its hash function, without a session.
    #[must_use]
    pub fn hash_function(&self) -> String {
        self.algorithm.function()
    }

    /// Whether it is what somebody with this secret answers. The URI is taken as it is given: phones differ in what they
    /// write there, and a proxy on the way may have changed the request's own (RFC 3261 section 22.4 item 5).
    #[must_use]
    pub fn is_right(&self, method: &[u8], body: &[u8], secret: &Secret<'_>) -> bool {
        let hash = |parts: &[&[u8]]| self.algorithm.hash(parts);
        let mut secret = match secret {
            Secret::Password(password) => hash(&[self.user, self.realm, password.as_bytes()]),
            Secret::Ha1(known) => (*known).to_owned(),
        };
        if self.algorithm.session {
            let Some(cnonce) = self.cnonce else { return false };
            secret = hash(&[secret.as_bytes(), self.nonce, cnonce]);
        }
        let is = |name: &[u8]| self.qop.is_some_and(|qop| qop.eq_ignore_ascii_case(name));
        let what = if is(b"auth-int") {
            hash(&[method, self.uri, hash(&[body]).as_bytes()])
        } else {
            hash(&[method, self.uri])
        };
        let expected = match (self.qop, self.count, self.cnonce) {
            (None, ..) => hash(&[secret.as_bytes(), self.nonce, what.as_bytes()]),
            (Some(qop), Some(count), Some(cnonce)) => {
                hash(&[secret.as_bytes(), self.nonce, count, cnonce, qop, what.as_bytes()])
            }
            _ => return false,
        };
        // In constant time: the answer of a guess must not tell how much of it was right.
        expected.as_bytes().ct_eq(&self.response.to_ascii_lowercase()).into()
    }
}

/// The nonce that an Authentication-Info or Proxy-Authentication-Info header wants answered next (RFC 7616 section 3.5).
#[must_use]
pub fn next_nonce(value: &[u8]) -> Option<&[u8]> {
    named(value, "nextnonce").filter(|nonce| !nonce.is_empty() && !nonce.contains(&b'"'))
}

/// What is authenticated.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a [u8],
    /// The Request-URI as it is sent.
    pub uri: &'a [u8],
    /// The body as it is sent.
    pub body: &'a [u8],
}

/// Finds the parameters of a header's value by name; `None` for another scheme than Digest.
fn parameters<'a>(value: &'a [u8]) -> Option<impl Fn(&'static str) -> Option<&'a [u8]>> {
    let value = scan::trim(value);
    let (scheme, rest) = value.split_at_checked(value.iter().position(|byte| scan::is_space(*byte))?)?;
    scheme.eq_ignore_ascii_case(b"Digest").then_some(move |name: &'static str| named(rest, name))
}

/// The value of a parameter in a list that commas separate.
fn named<'a>(list: &'a [u8], name: &str) -> Option<&'a [u8]> {
    scan::split_commas(list).find_map(|part| {
        let (key, value) = part.split_at_checked(part.iter().position(|byte| *byte == b'=')?)?;
        scan::trim(key)
            .eq_ignore_ascii_case(name.as_bytes())
            .then(|| scan::unquote(scan::trim(value.get(1..).unwrap_or_default())))
            .filter(|value| value.len() <= LONGEST_VALUE)
    })
}

/// A user name as it stands in a quoted string, without what would end it or the header.
fn escaped(user: &str) -> String {
    user.chars()
        .filter(|character| !character.is_control())
        .flat_map(|character| matches!(character, '"' | '\\').then_some('\\').into_iter().chain([character]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(challenge: &str, request: Request<'_>, user: &str, password: &str, cnonce: &str) -> String {
        let challenge = Challenge::parse(challenge.as_bytes()).unwrap();
        String::from_utf8(challenge.answer(&request, user, &Secret::Password(password), cnonce)).unwrap()
    }

    #[test]
    fn what_is_answered_to_a_challenge_is_right_and_nothing_else_is() {
        let request = Request { method: b"REGISTER", uri: b"sip:example.com", body: b"v=0" };
        for (algorithm, qop) in [
            ("MD5", ""),
            ("MD5", "auth"),
            ("MD5-sess", "auth"),
            ("SHA-256", "auth-int"),
            ("SHA-512-256", "auth"),
        ] {
            let qop = if qop.is_empty() { String::new() } else { format!(", qop=\"{qop}\"") };
            let challenge = format!("Digest realm=\"r\", nonce=\"n\", algorithm={algorithm}{qop}");
            let value = answer(&challenge, request, "bo\"b", "secret", "c");
            let given = Given::parse(value.as_bytes()).unwrap();
            let is_right = |method: &[u8], body: &[u8], password| {
                given.is_right(method, body, &Secret::Password(password))
            };
            // The hash is as good as the password, for who knows either.
            let ha1 = Ha1::all("bo\"b", "r", "secret");
            let ha1 = ha1.iter().find(|ha1| ha1.algorithm == given.hash_function()).unwrap();
            let by_hash = Challenge::parse(challenge.as_bytes()).unwrap().answer(
                &request,
                "bo\"b",
                &Secret::Ha1(&ha1.hash),
                "c",
            );
            assert_eq!(by_hash, value.as_bytes(), "{algorithm}{qop}");
            assert!(given.is_right(b"REGISTER", b"v=0", &Secret::Ha1(&ha1.hash)), "{algorithm}{qop}");
            assert!(is_right(b"REGISTER", b"v=0", "secret"), "{algorithm}{qop}");
            assert!(!is_right(b"REGISTER", b"v=0", "Secret"), "{algorithm}{qop}");
            assert!(!is_right(b"INVITE", b"v=0", "secret"), "{algorithm}{qop}");
            assert_eq!(is_right(b"REGISTER", b"v=1", "secret"), !qop.contains("int"), "{algorithm}{qop}");
        }
        for value in ["Basic dXNlcg==", "Digest username=\"a\"", "Digest", ""] {
            assert_eq!(Given::parse(value.as_bytes()), None, "{value}");
        }
    }

    /// RFC 7616 section 3.9.1.
    #[test]
    fn the_examples_of_the_standard_come_out() {
        let get = Request { method: b"GET", uri: b"/dir/index.html", body: b"" };
        let rows = [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ];
        for (algorithm, response) in rows {
            let challenge = format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            );
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            assert_eq!(
                answer(&challenge, get, "Mufasa", "Circle of Life", cnonce),
                format!(
                    "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
                     nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", uri=\"/dir/index.html\", \
                     response=\"{response}\", algorithm={algorithm}, qop=auth, nc=00000001, cnonce=\"{cnonce}\", \
                     opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
                )
            );
        }
    }

    /// RFC 2617 section 3.5 without `qop`: what RFC 2069 servers compute.
    #[test]
    fn a_server_that_names_neither_protection_nor_algorithm_gets_the_oldest_form() {
        let request = Request { method: b"REGISTER", uri: b"sip:example.com", body: b"" };
        let text = answer("Digest realm=\"example.com\",nonce=\"abc\"", request, "200", "secret", "unused");
        let a1 = Algorithm { hash: Hash::Md5, session: false }.hash(&[b"200", b"example.com", b"secret"]);
        let a2 = Algorithm { hash: Hash::Md5, session: false }.hash(&[b"REGISTER", b"sip:example.com"]);
        let expected =
            Algorithm { hash: Hash::Md5, session: false }.hash(&[a1.as_bytes(), b"abc", a2.as_bytes()]);
        assert_eq!(
            text,
            format!(
                "Digest username=\"200\", realm=\"example.com\", nonce=\"abc\", uri=\"sip:example.com\", response=\"{expected}\""
            )
        );
    }

    #[test]
    fn what_cannot_be_answered_is_not_taken_for_a_challenge() {
        let rows = [
            "Basic realm=\"x\"",
            "Digest",
            "Digest realm=\"x\"",
            "Digest realm=\"x\", nonce=\"y\", algorithm=AKAv1-MD5",
            "Digest realm=\"x\", nonce=\"y\", qop=\"token\"",
        ];
        for row in rows {
            assert_eq!(Challenge::parse(row.as_bytes()), None, "{row}");
        }
        let stale = Challenge::parse(b"Digest realm=\"a,b\", nonce=\"y\", stale=TRUE").unwrap();
        assert_eq!((stale.realm, stale.stale), (&b"a,b"[..], true));
    }

    #[test]
    fn the_body_is_protected_where_the_server_wants_only_that() {
        let challenge = "Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\", algorithm=MD5-sess";
        let of = |body: &[u8]| {
            answer(challenge, Request { method: b"INVITE", uri: b"sip:a@b", body }, "u", "p", "c")
        };
        assert!(of(b"v=0").contains("qop=auth-int, nc=00000001, cnonce=\"c\""));
        assert_ne!(of(b"v=0"), of(b"v=1"));
    }

    #[test]
    fn a_user_name_cannot_leave_its_quotes() {
        let request = Request { method: b"REGISTER", uri: b"sip:a", body: b"" };
        let text = answer("Digest realm=\"r\", nonce=\"n\"", request, "a\"b\\c\r\nd", "p", "c");
        assert!(text.starts_with("Digest username=\"a\\\"b\\\\cd\", realm="), "{text}");
    }
}

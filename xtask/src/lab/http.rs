//! One HTTP GET from inside a namespace: enough for health checks, metrics and Prometheus' API on one machine.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::netns::Namespace;

/// Everything asked here is on the same machine.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks for a path and returns the body of the answer.
///
/// # Errors
/// Nobody answers, or not with 200.
pub fn get(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<String> {
    let request = path.to_owned();
    let answer = namespace
        .enter(move || ask(address, &request))?
        .with_context(|| format!("http://{address}{path} does not answer"))?;
    let (head, body) =
        answer.split_once("\r\n\r\n").context("an HTTP answer without an end of its header")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        bail!("http://{address}{path}: {status}: {body}");
    }
    let chunked =
        head.lines().any(|line| line.to_ascii_lowercase().starts_with("transfer-encoding: chunked"));
    if chunked { unchunk(body).context("a chunked HTTP answer that is broken") } else { Ok(body.to_owned()) }
}

fn ask(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // HTTP/1.0: the end of the connection is the end of the answer.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn unchunk(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

/// Escapes a value for a query string (RFC 3986 section 2.1).
#[must_use]
pub fn escape(value: &str) -> String {
    value
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        assert_eq!(escape("sum(a{b=\"c\"}) + 1"), "sum%28a%7Bb%3D%22c%22%7D%29%20%2B%201");
    }

    #[test]
    fn chunks_are_joined() {
        assert_eq!(unchunk("3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n").as_deref(), Some("abcde"));
        assert_eq!(unchunk("9\r\nabc"), None);
    }
}

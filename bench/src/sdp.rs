//! Session descriptions of the bench's calls, and what comes back.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result};

/// A description with one stream of G.711.
#[must_use]
pub(crate) fn description((address, port): (Ipv4Addr, u16)) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
    )
}

/// Where a description's stream is to be sent.
///
/// # Errors
/// It has none.
pub(crate) fn media(description: &[u8]) -> Result<SocketAddrV4> {
    let text = String::from_utf8_lossy(description);
    let after = |start: &str| text.lines().find_map(|line| line.strip_prefix(start).map(str::to_owned));
    let address = after("c=IN IP4 ").and_then(|address| address.trim().parse().ok());
    let port = after("m=audio ").and_then(|rest| rest.split(' ').next().and_then(|port| port.parse().ok()));
    let (address, port) = address.zip(port).with_context(|| format!("no stream in {text}"))?;
    Ok(SocketAddrV4::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_described_is_read_again() {
        let at = (Ipv4Addr::new(10, 61, 0, 11), 4000);
        assert_eq!(media(description(at).as_bytes()).unwrap(), SocketAddrV4::new(at.0, at.1));
        assert!(media(b"v=0\r\n").is_err());
    }
}

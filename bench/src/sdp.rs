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

/// What a description's keys stand for: nobody decrypts what the bench has encrypted.
const KEY: &str = "YmVuY2ggYmVuY2ggYmVuY2ggYmVuY2ggYmVuY2gh";

/// An answer that takes one stream of G.711 as SRTP, to an offer of it.
///
/// # Errors
/// The offer has no key for the suite that everybody has.
pub(crate) fn sealed((address, port): (Ipv4Addr, u16), offer: &[u8]) -> Result<String> {
    const SUITE: &str = "AES_CM_128_HMAC_SHA1_80";
    let text = String::from_utf8_lossy(offer);
    let tag = text.lines().filter_map(|line| line.strip_prefix("a=crypto:")).find_map(|line| {
        let (tag, rest) = line.split_once(' ')?;
        rest.starts_with(SUITE).then(|| tag.to_owned())
    });
    let tag = tag.with_context(|| format!("no {SUITE} in {text}"))?;
    Ok(description((address, port)).replace("RTP/AVP", "RTP/SAVP")
        + &format!("a=crypto:{tag} {SUITE} inline:{KEY}\r\n"))
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
        let offer =
            b"a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:x\r\na=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:x\r\n";
        let answer = sealed(at, offer).unwrap();
        assert!(answer.contains("m=audio 4000 RTP/SAVP 0\r\n"), "{answer}");
        assert!(answer.contains("a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:"), "{answer}");
        assert!(sealed(at, b"v=0\r\n").is_err());
    }
}

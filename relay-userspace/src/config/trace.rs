//! Traces of calls: how much of them is kept, and where else it goes.

use std::{fmt, net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use super::types::{Host, is_domain_name};

/// What is kept of the SIP messages of each Call-ID.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trace {
    /// Whether anything is kept.
    pub enabled: bool,
    /// MiB of memory.
    pub max_mib: u64,
    /// Messages of one call; of one that has more, some from its middle are left out.
    pub messages_per_call: u64,
    /// MiB of traces of calls in the state directory; 0: none.
    pub store_mib: u64,
    /// Homer; none: nothing is sent.
    pub hep: Option<HepServer>,
    /// By which Homer knows this appliance.
    pub hep_id: u32,
    /// A file whose first line Homer takes for proof; none: no proof is sent.
    pub hep_password_file: Option<PathBuf>,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            enabled: true,
            max_mib: 32,
            messages_per_call: 200,
            store_mib: 64,
            hep: None,
            hep_id: 1,
            hep_password_file: None,
        }
    }
}

impl Trace {
    /// What is wrong: key and message.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, value, least, most) in [
            ("trace.max_mib", self.max_mib, 4, 4096),
            ("trace.messages_per_call", self.messages_per_call, 10, 10_000),
            ("trace.store_mib", self.store_mib, 0, 1 << 20),
        ] {
            if !(least..=most).contains(&value) {
                return Err((key, format!("{value} is out of range: {least} to {most}")));
            }
        }
        Ok(())
    }
}

/// A Homer server, written as `"udp:192.0.2.9:9060"`: HEP version 3 over UDP.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct HepServer {
    /// Where.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HepServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "udp:{}:{}", self.host, self.port)
    }
}

impl TryFrom<String> for HepServer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = |why: &str| {
            format!("{text:?} is not a Homer server: {why}; write for example \"udp:192.0.2.9:9060\"")
        };
        let place = text.strip_prefix("udp:").ok_or_else(|| wrong("it begins with udp:"))?;
        let (host, port) = if let Ok(address) = place.parse::<SocketAddr>() {
            if address.ip().is_unspecified() || address.ip().is_multicast() {
                return Err(wrong("it cannot be sent to"));
            }
            (Host::Ip(address.ip()), address.port())
        } else {
            let (name, port) = place.rsplit_once(':').ok_or_else(|| wrong("there is no port"))?;
            if !is_domain_name(name) {
                return Err(wrong(&format!("{name:?} is neither an address nor a domain name")));
            }
            let number = port.parse().map_err(|_| wrong(&format!("{port:?} is not a port")))?;
            (Host::Name(name.to_ascii_lowercase()), number)
        };
        if port == 0 {
            return Err(wrong("the port must be 1 to 65535"));
        }
        Ok(Self { host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_homer_server_is_read_and_written() {
        for text in ["udp:192.0.2.9:9060", "udp:[2001:db8::9]:9060", "udp:homer.example.com:9061"] {
            assert_eq!(HepServer::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for (text, why) in [
            ("tcp:192.0.2.9:9060", "it begins with udp:"),
            ("udp:192.0.2.9", "there is no port"),
            ("udp:homer:x", "\"x\" is not a port"),
            ("udp:a b:9060", "neither an address nor a domain name"),
            ("udp:0.0.0.0:9060", "it cannot be sent to"),
            ("udp:192.0.2.9:0", "the port must be 1 to 65535"),
        ] {
            let error = HepServer::try_from(text.to_owned()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

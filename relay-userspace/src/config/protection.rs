//! What protects the host and its calls from those who send too much.

use ipnet::IpNet;
use serde::Deserialize;

/// Limits in the kernel, and who is exempt or shut out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protection {
    /// Packets a second to the SIP ports from one source: an IPv4 address, or an IPv6 network of 64 bits. 0: no limit.
    pub source_packets_per_second: u32,
    /// The same from all sources together that are neither phones that have registered nor trusted, on each CPU.
    pub unknown_packets_per_second: u32,
    /// Packets a second of one stream of media; 0: no limit.
    pub stream_packets_per_second: u32,
    /// Prefixes whose packets are dropped, whatever they are for.
    pub deny: Vec<IpNet>,
    /// Prefixes that no limit and no denial holds for, beside the servers.
    pub trusted: Vec<IpNet>,
}

impl Default for Protection {
    fn default() -> Self {
        Self {
            source_packets_per_second: 200,
            unknown_packets_per_second: 2000,
            stream_packets_per_second: 3000,
            deny: Vec::new(),
            trusted: Vec::new(),
        }
    }
}

impl Protection {
    /// The limits, as the datapath takes them.
    #[must_use]
    pub fn limits(&self) -> crate::net::PacketLimits {
        crate::net::PacketLimits {
            source: self.source_packets_per_second,
            unknown: self.unknown_packets_per_second,
            stream: self.stream_packets_per_second,
        }
    }
}

/// Prefixes that can be listed under one key.
const MOST_PREFIXES: usize = 4096;

impl Protection {
    /// What is wrong: key and message.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let long = [("protection.deny", &self.deny), ("protection.trusted", &self.trusted)];
        match long.into_iter().find(|(_, list)| list.len() > MOST_PREFIXES) {
            Some((key, list)) => {
                Err((key, format!("{} prefixes are listed; {MOST_PREFIXES} can be", list.len())))
            }
            None => Ok(()),
        }
    }
}

//! The office's services: DHCP options, clock, phones' logs, and the relay of firmware and configuration files.
//!
//! All are off unless the file asks for them: each opens a port of its own on the phones' networks.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::types::HttpServer;

/// Most characters of a string in a DHCP option: the answer with two of them stays below the 576 bytes that every
/// client takes (RFC 2131 section 2).
const MOST_OPTION_TEXT: usize = 100;
/// Options that DHCP itself needs, or that the office's own server decides (RFC 2132): never ours to set.
const RESERVED_OPTIONS: [u8; 14] = [0, 1, 3, 6, 50, 51, 52, 53, 54, 55, 57, 61, 82, 255];
/// Most upstream servers of files.
const MOST_SERVERS: usize = 8;
/// Lowest and highest stratum that a synchronised server can tell (RFC 5905 figure 11).
const STRATA: std::ops::RangeInclusive<u8> = 1..=15;

/// What a check of one table returns: the key, and what is wrong with it.
pub(super) type Fault = (&'static str, String);

fn within(key: &'static str, value: u64, least: u64, most: u64) -> Result<(), Fault> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err((key, format!("{value} is out of range: {least} to {most}")))
}

/// Answers to DHCPINFORM on phones' networks. Addresses are leased by the office's own server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dhcp {
    /// Whether DHCPINFORM is answered.
    pub enabled: bool,
    /// The option that carries the provisioning URL.
    pub option: u8,
    /// The provisioning URL; the relay on the phone's network unless one is given.
    pub url: Option<String>,
    /// Option 66, the TFTP server's name; the appliance's address unless one is given.
    pub tftp_server: Option<String>,
}

impl Default for Dhcp {
    fn default() -> Self {
        /// In use for provisioning URLs; RFC 7710 gave it to captive portals, RFC 8910 moved these to 114 because of that.
        const OPTION: u8 = 160;
        Self { enabled: false, option: OPTION, url: None, tftp_server: None }
    }
}

impl Dhcp {
    pub(super) fn check(&self, relay: &Provisioning) -> Result<(), Fault> {
        if RESERVED_OPTIONS.contains(&self.option) || self.option == 66 || self.option == 42 {
            return Err((
                "dhcp.option",
                format!("option {} has another meaning (RFC 2132); phones read 160", self.option),
            ));
        }
        for (key, text) in [("dhcp.url", &self.url), ("dhcp.tftp_server", &self.tftp_server)] {
            let Some(text) = text else { continue };
            if text.is_empty()
                || text.len() > MOST_OPTION_TEXT
                || !text.bytes().all(|byte| byte.is_ascii_graphic())
            {
                let message = format!(
                    "{text:?} must be 1 to {MOST_OPTION_TEXT} printable ASCII characters without blanks"
                );
                return Err((key, message));
            }
        }
        if self.enabled && self.url.is_none() && (relay.servers.is_empty() || relay.http_port == 0) {
            let message =
                "phones would be sent to a relay that is off: give dhcp.url, or provisioning.servers";
            return Err(("dhcp.url", message.to_owned()));
        }
        Ok(())
    }
}

/// What is answered while the host's clock is not synchronised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unsynchronised {
    /// The truth: leap indicator 3, stratum 0. Phones do not take such time.
    #[default]
    Alarm,
    /// The host's clock as a reference of its own, stratum 10: for offices where a roughly right time is better
    /// than none.
    Local,
}

/// Time for the phones: SNTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clock {
    /// Whether the time is told.
    pub enabled: bool,
    /// The stratum told while the host's clock is synchronised: one more than its source's, which the kernel does
    /// not know.
    pub stratum: u8,
    /// What is told while it is not.
    pub unsynchronised: Unsynchronised,
}

impl Default for Clock {
    fn default() -> Self {
        /// A host that follows a public server of stratum 2.
        const STRATUM: u8 = 3;
        Self { enabled: false, stratum: STRATUM, unsynchronised: Unsynchronised::default() }
    }
}

impl Clock {
    pub(super) fn check(&self) -> Result<(), Fault> {
        within("clock.stratum", self.stratum.into(), (*STRATA.start()).into(), (*STRATA.end()).into())
    }
}

/// The receiver of the phones' logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Syslog {
    /// Whether logs are received.
    pub enabled: bool,
    /// The UDP port.
    pub port: u16,
    /// KiB of one phone's file; a full one is kept once more as `.1`.
    pub file_kib: u64,
    /// MiB of all phones' files; beyond, the oldest go.
    pub total_mib: u64,
    /// Days after which a file that nothing was added to is removed.
    pub retention_days: u64,
}

impl Default for Syslog {
    fn default() -> Self {
        /// RFC 5426 section 3.3.
        const PORT: u16 = 514;
        Self { enabled: false, port: PORT, file_kib: 1024, total_mib: 256, retention_days: 7 }
    }
}

impl Syslog {
    pub(super) fn check(&self) -> Result<(), Fault> {
        within("syslog.port", self.port.into(), 1, u16::MAX.into())?;
        within("syslog.file_kib", self.file_kib, 16, 1 << 20)?;
        within("syslog.total_mib", self.total_mib, 1, 1 << 20)?;
        within("syslog.retention_days", self.retention_days, 1, 3650)
    }
}

/// The relay of firmware and configuration files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Provisioning {
    /// The central servers, in order of preference; none: the relay is off.
    pub servers: Vec<HttpServer>,
    /// The port for HTTP; 0: none. TLS is understood on it too.
    pub http_port: u16,
    /// The port for HTTPS; 0: none. Plain HTTP is understood on it too.
    pub https_port: u16,
    /// The user by which the appliance answers a server's digest challenge.
    pub user: Option<String>,
    /// The file with the password, one line.
    pub password_file: Option<PathBuf>,
    /// The certificate shown to servers that ask for one, PEM; the appliance's own unless one is given.
    pub client_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub client_private_key: Option<PathBuf>,
    /// Milliseconds in which a connection to a server must be there.
    pub connect_timeout_ms: u64,
    /// Seconds in which a server must begin its answer, and after which a silent connection ends.
    pub idle_timeout_seconds: u64,
    /// MiB of all cached files; 0: nothing is cached.
    pub cache_mib: u64,
    /// MiB of the largest file that is cached.
    pub cache_file_mib: u64,
    /// MiB of the largest file that a phone may send.
    pub upload_mib: u64,
    /// Connections of phones that there can be at a time.
    pub connections: usize,
    /// Of these, from one address.
    pub connections_per_phone: usize,
}

impl Default for Provisioning {
    fn default() -> Self {
        /// The reference products' ports.
        const PORTS: (u16, u16) = (8088, 8089);
        Self {
            servers: Vec::new(),
            http_port: PORTS.0,
            https_port: PORTS.1,
            user: None,
            password_file: None,
            client_certificate: None,
            client_private_key: None,
            connect_timeout_ms: 2000,
            idle_timeout_seconds: 30,
            cache_mib: 1024,
            cache_file_mib: 256,
            upload_mib: 64,
            connections: 512,
            connections_per_phone: 16,
        }
    }
}

impl Provisioning {
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.servers.len() > MOST_SERVERS {
            return Err(("provisioning.servers", format!("there can be {MOST_SERVERS} servers")));
        }
        if self.http_port == self.https_port {
            let message = "HTTP and HTTPS need ports of their own, and one of them must be on; set servers = [] \
                           to switch the relay off";
            return Err(("provisioning.https_port", message.to_owned()));
        }
        if self.user.is_some() != self.password_file.is_some() {
            let message = "provisioning.user and provisioning.password_file belong together";
            return Err(("provisioning.password_file", message.to_owned()));
        }
        if let Some(user) = &self.user
            && (user.is_empty()
                || user.len() > 128
                || user.chars().any(|c| c.is_control() || c == '"' || c == '\\'))
        {
            let message = "a user has 1 to 128 characters, no quote, backslash or control character";
            return Err(("provisioning.user", message.to_owned()));
        }
        if self.client_certificate.is_some() != self.client_private_key.is_some() {
            let message =
                "provisioning.client_certificate and provisioning.client_private_key belong together";
            return Err(("provisioning.client_private_key", message.to_owned()));
        }
        within("provisioning.connect_timeout_ms", self.connect_timeout_ms, 100, 60_000)?;
        within("provisioning.idle_timeout_seconds", self.idle_timeout_seconds, 1, 600)?;
        within("provisioning.cache_mib", self.cache_mib, 0, 1 << 20)?;
        within("provisioning.cache_file_mib", self.cache_file_mib, 1, 1 << 14)?;
        within("provisioning.upload_mib", self.upload_mib, 1, 1 << 14)?;
        within("provisioning.connections", self.connections as u64, 1, 10_000)?;
        within("provisioning.connections_per_phone", self.connections_per_phone as u64, 1, 10_000)
    }
}

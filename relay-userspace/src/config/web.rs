//! The pages for people and the REST interface for programs.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;

/// The pages and the REST interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Web {
    /// Where the pages are served, by HTTPS.
    pub listen: SocketAddr,
    /// A second TLS port, on the same address, for the REST interface alone; 0: none.
    pub rest_port: u16,
}

impl Default for Web {
    fn default() -> Self {
        /// The usual port of HTTPS where 443 belongs to something else.
        const PORT: u16 = 8443;
        Self { listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)), rest_port: 0 }
    }
}

impl Web {
    /// Where the REST interface alone is served, if it is.
    #[must_use]
    pub fn rest(&self) -> Option<SocketAddr> {
        (self.rest_port != 0).then(|| SocketAddr::new(self.listen.ip(), self.rest_port))
    }

    /// What is wrong: key and message.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.listen.port() == 0 {
            return Err(("web.listen", "the port must be 1 to 65535".to_owned()));
        }
        if self.rest_port == self.listen.port() {
            let message =
                format!("port {} is that of web.listen; the second port must differ", self.rest_port);
            return Err(("web.rest_port", message));
        }
        Ok(())
    }
}

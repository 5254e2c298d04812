//! What the faces show and ask for; the daemon implements it.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;

use crate::{
    capture::{CaptureError, CaptureView, Part, Wanted},
    config::{Config, ConfigError},
    control::{CallView, FlowView, PhoneView, ReloadedView, StatusView},
    log::LogView,
    provisioning::syslog::SyslogView,
    store::{Entry, StoreError},
    tls::Described,
    trace::{TraceView, TracesView},
};

/// For machines: metrics and readiness.
pub trait Observed: Send + Sync + 'static {
    /// The metrics, brought up to date, in Prometheus' text format.
    ///
    /// # Errors
    /// A sentence that says what could not be read.
    fn metrics(&self) -> Result<String, String>;

    /// Whether calls work.
    ///
    /// # Errors
    /// A sentence that says why not.
    fn ready(&self) -> Result<(), String>;
}

/// Which calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that stand or are being set up.
    Live,
    /// The last ones that have ended, too.
    WithEnded,
}

/// The machine that the appliance runs on.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its kernel's name and release.
    pub kernel: String,
    /// Its processors' architecture.
    pub architecture: String,
}

/// The certificate that the appliance shows, and whom it believes.
#[derive(Debug, Clone, Default)]
pub struct TlsFacts {
    /// Whether the appliance has made its certificate itself.
    pub own: bool,
    /// The certificate; none when it cannot be read.
    pub certificate: Option<Described>,
    /// How many authorities may vouch for servers.
    pub authorities: usize,
    /// The certificate of the appliance's own authority, PEM; none where the certificate is a configured one.
    pub authority: Option<String>,
    /// Whether it has signed the certificate: one that an earlier version made vouches for itself.
    pub signed_by_authority: bool,
}

/// For people and their programs.
pub trait Appliance: Send + Sync + 'static {
    /// How it is.
    fn status(&self) -> StatusView;

    /// Calls, those that last longest first.
    fn calls(&self, which: Which) -> Vec<CallView>;

    /// The calls of one Call-ID, ended or not, with the quality of their streams.
    fn calls_named(&self, call_id: &str) -> Vec<CallView>;

    /// Flows; of one call, or all.
    fn flows(&self, call_id: Option<&str>) -> Vec<FlowView>;

    /// The phones that were heard of, with their registrations.
    fn phones(&self) -> Vec<PhoneView>;

    /// The machine.
    fn machine(&self) -> Machine;

    /// When it started, in seconds since 1970.
    fn started_unix(&self) -> i64;

    /// Adds or replaces an authentication entry; it is used from now on.
    ///
    /// # Errors
    /// The store's.
    fn put_entry(&self, entry: &Entry) -> Result<(), StoreError>;

    /// Removes an authentication entry; says whether there was one.
    ///
    /// # Errors
    /// The store's.
    fn remove_entry(&self, registration_id: &str) -> Result<bool, StoreError>;

    /// Trusts a server's certificate that was met; says whether there is such a one.
    ///
    /// # Errors
    /// The store's.
    fn trust_certificate(&self, fingerprint: &str, by: &str) -> Result<bool, StoreError>;

    /// Forgets a server's certificate, trusted or not; says whether there was such a one.
    ///
    /// # Errors
    /// The store's.
    fn forget_certificate(&self, fingerprint: &str) -> Result<bool, StoreError>;

    /// The log as it stands.
    fn log(&self) -> LogView;

    /// The last lines of phones' logs, oldest first; none if they are not received.
    fn phone_logs(&self, phone: Option<IpAddr>, lines: usize) -> Option<Vec<SyslogView>>;

    /// The captures, the newest first.
    ///
    /// # Errors
    /// Their directory cannot be read.
    fn captures(&self) -> Result<Vec<CaptureView>, CaptureError>;

    /// Begins to capture a call; returns the capture's name.
    ///
    /// # Errors
    /// No such call stands, a limit is reached, or the file cannot be made.
    fn start_capture(&self, wanted: &Wanted) -> Result<String, CaptureError>;

    /// Stops a capture.
    ///
    /// # Errors
    /// No such one runs.
    fn stop_capture(&self, name: &str) -> Result<(), CaptureError>;

    /// Removes a capture that has ended.
    ///
    /// # Errors
    /// There is no such one, it runs, or its file cannot be removed.
    fn remove_capture(&self, name: &str) -> Result<(), CaptureError>;

    /// A part of a capture's file, opened if it is sealed; parts are numbered from 0.
    ///
    /// # Errors
    /// There is no such capture, or its file cannot be read.
    fn capture_part(&self, name: &str, number: u64) -> Result<Part, CaptureError>;

    /// The last traces, up to so many. Waits for the disk.
    fn traces(&self, last: usize) -> TracesView;

    /// The trace of a Call-ID, if there is one. Waits for the disk.
    fn trace(&self, call_id: &str) -> Option<TraceView>;

    /// The host's interfaces with their IPv4 addresses, but for loopback. Waits for the kernel.
    fn interfaces(&self) -> Vec<(String, Vec<IpNet>)>;

    /// Whether this host has what a configuration, whose text is given, asks of it beyond what the running one does:
    /// interfaces, addresses, ports, certificates. Waits for the kernel.
    ///
    /// # Errors
    /// What it does not have, at its key.
    fn fits(&self, config: &Config, text: &str) -> Result<(), ConfigError>;

    /// The certificate that it shows, and whom it believes.
    fn tls(&self) -> TlsFacts;

    /// Whether it could start with the file as it is. Waits for the kernel.
    ///
    /// # Errors
    /// Why not, at its key.
    fn can_start(&self) -> Result<(), ConfigError>;

    /// Stops and starts again with the file as it is then.
    fn restart(&self);

    /// The configuration file.
    fn configuration_file(&self) -> PathBuf;

    /// Reads the configuration file again and applies what can be applied while calls stand.
    ///
    /// # Errors
    /// The file is not valid or cannot be read; then nothing has changed.
    fn reload(&self) -> Result<ReloadedView, ConfigError>;
}

//! What the pages and the REST interface see and change.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;

use super::Views;
use crate::{
    admin::{Appliance, Machine, TlsFacts, Which},
    capture::{CaptureError, CaptureView, Part, Wanted},
    config::{Config, ConfigError},
    control::{CallView, FlowView, PhoneView, ReloadedView, StatusView},
    daemon::{fits::Examine, host},
    log::LogView,
    provisioning::syslog::SyslogView,
    store::{Entry, StoreError},
    tls::Identity,
    trace::{TraceView, TracesView},
};

impl Appliance for Views {
    fn status(&self) -> StatusView {
        Self::status(self)
    }

    fn calls(&self, which: Which) -> Vec<CallView> {
        Self::calls(self, which == Which::WithEnded)
    }

    fn calls_named(&self, call_id: &str) -> Vec<CallView> {
        Self::calls_named(self, call_id)
    }

    fn flows(&self, call_id: Option<&str>) -> Vec<FlowView> {
        Self::flows(self, call_id)
    }

    fn phones(&self) -> Vec<PhoneView> {
        Self::phones(self)
    }

    fn machine(&self) -> Machine {
        Machine {
            name: host::name(),
            kernel: host::kernel(),
            architecture: std::env::consts::ARCH.to_owned(),
        }
    }

    fn started_unix(&self) -> i64 {
        self.started_unix
    }

    fn put_entry(&self, entry: &Entry) -> Result<(), StoreError> {
        self.core.put_entry(entry)
    }

    fn remove_entry(&self, registration_id: &str) -> Result<bool, StoreError> {
        self.core.remove_entry(registration_id)
    }

    fn trust_certificate(&self, fingerprint: &str, by: &str) -> Result<bool, StoreError> {
        let done = self.core.certificates.trust(fingerprint, by);
        self.core.probe_soon();
        done
    }

    fn forget_certificate(&self, fingerprint: &str) -> Result<bool, StoreError> {
        self.core.certificates.forget(fingerprint)
    }

    fn log(&self) -> LogView {
        self.reloader.log().view()
    }

    fn phone_logs(&self, phone: Option<IpAddr>, lines: usize) -> Option<Vec<SyslogView>> {
        self.logs.as_ref().map(|logs| logs.last(phone, lines))
    }

    fn captures(&self) -> Result<Vec<CaptureView>, CaptureError> {
        self.core.captures.list()
    }

    fn start_capture(&self, wanted: &Wanted) -> Result<String, CaptureError> {
        self.core.start_capture(wanted)
    }

    fn stop_capture(&self, name: &str) -> Result<(), CaptureError> {
        self.core.captures.stop(name)
    }

    fn remove_capture(&self, name: &str) -> Result<(), CaptureError> {
        self.core.captures.remove(name)
    }

    fn capture_part(&self, name: &str, number: u64) -> Result<Part, CaptureError> {
        self.core.captures.part(name, number)
    }

    fn traces(&self, last: usize) -> TracesView {
        self.core.traces.room.list(last)
    }

    fn trace(&self, call_id: &str) -> Option<TraceView> {
        self.core.traces.room.trace(call_id)
    }

    fn interfaces(&self) -> Vec<(String, Vec<IpNet>)> {
        self.reloader.host().map(|host| host.interfaces()).unwrap_or_default()
    }

    fn fits(&self, config: &Config, text: &str) -> Result<(), ConfigError> {
        self.reloader.examine(config, text, Examine::Changes)
    }

    fn tls(&self) -> TlsFacts {
        let identity = self.kept.identity();
        TlsFacts {
            own: identity.is_some_and(Identity::is_own),
            certificate: identity.and_then(Identity::described),
            authorities: self.kept.authorities(),
            authority: identity.and_then(Identity::authority),
            signed_by_authority: identity.is_some_and(Identity::is_signed_by_authority),
        }
    }

    fn can_start(&self) -> Result<(), ConfigError> {
        self.reloader.can_start()
    }

    fn restart(&self) {
        self.core.restart.notify_one();
    }

    fn configuration_file(&self) -> PathBuf {
        self.reloader.file().to_owned()
    }

    fn reload(&self) -> Result<ReloadedView, ConfigError> {
        self.reloader.reload()
    }
}

//! The metrics, and whether calls would work.

use tracing::debug;

use super::{Views, server_view};
use crate::{
    admin::Observed,
    control::ServerView,
    datapath::SocketUse,
    metrics::raise,
    net::{NetworkId, descriptors::SOCKETS_OF_A_CALL},
};

impl Observed for Views {
    fn metrics(&self) -> Result<String, String> {
        let (active, bindings, ports, servers) = {
            let state = self.core.state();
            let ports = state.plane.sessions.ports();
            (state.proxy.active_calls(), state.proxy.binding_count(), ports, state.proxy.servers())
        };
        let measures = &self.core.measures;
        measures.metrics.calls_active.set(active as i64);
        measures.metrics.registrations.set(bindings as i64);
        measures.datapath(&self.core.engine, &ports);
        let log = self.reloader.log().view();
        match self.core.captures.room() {
            Ok((used, limit)) => {
                measures.metrics.services.capture_bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
                measures.metrics.services.capture_bytes_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
            }
            Err(error) => debug!(%error, "captures are not measured"),
        }
        raise(&measures.metrics.services.log_lines_lost, log.lines_lost);
        raise(&measures.metrics.services.log_write_failures, log.write_failures);
        self.core.traces.measure();
        measures.servers(&servers, &self.core.streams.hops());
        let (trunks, alone, loads) = {
            let state = self.core.state();
            let networks = (0..).map(NetworkId).take(self.networks.len());
            let loads: Vec<_> = networks.map(|network| state.proxy.load(network)).collect();
            let held = state.proxy.second_registrations();
            measures.metrics.second_registrations_held.set(i64::try_from(held).unwrap_or(i64::MAX));
            (state.proxy.trunks(), state.proxy.alone_since(), loads)
        };
        measures.loads(&loads);
        measures.trunks(&trunks);
        measures.metrics.survival.set(i64::from(alone.is_some()));
        measures.metrics.text().map_err(|error| error.to_string())
    }

    fn ready(&self) -> Result<(), String> {
        if self.networks.is_empty() {
            let what = "not configured yet: no network and no server is named";
            let waiting = self.reloader.state().0;
            return Err(if waiting.is_empty() {
                format!("{what}; name them on the page or in {}", self.reloader.file().display())
            } else {
                "configured; a restart puts it into effect (button on the page, or branchline restart)"
                    .to_owned()
            });
        }
        if let Some(lost) = self.core.engine.lost_attachments().first() {
            return Err(format!("the relay is not attached to {}: {}", lost.interface, lost.why));
        }
        let ports = self.core.state().plane.sessions.ports();
        if let Some((facts, _)) = self.networks.iter().zip(ports).find(|(_, ports)| ports.used == ports.total)
        {
            return Err(format!("all media ports of network \"{}\" are in use", facts.name));
        }
        let is_full = |sockets: &SocketUse| !sockets.has_room(SOCKETS_OF_A_CALL);
        if let Some(sockets) = self.core.engine.sockets().filter(is_full) {
            return Err(format!("no descriptors are left for the media of a call: {sockets}"));
        }
        let servers: Vec<ServerView> = self.core.state().proxy.servers().iter().map(server_view).collect();
        if servers.iter().all(|server| server.state == "down") {
            let reasons = servers.iter().map(|server| {
                let address =
                    server.address.as_ref().map(|address| format!(" ({address})")).unwrap_or_default();
                format!("{}{address}: {}", server.server, server.reason.as_deref().unwrap_or_default())
            });
            return Err(format!("no server can be reached: {}", reasons.collect::<Vec<_>>().join("; ")));
        }
        Ok(())
    }
}

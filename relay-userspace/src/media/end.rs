//! The flows between the two ends of a stream: which port they arrive at, which they leave from, and where RTCP goes.

use std::{net::SocketAddr, sync::Arc};

use relay_ebpf::FlowKind;

use super::{ports::PortPair, sessions::MediaNetwork, stream::Party};
use crate::{
    datapath::{FlowSpec, IceAtPort, RtcpWay},
    net::NetworkId,
};

/// One end of a stream, as its flows see it.
pub(super) struct End<'a> {
    pub(super) network: &'a MediaNetwork,
    pub(super) id: NetworkId,
    pub(super) ports: PortPair,
    pub(super) party: &'a Party,
    /// By what the party checks these ports.
    pub(super) ice: Option<&'a IceAtPort>,
}

impl End<'_> {
    /// The flow of what the party sends to the RTP port.
    pub(super) fn rtp(&self, there: &End<'_>, kind: FlowKind, clock_rate: u32) -> FlowSpec {
        let (rtp, remote) = (there.ports.rtp(), there.party.remote);
        let mut spec =
            self.flow(there, kind, self.ports.rtp(), rtp, self.party.remote.rtp, remote.rtp, clock_rate);
        spec.rtcp = (kind == FlowKind::Rtp && self.party.mux).then(|| {
            let (port, destination) = there.rtcp_address();
            let out_source = SocketAddr::new(there.network.address, port);
            Arc::new(RtcpWay { out_source, destination, dscp: there.network.rtcp_dscp })
        });
        spec
    }

    /// The flow of what a party that does not multiplex sends to the RTCP port.
    pub(super) fn rtcp(&self, there: &End<'_>, clock_rate: u32) -> FlowSpec {
        let (port, destination) = there.rtcp_address();
        let signalled = self.party.remote.rtcp;
        self.flow(there, FlowKind::Rtcp, self.ports.rtcp(), port, signalled, destination, clock_rate)
    }

    /// From which port RTCP leaves to this end, and where to.
    fn rtcp_address(&self) -> (u16, Option<SocketAddr>) {
        if self.party.mux {
            (self.ports.rtp(), self.party.remote.rtp)
        } else {
            (self.ports.rtcp(), self.party.remote.rtcp)
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a flow has as many parts")]
    fn flow(
        &self,
        there: &End<'_>,
        kind: FlowKind,
        local: u16,
        out: u16,
        signalled: Option<SocketAddr>,
        destination: Option<SocketAddr>,
        clock_rate: u32,
    ) -> FlowSpec {
        let is_rtcp = kind == FlowKind::Rtcp;
        let srtp = self.party.leg.towards(&there.party.leg).filter(|_| kind != FlowKind::Opaque);
        FlowSpec {
            local: SocketAddr::new(self.network.address, local),
            from: self.id,
            signalled,
            latching: self.network.latching,
            out_source: SocketAddr::new(there.network.address, out),
            destination,
            kind,
            dscp: if is_rtcp { there.network.rtcp_dscp } else { there.network.rtp_dscp },
            clock_rate,
            turns: self.party.turns,
            rtcp: None,
            srtp: srtp.map(Arc::new),
            ice: self.ice.cloned(),
            forks: Vec::new(),
        }
    }
}

/// Adds a branch to the flow that the branches share; the first one is its own.
pub(super) fn add_fork(shared: &mut Option<FlowSpec>, spec: FlowSpec) {
    match shared {
        Some(shared) => shared.forks.push(spec.party()),
        None => *shared = Some(spec),
    }
}

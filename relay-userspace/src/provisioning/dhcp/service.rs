//! The sockets of the DHCPINFORM responder: one on each network of phones.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Instant, SystemTime},
};

use dhcproto::v4::SERVER_PORT;
use tokio::net::UdpSocket;
use tracing::debug;

use super::{Dropped, Event, Responder, Settings};
use crate::{
    metrics::{ServiceMetrics, names},
    provisioning::{
        BindError, Inventory, Stage, Who,
        sockets::{self, Sharing},
    },
};

/// Bytes of the longest message that is taken whole; Ethernet's MTU.
const DATAGRAM: usize = 1500;

/// The responder on one network, bound and not yet running.
#[derive(Debug)]
pub struct Service {
    socket: UdpSocket,
    responder: Responder,
}

impl Service {
    /// Binds the server's port on an interface.
    ///
    /// # Errors
    /// The port is not to be had there.
    pub fn bind(interface: &str, settings: Settings) -> Result<Self, BindError> {
        // Broadcasts come only to a socket without an address of its own.
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, SERVER_PORT));
        let socket = sockets::bind(interface, address, Sharing::OnOtherInterfaces)?;
        Ok(Self { socket, responder: Responder::new(settings) })
    }

    /// Answers for as long as it is polled.
    pub async fn run(self, phones: Arc<Inventory>, metrics: ServiceMetrics) {
        let Self { socket, mut responder } = self;
        let mut buffer = vec![0; DATAGRAM];
        sockets::serve(&socket, &mut buffer, |source, datagram| {
            // An IPv4 socket has no other sources.
            let SocketAddr::V4(source) = source else { return None };
            let reaction = responder.receive(Instant::now(), source, datagram);
            let (label, stage, detail) = match reaction.event {
                Event::Answered => (names::dhcp::INFORM, Some(Stage::InformAnswered), "inform"),
                Event::Seen(kind) => (kind, Some(Stage::DhcpSeen), kind),
                Event::Dropped(why) => {
                    metrics.dhcp_dropped.with_label_values(&[why.as_label()]).inc();
                    if why != Dropped::TooFast {
                        debug!(%source, why = why.as_label(), "a DHCP message was dropped");
                    }
                    ("", None, "")
                }
            };
            if let Some(stage) = stage {
                metrics.dhcp_messages.with_label_values(&[label]).inc();
                let who = match (reaction.hardware, reaction.address.map(IpAddr::V4)) {
                    (Some(hardware), Some(address)) => Some(Who::Both(hardware, address)),
                    (Some(hardware), None) => Some(Who::Hardware(hardware)),
                    (None, address) => address.map(Who::Address),
                };
                if let Some(who) = who {
                    let now = SystemTime::now();
                    phones.note(now, who, stage, detail);
                    if let Some(class) = &reaction.vendor_class {
                        phones.vendor_class(now, who, class);
                    }
                }
            }
            reaction.reply.map(|reply| (SocketAddr::V4(reply.destination), reply.payload))
        })
        .await;
    }
}

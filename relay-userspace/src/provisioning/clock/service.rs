//! The sockets of the clock: one on each network of phones.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Instant, SystemTime},
};

use tokio::net::UdpSocket;

use super::{KernelClock, LocalClock, Outcome, Server};
use crate::{
    config,
    metrics::ServiceMetrics,
    provisioning::{
        BindError, Inventory, Stage, Who,
        sockets::{self, Sharing},
    },
};

/// RFC 5905 section 16.
const PORT: u16 = 123;
/// A packet with room for the extensions and authentication that are not answered.
const DATAGRAM: usize = 1024;

/// The clock on one network, bound and not yet running.
#[derive(Debug)]
pub struct Service {
    socket: UdpSocket,
    server: Server,
}

impl Service {
    /// Binds the port on an interface's address.
    ///
    /// # Errors
    /// The port is not to be had there.
    pub fn bind(interface: &str, address: IpAddr, settings: &config::Clock) -> Result<Self, BindError> {
        let socket = sockets::bind(interface, SocketAddr::new(address, PORT), Sharing::Alone)?;
        Ok(Self { socket, server: Server::new(settings.stratum, settings.unsynchronised) })
    }

    /// Answers for as long as it is polled.
    pub async fn run(self, phones: Arc<Inventory>, metrics: ServiceMetrics) {
        let Self { socket, mut server } = self;
        let mut buffer = vec![0; DATAGRAM];
        sockets::serve(&socket, &mut buffer, |source, datagram| {
            let received = SystemTime::now();
            let kernel = KernelClock::read();
            let address = source.ip();
            let clock = LocalClock { received, now: SystemTime::now(), kernel };
            let answer = server.receive(Instant::now(), address, datagram, clock);
            metrics.clock_requests.with_label_values(&[answer.outcome.as_label()]).inc();
            metrics.clock_synchronised.set(i64::from(kernel != KernelClock::Unsynchronised));
            let detail = match answer.outcome {
                Outcome::Answered => format!("answered, version {}", answer.version),
                Outcome::Alarm => {
                    format!(
                        "version {}; this host's clock is not synchronised, and it was told so",
                        answer.version
                    )
                }
                Outcome::Kissed => "asks too often".to_owned(),
                Outcome::TooFast | Outcome::OtherMode | Outcome::Malformed => return None,
            };
            phones.note(received, Who::Address(address), Stage::TimeAsked, &detail);
            answer.payload.map(|payload| (source, payload.to_vec()))
        })
        .await;
    }
}

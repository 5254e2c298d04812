//! The plainest relay that there is: a socket for each stream, one thread, one packet in and the same packet out.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::net::UdpSocket;
use xtask::lab::Running;
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE};

use super::{EXPEDITED, numbered_port};
use crate::testbed::{Testbed, ends};

const READY: &str = "ready";

pub(super) fn start(bed: &Testbed, calls: usize) -> Result<Running> {
    let mut command = bed.command(std::env::current_exe()?);
    command.args(["socket-relay", "--calls", &calls.to_string()]);
    let mut running = Running::start(&mut command, "socket-relay", bed.lab.dir())?;
    running.wait_for(READY, Duration::from_secs(20))?;
    Ok(running)
}

/// Relays until it is ended.
///
/// # Errors
/// A socket is not to be had.
pub(crate) fn run(calls: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for call in 0..calls {
            let port = numbered_port(call);
            let (server, server_port) = ends(call)[1];
            let incoming = bind(APPLIANCE_OFFICE, port).await?;
            let outgoing = bind(APPLIANCE_CENTRE, port).await?;
            outgoing.connect(SocketAddrV4::new(server, server_port)).await?;
            tokio::spawn(relay(incoming, outgoing));
        }
        println!("{READY}");
        std::future::pending::<Result<()>>().await
    })
}

async fn bind(address: Ipv4Addr, port: u16) -> Result<Arc<UdpSocket>> {
    let socket = UdpSocket::bind(SocketAddrV4::new(address, port)).await?;
    socket.set_tos_v4(EXPEDITED.into())?;
    Ok(Arc::new(socket))
}

async fn relay(incoming: Arc<UdpSocket>, outgoing: Arc<UdpSocket>) -> Result<()> {
    let mut packet = [0; 2048];
    loop {
        let length = incoming.recv(&mut packet).await?;
        outgoing.send(&packet[..length]).await?;
    }
}

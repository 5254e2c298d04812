//! Calls that stand: set up by SIPp through whoever is the edge, and held until the value is dropped. Where each one's media
//! goes is what the edge's answer has told the phone.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::lab::interrupt;
use xtask::lab::media::port_of_call;
use xtask::lab::network::{SERVER, phone};
use xtask::lab::sipp::{Job, Messages, Scenario, Sipp};
use xtask::lab::traffic::PEER_SIP;

use crate::sip::on_traffic_core;
use crate::testbed::Testbed;
use crate::traffic::Route;

/// Calls of one phone: SIPp has ports for so many.
const CALLS_OF_A_PHONE: usize = 2_500;
/// The first of the phones that hold calls.
const FIRST_PHONE: u8 = 3;
/// Ports for media begin here, at phones and at the server.
const PHONE_MEDIA: u16 = 20_000;
const SERVER_MEDIA: u16 = 40_000;
/// Longer than any bench.
const TALK: Duration = Duration::from_secs(3600);
/// Calls are there within the time that their rate takes, and this.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often they are counted.
const LOOK: Duration = Duration::from_millis(100);

/// Starts the server that answers all calls.
///
/// # Errors
/// SIPp does not start.
pub(super) fn server(bed: &Testbed) -> Result<Sipp> {
    let mut server = Job::new(Scenario::Server, "server", SERVER, PEER_SIP, SERVER_MEDIA);
    server.messages = Messages::NotKept;
    let server = server.start(&bed.lab.centre, bed.lab.dir())?;
    on_traffic_core(&server)?;
    bed.lab.centre.wait_for_udp(SocketAddrV4::new(SERVER, PEER_SIP), PATIENCE)?;
    Ok(server)
}

/// Has the next daemon begin without the calls of those before it, which it would take up.
///
/// # Errors
/// Their state cannot be removed.
pub(super) fn forget(bed: &Testbed) -> Result<()> {
    let state = bed.lab.dir().join("state");
    match fs::remove_dir_all(&state) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", state.display()))
        }
        _ => Ok(()),
    }
}

/// Calls that stand, and what holds them.
#[derive(Debug)]
pub(super) struct Standing {
    phones: Vec<Sipp>,
    /// A stream of each call: from the phone to where its answer says.
    pub(super) routes: Vec<Route>,
    /// Where phones send their requests.
    edge: SocketAddrV4,
}

impl Standing {
    /// None so far, of an edge that phones call at this address.
    pub(super) const fn none(edge: SocketAddrV4) -> Self {
        Self { phones: Vec::new(), routes: Vec::new(), edge }
    }

    /// Sets up further calls until so many stand.
    ///
    /// # Errors
    /// One of them is not answered.
    pub(super) fn up_to(&mut self, bed: &Testbed, calls: usize, rate: u32) -> Result<()> {
        while self.routes.len() < calls {
            let more = (calls - self.routes.len()).min(CALLS_OF_A_PHONE);
            self.hold(bed, more, rate)?;
        }
        Ok(())
    }

    fn hold(&mut self, bed: &Testbed, calls: usize, rate: u32) -> Result<()> {
        let index = FIRST_PHONE + u8::try_from(self.phones.len())?;
        let mut job = caller(&format!("standing-{index}"), phone(index), self.edge);
        job.messages = Messages::Orders;
        (job.calls, job.rate, job.pause) = (Some(u32::try_from(calls)?), rate, TALK);
        let mut sipp = job.start(&bed.lab.office, bed.lab.dir())?;
        on_traffic_core(&sipp)?;
        let mut answered = Vec::new();
        let limit = Duration::from_secs_f64(calls as f64 / f64::from(rate)) + PATIENCE;
        let deadline = Instant::now() + limit;
        while answered.len() < calls {
            interrupt::sleep(LOOK)?;
            sipp.still_runs()?;
            answered = sipp.logged("MEDIA send");
            if answered.len() < calls && Instant::now() > deadline {
                bail!("of {calls} calls {} were answered; {}", answered.len(), sipp.complaints());
            }
        }
        ensure!(answered.len() == calls, "of {calls} calls {} were answered", answered.len());
        for words in &answered {
            self.routes.push(route(words, PHONE_MEDIA).with_context(|| format!("SIPp's {words:?}"))?);
        }
        self.phones.push(sipp);
        Ok(())
    }
}

/// A phone that calls, and hangs up at once unless it is told to talk.
pub(super) fn caller(name: &str, address: Ipv4Addr, edge: SocketAddrV4) -> Job {
    let mut job = Job::new(Scenario::PhoneCall, name, address, PEER_SIP, PHONE_MEDIA);
    job.destination = Some(edge);
    job.messages = Messages::NotKept;
    job.rows = vec![vec!["1003".to_owned(), "9001".to_owned()]];
    job.keys = vec![("contact_port".to_owned(), PEER_SIP.to_string())];
    job
}

/// The stream of a call by the scenario's line: Call-ID, own address, number of the call, address and port of the answer.
fn route(words: &[String], media_base: u16) -> Result<Route> {
    let [_, own, number, address, port, ..] = words else { bail!("too few words") };
    let own_port = port_of_call(media_base, number.parse()?).context("no such call")?;
    Ok(Route {
        from: SocketAddrV4::new(own.parse()?, own_port),
        to: SocketAddrV4::new(address.parse()?, port.parse()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_from_the_port_that_was_offered_to_the_one_that_was_answered() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let line = words("3-77@10.61.0.14 10.61.0.14 3 10.61.0.1 16392 sendrecv");
        let expected =
            Route { from: "10.61.0.14:20008".parse().unwrap(), to: "10.61.0.1:16392".parse().unwrap() };
        assert_eq!(route(&line, 20_000).unwrap(), expected);
        assert!(route(&words("3-77@10.61.0.14 10.61.0.14 3"), 20_000).is_err());
    }
}

//! The path that every contender stands in: a generator, the branch and a sink as three network namespaces, joined by
//! two veth pairs.
//!
//! ```text
//!   office              branch                        centre
//!   generator --------- arrivals      departures ---- sink
//!             10.61.0.0/24                 10.62.0.0/24
//!   core 0              core 1                        core 0
//! ```

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, OUTER, SERVER, TO_CENTRE, TO_OFFICE, phone};
use xtask::lab::{Lab, Namespace, Routes};

use crate::cores::{self, Core};
use crate::traffic::{Link, Traffic};

/// Pairs of addresses that the branch can have: each carries some 25,000 calls.
pub(crate) const PLACES: usize = 6;

/// Names of the interfaces. The kernel names its threads after them, so they tell this run from any other.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// In the office.
    pub generator: String,
    /// The branch's, to the office.
    pub arrivals: String,
    /// The branch's, to the centre.
    pub departures: String,
    /// In the centre.
    pub sink: String,
}

/// What network cards gather before they interrupt, in nanoseconds: drivers begin with 20 to 50 microseconds.
pub(crate) const GATHERED_NS: u64 = 20_000;

/// Whether packets are gathered before a receiving thread is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gathering {
    /// Each wakes it: the least delay.
    None,
    /// For [`GATHERED_NS`].
    AsCardsDo,
}

/// The path, with generator and sink.
pub(crate) struct Testbed {
    /// Generator and sink.
    pub traffic: Traffic,
    /// What the interfaces are called.
    pub names: Names,
    /// The namespaces. The last to go.
    pub lab: Lab,
}

impl Testbed {
    /// Builds it.
    ///
    /// # Errors
    /// Not root, too few cores, or a kernel that lacks something.
    pub(crate) fn create() -> Result<Self> {
        cores::suffice()?;
        // What this process does itself is not to be where the contenders are.
        cores::pin(0, Core::TRAFFIC)?;
        let lab = Lab::create(Routes::None)?;
        let own = std::process::id();
        let name = |letter: char| format!("{letter}{own}");
        let names =
            Names { generator: name('g'), arrivals: name('a'), departures: name('d'), sink: name('s') };
        rename(&lab.office, OUTER, &names.generator)?;
        rename(&lab.branch, TO_OFFICE, &names.arrivals)?;
        rename(&lab.branch, TO_CENTRE, &names.departures)?;
        rename(&lab.centre, OUTER, &names.sink)?;
        for place in 1..PLACES {
            let [office, centre] = appliance(place);
            for (address, interface) in [(office, &names.arrivals), (centre, &names.departures)] {
                lab.branch.ip(&["address", "add", &format!("{address}/24"), "dev", interface])?;
            }
        }
        for (namespace, interface) in [(&lab.branch, &names.arrivals), (&lab.centre, &names.sink)] {
            write(namespace, interface, "threaded", 1)
                .context("no threaded NAPI, which came with Linux 5.12")?;
        }
        let link = Link {
            destination: hardware_address(&lab.branch, &names.arrivals)?,
            source: hardware_address(&lab.office, &names.generator)?,
        };
        let traffic = Traffic::start(&lab, &names, link)?;
        Ok(Self { traffic, names, lab })
    }

    /// Has the kernel's receiving threads run where they belong, before all others: the branch's where it forwards, the sink's
    /// beside the generator.
    ///
    /// # Errors
    /// There are none, or this is not root.
    pub(crate) fn receive_first(&self) -> Result<()> {
        for (interface, core) in [(&self.names.arrivals, Core::FORWARDING), (&self.names.sink, Core::TRAFFIC)]
        {
            let thread = cores::receiver(interface)?;
            cores::pin(thread, core)?;
            cores::put_before_all(thread)?;
        }
        Ok(())
    }

    /// Packets that the generator's interface could not hand over since it was made: the queue of the branch's end was full.
    ///
    /// # Errors
    /// `ip` does not say.
    pub(crate) fn no_room(&self) -> Result<u64> {
        let text =
            self.lab.office.ip(&["-json", "-statistics", "link", "show", "dev", &self.names.generator])?;
        let said: serde_json::Value = serde_json::from_str(&text)?;
        // veth counts them twice: for the end that sends, and for the one that would have received.
        let dropped = said.pointer("/0/stats64/tx/dropped").and_then(serde_json::Value::as_u64);
        dropped.with_context(|| format!("no count of dropped packets: {text}"))
    }

    /// A command in the branch that will run in a session of its own.
    ///
    /// Where sessions compete for cores and not threads (autogroup, sched(7)), what is in one session with the generator
    /// would have next to nothing of the other core, for the generator, at -20, weighs as much as some ninety threads.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.lab.branch.command("setsid");
        command.arg(program.as_ref());
        command
    }

    /// Has both receiving interfaces gather packets as network cards do, or not.
    ///
    /// Otherwise each packet that comes alone wakes a thread on the other core, which in a virtual machine costs more
    /// than all that is to be measured.
    ///
    /// # Errors
    /// The kernel does not know how (before Linux 5.8).
    pub(crate) fn gather(&self, gathering: Gathering) -> Result<()> {
        /// Looks without any packet before the next packet is to wake the thread again.
        const IDLE_LOOKS: u64 = 2;
        let (every, looks) = match gathering {
            Gathering::None => (0, 0),
            Gathering::AsCardsDo => (GATHERED_NS, IDLE_LOOKS),
        };
        let ends = [(&self.lab.branch, &self.names.arrivals), (&self.lab.centre, &self.names.sink)];
        for (namespace, interface) in ends {
            write(namespace, interface, "gro_flush_timeout", every)?;
            write(namespace, interface, "napi_defer_hard_irqs", looks)?;
        }
        Ok(())
    }
}

/// The branch's address in the office and in the centre, in one of its places.
#[must_use]
pub(crate) fn appliance(place: usize) -> [Ipv4Addr; 2] {
    /// Behind the phones' and the servers' addresses.
    const FURTHER: u8 = 200;
    let number = u8::try_from(place).unwrap_or(0);
    let at = |first: Ipv4Addr| {
        let [a, b, c, d] = first.octets();
        Ipv4Addr::new(a, b, c, if number == 0 { d } else { FURTHER + number })
    };
    [at(APPLIANCE_OFFICE), at(APPLIANCE_CENTRE)]
}

/// Where the phone of a call is, and where the server's end of it is.
#[must_use]
pub(crate) fn ends(call: usize) -> [(Ipv4Addr, u16); 2] {
    const PHONES: usize = xtask::lab::network::PHONE_ADDRESSES as usize;
    const FIRST_PORT: usize = 10_000;
    /// Even ports from the first one.
    const PORTS: usize = (65_536 - FIRST_PORT) / 2;
    let port = |index: usize| u16::try_from(FIRST_PORT + 2 * (index % PORTS)).unwrap_or(u16::MAX);
    let index = u8::try_from(call % PHONES).unwrap_or(0);
    [(phone(index), port(call / PHONES)), (SERVER, port(call))]
}

fn rename(namespace: &Namespace, from: &str, to: &str) -> Result<()> {
    namespace.ip(&["link", "set", from, "down"])?;
    namespace.ip(&["link", "set", from, "name", to])?;
    namespace.ip(&["link", "set", to, "up"]).map(drop)
}

fn write(namespace: &Namespace, interface: &str, file: &str, value: u64) -> Result<()> {
    // `/sys/class/net` shows the namespace in which `/sys` was mounted, which this command does afresh.
    let script = format!("echo {value} > /sys/class/net/{interface}/{file}");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace.name(), "sh", "-c", &script]);
    xtask::process::output(&mut command).map(drop)
}

fn hardware_address(namespace: &Namespace, interface: &str) -> Result<[u8; 6]> {
    let text = namespace.ip(&["-oneline", "link", "show", "dev", interface])?;
    let mut words = text.split_whitespace();
    let address = words.find(|word| *word == "link/ether").and_then(|_| words.next());
    let address = address.with_context(|| format!("{interface} has no hardware address: {text}"))?;
    let bytes: Vec<u8> = address.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.try_into().ok().with_context(|| format!("{address} is no hardware address"))
}

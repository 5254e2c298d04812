//! The path: a network namespace of the trial's own, and in it two virtual cables, or two interfaces that it was given.
//!
//! ```text
//!   of its own:   generator ---- arrivals  [program]  departures ---- sink
//!   given two:    generator and sink ---- arrivals and departures  [program]
//! ```
//!
//! The second is one cable between two interfaces of this host: packets leave by the first, and come back to it.

use std::{
    fs::{self, File},
    io,
    net::Ipv4Addr,
    os::fd::{AsFd as _, BorrowedFd},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};
use tokio::runtime::Runtime;

use super::run::TrialError;
use crate::net::netlink::{self, Handle};

/// Addresses for benchmarks (RFC 2544 appendix C.2.2): in no network that exists.
pub(super) const INSIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The appliance's other one.
pub(super) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// Where packets come from.
pub(super) const PHONE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 11);
/// Where they go.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 10);
const PREFIX: u8 = 24;
/// What network cards gather before they interrupt, in nanoseconds: drivers begin with 20 to 50 microseconds.
const GATHERED_NS: u32 = 20_000;
/// Looks without any packet before the next packet is to wake the thread again.
const IDLE_LOOKS: u32 = 2;

/// What the interfaces of the path are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub generator: String,
    pub arrivals: String,
    pub departures: String,
    pub sink: String,
}

impl Names {
    /// Of cables of its own: the kernel names its threads after them, so they tell this process from any other.
    fn own() -> Self {
        let name = |letter: char| format!("{letter}{}", std::process::id());
        Self { generator: name('g'), arrivals: name('a'), departures: name('d'), sink: name('s') }
    }

    fn given(between: &[String; 2]) -> Self {
        let [outer, inner] = between.clone();
        Self { generator: outer.clone(), arrivals: inner.clone(), departures: inner, sink: outer }
    }
}

/// How an interface deals with what it receives, by the files of `/sys/class/net`: threads of its own, for how long it
/// gathers in nanoseconds, and how often it looks again before it waits for an interrupt.
const RECEIVING: [&str; 3] = ["threaded", "gro_flush_timeout", "napi_defer_hard_irqs"];

/// An interface of the host's that was moved into the namespace.
struct Taken {
    name: String,
    was_on: bool,
    /// What stood in the files of [`RECEIVING`].
    receiving: Vec<Option<String>>,
}

/// The path.
pub(super) struct Place {
    /// What its interfaces are called.
    pub names: Names,
    /// Number of the generator's interface.
    pub generator: u32,
    /// Hardware addresses of what the generator sends: where to, and where from.
    pub link: [[u8; 6]; 2],
    host: File,
    taken: Vec<Taken>,
}

/// Leaves the host's network for a namespace that ends with this process. For the calling thread, and those that it
/// starts from now on.
///
/// # Errors
/// Not root.
pub(super) fn leave_the_host() -> Result<File, TrialError> {
    let fail = |error: nix::Error| TrialError::System { what: "a network namespace", error: error.into() };
    let host = this_namespace()?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(fail)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(fail)?;
    // `/sys/class/net` shows the namespace in which it was mounted.
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).map_err(fail)?;
    // Nobody on these cables is to be asked for routers; where there is no IPv6 there is nobody to ask.
    for which in ["all", "default"] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
    }
    Ok(host)
}

fn this_namespace() -> Result<File, TrialError> {
    File::open("/proc/thread-self/ns/net")
        .map_err(|error| TrialError::System { what: "this thread's network namespace", error })
}

impl Place {
    /// Makes the path in the namespace that the calling thread is in.
    ///
    /// # Errors
    /// What the kernel refused. What was taken by then has been given back.
    pub(super) fn make(
        runtime: &Runtime,
        host: File,
        between: Option<&[String; 2]>,
    ) -> Result<Self, TrialError> {
        let names = between.map_or_else(Names::own, Names::given);
        let mut place = Self { names, generator: 0, link: Default::default(), host, taken: Vec::new() };
        match place.furnish(runtime, between) {
            Ok(()) => Ok(place),
            Err(error) => {
                place.give_back();
                Err(error)
            }
        }
    }

    fn furnish(&mut self, runtime: &Runtime, between: Option<&[String; 2]>) -> Result<(), TrialError> {
        for name in between.into_iter().flatten() {
            let mut taken = take(&self.host, name)?;
            taken.receiving =
                RECEIVING.iter().map(|file| fs::read_to_string(setting(name, file)).ok()).collect();
            self.taken.push(taken);
        }
        let names = self.names.clone();
        let (generator, link) = runtime.block_on(async {
            let netlink = netlink::connect()?;
            if between.is_none() {
                netlink.add_cable([&names.generator, &names.arrivals]).await?;
                netlink.add_cable([&names.departures, &names.sink]).await?;
            }
            for name in ["lo", &names.generator, &names.arrivals, &names.departures, &names.sink] {
                netlink.switch_on(number(&netlink, name).await?.0).await?;
            }
            let (arrivals, to) = number(&netlink, &names.arrivals).await?;
            let (departures, _) = number(&netlink, &names.departures).await?;
            let (generator, from) = number(&netlink, &names.generator).await?;
            let (_, sink) = number(&netlink, &names.sink).await?;
            netlink.add_address(arrivals, INSIDE, PREFIX).await?;
            netlink.add_address(departures, OUTSIDE, PREFIX).await?;
            netlink.add_neighbour(departures, SERVER.into(), sink).await?;
            Ok::<_, TrialError>((generator, [to, from]))
        })?;
        (self.generator, self.link) = (generator, link);
        Ok(())
    }

    /// Has what both receiving interfaces receive dealt with by threads, whose time the scheduler tells. Once programs are
    /// attached: a virtual cable has nothing to do for such a thread before.
    ///
    /// # Errors
    /// The kernel or the driver knows no such threads.
    pub(super) fn thread_receivers(&self) -> Result<(), TrialError> {
        for name in [&self.names.arrivals, &self.names.sink] {
            set(name, RECEIVING[0], 1)?;
            // Otherwise each packet that comes alone wakes a thread, which in a virtual machine costs more than all that
            // is to be measured. Cards do it by themselves; who has no such file gathers or does not.
            let _ = set(name, RECEIVING[1], GATHERED_NS);
            let _ = set(name, RECEIVING[2], IDLE_LOOKS);
        }
        Ok(())
    }

    /// Receive queues of the interface at which packets arrive.
    pub(super) fn queues(&self) -> usize {
        let path = format!("/sys/class/net/{}/queues", self.names.arrivals);
        let queues = fs::read_dir(path).into_iter().flatten().flatten();
        queues.filter(|queue| queue.file_name().to_string_lossy().starts_with("rx-")).count().max(1)
    }

    /// Megabits a second of a cable that was given, where its interface says.
    pub(super) fn cable_megabits(&self) -> Option<u64> {
        self.taken.first()?;
        fs::read_to_string(format!("/sys/class/net/{}/speed", self.names.arrivals)).ok()?.trim().parse().ok()
    }

    /// Moves what was taken back to the host, set as it was.
    pub(super) fn give_back(&mut self) {
        for taken in std::mem::take(&mut self.taken) {
            for (file, before) in RECEIVING.iter().zip(&taken.receiving) {
                if let Some(before) = before {
                    // What it was set to before, it takes again; a virtual cable without a program has no threads anyway.
                    let _ = fs::write(setting(&taken.name, file), before.trim());
                }
            }
            if let Err(error) = give(&self.host, &taken) {
                eprintln!("{} stays in the trial's namespace until this process ends: {error}", taken.name);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn setting(interface: &str, file: &str) -> String {
    format!("/sys/class/net/{interface}/{file}")
}

/// Writes a setting of an interface's.
fn set(interface: &str, file: &str, value: u32) -> Result<(), TrialError> {
    fs::write(setting(interface, file), value.to_string()).map_err(|error| TrialError::System {
        what: "a thread of its own for what an interface receives (Linux 5.12)",
        error,
    })
}

/// An interface's number and hardware address.
async fn number(netlink: &Handle, name: &str) -> Result<(u32, [u8; 6]), TrialError> {
    let link = netlink.link(name).await?;
    let link = link.ok_or_else(|| TrialError::NoInterface(name.to_owned()))?;
    Ok((link.index, link.address.unwrap_or_default()))
}

/// Moves an interface of the host's into the calling thread's namespace.
fn take(host: &File, name: &str) -> Result<Taken, TrialError> {
    let here = this_namespace()?;
    moved(host.as_fd(), here.as_fd(), name)
}

/// Moves it back, and switches it on if it was.
fn give(host: &File, taken: &Taken) -> Result<(), TrialError> {
    let here = this_namespace()?;
    moved(here.as_fd(), host.as_fd(), &taken.name)?;
    if !taken.was_on {
        return Ok(());
    }
    in_namespace(host.as_fd(), |runtime| {
        runtime.block_on(async {
            let netlink = netlink::connect()?;
            let (index, _) = number(&netlink, &taken.name).await?;
            Ok(netlink.switch_on(index).await?)
        })
    })
}

/// Moves an interface from one namespace into another.
fn moved(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &str) -> Result<Taken, TrialError> {
    in_namespace(from, |runtime| {
        runtime.block_on(async {
            let netlink = netlink::connect()?;
            let link = netlink.link(name).await?.ok_or_else(|| TrialError::NoInterface(name.to_owned()))?;
            let was_on = netlink.is_switched_on(link.index).await?;
            netlink.move_to(link.index, to).await?;
            Ok(Taken { name: name.to_owned(), was_on, receiving: Vec::new() })
        })
    })
}

/// Does something in another namespace, on a thread that ends with it.
fn in_namespace<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce(&Runtime) -> Result<T, TrialError> + Send,
) -> Result<T, TrialError> {
    let fail = |error| TrialError::System { what: "a thread in the other network namespace", error };
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| fail(error.into()))?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
            work(&runtime)
        });
        worker.join().unwrap_or_else(|_| Err(fail(io::Error::other("it panicked"))))
    })
}

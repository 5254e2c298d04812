//! The kernel programs: loaded into the kernel with tables of the wanted sizes, and their counters read.

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapError, PerCpuArray, PerCpuValues, RingBuf, SockMap, xdp::DevMap},
    programs::{Program, ProgramError, SchedClassifier, SkLookup, Xdp},
};
use relay_ebpf::{
    Flow, FlowStats, LocalAddresses, NextHop, PortEntry,
    reason::{REASONS, Reason},
    tables::{
        IPV6_SOCKETS, LATENCY_BUCKETS, Latency, MAX_INTERFACES, MAX_LOCAL_ADDRESSES, MAX_NEXT_HOPS,
        MAX_RELAY_SOCKETS, PORTS,
    },
};
use thiserror::Error;

use super::{
    super::shared::{Record, SharedArray},
    guard::Guard,
    pins::STATISTICS,
    refused::RefusedSources,
    tables::KernelTables,
};

/// The compiled programs, as the build script leaves them.
static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/branchline-programs"));

/// Whether the programs log each packet that they do not forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KernelLog {
    /// They do not, and the code for it is not even loaded.
    #[default]
    Off,
    /// They do: slow, for troubleshooting.
    On,
}

/// What the programs are loaded with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The appliance's media addresses.
    pub addresses: Vec<IpAddr>,
    /// How many flows there can be at a time.
    pub flows: u32,
    /// Whether the programs log.
    pub log: KernelLog,
}

/// Why the kernel programs are not to be had.
#[derive(Debug, Error)]
pub enum ProgramsError {
    /// The kernel refused to create maps or to load programs.
    #[error(
        "the kernel refused the programs: {0} (needed: CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and a kernel with BPF)"
    )]
    Load(#[from] EbpfError),
    /// A program was refused, mostly by the verifier.
    #[error("the kernel refused program {program}: {}", brief(error))]
    Program {
        /// Name of the program.
        program: &'static str,
        /// What the kernel said.
        error: ProgramError,
    },
    /// A map could not be used.
    #[error("map {map}: {error}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        error: MapError,
    },
    /// The map of devices refused an interface.
    #[error("interface {interface} cannot be put into the map of devices: {error}")]
    Device {
        /// The kernel's number of the interface.
        interface: u32,
        /// What the kernel said.
        error: String,
    },
    /// The table of a map could not be brought into memory.
    #[error("map {map} cannot be mapped into memory: {error}")]
    Memory {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The object file does not hold what this version expects.
    #[error("the compiled programs hold no {0}; build again")]
    Missing(&'static str),
    /// Too many addresses.
    #[error(
        "{wanted} media addresses of one family are configured; the kernel datapath looks for {MAX_LOCAL_ADDRESSES} at most"
    )]
    Addresses {
        /// How many are configured.
        wanted: usize,
    },
}

/// What the kernel tells of a program's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramSize {
    /// How many instructions the verifier looked at to accept it; none on kernels before 5.16.
    pub verified_instructions: Option<u32>,
    /// Bytes of it as the kernel holds it, before it is compiled for the processor.
    pub translated_bytes: Option<u32>,
}

/// The loaded programs and their maps.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    options: Options,
}

/// The level at which the programs log, as they compare it: aya's levels count from 1, error, to 5, trace.
const LOG_LEVEL_INFO: u8 = 3;

/// Name of the relay program.
pub const RELAY: &str = "branchline_relay";
/// Names of the programs for TC: on an Ethernet device, on one without link layer, and behind XDP.
pub const TC: &str = "branchline_tc";
/// See [`TC`].
pub const TC_LAYER3: &str = "branchline_tc_layer3";
/// See [`TC`].
pub const TC_BEHIND: &str = "branchline_tc_behind";
/// Name of the program that does nothing but send back.
pub const FLOOR: &str = "branchline_floor";
/// Names of the programs that only the bench loads: the floor, the step to a stream's next packet, that with a reading of
/// the clock and the relay behind that step, the step with a turn to another stream and the relay behind both.
pub const BENCH: [&str; 6] = [
    FLOOR,
    "branchline_bench_step",
    "branchline_bench_clock",
    "branchline_bench_relay",
    "branchline_bench_turn",
    "branchline_bench_many",
];
/// The same for TC: its floor, and the relay behind the step.
pub const BENCH_TC: [&str; 2] = ["branchline_bench_tc_floor", "branchline_bench_tc"];
/// Name of the program that steers packets to the relay's sockets.
pub const STEER: &str = "branchline_steer";

impl Programs {
    /// Creates the maps and loads the relay.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn load(options: Options) -> Result<Self, ProgramsError> {
        Self::load_with(options, None)
    }

    /// The same, but with the statistics that an earlier process has pinned in this directory.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(in super::super) fn load_with(
        options: Options,
        statistics: Option<&Path>,
    ) -> Result<Self, ProgramsError> {
        let ipv4 = options.addresses.iter().filter(|address| address.is_ipv4()).count();
        let wanted = ipv4.max(options.addresses.len() - ipv4);
        if wanted > MAX_LOCAL_ADDRESSES {
            return Err(ProgramsError::Addresses { wanted });
        }
        let level: u8 = match options.log {
            KernelLog::Off => 0,
            KernelLog::On => LOG_LEVEL_INFO,
        };
        let places = options.addresses.len().max(1) as u32;
        let mut loader = EbpfLoader::new();
        for name in STATISTICS {
            if let Some(directory) = statistics {
                loader.map_pin_path(name, directory.join(name));
            }
        }
        let mut ebpf = loader
            .map_max_entries("PORTS", places * PORTS)
            .map_max_entries("FLOWS", options.flows)
            .map_max_entries("STATS", options.flows)
            .override_global(aya_log::LEVEL, &level, false)
            .load(PROGRAMS)?;
        load_xdp(&mut ebpf, RELAY)?;
        Ok(Self { ebpf, options })
    }

    /// Brings the shared tables into memory and fills in the addresses.
    pub(in super::super) fn tables(&self) -> Result<(SharedArray<FlowStats>, KernelTables), ProgramsError> {
        let places = self.options.addresses.len().max(1) as u32;
        let local: SharedArray<LocalAddresses> = self.array("LOCAL", 1)?;
        let ports: SharedArray<PortEntry> = self.array("PORTS", places * PORTS)?;
        let flows: SharedArray<Flow> = self.array("FLOWS", self.options.flows)?;
        let next_hops: SharedArray<NextHop> = self.array("NEXT_HOPS", MAX_NEXT_HOPS)?;
        let stats = self.array("STATS", self.options.flows)?;
        Ok((stats, KernelTables::new(&self.options.addresses, &local, ports, flows, next_hops)))
    }

    fn array<T: Record>(&self, map: &'static str, length: u32) -> Result<SharedArray<T>, ProgramsError> {
        let Some(Map::Array(data)) = self.ebpf.map(map) else { return Err(ProgramsError::Missing(map)) };
        SharedArray::of_map(data.fd().as_fd(), length).map_err(|error| ProgramsError::Memory { map, error })
    }

    /// A map, to be pinned.
    pub(super) fn map(&self, name: &'static str) -> Result<&Map, ProgramsError> {
        self.ebpf.map(name).ok_or(ProgramsError::Missing(name))
    }

    /// The relay, or the floor of the bench, to be attached or run.
    ///
    /// # Errors
    /// If the object file lacks it.
    pub fn xdp(&mut self, name: &'static str) -> Result<&mut Xdp, ProgramsError> {
        xdp(&mut self.ebpf, name)
    }

    /// A program for TC, to be attached or run. It is loaded when it is asked for: most appliances need none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn tc(&mut self, name: &'static str) -> Result<&mut SchedClassifier, ProgramsError> {
        let wrap = |error| ProgramsError::Program { program: name, error };
        let program = self.ebpf.program_mut(name).ok_or(ProgramsError::Missing(name))?;
        let program: &mut SchedClassifier = program.try_into().map_err(wrap)?;
        if program.fd().is_err() {
            program.load().map_err(wrap)?;
        }
        Ok(program)
    }

    /// Loads the programs of the bench too.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn load_bench(&mut self) -> Result<(), ProgramsError> {
        BENCH.iter().try_for_each(|name| load_xdp(&mut self.ebpf, name))
    }

    /// Gives an interface a place in the map of devices, from which packets can be sent out of it.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn set_device(&mut self, place: u32, interface: u32) -> Result<(), ProgramsError> {
        debug_assert!(place < MAX_INTERFACES, "places are handed out by `attach`");
        let map = self.ebpf.map_mut("DEVICES").ok_or(ProgramsError::Missing("DEVICES"))?;
        let mut devices =
            DevMap::try_from(map).map_err(|error| ProgramsError::Map { map: "DEVICES", error })?;
        devices
            .set(place, interface, None, 0)
            .map_err(|error| ProgramsError::Device { interface, error: error.to_string() })
    }

    /// What the kernel tells of a program's size; it is loaded if it was not.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn size(&mut self, name: &'static str) -> Result<ProgramSize, ProgramsError> {
        let wrap = |error| ProgramsError::Program { program: name, error };
        let program = self.ebpf.program_mut(name).ok_or(ProgramsError::Missing(name))?;
        if program.fd().is_err() {
            match program {
                Program::Xdp(program) => program.load(),
                Program::SchedClassifier(program) => program.load(),
                Program::SkLookup(program) => program.load(),
                _ => return Err(ProgramsError::Missing(name)),
            }
            .map_err(wrap)?;
        }
        let info = program.info().map_err(wrap)?;
        Ok(ProgramSize {
            verified_instructions: info.verified_instruction_count(),
            translated_bytes: info.size_translated(),
        })
    }

    /// Kernel memory that the maps take, in bytes, as the kernel states it.
    ///
    /// # Errors
    /// If the kernel does not state it.
    pub fn map_memory(&self) -> Result<u64, ProgramsError> {
        let mut total = 0;
        for (_, map) in self.ebpf.maps() {
            let (Map::Array(data)
            | Map::PerCpuArray(data)
            | Map::DevMap(data)
            | Map::LruHashMap(data)
            | Map::LpmTrie(data)
            | Map::RingBuf(data)
            | Map::SockMap(data)) = map
            else {
                continue;
            };
            let path = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
            let text =
                fs::read_to_string(path).map_err(|error| ProgramsError::Memory { map: "fdinfo", error })?;
            let memory =
                text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse::<u64>().ok());
            total += memory.ok_or(ProgramsError::Missing("memlock"))?;
        }
        Ok(total)
    }

    /// Steers packets for media ports to these sockets of either family, by the CPU that they arrive on. The steering
    /// lasts as long as this value.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn steer_to<S: std::os::fd::AsRawFd>(&mut self, ipv4: &[S], ipv6: &[S]) -> Result<(), ProgramsError> {
        let wrap = |error| ProgramsError::Program { program: STEER, error };
        let map = self.ebpf.map_mut("RELAY_SOCKETS").ok_or(ProgramsError::Missing("RELAY_SOCKETS"))?;
        let mut map =
            SockMap::try_from(map).map_err(|error| ProgramsError::Map { map: "RELAY_SOCKETS", error })?;
        let places = (0..IPV6_SOCKETS).zip(ipv4).chain((IPV6_SOCKETS..MAX_RELAY_SOCKETS).zip(ipv6));
        for (index, socket) in places {
            map.set(index, socket, 0).map_err(|error| ProgramsError::Map { map: "RELAY_SOCKETS", error })?;
        }
        let program: &mut SkLookup =
            self.ebpf.program_mut(STEER).ok_or(ProgramsError::Missing(STEER))?.try_into().map_err(wrap)?;
        program.load().map_err(wrap)?;
        // The calling thread's, as that of its sockets: it may have left the process's.
        let namespace =
            File::open("/proc/thread-self/ns/net").map_err(|error| wrap(ProgramError::IOError(error)))?;
        program.attach(namespace).map_err(wrap)?;
        Ok(())
    }

    /// Takes the ring of RTCP copies.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_rtcp(&mut self) -> Result<RingBuf<aya::maps::MapData>, ProgramsError> {
        let map = self.ebpf.take_map("RTCP").ok_or(ProgramsError::Missing("RTCP"))?;
        RingBuf::try_from(map).map_err(|error| ProgramsError::Map { map: "RTCP", error })
    }

    /// Takes the table of refused sources.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_refused(&mut self) -> Result<RefusedSources, ProgramsError> {
        let map = self.ebpf.take_map("REFUSED").ok_or(ProgramsError::Missing("REFUSED"))?;
        RefusedSources::new(map).map_err(|error| ProgramsError::Map { map: "REFUSED", error })
    }

    /// Takes the rules of protection.
    ///
    /// # Errors
    /// If they were taken before.
    pub fn take_guard(&mut self) -> Result<Guard, ProgramsError> {
        let mut take = |map| self.ebpf.take_map(map).ok_or(ProgramsError::Missing(map));
        let (sources, limits) = (take("SOURCES")?, take("LIMITS")?);
        Guard::new(sources, limits).map_err(|error| ProgramsError::Map { map: "SOURCES", error })
    }

    /// Takes the logger's place: kernel programs log to this process's log from now on.
    ///
    /// # Errors
    /// If the programs were loaded without their log.
    pub fn start_log(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, aya_log::Error> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
    }

    /// Packets that the kernel program did not forward, by reason.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn reasons(&self) -> Result<Vec<(Reason, u64)>, ProgramsError> {
        let wrap = |error| ProgramsError::Map { map: "REASONS", error };
        let map = self.ebpf.map("REASONS").ok_or(ProgramsError::Missing("REASONS"))?;
        let counts: PerCpuArray<_, u64> = PerCpuArray::try_from(map).map_err(wrap)?;
        (0..REASONS)
            .zip(Reason::ALL)
            .map(|(index, reason)| {
                let count: PerCpuValues<u64> = counts.get(&index, 0).map_err(wrap)?;
                Ok((*reason, count.iter().sum()))
            })
            .collect()
    }

    /// The program's own time, over all CPUs: counts by powers of two of nanoseconds, and their sum.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn latency(&self) -> Result<Latency, ProgramsError> {
        /// A [`Latency`] as the kernel hands it out: words.
        type Words = [u64; LATENCY_BUCKETS + 1];
        let wrap = |error| ProgramsError::Map { map: "LATENCY", error };
        let map = self.ebpf.map("LATENCY").ok_or(ProgramsError::Missing("LATENCY"))?;
        let latency: PerCpuArray<_, Words> = PerCpuArray::try_from(map).map_err(wrap)?;
        let mut total = Latency::default();
        for words in latency.get(&0, 0).map_err(wrap)?.iter() {
            total.sum_ns += words[0];
            for (bucket, count) in total.buckets.iter_mut().zip(&words[1..]) {
                *bucket += count;
            }
        }
        Ok(total)
    }
}

/// What the kernel said, without the thousands of lines in which the verifier retells the program.
fn brief(error: &ProgramError) -> String {
    /// The verifier's reason, and its statistics.
    const LAST_LINES: usize = 6;
    let ProgramError::LoadError { io_error, verifier_log } = error else { return error.to_string() };
    let text = verifier_log.to_string();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("; ");
    format!("{io_error}; the verifier's last words: {last}")
}

fn xdp<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, ProgramsError> {
    ebpf.program_mut(name)
        .ok_or(ProgramsError::Missing(name))?
        .try_into()
        .map_err(|error| ProgramsError::Program { program: name, error })
}

fn load_xdp(ebpf: &mut Ebpf, name: &'static str) -> Result<(), ProgramsError> {
    xdp(ebpf, name)?.load().map_err(|error| ProgramsError::Program { program: name, error })
}

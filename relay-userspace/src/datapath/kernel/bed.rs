//! The loaded programs on a test bed: packets are run through them by `BPF_PROG_TEST_RUN`, without any
//! interface. For the packet rows and for the program bench.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use aya::programs::{ProgramError, TestRun as _, TestRunOptions};
use ipnet::IpNet;
use relay_ebpf::{Flow, FlowStats, NextHop, Reason, guard::Verdict, tables::Latency};
use thiserror::Error;

use super::{
    super::shared::SharedArray,
    guard::{Guard, Rule},
    programs::{BENCH_TC, KernelLog, Options, Programs, ProgramsError, TC, TC_BEHIND},
    refused::RefusedSources,
    tables::KernelTables,
};

/// Room behind a frame, so that a program that grew it would be seen.
const HEADROOM: usize = 64;

/// Why a test bed does not work.
#[derive(Debug, Error)]
pub enum BedError {
    /// The programs are not to be had.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// The kernel refused to run one.
    #[error("the kernel refused the test run: {0}")]
    Run(#[from] ProgramError),
    /// The flow cannot be placed.
    #[error("{0} is not one of the test bed's addresses, or there is no room")]
    Place(SocketAddr),
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The verdict, an `xdp_action` or one of TC.
    pub action: u32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// Time for one run, on average over the repeats.
    pub duration: Duration,
}

/// The programs with tables of their own.
#[derive(Debug)]
pub struct TestBed {
    programs: Programs,
    stats: SharedArray<FlowStats>,
    tables: KernelTables,
    guard: Option<Guard>,
}

impl TestBed {
    /// Loads the programs, with these addresses and room for this many flows.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new(addresses: Vec<IpAddr>, flows: u32) -> Result<Self, BedError> {
        let mut programs = Programs::load(Options { addresses, flows, log: KernelLog::Off })?;
        programs.load_bench()?;
        let (stats, tables) = programs.tables()?;
        Ok(Self { programs, stats, tables, guard: None })
    }

    /// Puts a flow behind a local address and port; the port leads to the flow's own generation.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn set_flow(&mut self, local: SocketAddr, flow: Flow) -> Result<(), BedError> {
        let place = self.tables.place(local).ok_or(BedError::Place(local))?;
        let published = self.tables.publish(Instant::now(), place, local.port(), flow, None, None);
        published.map(drop).ok_or(BedError::Place(local))
    }

    /// Puts a flow behind a local address and port whose RTCP leaves by a record of its own; that keeps its generation.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn set_flow_with_rtcp(&mut self, local: SocketAddr, flow: Flow, rtcp: Flow) -> Result<(), BedError> {
        let place = self.tables.place(local).ok_or(BedError::Place(local))?;
        let slot = self
            .tables
            .publish(Instant::now(), place, local.port(), flow, Some(rtcp), None)
            .ok_or(BedError::Place(local))?;
        if let Some(apart) = slot.apart {
            self.tables.overwrite(apart, rtcp);
        }
        Ok(())
    }

    /// Gives the flow behind a port another generation than the port expects.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn set_stale_flow(&mut self, local: SocketAddr, flow: Flow) -> Result<(), BedError> {
        let place = self.tables.place(local).ok_or(BedError::Place(local))?;
        let slot = self
            .tables
            .publish(Instant::now(), place, local.port(), flow, None, None)
            .ok_or(BedError::Place(local))?;
        self.tables.overwrite(slot.flow, Flow { generation: flow.generation.wrapping_add(1), ..flow });
        Ok(())
    }

    /// Protects the host: rules for sources, packets a second for each and for all that are unknown, and guarded ports.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn protect(
        &mut self,
        rules: &BTreeMap<IpNet, Verdict>,
        limits: (u32, u32),
        ports: &[SocketAddr],
    ) -> Result<(), BedError> {
        if self.guard.is_none() {
            self.guard = Some(self.programs.take_guard()?);
        }
        if let Some(guard) = &mut self.guard {
            let wrap = |error| ProgramsError::Map { map: "SOURCES", error };
            guard.set_rules(rules).map_err(wrap)?;
            guard.set_limits(limits.0, limits.1).map_err(wrap)?;
        }
        ports.iter().for_each(|port| self.tables.guard(*port));
        Ok(())
    }

    /// The rules that deny, with what they have denied.
    #[must_use]
    pub fn denials(&self) -> Vec<Rule> {
        self.guard.as_ref().map(Guard::denials).unwrap_or_default()
    }

    /// Sets a next hop.
    pub fn set_next_hop(&mut self, index: u32, hop: NextHop) {
        self.tables.write_hop(index, hop);
    }

    /// The statistics at an index.
    #[must_use]
    pub fn stats(&self, index: u32) -> FlowStats {
        self.stats.read(index)
    }

    /// Sets the statistics at an index to nothing counted.
    pub fn clear_stats(&self, index: u32) {
        self.stats.write(index, FlowStats::ZERO);
    }

    /// Packets that were not forwarded, by reason.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn reasons(&self) -> Result<Vec<(Reason, u64)>, BedError> {
        Ok(self.programs.reasons()?)
    }

    /// The program's own time as it samples it.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn latency(&self) -> Result<Latency, BedError> {
        Ok(self.programs.latency()?)
    }

    /// The sources that the kernel refused, since the last look.
    ///
    /// # Errors
    /// If they were looked at before.
    pub fn take_refused(&mut self) -> Result<RefusedSources, BedError> {
        Ok(self.programs.take_refused()?)
    }

    /// Runs a frame through a program `repeat` times, each time as the program left it before.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn run(&mut self, program: &'static str, frame: &[u8], repeat: u32) -> Result<Run, BedError> {
        let mut out = vec![0; frame.len() + HEADROOM];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat,
            ..TestRunOptions::default()
        };
        let result = if [TC, TC_BEHIND].contains(&program) || BENCH_TC.contains(&program) {
            self.programs.tc(program)?.test_run(options)?
        } else {
            self.programs.xdp(program)?.test_run(options)?
        };
        out.truncate(result.data_size_out as usize);
        Ok(Run { action: result.return_value, frame: out, duration: result.duration })
    }
}

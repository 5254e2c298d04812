//! Whether the kernel takes every program, and how many instructions its verifier looked at.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;
use branchline::datapath::kernel::programs::{
    KernelLog, Options, Programs, RELAY, STEER, TC, TC_BEHIND, TC_LAYER3,
};

/// Longest name of a program that the kernel keeps (`BPF_OBJ_NAME_LEN` without its end).
const KERNEL_NAME: usize = 15;

#[test]
fn every_program_is_verified() -> Result<()> {
    let mut programs = Programs::load(Options {
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        flows: 64,
        log: KernelLog::Off,
    })?;
    let tell = |name: &str, count: Option<u32>| {
        let count = count.map_or_else(|| "?".to_owned(), |count| count.to_string());
        println!("verified: {name} {count}");
    };
    tell(RELAY, programs.xdp(RELAY)?.info()?.verified_instruction_count());
    for name in [TC, TC_LAYER3, TC_BEHIND] {
        tell(name, programs.tc(name)?.info()?.verified_instruction_count());
    }
    let sockets = [UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?];
    programs.steer_to(&sockets, &[])?;
    let short: String = STEER.chars().take(KERNEL_NAME).collect();
    let steer = loaded_programs().flatten().find(|program| program.name_as_str() == Some(&short));
    tell(STEER, steer.with_context(|| format!("no program {short} is loaded"))?.verified_instruction_count());
    Ok(())
}

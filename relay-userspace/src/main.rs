//! `branchline`: the daemon and its command line.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// The C library's keeps what a burst of calls has taken, between what stays of them.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    branchline::cli::main()
}

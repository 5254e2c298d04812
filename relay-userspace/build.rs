//! Builds the kernel programs of `relay-ebpf`, and those that a trial sends and counts with, and leaves them in `OUT_DIR` for
//! the daemon to embed.

use std::env;

use anyhow::Context as _;
use aya_build::{Package, Toolchain};

/// Used where cargo runs without rustup's proxy; the same version as in `rust-toolchain.toml`.
const DEFAULT_TOOLCHAIN: &str = "1.95.0";

fn main() -> anyhow::Result<()> {
    // `-Z build-std=core` is what a stable compiler needs for the BPF target, which has no prebuilt core.
    // SAFETY: a build script is one thread until it starts others, and none is started before this.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| DEFAULT_TOOLCHAIN.to_owned());
    let programs = Package {
        name: "relay-ebpf",
        root_dir: "../relay-ebpf",
        no_default_features: false,
        features: &["programs"],
    };
    aya_build::build_ebpf([programs], Toolchain::Custom(&toolchain)).context(
        "the kernel programs did not build; `cargo xtask setup` installs rust-src, LLVM and bpf-linker",
    )
}

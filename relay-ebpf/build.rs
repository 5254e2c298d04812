//! How the linker generates code for the kernel programs.
//!
//! Headers are byte arrays without alignment. Unless told that misaligned access is allowed, LLVM reads each of
//! their words byte by byte and puts it together by shifts, which made the packet path half as long again. The
//! kernel allows it wherever the CPU does (`HAVE_EFFICIENT_UNALIGNED_ACCESS`: x86-64 and arm64 among them), and
//! its verifier refuses the program elsewhere.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        println!("cargo::rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
    }
}

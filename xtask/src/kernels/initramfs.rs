//! The archive that a guest's kernel starts from: busybox, the modules, and the script that it runs first.
//!
//! The format is cpio's "newc" (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::debian::Kernel;

/// Statically linked, from Debian's package busybox-static.
const BUSYBOX: &str = "/bin/busybox";
/// Type and permissions of a directory, and of a file that can be run.
const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
/// The archive's last entry.
const END: &str = "TRAILER!!!";
/// Names and contents begin at multiples of this.
const ALIGNMENT: usize = 4;

/// The first script. The host's root comes by 9p, read-only, and a file system in memory takes what is written.
/// `@SCRIPT@` is what is run then, with its output to the second serial line.
const INIT: &str = r#"#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for module in /modules/*; do $B insmod $module || echo "cannot load $module"; done
$B mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host &&
$B mount -t tmpfs tmpfs /memory && $B mkdir /memory/upper /memory/work &&
$B mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work overlay /root &&
$B mount -t proc proc /root/proc && $B mount -t sysfs sys /root/sys && $B mount -t bpf bpf /root/sys/fs/bpf &&
$B mount -t devtmpfs dev /root/dev && $B mkdir -p /root/dev/pts /root/dev/shm &&
$B mount -t devpts devpts /root/dev/pts && $B mount -t tmpfs tmpfs /root/dev/shm && $B mount -t tmpfs tmpfs /root/run &&
$B chroot /root /bin/sh "@SCRIPT@" >/dev/ttyS1 2>&1
$B sync
$B poweroff -f
"#;

/// Writes the archive.
pub(super) fn write(kernel: &Kernel, script: &Path, to: &Path) -> Result<()> {
    let busybox = fs::read(BUSYBOX)
        .with_context(|| format!("cannot read {BUSYBOX}; it is in Debian's package busybox-static"))?;
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "host", "memory", "modules", "proc", "root", "sys"] {
        archive.add(directory, DIRECTORY, &[]);
    }
    archive.add("bin/busybox", FILE, &busybox);
    archive.add("init", FILE, INIT.replace("@SCRIPT@", &script.display().to_string()).as_bytes());
    for module in &kernel.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.add(&format!("modules/{name}"), FILE, &fs::read(module)?);
    }
    fs::write(to, archive.end()).with_context(|| format!("cannot write {}", to.display()))
}

#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        let lengths = [content.len(), 0, 0, 0, 0, name.len() + 1, 0].map(|it| u32::try_from(it).unwrap_or(0));
        // Inode, mode, owner, group, links, time; then length, two device numbers, the name's length, a checksum.
        let fields = [self.entries, mode, 0, 0, links, 0].into_iter().chain(lengths);
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.add(END, 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_byte_for_byte_what_the_kernel_reads() {
        let mut archive = Archive::default();
        archive.add("bin", DIRECTORY, &[]);
        archive.add("bin/x", FILE, b"hello");
        let entry = |inode: u32, mode: &str, links: u32, length: usize, name: &str, padded: &str| {
            format!(
                "070701{inode:08X}{mode}0000000000000000{links:08X}00000000{length:08X}{}{:08X}00000000{padded}",
                "0".repeat(32),
                name.len() + 1
            )
        };
        let expected = entry(1, "000041ED", 2, 0, "bin", "bin\0\0\0")
            + &entry(2, "000081ED", 1, 5, "bin/x", "bin/x\0hello\0\0\0")
            + &entry(3, "00000000", 1, 0, END, "TRAILER!!!\0\0\0\0");
        assert_eq!(String::from_utf8(archive.end()).unwrap(), expected);
    }
}

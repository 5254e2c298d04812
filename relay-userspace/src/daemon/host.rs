//! What the daemon asks of the host beside sockets: that other programs leave the media ports alone.

use std::{collections::BTreeSet, fs, io, ops::RangeInclusive};

/// Ports that the kernel does not give to sockets that ask for any (`ip-sysctl`, `ip_local_reserved_ports`).
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Keeps ranges of ports from sockets that ask for any port; ports that were reserved before stay so.
///
/// # Errors
/// If the kernel's list cannot be read or written.
pub(super) fn reserve_ports(ranges: &[RangeInclusive<u16>]) -> io::Result<()> {
    let mut ports: BTreeSet<u16> = parse(&fs::read_to_string(RESERVED)?);
    let before = ports.len();
    ports.extend(ranges.iter().flat_map(Clone::clone));
    if ports.len() == before {
        return Ok(());
    }
    fs::write(RESERVED, format(&ports))
}

fn parse(list: &str) -> BTreeSet<u16> {
    list.trim()
        .split(',')
        .filter_map(|item| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            Some(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?)
        })
        .flatten()
        .collect()
}

fn format(ports: &BTreeSet<u16>) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*port) => *last = *port,
            _ => ranges.push((*port, *port)),
        }
    }
    let words: Vec<String> = ranges
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    words.join(",")
}

/// The host's name.
pub(super) fn name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "branchline".to_owned() } else { name.to_owned() }
}

/// The kernel's name and release.
pub(super) fn kernel() -> String {
    let part = |file: &str| fs::read_to_string(file).unwrap_or_default().trim().to_owned();
    format!("{} {}", part("/proc/sys/kernel/ostype"), part("/proc/sys/kernel/osrelease"))
}

/// Descriptors that this process has open.
pub(super) fn open_files() -> usize {
    // The directory itself is one of them while it is read.
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ports_are_read_and_written_as_the_kernel_does() {
        for (list, expected) in [
            ("", ""),
            ("\n", ""),
            ("8080\n", "8080"),
            ("16384-16386,8080", "8080,16384-16386"),
            ("1-3,3-5,7", "1-5,7"),
            ("65534-65535", "65534-65535"),
        ] {
            assert_eq!(format(&parse(list)), expected, "{list:?}");
        }
    }
}

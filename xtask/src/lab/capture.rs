//! What passed on a wire: captured by tcpdump in a namespace, read by tshark, so that nothing of ours judges itself.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::netns::Namespace;
use super::rtp::{self, Header};
use super::running::Running;
use crate::process;

/// tcpdump says this when it captures.
const LISTENING: &str = "listening on";
/// It takes a moment to open the interface.
const START_LIMIT: Duration = Duration::from_secs(10);
/// The kernel's buffer for the capture, in KiB: packets wait here while tcpdump does not run.
const BUFFER_KIB: &str = "16384";
/// After the last packet of interest, until the capture has it.
const SETTLE: Duration = Duration::from_millis(300);
/// The fields that tshark prints, in this order.
const FIELDS: [&str; 10] = [
    "frame.time_epoch",
    "ip.src",
    "udp.srcport",
    "ip.dst",
    "udp.dstport",
    "ip.dsfield.dscp",
    "ip.ttl",
    "ip.checksum.status",
    "udp.checksum.status",
    "udp.payload",
];

/// A running capture of one interface.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Running,
    file: PathBuf,
}

impl Capture {
    /// Starts it, and returns when it captures.
    ///
    /// # Errors
    /// tcpdump does not start.
    pub fn start(namespace: &Namespace, interface: &str, name: &str, dir: &Path) -> Result<Self> {
        let file = dir.join(format!("{name}.pcap"));
        let mut command = namespace.command("tcpdump");
        command.args([
            "-i",
            interface,
            "-n",
            "-U",
            "--immediate-mode",
            "--nano",
            "-B",
            BUFFER_KIB,
            "-Z",
            "root",
        ]);
        command.arg("-w").arg(&file);
        let mut tcpdump = Running::start(&mut command, &format!("{name}-tcpdump"), dir)?;
        tcpdump.wait_for(LISTENING, START_LIMIT)?;
        Ok(Self { tcpdump, file })
    }

    /// The file that it writes.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Ends it and reads every UDP packet over IPv4.
    ///
    /// # Errors
    /// The capture has lost packets, or tshark does not read it.
    pub fn finish(self) -> Result<Vec<Packet>> {
        read(&self.end()?)
    }

    /// Ends it and gives the file, unread.
    ///
    /// # Errors
    /// The capture has lost packets.
    pub fn end(mut self) -> Result<PathBuf> {
        std::thread::sleep(SETTLE);
        self.tcpdump.stop(libc::SIGINT)?;
        let said = self.tcpdump.said();
        if !said.contains("\n0 packets dropped by kernel") {
            bail!("the capture is not whole; {}", self.tcpdump.last_words());
        }
        Ok(self.file)
    }
}

/// The verdict of tshark on a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
    /// The sender made none (UDP checksum 0).
    Absent,
}

/// A UDP packet as it was on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// When, in nanoseconds since 1970.
    pub at_ns: u64,
    /// From where.
    pub source: SocketAddrV4,
    /// To where.
    pub destination: SocketAddrV4,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    /// Time to live.
    pub ttl: u8,
    /// The IPv4 header's checksum.
    pub ip_checksum: Checksum,
    /// The UDP checksum.
    pub udp_checksum: Checksum,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Packet {
    /// The RTP header, if this is RTP by its first bytes.
    #[must_use]
    pub fn rtp(&self) -> Option<Header> {
        Header::read(&self.payload)
    }

    /// Whether this is RTCP by its first bytes.
    #[must_use]
    pub fn is_rtcp(&self) -> bool {
        rtp::is_rtcp(&self.payload)
    }
}

/// Reads a capture's UDP packets over IPv4.
///
/// # Errors
/// tshark fails or prints what is not understood.
pub fn read(file: &Path) -> Result<Vec<Packet>> {
    let mut command = Command::new("tshark");
    // RTP is known by addresses and ports here, never guessed; checksums are verified, which is off by default.
    command.arg("-r").arg(file).args([
        "-n",
        "-Q",
        "-Y",
        "ip && udp && !icmp",
        "-T",
        "fields",
        "-E",
        "occurrence=f",
    ]);
    for (preference, value) in [
        ("ip.check_checksum", "TRUE"),
        ("udp.check_checksum", "TRUE"),
        ("rtp.heuristic_rtp", "FALSE"),
        ("rtcp.heuristic_rtcp", "FALSE"),
    ] {
        command.args(["-o", &format!("{preference}:{value}")]);
    }
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let said = process::output(&mut command)?;
    said.lines().map(|line| packet(line).with_context(|| format!("tshark printed: {line}"))).collect()
}

/// These fields of the packets that a filter lets through, as tshark names and prints them; UDP checksums are verified.
///
/// # Errors
/// tshark fails.
pub fn fields(file: &Path, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-n", "-Q", "-Y", filter, "-T", "fields", "-E", "occurrence=f"]);
    command.args(["-o", "udp.check_checksum:TRUE"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let said = process::output(&mut command)?;
    Ok(said.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

/// Who sent TCP segments to whom with which code point: source, destination, DSCP, in order.
///
/// # Errors
/// tshark fails or prints what is not understood.
pub fn segments(file: &Path) -> Result<Vec<(SocketAddrV4, SocketAddrV4, u8)>> {
    let wanted = ["ip.src", "tcp.srcport", "ip.dst", "tcp.dstport", "ip.dsfield.dscp"];
    let segment = |row: &Vec<String>| -> Result<(SocketAddrV4, SocketAddrV4, u8)> {
        let mut row = row.iter();
        let mut next = || row.next().context("a field is missing");
        let source = SocketAddrV4::new(next()?.parse()?, next()?.parse()?);
        let destination = SocketAddrV4::new(next()?.parse()?, next()?.parse()?);
        Ok((source, destination, next()?.parse()?))
    };
    let rows = fields(file, "ip && tcp && !icmp", &wanted)?;
    rows.iter().map(|row| segment(row).with_context(|| format!("tshark printed: {row:?}"))).collect()
}

fn packet(line: &str) -> Result<Packet> {
    let mut fields = line.split('\t');
    let mut next = || fields.next().context("a field is missing");
    let at_ns = nanoseconds(next()?)?;
    let mut address =
        || -> Result<SocketAddrV4> { Ok(SocketAddrV4::new(next()?.parse::<Ipv4Addr>()?, next()?.parse()?)) };
    let (source, destination) = (address()?, address()?);
    Ok(Packet {
        at_ns,
        source,
        destination,
        dscp: next()?.parse()?,
        ttl: next()?.parse()?,
        ip_checksum: checksum(next()?)?,
        udp_checksum: checksum(next()?)?,
        payload: bytes(next()?),
    })
}

/// Wireshark's `PROTO_CHECKSUM_E_` values.
fn checksum(field: &str) -> Result<Checksum> {
    match field {
        "0" => Ok(Checksum::Bad),
        "1" => Ok(Checksum::Good),
        "3" => Ok(Checksum::Absent),
        other => bail!("checksum status {other}"),
    }
}

/// Reads `seconds.nanoseconds` without the loss that a float would bring.
fn nanoseconds(field: &str) -> Result<u64> {
    let (seconds, fraction) = field.split_once('.').unwrap_or((field, ""));
    Ok(seconds.parse::<u64>()? * 1_000_000_000 + format!("{fraction:0<9.9}").parse::<u64>()?)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |character: u8| char::from(character).to_digit(16).unwrap_or(0) as u8;
    hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_tshark_becomes_a_packet() {
        let line = "1795235825.908491000\t10.61.0.1\t16384\t10.61.0.11\t30000\t46\t63\t1\t3\t80000001000000050000000978";
        let expected = Packet {
            at_ns: 1_795_235_825_908_491_000,
            source: "10.61.0.1:16384".parse().unwrap(),
            destination: "10.61.0.11:30000".parse().unwrap(),
            dscp: 46,
            ttl: 63,
            ip_checksum: Checksum::Good,
            udp_checksum: Checksum::Absent,
            payload: vec![0x80, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 9, 0x78],
        };
        let packet = packet(line).unwrap();
        assert_eq!(packet, expected);
        assert_eq!(packet.rtp().unwrap().sequence, 1);
    }

    #[test]
    fn a_line_with_a_field_missing_is_refused() {
        assert!(packet("1795235825.9\t10.61.0.1\t16384").is_err());
    }
}

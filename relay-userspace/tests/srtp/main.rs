//! SRTP and SRTCP against another implementation: what the appliance writes, libsrtp reads, and the other way round, in
//! each suite, over the end of the sequence numbers, and with a master key identifier.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use branchline::srtp::{Content, Inbound, MasterKey, Outbound, Suite};
use zeroize::Zeroizing;

/// libsrtp's numbers for a replay and for a wrong tag (`srtp_err_status_t`).
const REPLAYED: &str = "error 9";
const WRONG_TAG: &str = "error 7";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let (digits, rest) = hex.as_bytes().as_chunks::<2>();
    ensure!(rest.is_empty(), "{hex}");
    digits
        .iter()
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect::<Result<_>>()
        .with_context(|| hex.to_owned())
}

/// libsrtp with one key for both ways.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(key: &MasterKey, identifier: &[u8]) -> Result<Self> {
        let mut command = Command::new(program()?);
        command.arg(key.suite().name()).arg(hex(key.expose()));
        if !identifier.is_empty() {
            command.arg(hex(identifier));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("no standard input")?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self { child, input, output })
    }

    fn ask(&mut self, way: &str, content: Content, packet: &[u8]) -> Result<String> {
        let what = match content {
            Content::Rtp => "rtp",
            Content::Rtcp => "rtcp",
        };
        writeln!(self.input, "{way} {what} {}", hex(packet))?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds the peer, once.
fn program() -> Result<PathBuf> {
    static BUILT: Mutex<()> = Mutex::new(());
    let _turn = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libsrtp-peer");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/srtp/peer.c");
    let is_new = |program: &Path| {
        Ok::<_, std::io::Error>(program.metadata()?.modified()? >= source.metadata()?.modified()?)
    };
    if !is_new(&program).unwrap_or_default() {
        let built = Command::new("cc").arg("-o").arg(&program).arg(&source).arg("-lsrtp2").output()?;
        let complaint = String::from_utf8_lossy(&built.stderr);
        ensure!(built.status.success(), "libsrtp2-dev is needed (`cargo xtask setup`): {complaint}");
    }
    Ok(program)
}

fn key(suite: Suite) -> Result<MasterKey> {
    let length = suite.key_length() + suite.salt_length();
    let bytes = (0..length).map(|place| (place as u8).wrapping_mul(37).wrapping_add(11)).collect();
    Ok(MasterKey::new(suite, Zeroizing::new(bytes))?)
}

/// RTP with contributing sources and an extension, which stay in clear.
fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x92, 0x80];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 1, 2, 0xCA, 0xFE, 0, 7, 1, 1, 1, 1, 2, 2, 2, 2, 0xBE, 0xDE, 0, 1, 9, 9, 9, 9]);
    packet.extend((0..usize::from(sequence % 200)).map(|place| place as u8));
    packet
}

fn rtcp(number: u8) -> Vec<u8> {
    let mut packet = vec![0x80, 200, 0, 6, 0xCA, 0xFE, 0, 7];
    packet.extend([number; 20]);
    // A description of the source behind it.
    packet.extend([0x81, 202, 0, 2, 0xCA, 0xFE, 0, 7, 1, 1, b'x', 0]);
    packet
}

/// Sequence numbers over their end, some of them late.
fn sequences() -> impl Iterator<Item = u16> {
    (65_500..=65_530).chain([65_535, 65_531, 0, 65_534, 1, 5, 3]).chain(6..40)
}

#[test]
fn libsrtp_reads_what_the_appliance_writes() -> Result<()> {
    for suite in Suite::PREFERRED {
        let (outbound, mut peer) = (Outbound::new(key(suite)?), Peer::start(&key(suite)?, &[])?);
        for sequence in sequences() {
            let mut packet = rtp(sequence);
            outbound.protect(Content::Rtp, &mut packet)?;
            assert_eq!(
                peer.ask("unprotect", Content::Rtp, &packet)?,
                hex(&rtp(sequence)),
                "{suite:?} {sequence}"
            );
            assert_eq!(peer.ask("unprotect", Content::Rtp, &packet)?, REPLAYED, "{suite:?} {sequence}");
        }
        for number in 0..5 {
            let mut packet = rtcp(number);
            outbound.protect(Content::Rtcp, &mut packet)?;
            assert_eq!(
                peer.ask("unprotect", Content::Rtcp, &packet)?,
                hex(&rtcp(number)),
                "{suite:?} {number}"
            );
            let mut forged = rtcp(number);
            outbound.protect(Content::Rtcp, &mut forged)?;
            forged[12] ^= 1;
            assert_eq!(peer.ask("unprotect", Content::Rtcp, &forged)?, WRONG_TAG, "{suite:?} {number}");
        }
        let mut forged = rtp(41);
        outbound.protect(Content::Rtp, &mut forged)?;
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert_eq!(peer.ask("unprotect", Content::Rtp, &forged)?, WRONG_TAG, "{suite:?}");
    }
    Ok(())
}

#[test]
fn the_appliance_reads_what_libsrtp_writes() -> Result<()> {
    let identifier = [0, 0, 0, 1];
    for suite in Suite::PREFERRED {
        for identifier in [&[][..], &identifier] {
            let mut master = key(suite)?;
            let mut peer = Peer::start(&master, identifier)?;
            if !identifier.is_empty() {
                master = master.with_identifier(identifier.to_vec())?;
            }
            let inbound = Inbound::new(master);
            for sequence in sequences() {
                let mut packet = bytes(&peer.ask("protect", Content::Rtp, &rtp(sequence))?)?;
                let expected = rtp(sequence).len() + suite.rtp_tag() + identifier.len();
                assert_eq!(packet.len(), expected, "{suite:?} {sequence}");
                inbound.unprotect(Content::Rtp, &mut packet)?;
                assert_eq!(packet, rtp(sequence), "{suite:?} {sequence}");
            }
            for number in 0..5 {
                let mut packet = bytes(&peer.ask("protect", Content::Rtcp, &rtcp(number))?)?;
                inbound.unprotect(Content::Rtcp, &mut packet)?;
                assert_eq!(packet, rtcp(number), "{suite:?} {number}");
            }
        }
    }
    Ok(())
}

//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng): little-endian, each with its length at both ends, padded to
//! four bytes. Pure: values in, bytes out.

use crate::datapath::Way;

/// Block types (section 11.1).
const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
/// Tells the byte order (section 4.1).
const MAGIC: u32 = 0x1A2B_3C4D;
/// The link type of Ethernet.
const ETHERNET: u16 = 1;
/// Options of any block (section 3.5).
const END: u16 = 0;
const COMMENT: u16 = 1;
/// Options of a section header.
const USER_APPLICATION: u16 = 4;
/// Options of an interface description.
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
/// Times are in units of ten to the minus nine seconds.
const NANOSECONDS: u8 = 9;
/// Options of a packet.
const FLAGS: u16 = 2;
/// Options of statistics.
const RECEIVED: u16 = 4;
const DROPPED: u16 = 5;
const DELIVERED: u16 = 8;
/// Bits 0 and 1 of a packet's flags (section 4.3.1).
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Options, until they are closed.
#[derive(Default)]
struct Options(Vec<u8>);

impl Options {
    fn add(mut self, code: u16, value: &[u8]) -> Self {
        // Longer ones than a length can say are cut: they are remarks.
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.0.extend(code.to_le_bytes());
        self.0.extend((value.len() as u16).to_le_bytes());
        self.0.extend(value);
        pad(&mut self.0);
        self
    }

    fn close(self) -> Vec<u8> {
        if self.0.is_empty() { self.0 } else { self.add(END, &[]).0 }
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn block(kind: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut body = parts.concat();
    pad(&mut body);
    /// Type and both lengths.
    const FRAME: usize = 12;
    let length = ((body.len() + FRAME) as u32).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, &body, &length].concat()
}

/// Begins a file: who wrote it, and what it is about.
#[must_use]
pub fn section_header(application: &str, comment: &str) -> Vec<u8> {
    let options =
        Options::default().add(COMMENT, comment.as_bytes()).add(USER_APPLICATION, application.as_bytes());
    // Version 1.0; the section's length is not said.
    let version = [1u16.to_le_bytes(), 0u16.to_le_bytes()].concat();
    block(SECTION_HEADER, &[&MAGIC.to_le_bytes(), &version, &u64::MAX.to_le_bytes(), &options.close()])
}

/// An interface, numbered from 0 in the order of these blocks.
#[must_use]
pub fn interface_description(name: &str) -> Vec<u8> {
    let options = Options::default().add(NAME, name.as_bytes()).add(RESOLUTION, &[NANOSECONDS]);
    // The link type, two reserved bytes, and no limit on a packet's length.
    block(INTERFACE_DESCRIPTION, &[&ETHERNET.to_le_bytes(), &[0; 2], &[0; 4], &options.close()])
}

fn time(unix_ns: u64) -> [u8; 8] {
    let (high, low) = ((unix_ns >> 32) as u32, unix_ns as u32);
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&high.to_le_bytes());
    bytes[4..].copy_from_slice(&low.to_le_bytes());
    bytes
}

/// A packet; `original` is its length on the wire.
#[must_use]
pub fn enhanced_packet(
    interface: u32,
    unix_ns: u64,
    way: Way,
    frame: &[u8],
    original: usize,
    comment: Option<&str>,
) -> Vec<u8> {
    let mut options = Options::default();
    if let Some(comment) = comment {
        options = options.add(COMMENT, comment.as_bytes());
    }
    let direction = if way == Way::In { INBOUND } else { OUTBOUND };
    let options = options.add(FLAGS, &direction.to_le_bytes()).close();
    let mut data = frame.to_vec();
    pad(&mut data);
    let (captured, original) = ((frame.len() as u32).to_le_bytes(), (original as u32).to_le_bytes());
    block(ENHANCED_PACKET, &[&interface.to_le_bytes(), &time(unix_ns), &captured, &original, &data, &options])
}

/// What passed on an interface, and what of it is missing from the file.
#[must_use]
pub fn interface_statistics(interface: u32, unix_ns: u64, written: u64, dropped: u64) -> Vec<u8> {
    let options = Options::default()
        .add(RECEIVED, &(written + dropped).to_le_bytes())
        .add(DROPPED, &dropped.to_le_bytes())
        .add(DELIVERED, &written.to_le_bytes());
    block(INTERFACE_STATISTICS, &[&interface.to_le_bytes(), &time(unix_ns), &options.close()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_the_draft_has_them() {
        let rows: [(&str, Vec<u8>, &[u8]); 4] = [
            (
                "section header",
                section_header("b", "call"),
                b"\x0A\x0D\x0D\x0A\x30\0\0\0\x4D\x3C\x2B\x1A\x01\0\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\
                  \x01\0\x04\0call\x04\0\x01\0b\0\0\0\0\0\0\0\x30\0\0\0",
            ),
            (
                "interface description",
                interface_description("wan"),
                b"\x01\0\0\0\x28\0\0\0\x01\0\0\0\0\0\0\0\x02\0\x03\0wan\0\x09\0\x01\0\x09\0\0\0\0\0\0\0\
                  \x28\0\0\0",
            ),
            (
                "enhanced packet",
                enhanced_packet(1, 0x0000_0002_0000_0003, Way::Out, b"frame", 9, Some("c")),
                b"\x06\0\0\0\x3C\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x05\0\0\0\x09\0\0\0frame\0\0\0\
                  \x01\0\x01\0c\0\0\0\x02\0\x04\0\x02\0\0\0\0\0\0\0\x3C\0\0\0",
            ),
            (
                "interface statistics",
                interface_statistics(0, 1, 5, 2),
                b"\x05\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x04\0\x08\0\x07\0\0\0\0\0\0\0\
                  \x05\0\x08\0\x02\0\0\0\0\0\0\0\x08\0\x08\0\x05\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0",
            ),
        ];
        for (description, block, expected) in rows {
            assert_eq!(block, expected, "{description}");
        }
    }
}

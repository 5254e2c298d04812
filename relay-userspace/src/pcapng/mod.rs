//! Packets in files that Wireshark reads: the blocks of the format, and the headers that a packet had on the wire.
//!
//! Pure: values in, bytes out. Captures and traces write them; what goes into a file is theirs to decide. Format:
//! draft-ietf-opsawg-pcapng.

mod block;
mod frame;

pub use block::{enhanced_packet, interface_description, interface_statistics, section_header};
pub use frame::{MOST_PAYLOAD, frame};

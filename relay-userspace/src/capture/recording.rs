//! What goes into a capture's file, and when it is full: copies in, bytes out, no file and no clock.
//!
//! Invariant: the bytes that were given out never exceed the limit, the statistics at the end included.

use serde::{Deserialize, Serialize};

use crate::{
    datapath::PacketCopy,
    pcapng::{self, frame},
};

/// Why a capture ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", content = "detail", rename_all = "snake_case")]
pub(super) enum End {
    /// Somebody stopped it.
    Stopped,
    /// The call ended.
    CallEnded,
    /// Its time is over.
    Time,
    /// Its file is as large as it may become.
    Size,
    /// The file could not be written.
    Failed(String),
    /// The daemon ended.
    Shutdown,
    /// The daemon ended without notice: found at its next start.
    Interrupted,
}

impl End {
    /// A sentence for people.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Stopped => "stopped".to_owned(),
            Self::CallEnded => "ended with the call".to_owned(),
            Self::Time => "its time was over".to_owned(),
            Self::Size => "its size was reached".to_owned(),
            Self::Failed(why) => format!("the file could not be written: {why}"),
            Self::Shutdown => "the daemon was stopped".to_owned(),
            Self::Interrupted => "interrupted; the last packets may be missing".to_owned(),
        }
    }
}

/// A file that grows.
#[derive(Debug)]
pub(super) struct Recording {
    room: u64,
    written: Vec<u64>,
}

/// Bytes of a block of statistics.
const STATISTICS: u64 = 64;

impl Recording {
    /// Begins a file of at most so many bytes; `networks` names the interfaces.
    pub(super) fn begin(most_bytes: u64, what: &str, networks: &[String]) -> (Self, Vec<u8>) {
        let application = concat!("branchline ", env!("CARGO_PKG_VERSION"));
        let comment = format!(
            "{what}. Ethernet, IP and UDP headers were made anew around each payload; SIP over TCP and TLS is \
             shown as UDP, with a comment."
        );
        let mut bytes = pcapng::section_header(application, &comment);
        for network in networks {
            bytes.extend(pcapng::interface_description(network));
        }
        let used = bytes.len() as u64 + STATISTICS * networks.len() as u64;
        (Self { room: most_bytes.saturating_sub(used), written: vec![0; networks.len()] }, bytes)
    }

    /// The bytes of a packet.
    ///
    /// # Errors
    /// There is no room for it: the file is full.
    pub(super) fn packet(&mut self, copy: &PacketCopy) -> Result<Vec<u8>, End> {
        let index = copy.network.index();
        let (Some((frame, original)), true) = (frame(copy), index < self.written.len()) else {
            return Ok(Vec::new());
        };
        let bytes = pcapng::enhanced_packet(
            index as u32,
            copy.unix_ns,
            copy.way,
            &frame,
            original,
            copy.remark.as_deref(),
        );
        self.room = self.room.checked_sub(bytes.len() as u64).ok_or(End::Size)?;
        self.written[index] += 1;
        Ok(bytes)
    }

    /// Ends the file: what was written and what was lost on each network.
    pub(super) fn finish(&self, unix_ns: u64, dropped: &[u64]) -> Vec<u8> {
        let statistics = self.written.iter().zip(0..).flat_map(|(written, interface)| {
            let dropped = dropped.get(interface as usize).copied().unwrap_or(0);
            pcapng::interface_statistics(interface, unix_ns, *written, dropped)
        });
        statistics.collect()
    }

    /// Packets that were written.
    pub(super) fn packets(&self) -> u64 {
        self.written.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{datapath::Way, net::NetworkId};

    #[test]
    fn a_file_never_grows_beyond_its_limit_statistics_included() {
        let copy = |network| PacketCopy {
            unix_ns: 1,
            network: NetworkId(network),
            way: Way::In,
            source: "10.61.0.11:4000".parse().unwrap(),
            destination: "10.61.0.1:16384".parse().unwrap(),
            type_of_service: 0,
            payload: Bytes::from(vec![0; 172]),
            remark: None,
        };
        let networks = ["office".to_owned(), "wan".to_owned()];
        for limit in [1000, 4096, 4097, 10_000] {
            let (mut recording, bytes) = Recording::begin(limit, "a@b", &networks);
            let mut total = bytes.len();
            let end = loop {
                match recording.packet(&copy((recording.packets() % 2) as u16)) {
                    Ok(bytes) => total += bytes.len(),
                    Err(end) => break end,
                }
            };
            let last = recording.finish(2, &[0, 3]);
            assert_eq!(last.len() as u64, STATISTICS * 2);
            total += last.len();
            assert_eq!(end, End::Size, "{limit}");
            assert!(total as u64 <= limit, "{limit}: {total}");
            assert!(total as u64 + 300 > limit, "{limit}: {total} leaves room for another packet");
        }
        let (mut recording, _) = Recording::begin(10_000, "a@b", &networks);
        assert_eq!(recording.packet(&copy(7)), Ok(Vec::new()), "a network that is none");
        assert_eq!(recording.packets(), 0);
    }
}

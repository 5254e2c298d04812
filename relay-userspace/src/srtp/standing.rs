//! A key with the state of its sources, as it is kept beyond this process.
//!
//! What was taken since it was kept is not known afterwards. So of what came before nothing is taken again, and the numbers
//! that the appliance itself gives, for whichever source, go on behind a gap: no SRTCP index is used twice with one key
//! (RFC 3711 section 9.1). Whoever takes a key up keeps it anew before it is used, so that the next gap begins there.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    index::Taken,
    keys::{KeyError, MasterKey, Suite},
    packet::{Context, Inbound, MAX_SOURCES, Outbound, Source},
};

/// SRTCP packets that may have gone since the state was kept. Reports come a few times a second at most; the index has
/// 2^31 numbers.
const RTCP_GAP: u64 = 1 << 16;

/// A key with its state: a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    suite: String,
    /// Key and salt in Base64.
    key: String,
    identifier: Vec<u8>,
    sources: Vec<SourceRecord>,
    /// No SRTCP index below this one may be given.
    rtcp_floor: u64,
}

impl Drop for KeyRecord {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// What is known of the packets of one synchronisation source.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SourceRecord {
    ssrc: u32,
    /// The highest packet index of SRTP.
    rtp: Option<u64>,
    /// The highest of SRTCP.
    rtcp: Option<u64>,
}

impl KeyRecord {
    fn of(context: &Context) -> Self {
        let source = |source: &Source| SourceRecord {
            ssrc: source.ssrc,
            rtp: source.rtp.highest(),
            rtcp: source.rtcp.highest(),
        };
        Self {
            suite: context.master.suite().name().to_owned(),
            key: STANDARD.encode(context.master.expose()),
            identifier: context.master.identifier().to_owned(),
            sources: context.lock().iter().map(source).collect(),
            rtcp_floor: context.rtcp_floor,
        }
    }

    fn context(&self, rtcp_gap: u64) -> Result<Context, KeyError> {
        let suite = Suite::named(self.suite.as_bytes()).ok_or(KeyError::Kept)?;
        let bytes = Zeroizing::new(STANDARD.decode(&self.key).map_err(|_| KeyError::Kept)?);
        let mut master = MasterKey::new(suite, bytes)?;
        if !self.identifier.is_empty() {
            master = master.with_identifier(self.identifier.clone())?;
        }
        let mut context = Context::new(master);
        let used = self.sources.iter().filter_map(|source| source.rtcp).map(|index| index.saturating_add(1));
        context.rtcp_floor = used.fold(self.rtcp_floor, u64::max).saturating_add(rtcp_gap);
        let source = |record: &SourceRecord| Source {
            ssrc: record.ssrc,
            rtp: Taken::up_to(record.rtp),
            rtcp: Taken::up_to(record.rtcp),
        };
        *context.lock() = self.sources.iter().take(MAX_SOURCES).map(source).collect();
        Ok(context)
    }
}

impl Inbound {
    /// What is to be kept of it.
    #[must_use]
    pub fn record(&self) -> KeyRecord {
        KeyRecord::of(&self.0)
    }

    /// Goes on after what had come when it was kept.
    ///
    /// # Errors
    /// If what was kept is no key.
    pub fn take_up(record: &KeyRecord) -> Result<Self, KeyError> {
        record.context(0).map(Self)
    }
}

impl Outbound {
    /// What is to be kept of it.
    #[must_use]
    pub fn record(&self) -> KeyRecord {
        KeyRecord::of(&self.0)
    }

    /// Goes on after what may have gone since it was kept.
    ///
    /// # Errors
    /// If what was kept is no key.
    pub fn take_up(record: &KeyRecord) -> Result<Self, KeyError> {
        record.context(RTCP_GAP).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srtp::{Content, Refusal};

    fn rtp(sequence: u16) -> Vec<u8> {
        let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(b"sound");
        packet
    }

    const RTCP: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 7];

    #[test]
    fn a_key_goes_on_with_its_roll_over_counter_and_takes_nothing_twice() {
        for suite in Suite::PREFERRED {
            let length = suite.key_length() + suite.salt_length();
            let master = MasterKey::new(suite, Zeroizing::new(vec![5; length])).unwrap();
            let (sender, receiver) = (Outbound::new(master.clone()), Inbound::new(master));
            let pass = |sender: &Outbound, receiver: &Inbound, what, plain: &[u8]| {
                let mut packet = plain.to_vec();
                sender.protect(what, &mut packet).unwrap();
                let sealed = packet.clone();
                receiver.unprotect(what, &mut packet).unwrap();
                assert_eq!(packet, plain);
                sealed
            };
            // Over the end of the sequence numbers, so that the roll-over counter is 1.
            for sequence in [65_000, 65_535, 3] {
                pass(&sender, &receiver, Content::Rtp, &rtp(sequence));
            }
            let last = pass(&sender, &receiver, Content::Rtp, &rtp(4));
            let report = pass(&sender, &receiver, Content::Rtcp, &RTCP);

            let kept = serde_json::to_string(&(sender.record(), receiver.record())).unwrap();
            let kept: (KeyRecord, KeyRecord) = serde_json::from_str(&kept).unwrap();
            let again = (Outbound::take_up(&kept.0).unwrap(), Inbound::take_up(&kept.1).unwrap());
            assert_eq!(again.1.unprotect(Content::Rtp, &mut last.clone()), Err(Refusal::Replay));
            assert_eq!(again.1.unprotect(Content::Rtcp, &mut report.clone()), Err(Refusal::Replay));
            // The peers of either side never noticed.
            pass(&again.0, &receiver, Content::Rtp, &rtp(5));
            pass(&sender, &again.1, Content::Rtp, &rtp(6));
            let sealed = pass(&again.0, &receiver, Content::Rtcp, &RTCP);
            assert_ne!(sealed, report, "{}: an index was used twice", suite.name());
        }
    }

    #[test]
    fn no_index_is_given_twice_whatever_was_kept_and_however_often() {
        let index = |packet: &[u8]| {
            let end = packet.len() - Suite::Aes128CmSha1_80.rtcp_tag();
            u32::from_be_bytes(packet[end - 4..end].try_into().unwrap()) & !(1 << 31)
        };
        let sent = |key: &Outbound, ssrc: u8| {
            let mut packet = RTCP.to_vec();
            packet[7] = ssrc;
            key.protect(Content::Rtcp, &mut packet).unwrap();
            index(&packet)
        };
        let master = MasterKey::new(Suite::Aes128CmSha1_80, Zeroizing::new(vec![5; 30])).unwrap();
        let first = Outbound::new(master);
        first.protect(Content::Rtp, &mut rtp(1)).unwrap();
        // Kept before any report of either source had left.
        let kept = first.record();
        assert_eq!([7, 8].map(|ssrc| sent(&first, ssrc)), [0, 0]);
        let second = Outbound::take_up(&kept).unwrap();
        assert_eq!([7, 8].map(|ssrc| sent(&second, ssrc)), [65_536, 65_536]);
        // The next one begins behind what this one was taken up with, also if it never kept anything itself again.
        let third = Outbound::take_up(&Outbound::take_up(&kept).unwrap().record()).unwrap();
        assert_eq!([7, 8].map(|ssrc| sent(&third, ssrc)), [131_072, 131_072]);
    }

    #[test]
    fn a_key_keeps_its_identifier_and_what_is_no_key_is_refused() {
        let master = MasterKey::new(Suite::Aes128CmSha1_80, Zeroizing::new(vec![5; 30])).unwrap();
        let inbound = Inbound::new(master.with_identifier(vec![1, 2]).unwrap());
        let record = inbound.record();
        assert_eq!(Inbound::take_up(&record).unwrap().master(), inbound.master());
        let broken = |suite: &str, key: &str| KeyRecord {
            suite: suite.to_owned(),
            key: key.to_owned(),
            identifier: Vec::new(),
            sources: Vec::new(),
            rtcp_floor: 0,
        };
        let good = inbound.record().key.clone();
        let broken = [
            broken("NULL", &good),
            broken("AES_CM_128_HMAC_SHA1_80", "?"),
            broken("AES_CM_128_HMAC_SHA1_80", "AAAA"),
        ];
        broken.iter().for_each(|record| assert!(Outbound::take_up(record).is_err()));
    }
}

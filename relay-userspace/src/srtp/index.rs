//! Which packet of a source this is, and whether it was there before (RFC 3711 section 3.3).

use super::packet::Refusal;

/// Packets that may come late (RFC 3711 section 3.3.2: at least 64).
const WINDOW: u64 = 128;
/// The last index of SRTP: 32 bits of roll-over counter, 16 of sequence number.
const LAST: u64 = (1 << 48) - 1;

/// The packets of a source that were taken.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Taken {
    /// The highest index; none before the first packet.
    highest: Option<u64>,
    /// A bit for each of the last [`WINDOW`] indices, the highest at bit 0.
    window: u128,
}

impl Taken {
    /// All indices up to this one count as taken.
    pub(super) fn up_to(highest: Option<u64>) -> Self {
        Self { highest, window: if highest.is_some() { u128::MAX } else { 0 } }
    }

    /// The highest index that was taken.
    pub(super) fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// The index of a packet with this sequence number: that which is nearest to the highest one so far
    /// (RFC 3711 section 3.3.1 and appendix A).
    ///
    /// # Errors
    /// [`Refusal::Replay`] if it would lie before the first index or after the last one.
    pub(super) fn estimate(&self, sequence: u16) -> Result<u64, Refusal> {
        const HALF: u64 = 1 << 15;
        let Some(highest) = self.highest else { return Ok(sequence.into()) };
        let (rollovers, last, sequence) = (highest >> 16, highest & 0xFFFF, u64::from(sequence));
        let rollovers = if last < HALF && sequence > last + HALF {
            rollovers.checked_sub(1).ok_or(Refusal::Replay)?
        } else if last >= HALF && sequence < last - HALF {
            rollovers + 1
        } else {
            rollovers
        };
        let index = rollovers << 16 | sequence;
        if index > LAST { Err(Refusal::Replay) } else { Ok(index) }
    }

    /// Whether this index may still be taken.
    ///
    /// # Errors
    /// [`Refusal::Replay`] if it was taken, or lies too far back to know.
    pub(super) fn check(&self, index: u64) -> Result<(), Refusal> {
        let Some(behind) = self.highest.and_then(|highest| highest.checked_sub(index)) else { return Ok(()) };
        if behind >= WINDOW || self.window >> behind & 1 == 1 { Err(Refusal::Replay) } else { Ok(()) }
    }

    /// Takes an index that was checked.
    pub(super) fn take(&mut self, index: u64) {
        match self.highest {
            None => (self.highest, self.window) = (Some(index), 1),
            Some(highest) if index > highest => {
                let by = u32::try_from(index - highest).unwrap_or(u32::MAX);
                self.window = self.window.checked_shl(by).unwrap_or(0) | 1;
                self.highest = Some(index);
            }
            Some(highest) if highest - index < WINDOW => self.window |= 1 << (highest - index),
            Some(_) => {}
        }
    }

    /// The index after the highest one.
    pub(super) fn next(&self) -> u64 {
        self.highest.map_or(0, |highest| highest + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roll_over_counter_follows_the_sequence_number() {
        let rows = [
            ("the first packet", None, 65_535, Ok(65_535)),
            ("the next one", Some(7), 8, Ok(8)),
            ("one that is late", Some(8), 7, Ok(7)),
            ("over the end", Some(65_535), 0, Ok(65_536)),
            ("over the end with a gap", Some(65_000), 300, Ok(65_836)),
            ("late, from before the end", Some(65_537), 65_534, Ok(65_534)),
            ("before the beginning", Some(3), 65_534, Err(Refusal::Replay)),
            ("half a turn on", Some(0), 32_768, Ok(32_768)),
            ("after the last index", Some(LAST), 0, Err(Refusal::Replay)),
        ];
        for (what, highest, sequence, expected) in rows {
            assert_eq!(Taken { highest, window: 1 }.estimate(sequence), expected, "{what}");
        }
    }

    #[test]
    fn an_index_is_taken_once_and_only_within_the_window() {
        let mut taken = Taken::default();
        for index in [1000, 1002, 1001, 1000 + 2 * WINDOW] {
            assert_eq!(taken.check(index), Ok(()), "{index}");
            taken.take(index);
            assert_eq!(taken.check(index), Err(Refusal::Replay), "{index} again");
        }
        let highest = 1000 + 2 * WINDOW;
        assert_eq!(taken.check(highest - WINDOW + 1), Ok(()));
        assert_eq!(taken.check(highest - WINDOW), Err(Refusal::Replay));
        assert_eq!(taken.check(1002), Err(Refusal::Replay));
    }
}

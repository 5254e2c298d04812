//! Internet checksums, changed by increments and never computed anew (RFC 1624).
//!
//! # On byte order
//!
//! A one's complement sum does not care in which order the two bytes of its words stand, as long as all
//! words and the checksum agree (RFC 1071 section 2 (B)). So words are read from the packet in the
//! machine's own order, summed, folded, and stored in that same order: no byte is swapped on the packet
//! path. What goes into one [`Delta`] must therefore all be read with [`u16::from_ne_bytes`] of bytes as
//! they stand on the wire; the functions here take byte arrays so that nothing else is possible.
//!
//! # Why increments
//!
//! Increments touch only the bytes that change, so their cost does not depend on the packet's length, and
//! a packet that arrived damaged leaves damaged, for the receiver to notice.
//!
//! # The two zeroes
//!
//! One's complement has two zeroes. RFC 1624's equation 3, `HC' = ~(~HC + ~m + m')`, gives the right one
//! for an IPv4 header. In UDP over IPv4 a checksum of 0 means "none was computed" and stays 0 (RFC 768);
//! a computed 0 is sent as 0xFFFF.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a rewrite adds to a one's complement sum: a sum of `~old + new` over the words that change.
///
/// The parts of a flow's rewrite that are the same for each of its packets are summed once, when the flow
/// is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct Delta(u32);

impl Delta {
    /// The change of nothing.
    pub const NONE: Self = Self(0);

    /// Adds the change of one 16-bit word, both given as on the wire.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: [u8; 2], new: [u8; 2]) -> Self {
        // At most 2 * 0xFFFF a call: 32 bits hold more than 30,000 of them before a fold is needed.
        Self(self.0 + (!u16::from_ne_bytes(old)) as u32 + u16::from_ne_bytes(new) as u32)
    }

    /// Adds the words of an address that was not there before, given as on the wire.
    #[inline(always)]
    #[must_use]
    pub const fn more<const N: usize>(mut self, new: [u8; N]) -> Self {
        const { assert!(N.is_multiple_of(2), "whole words") };
        let mut at = 0;
        while at < N {
            self.0 += u16::from_ne_bytes([new[at], new[at + 1]]) as u32;
            at += 2;
        }
        self
    }

    /// Takes the words of an address away, given as on the wire.
    #[inline(always)]
    #[must_use]
    pub const fn less<const N: usize>(mut self, old: [u8; N]) -> Self {
        const { assert!(N.is_multiple_of(2), "whole words") };
        let mut at = 0;
        while at < N {
            self.0 += (!u16::from_ne_bytes([old[at], old[at + 1]])) as u32;
            at += 2;
        }
        self
    }

    /// Adds two changes.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Takes a change out of one that it is part of.
    #[inline(always)]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 + (!fold(other.0)) as u32)
    }

    /// The change as the kernel's helpers for checksums want it: a sum in the order in which the words stand in memory.
    #[inline(always)]
    #[must_use]
    pub const fn sum(self) -> u32 {
        fold(self.0) as u32
    }

    /// The same change in its smallest form, below 0x10000, as flows keep it.
    #[inline(always)]
    #[must_use]
    pub const fn folded(self) -> Self {
        Self(fold(self.0) as u32)
    }

    /// The checksum over words that were added to nothing.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(self) -> [u8; 2] {
        (!fold(self.0)).to_ne_bytes()
    }

    /// The checksum after the change (RFC 1624 equation 3); `checksum` and the result as on the wire.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        let sum = (!u16::from_ne_bytes(checksum)) as u32 + self.0;
        (!fold(sum)).to_ne_bytes()
    }

    /// The UDP checksum after the change, with the rules of RFC 768 for both zeroes.
    #[inline(always)]
    #[must_use]
    pub const fn apply_udp(self, checksum: [u8; 2]) -> [u8; 2] {
        match checksum {
            [0, 0] => [0, 0],
            _ => match self.apply(checksum) {
                [0, 0] => [0xFF, 0xFF],
                sum => sum,
            },
        }
    }
}

/// Adds the carries back in until 16 bits are left; two rounds are enough for any 32-bit sum.
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xFFFF) + (sum >> 16);
    ((once & 0xFFFF) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The checksum by RFC 1071, over everything.
    fn full(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum > 0xFFFF {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    #[test]
    fn the_example_of_rfc_1624_section_4_gives_its_result() {
        // HC = 0xDD2F, m = 0x5555, m' = 0x3285; the right result is 0x0000, not 0xFFFF.
        let delta = Delta::NONE.word(0x5555u16.to_be_bytes(), 0x3285u16.to_be_bytes());
        assert_eq!(delta.apply(0xDD2Fu16.to_be_bytes()), [0, 0]);
    }

    proptest! {
        #[test]
        fn an_increment_equals_recomputation(
            mut words in prop::collection::vec(any::<[u8; 2]>(), 2..40),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<[u8; 2]>()), 1..8),
        ) {
            // The first word is not zero and never changes, as in a real IPv4 header (version 4).
            words[0] = [0x45, 0];
            let before = full(words.as_flattened());
            let mut delta = Delta::NONE;
            for (at, new) in changes {
                let at = 1 + at.index(words.len() - 1);
                delta = delta.word(words[at], new);
                words[at] = new;
            }
            prop_assert_eq!(delta.apply(before), full(words.as_flattened()));
            prop_assert_eq!(delta.folded().apply(before), full(words.as_flattened()));
        }

        #[test]
        fn a_change_and_its_inverse_leave_the_checksum_as_it_was(
            checksum in any::<[u8; 2]>(), old in any::<[u8; 4]>(), new in any::<[u8; 4]>(),
        ) {
            // 0xFFFF and 0x0000 are one number to RFC 1624; UDP keeps them apart.
            prop_assume!(checksum != [0xFF, 0xFF]);
            let there = Delta::NONE.less(old).more(new).apply(checksum);
            prop_assert_eq!(Delta::NONE.less(new).more(old).apply(there), checksum);
        }

        #[test]
        fn a_udp_checksum_is_never_made_zero_and_zero_stays(
            checksum in any::<[u8; 2]>(), old in any::<[u8; 2]>(), new in any::<[u8; 2]>(),
        ) {
            let after = Delta::NONE.word(old, new).apply_udp(checksum);
            prop_assert_eq!(after == [0, 0], checksum == [0, 0]);
        }
    }
}

//! A key with the state of the sources that use it: packets in, packets out.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use thiserror::Error;

use super::{
    cipher::{Cipher, RTCP_ASSOCIATED, Sealed, Use},
    index::Taken,
    keys::MasterKey,
};

/// Synchronisation sources that may use one key. A mixer, its video and every hold of a long day stay below; each
/// costs sixty bytes. A further one is refused: to forget one would forget which packets it has sent.
pub(super) const MAX_SOURCES: usize = 256;
/// Bytes of an RTP header without contributing sources and extension (RFC 3550 section 5.1).
const RTP_HEADER: usize = 12;
/// Bytes of the header of an RTCP packet with its sender, which SRTCP leaves in clear (RFC 3711 section 3.4).
const RTCP_HEADER: usize = 8;
/// Bytes of the SRTCP index with its E flag.
const RTCP_INDEX: usize = 4;
/// The flag in front of the SRTCP index: the packet is encrypted.
const ENCRYPTED: u32 = 1 << 31;
/// SRTCP packets with one key (RFC 3711 section 9.2).
const MOST_RTCP: u64 = (1 << 31) - 1;

/// Which of the two a packet is (RFC 5761 section 4 tells them apart).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// RTP or SRTP.
    Rtp,
    /// RTCP or SRTCP.
    Rtcp,
}

/// Why a packet was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Shorter than its headers, index and tag.
    #[error("too short")]
    TooShort,
    /// Longer than the cipher takes.
    #[error("too long")]
    TooLong,
    /// The tag is not that of this packet with this key.
    #[error("its authentication tag is wrong")]
    Authentication,
    /// It was there before, or so long ago that nobody knows; or the key may not be used any more.
    #[error("it was there before")]
    Replay,
    /// There are too many sources.
    #[error("too many synchronisation sources")]
    Sources,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) ssrc: u32,
    pub(super) rtp: Taken,
    pub(super) rtcp: Taken,
}

/// A key's ciphers and its sources.
pub(super) struct Context {
    pub(super) master: MasterKey,
    rtp: Cipher,
    rtcp: Cipher,
    sources: Mutex<Vec<Source>>,
    /// No SRTCP index below this one is given: an earlier process may have given it.
    pub(super) rtcp_floor: u64,
}

impl Context {
    pub(super) fn new(master: MasterKey) -> Self {
        let (rtp, rtcp) = (Cipher::new(&master, Use::Rtp), Cipher::new(&master, Use::Rtcp));
        Self { master, rtp, rtcp, sources: Mutex::default(), rtcp_floor: 0 }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `packet` with what is known of a source, and keeps what it has made of it if it succeeds.
    fn with<T>(
        &self,
        ssrc: u32,
        packet: impl FnOnce(&mut Source) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut sources = self.lock();
        if let Some(source) = sources.iter_mut().rev().find(|source| source.ssrc == ssrc) {
            return packet(source);
        }
        let mut source = Source { ssrc, rtp: Taken::default(), rtcp: Taken::default() };
        let full = sources.len() >= MAX_SOURCES;
        // Whether it is authentic comes before whether there is room: nobody without the key learns that there is none.
        let result = packet(&mut source)?;
        if full {
            return Err(Refusal::Sources);
        }
        sources.push(source);
        Ok(result)
    }
}

/// What a party sends, with its key.
pub struct Inbound(pub(super) Context);

/// What a party is sent, with the key that it was told.
pub struct Outbound(pub(super) Context);

impl Inbound {
    /// No packet has come yet.
    #[must_use]
    pub fn new(master: MasterKey) -> Self {
        Self(Context::new(master))
    }

    /// The key.
    #[must_use]
    pub fn master(&self) -> &MasterKey {
        &self.0.master
    }

    /// Checks a packet and makes it what it was before it was encrypted, in place.
    ///
    /// # Errors
    /// See [`Refusal`]; what is in `packet` is then worth nothing, and nothing was learned from it.
    pub fn unprotect(&self, content: Content, packet: &mut Vec<u8>) -> Result<(), Refusal> {
        match content {
            Content::Rtp => self.rtp(packet),
            Content::Rtcp => self.rtcp(packet),
        }
    }

    fn rtp(&self, packet: &mut Vec<u8>) -> Result<(), Refusal> {
        let cipher = &self.0.rtp;
        let identifier = self.0.master.identifier();
        let (ssrc, sequence) = rtp_fields(packet)?;
        let header = rtp_header(packet)?;
        let end = packet.len().checked_sub(cipher.tag() + identifier.len()).ok_or(Refusal::TooShort)?;
        if end < header {
            return Err(Refusal::TooShort);
        }
        let is_gcm = self.0.master.suite().is_gcm();
        self.0.with(ssrc, |source| {
            let index = source.rtp.estimate(sequence)?;
            source.rtp.check(index)?;
            let (head, rest) = packet.split_at_mut(header);
            let (payload, trailing) = rest.split_at_mut(end - header);
            // The identifier stands before the tag in counter mode (RFC 3711 section 3.1), and after it with GCM, where the
            // tag is the end of the ciphertext (RFC 7714 section 8.2).
            let (named, tag) = in_order(trailing, identifier.len(), cipher.tag(), is_gcm);
            if named != identifier {
                return Err(Refusal::Authentication);
            }
            let trailer = rollovers(index);
            let trailer = if is_gcm { &[][..] } else { &trailer };
            let mut sealed = Sealed { header: head, payload, trailer, source: ssrc, index, associated: None };
            cipher.open(&mut sealed, tag)?;
            source.rtp.take(index);
            Ok(())
        })?;
        packet.truncate(end);
        Ok(())
    }

    fn rtcp(&self, packet: &mut Vec<u8>) -> Result<(), Refusal> {
        let cipher = &self.0.rtcp;
        let identifier = self.0.master.identifier();
        let ssrc = rtcp_source(packet)?;
        let trailing = cipher.tag() + identifier.len() + RTCP_INDEX;
        let end =
            packet.len().checked_sub(trailing).filter(|end| *end >= RTCP_HEADER).ok_or(Refusal::TooShort)?;
        let is_gcm = self.0.master.suite().is_gcm();
        self.0.with(ssrc, |source| {
            let (head, rest) = packet.split_at_mut(RTCP_HEADER);
            let (payload, trailing) = rest.split_at_mut(end - RTCP_HEADER);
            // Index, identifier, tag (RFC 3711 section 3.4); with GCM tag, index, identifier (RFC 7714 section 9.2).
            let (tag, word, named) = if is_gcm {
                let (tag, rest) = trailing.split_at(cipher.tag());
                let (word, named) = rest.split_at(RTCP_INDEX);
                (tag, word, named)
            } else {
                let (word, rest) = trailing.split_at(RTCP_INDEX);
                let (named, tag) = rest.split_at(identifier.len());
                (tag, word, named)
            };
            let flagged = u32::from_be_bytes(word.try_into().map_err(|_| Refusal::TooShort)?);
            // Nobody was offered RTCP in clear (RFC 4568 section 6.3.2).
            if flagged & ENCRYPTED == 0 || named != identifier {
                return Err(Refusal::Authentication);
            }
            let index = u64::from(flagged & !ENCRYPTED);
            source.rtcp.check(index)?;
            let associated = is_gcm.then(|| associated(head, flagged));
            let mut sealed = Sealed { header: head, payload, trailer: word, source: ssrc, index, associated };
            cipher.open(&mut sealed, tag)?;
            source.rtcp.take(index);
            Ok(())
        })?;
        packet.truncate(end);
        Ok(())
    }
}

impl Outbound {
    /// No packet has gone yet.
    #[must_use]
    pub fn new(master: MasterKey) -> Self {
        Self(Context::new(master))
    }

    /// The key.
    #[must_use]
    pub fn master(&self) -> &MasterKey {
        &self.0.master
    }

    /// Encrypts and authenticates a packet, in place.
    ///
    /// # Errors
    /// See [`Refusal`]; a packet that repeats a sequence number is refused, for two packets encrypted alike can both be
    /// read (RFC 3711 section 9.1).
    pub fn protect(&self, content: Content, packet: &mut Vec<u8>) -> Result<(), Refusal> {
        match content {
            Content::Rtp => self.rtp(packet),
            Content::Rtcp => self.rtcp(packet),
        }
    }

    fn rtp(&self, packet: &mut Vec<u8>) -> Result<(), Refusal> {
        let cipher = &self.0.rtp;
        let (ssrc, sequence) = rtp_fields(packet)?;
        let header = rtp_header(packet)?;
        let is_gcm = self.0.master.suite().is_gcm();
        let tag = self.0.with(ssrc, |source| {
            let index = source.rtp.estimate(sequence)?;
            source.rtp.check(index)?;
            let (head, payload) = packet.split_at_mut(header);
            let trailer = rollovers(index);
            let trailer = if is_gcm { &[][..] } else { &trailer };
            let mut sealed = Sealed { header: head, payload, trailer, source: ssrc, index, associated: None };
            let tag = cipher.seal(&mut sealed)?;
            source.rtp.take(index);
            Ok(tag)
        })?;
        packet.extend_from_slice(&tag[..cipher.tag()]);
        Ok(())
    }

    fn rtcp(&self, packet: &mut Vec<u8>) -> Result<(), Refusal> {
        let cipher = &self.0.rtcp;
        let ssrc = rtcp_source(packet)?;
        let is_gcm = self.0.master.suite().is_gcm();
        let (tag, word) = self.0.with(ssrc, |source| {
            let index = source.rtcp.next().max(self.0.rtcp_floor);
            if index > MOST_RTCP {
                return Err(Refusal::Replay);
            }
            let flagged = index as u32 | ENCRYPTED;
            let word = flagged.to_be_bytes();
            let (head, payload) = packet.split_at_mut(RTCP_HEADER);
            let associated = is_gcm.then(|| associated(head, flagged));
            let mut sealed =
                Sealed { header: head, payload, trailer: &word, source: ssrc, index, associated };
            let tag = cipher.seal(&mut sealed)?;
            source.rtcp.take(index);
            Ok((tag, word))
        })?;
        let tag = &tag[..cipher.tag()];
        let (first, second) = if is_gcm { (tag, &word[..]) } else { (&word[..], tag) };
        packet.extend_from_slice(first);
        packet.extend_from_slice(second);
        Ok(())
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Inbound").field(&self.0.master.suite()).finish()
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outbound").field(&self.0.master.suite()).finish()
    }
}

/// What follows the payload, as identifier and tag.
fn in_order(trailing: &[u8], identifier: usize, tag: usize, is_gcm: bool) -> (&[u8], &[u8]) {
    if is_gcm {
        let (tag, identifier) = trailing.split_at(tag);
        (identifier, tag)
    } else {
        trailing.split_at(identifier)
    }
}

fn rollovers(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

fn associated(header: &[u8], flagged: u32) -> [u8; RTCP_ASSOCIATED] {
    let mut all = [0; RTCP_ASSOCIATED];
    all.iter_mut().zip(header.iter().chain(&flagged.to_be_bytes())).for_each(|(to, byte)| *to = *byte);
    all
}

/// Source and sequence number of an RTP packet.
fn rtp_fields(packet: &[u8]) -> Result<(u32, u16), Refusal> {
    match packet {
        [_, _, high, low, _, _, _, _, a, b, c, d, ..] => {
            Ok((u32::from_be_bytes([*a, *b, *c, *d]), u16::from_be_bytes([*high, *low])))
        }
        _ => Err(Refusal::TooShort),
    }
}

/// Bytes of an RTP header with its contributing sources and extension, which SRTP leaves in clear.
fn rtp_header(packet: &[u8]) -> Result<usize, Refusal> {
    let first = *packet.first().ok_or(Refusal::TooShort)?;
    let mut length = RTP_HEADER + 4 * usize::from(first & 0x0F);
    if first & 0x10 != 0 {
        let Some(&[_, _, high, low]) = packet.get(length..length + 4) else { return Err(Refusal::TooShort) };
        length += 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
    }
    if packet.len() < length { Err(Refusal::TooShort) } else { Ok(length) }
}

/// The sender of an RTCP packet.
fn rtcp_source(packet: &[u8]) -> Result<u32, Refusal> {
    match packet {
        [_, _, _, _, a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => Err(Refusal::TooShort),
    }
}

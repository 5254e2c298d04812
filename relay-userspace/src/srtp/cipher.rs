//! Session keys and the ciphers that are made of them.

use aes::{
    Aes128, Aes256,
    cipher::{
        BlockCipher, BlockEncrypt, BlockSizeUser, InnerIvInit as _, KeyInit, StreamCipher as _,
        consts::{U12, U16},
    },
};
use aes_gcm::{AeadCore, AeadInPlace, Aes128Gcm, Aes256Gcm};
use ctr::{Ctr128BE, CtrCore, cipher::StreamCipherCoreWrapper, flavors::Ctr128BE as Flavor};
use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{
    keys::{MasterKey, Suite},
    packet::Refusal,
};

/// Bytes of the longest session salt, and of a block before its counter (RFC 3711 section 4.1.1).
const SALT: usize = 14;
/// Bytes of the longest session key.
const LONGEST_KEY: usize = 32;
/// Bytes of the key of HMAC-SHA1 (RFC 3711 section 8.2).
const AUTHENTICATION_KEY: usize = 20;
/// Bytes of a nonce of GCM.
const NONCE: usize = 12;
/// Bytes of the longest tag, that of GCM.
pub(super) const LONGEST_TAG: usize = 16;

/// For which of the two a session key is: the first of its three labels (RFC 3711 section 4.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Rtp = 0,
    Rtcp = 3,
}

enum Keyed {
    Counter128(Box<(Aes128, Hmac<Sha1>)>),
    Counter256(Box<(Aes256, Hmac<Sha1>)>),
    Gcm128(Box<Aes128Gcm>),
    Gcm256(Box<Aes256Gcm>),
}

/// What packets are made and read with.
pub(super) struct Cipher {
    keyed: Keyed,
    salt: Zeroizing<[u8; SALT]>,
    tag: usize,
}

impl Cipher {
    /// Derives session keys (RFC 3711 section 4.3, RFC 6188 section 3, RFC 7714 section 11), at a key derivation
    /// rate of zero.
    pub(super) fn new(master: &MasterKey, what: Use) -> Self {
        let suite = master.suite();
        let label = what as u8;
        let mut key = Zeroizing::new([0; LONGEST_KEY]);
        let key = &mut key[..suite.key_length()];
        derive(master, label, key);
        let mut authentication = Zeroizing::new([0; AUTHENTICATION_KEY]);
        derive(master, label + 1, &mut *authentication);
        let mut salt = Zeroizing::new([0; SALT]);
        derive(master, label + 2, &mut salt[..suite.salt_length()]);
        Self::with(suite, what, key, &authentication, salt)
    }

    fn with(
        suite: Suite,
        what: Use,
        key: &[u8],
        authentication: &[u8; AUTHENTICATION_KEY],
        salt: Zeroizing<[u8; SALT]>,
    ) -> Self {
        let keyed = match suite {
            Suite::AeadAes128Gcm => Keyed::Gcm128(Box::new(keyed(key))),
            Suite::AeadAes256Gcm => Keyed::Gcm256(Box::new(keyed(key))),
            Suite::Aes128CmSha1_80 | Suite::Aes128CmSha1_32 => {
                Keyed::Counter128(Box::new((keyed(key), hmac(authentication))))
            }
            Suite::Aes256CmSha1_80 | Suite::Aes256CmSha1_32 => {
                Keyed::Counter256(Box::new((keyed(key), hmac(authentication))))
            }
        };
        let tag = if what == Use::Rtp { suite.rtp_tag() } else { suite.rtcp_tag() };
        Self { keyed, salt, tag }
    }

    /// Bytes of its tags.
    pub(super) fn tag(&self) -> usize {
        self.tag
    }

    /// Encrypts and authenticates a packet. The tag is returned; its first [`Cipher::tag`] bytes count.
    ///
    /// # Errors
    /// If the packet is too long for the cipher.
    pub(super) fn seal(&self, sealed: &mut Sealed<'_>) -> Result<[u8; LONGEST_TAG], Refusal> {
        match &self.keyed {
            Keyed::Counter128(with) => self.seal_counted(&with.0, &with.1, sealed),
            Keyed::Counter256(with) => self.seal_counted(&with.0, &with.1, sealed),
            Keyed::Gcm128(cipher) => self.seal_whole(&**cipher, sealed),
            Keyed::Gcm256(cipher) => self.seal_whole(&**cipher, sealed),
        }
    }

    /// Checks a packet's tag and decrypts it.
    ///
    /// # Errors
    /// If the tag is not its own; the payload is then worth nothing.
    pub(super) fn open(&self, sealed: &mut Sealed<'_>, tag: &[u8]) -> Result<(), Refusal> {
        match &self.keyed {
            Keyed::Counter128(with) => self.open_counted(&with.0, &with.1, sealed, tag),
            Keyed::Counter256(with) => self.open_counted(&with.0, &with.1, sealed, tag),
            Keyed::Gcm128(cipher) => self.open_whole(&**cipher, sealed, tag),
            Keyed::Gcm256(cipher) => self.open_whole(&**cipher, sealed, tag),
        }
    }

    fn seal_counted<C: Block>(
        &self,
        cipher: &C,
        mac: &Hmac<Sha1>,
        sealed: &mut Sealed<'_>,
    ) -> Result<[u8; LONGEST_TAG], Refusal> {
        self.count(cipher, sealed);
        Ok(authenticate(mac, sealed))
    }

    fn open_counted<C: Block>(
        &self,
        cipher: &C,
        mac: &Hmac<Sha1>,
        sealed: &mut Sealed<'_>,
        tag: &[u8],
    ) -> Result<(), Refusal> {
        let wanted = authenticate(mac, sealed);
        match wanted.get(..tag.len()) {
            Some(wanted) if bool::from(wanted.ct_eq(tag)) => self.count(cipher, sealed),
            _ => return Err(Refusal::Authentication),
        }
        Ok(())
    }

    fn seal_whole<A: Gcm>(&self, cipher: &A, sealed: &mut Sealed<'_>) -> Result<[u8; LONGEST_TAG], Refusal> {
        let nonce = self.nonce(sealed).into();
        let Sealed { header, payload, associated, .. } = sealed;
        let associated = associated.as_ref().map_or(*header, |both| both.as_slice());
        let tag = cipher.encrypt_in_place_detached(&nonce, associated, payload);
        tag.map(Into::into).map_err(|_| Refusal::TooLong)
    }

    fn open_whole<A: Gcm>(&self, cipher: &A, sealed: &mut Sealed<'_>, tag: &[u8]) -> Result<(), Refusal> {
        let nonce = self.nonce(sealed).into();
        let tag: [u8; LONGEST_TAG] = tag.try_into().map_err(|_| Refusal::Authentication)?;
        let Sealed { header, payload, associated, .. } = sealed;
        let associated = associated.as_ref().map_or(*header, |both| both.as_slice());
        let opened = cipher.decrypt_in_place_detached(&nonce, associated, payload, &tag.into());
        opened.map_err(|_| Refusal::Authentication)
    }

    /// AES in counter mode (RFC 3711 section 4.1.1): salt, source and index make the first block.
    fn count<C: Block>(&self, cipher: &C, sealed: &mut Sealed<'_>) {
        let mut block = [0; 16];
        block[..SALT].copy_from_slice(&*self.salt);
        fold(&mut block[4..8], &sealed.source.to_be_bytes());
        fold(&mut block[8..14], &sealed.index.to_be_bytes()[2..]);
        stream(cipher, block).apply_keystream(sealed.payload);
    }

    /// The nonce of GCM (RFC 7714 sections 8.1 and 9.1): two zeros, the source, and the index at the end.
    fn nonce(&self, sealed: &Sealed<'_>) -> [u8; NONCE] {
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&self.salt[..NONCE]);
        fold(&mut nonce[2..6], &sealed.source.to_be_bytes());
        fold(&mut nonce[6..12], &sealed.index.to_be_bytes()[2..]);
        nonce
    }
}

/// A packet on its way in or out of encryption.
pub(super) struct Sealed<'a> {
    /// What is authenticated alone.
    pub(super) header: &'a [u8],
    /// What is encrypted too.
    pub(super) payload: &'a mut [u8],
    /// What is authenticated behind it: with counter mode the roll-over counter or the SRTCP index; with GCM the
    /// SRTCP index, while the roll-over counter is in the nonce.
    pub(super) trailer: &'a [u8],
    /// The synchronisation source.
    pub(super) source: u32,
    /// The index: 48 bits of SRTP, 31 of SRTCP.
    pub(super) index: u64,
    /// Header and trailer in one, where GCM authenticates both.
    pub(super) associated: Option<[u8; RTCP_ASSOCIATED]>,
}

/// Bytes that GCM authenticates of an SRTCP packet: the header and the index (RFC 7714 section 9.2).
pub(super) const RTCP_ASSOCIATED: usize = 12;

/// A cipher of blocks of 16 bytes: AES.
trait Block: BlockEncrypt + BlockCipher + BlockSizeUser<BlockSize = U16> {}
impl<C: BlockEncrypt + BlockCipher + BlockSizeUser<BlockSize = U16>> Block for C {}

/// AES-GCM, with the lengths of RFC 7714.
trait Gcm: AeadInPlace + AeadCore<NonceSize = U12, TagSize = U16> {}
impl<A: AeadInPlace + AeadCore<NonceSize = U12, TagSize = U16>> Gcm for A {}

/// Adds one byte string to another, bit by bit.
fn fold(to: &mut [u8], with: &[u8]) {
    to.iter_mut().zip(with).for_each(|(to, with)| *to ^= with);
}

/// A cipher with a key of its own length, as it always is here.
fn keyed<C: KeyInit>(key: &[u8]) -> C {
    let mut whole = aes::cipher::Key::<C>::default();
    whole.iter_mut().zip(key).for_each(|(to, byte)| *to = *byte);
    C::new(&whole)
}

fn stream<C: Block>(cipher: &C, block: [u8; 16]) -> Ctr128BE<&C> {
    StreamCipherCoreWrapper::from_core(CtrCore::<&C, Flavor>::inner_iv_init(cipher, &block.into()))
}

/// The pseudo-random function of key derivation: AES in counter mode with the master key.
fn derive(master: &MasterKey, label: u8, out: &mut [u8]) {
    let mut block = [0; 16];
    // A salt of 96 bits stands where the first 96 of 112 do.
    fold(&mut block, master.salt());
    block[7] ^= label;
    out.fill(0);
    if master.suite().key_length() == 16 {
        stream(&keyed::<Aes128>(master.key()), block).apply_keystream(out);
    } else {
        stream(&keyed::<Aes256>(master.key()), block).apply_keystream(out);
    }
}

fn hmac(key: &[u8; AUTHENTICATION_KEY]) -> Hmac<Sha1> {
    // HMAC's own block is longer, so the key stands in it as it is (RFC 2104 section 2).
    let mut block = Zeroizing::new([0; 64]);
    block[..AUTHENTICATION_KEY].copy_from_slice(key);
    KeyInit::new((&*block).into())
}

/// The beginning of a packet's HMAC, as long as the longest tag.
fn authenticate(mac: &Hmac<Sha1>, sealed: &Sealed<'_>) -> [u8; LONGEST_TAG] {
    let mut mac = mac.clone();
    mac.update(sealed.header);
    mac.update(sealed.payload);
    mac.update(sealed.trailer);
    let whole = mac.finalize().into_bytes();
    let mut tag = [0; LONGEST_TAG];
    tag.copy_from_slice(&whole[..LONGEST_TAG]);
    tag
}

#[cfg(test)]
impl Cipher {
    /// With session keys instead of a master key, as most published vectors have them.
    pub(super) fn of_session(suite: Suite, key: &[u8], salt: &[u8]) -> Self {
        let mut whole = Zeroizing::new([0; SALT]);
        whole[..salt.len()].copy_from_slice(salt);
        Self::with(suite, Use::Rtp, key, &[0; AUTHENTICATION_KEY], whole)
    }

    /// The session key and salt.
    pub(super) fn derived(master: &MasterKey, what: Use) -> (Vec<u8>, Vec<u8>) {
        let mut key = vec![0; master.suite().key_length()];
        let mut salt = vec![0; master.suite().salt_length()];
        derive(master, what as u8, &mut key);
        derive(master, what as u8 + 2, &mut salt);
        (key, salt)
    }
}

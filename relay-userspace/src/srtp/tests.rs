//! The published vectors, and the laws: what goes in comes out, and nothing else does.

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::{
    Content, Inbound, KeyError, MasterKey, Outbound, Refusal, Suite,
    cipher::{Cipher, LONGEST_TAG, Sealed, Use},
    system_random,
};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn key(suite: Suite, seed: u8) -> MasterKey {
    let length = suite.key_length() + suite.salt_length();
    let bytes = (0..length).map(|place| seed.wrapping_add(place as u8).wrapping_mul(31)).collect();
    MasterKey::new(suite, Zeroizing::new(bytes)).unwrap()
}

fn rtp(sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 160]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

fn sender_report(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 200, 0, 6];
    packet.extend(ssrc.to_be_bytes());
    packet.extend([7; 20]);
    packet
}

#[test]
fn session_keys_are_those_of_rfc_3711_b_3_and_rfc_6188_7_2() {
    let rows = [
        (
            "RFC 3711 B.3",
            Suite::Aes128CmSha1_80,
            "E1F97A0D3E018BE0D64FA32C06DE4139 0EC675AD498AFEEBB6960B3AABE6",
            "C61E7A93744F39EE10734AFE3FF7A087",
            "30CBBC08863D8C85D49DB34A9AE1",
        ),
        (
            "RFC 6188 7.2",
            Suite::Aes256CmSha1_80,
            "f0f04914b513f2763a1b1fa130f10e29 98f6f6e43e4309d1e622a0e332b9f1b6 3b04803de51ee7c96423ab5b78d2",
            "5ba1064e30ec51613cad926c5a28ef73 1ec7fb397f70a960653caf06554cd8c4",
            "fa31791685ca444a9e07c6c64e93",
        ),
    ];
    for (what, suite, master, session, salt) in rows {
        let master = MasterKey::new(suite, Zeroizing::new(hex(master))).unwrap();
        assert_eq!(Cipher::derived(&master, Use::Rtp), (hex(session), hex(salt)), "{what}");
    }
}

#[test]
fn the_key_stream_is_that_of_rfc_3711_b_2_and_rfc_6188_7_1() {
    let rows = [
        (
            "RFC 3711 B.2",
            Suite::Aes128CmSha1_80,
            "2B7E151628AED2A6ABF7158809CF4F3C",
            "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0",
        ),
        (
            "RFC 6188 7.1",
            Suite::Aes256CmSha1_80,
            "57f82fe3613fd170a85ec93c40b1f092 2ec4cb0dc025b58272147cc438944a98",
            "92bdd28a93c3f52511c677d08b5515a4 9da71b2378a854f67050756ded165bac 63c4868b7096d88421b563b8c94c9a31",
        ),
    ];
    for (what, suite, session, stream) in rows {
        let cipher = Cipher::of_session(suite, &hex(session), &hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD"));
        let mut payload = vec![0; 48];
        let mut sealed = Sealed {
            header: &[],
            payload: &mut payload,
            trailer: &[],
            source: 0,
            index: 0,
            associated: None,
        };
        cipher.seal(&mut sealed).unwrap();
        assert_eq!(payload, hex(stream), "{what}");
    }
}

#[test]
fn packets_with_gcm_are_those_of_rfc_7714_16_and_17() {
    const RTP: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 \
                       696e2070 61727465 73207472 6573";
    const RTCP: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef \
                        deadbeef deadbeef deadbeef deadbeef";
    let rows = [
        (
            "RFC 7714 16.1.1",
            Suite::AeadAes128Gcm,
            "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a \
             51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        ),
        (
            "RFC 7714 16.2.1",
            Suite::AeadAes256Gcm,
            "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 \
             76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        ),
    ];
    let session = |suite: Suite| {
        let key: Vec<u8> = (0..suite.key_length() as u8).collect();
        Cipher::of_session(suite, &key, &hex("517569642070726f2071756f"))
    };
    for (what, suite, expected) in rows {
        let cipher = session(suite);
        let mut packet = hex(RTP);
        let (header, payload) = packet.split_at_mut(12);
        // The roll-over counter is 0.
        let mut sealed =
            Sealed { header, payload, trailer: &[], source: 0x5501_a0b2, index: 0xf17b, associated: None };
        let tag = cipher.seal(&mut sealed).unwrap();
        packet.extend(tag);
        assert_eq!(packet, hex(expected), "{what}");
    }
    // RFC 7714 17.1: index 0x5d4, encrypted.
    let mut packet = hex(RTCP);
    let (header, payload) = packet.split_at_mut(8);
    let associated = Some(hex("81c8000d 4d617273 800005d4").try_into().unwrap());
    let mut sealed = Sealed { header, payload, trailer: &[], source: 0x4d61_7273, index: 0x5d4, associated };
    let tag: [u8; LONGEST_TAG] = session(Suite::AeadAes128Gcm).seal(&mut sealed).unwrap();
    packet.extend(tag);
    let expected = "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda \
                    4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade";
    assert_eq!(packet, hex(expected), "RFC 7714 17.1");
}

#[test]
fn the_roll_over_counter_goes_on_for_as_long_as_the_key_and_begins_anew_with_another() {
    for suite in Suite::PREFERRED {
        let (outbound, inbound) = (Outbound::new(key(suite, 1)), Inbound::new(key(suite, 1)));
        let mut last = Vec::new();
        for sequence in (65_000..=65_535).chain(0..600) {
            let plain = rtp(sequence, 7, b"sound");
            let mut packet = plain.clone();
            outbound.protect(Content::Rtp, &mut packet).unwrap();
            assert_eq!(packet.len(), plain.len() + suite.rtp_tag(), "{suite:?}");
            last.clone_from(&packet);
            inbound.unprotect(Content::Rtp, &mut packet).unwrap();
            assert_eq!(packet, plain, "{suite:?} {sequence}");
        }
        // Nobody who takes the key up now knows of the turn that the counter has made.
        let refused = Inbound::new(key(suite, 1)).unprotect(Content::Rtp, &mut last.clone());
        assert_eq!(refused, Err(Refusal::Authentication), "{suite:?}");
        assert_eq!(inbound.unprotect(Content::Rtp, &mut last), Err(Refusal::Replay), "{suite:?}");
    }
}

#[test]
fn a_packet_is_encrypted_once() {
    for suite in Suite::PREFERRED {
        let outbound = Outbound::new(key(suite, 1));
        outbound.protect(Content::Rtp, &mut rtp(5, 7, b"one")).unwrap();
        assert_eq!(outbound.protect(Content::Rtp, &mut rtp(5, 7, b"two")), Err(Refusal::Replay), "{suite:?}");
        outbound.protect(Content::Rtp, &mut rtp(5, 8, b"another source")).unwrap();
    }
}

#[test]
fn the_sources_of_a_key_are_bounded_and_those_there_go_on() {
    let suite = Suite::Aes128CmSha1_80;
    let outbound = Outbound::new(key(suite, 1));
    for ssrc in 0..256 {
        outbound.protect(Content::Rtp, &mut rtp(5, ssrc, b"x")).unwrap();
    }
    assert_eq!(outbound.protect(Content::Rtp, &mut rtp(5, 256, b"x")), Err(Refusal::Sources));
    outbound.protect(Content::Rtp, &mut rtp(6, 0, b"x")).unwrap();
    // Packets of nobody fill nothing.
    let inbound = Inbound::new(key(suite, 1));
    for ssrc in 0..1000 {
        let forged = inbound.unprotect(Content::Rtp, &mut rtp(5, ssrc, &[0; 40]));
        assert_eq!(forged, Err(Refusal::Authentication));
    }
    let mut honest = rtp(5, 1000, b"x");
    Outbound::new(key(suite, 1)).protect(Content::Rtp, &mut honest).unwrap();
    inbound.unprotect(Content::Rtp, &mut honest).unwrap();
}

#[test]
fn rtcp_in_clear_is_refused_where_it_was_to_be_encrypted() {
    let suite = Suite::Aes128CmSha1_80;
    let mut packet = sender_report(7);
    Outbound::new(key(suite, 1)).protect(Content::Rtcp, &mut packet).unwrap();
    let flag = packet.len() - suite.rtcp_tag() - 4;
    assert_eq!(packet[flag], 0x80);
    packet[flag] = 0;
    let refused = Inbound::new(key(suite, 1)).unprotect(Content::Rtcp, &mut packet);
    assert_eq!(refused, Err(Refusal::Authentication));
}

#[test]
fn no_key_is_told_by_debug_or_by_an_error() {
    let suite = Suite::Aes128CmSha1_80;
    let master = key(suite, 1);
    assert_eq!(format!("{master:?}"), "MasterKey { suite: Aes128CmSha1_80, .. }");
    assert_eq!(format!("{:?}", Inbound::new(master.clone())), "Inbound(Aes128CmSha1_80)");
    assert_eq!(format!("{:?}", Outbound::new(master)), "Outbound(Aes128CmSha1_80)");
    let short = MasterKey::new(suite, Zeroizing::new(vec![7; 29])).unwrap_err();
    assert_eq!(short, KeyError::Length { suite: suite.name(), found: 29, wanted: 30 });
    assert_eq!(short.to_string(), "key and salt have 29 bytes, and AES_CM_128_HMAC_SHA1_80 takes 30");
}

#[test]
fn new_keys_are_all_different() {
    let keys: Vec<MasterKey> =
        (0..20).map(|_| MasterKey::generate(Suite::AeadAes256Gcm, system_random).unwrap()).collect();
    for (place, one) in keys.iter().enumerate() {
        assert!(keys[..place].iter().all(|other| other != one));
    }
}

fn suites() -> impl Strategy<Value = Suite> {
    prop::sample::select(Suite::PREFERRED.to_vec())
}

proptest! {
    #[test]
    fn what_was_protected_comes_out_as_it_was_and_once(
        suite in suites(),
        content in prop::sample::select(vec![Content::Rtp, Content::Rtcp]),
        contributing in 0..4usize,
        extension in prop::option::of(0..3usize),
        payload in prop::collection::vec(any::<u8>(), 0..300),
        identifier in prop::collection::vec(any::<u8>(), 1..6),
    ) {
        let plain = match content {
            Content::Rtcp => [sender_report(7), payload].concat(),
            Content::Rtp => {
                let mut packet = rtp(9, 7, &vec![1; contributing * 4]);
                packet[0] |= contributing as u8;
                if let Some(words) = extension {
                    packet[0] |= 0x10;
                    packet.extend([0xBE, 0xDE, 0, words as u8]);
                    packet.extend(vec![2; words * 4]);
                }
                [packet, payload].concat()
            }
        };
        let mut packet = plain.clone();
        Outbound::new(key(suite, 3)).protect(content, &mut packet).unwrap();
        let inbound = Inbound::new(key(suite, 3));
        let again = packet.clone();
        inbound.unprotect(content, &mut packet).unwrap();
        prop_assert_eq!(&packet, &plain);
        prop_assert_eq!(inbound.unprotect(content, &mut again.clone()), Err(Refusal::Replay));
        // With an identifier that its sender did not write, it is nobody's.
        let named = key(suite, 3).with_identifier(identifier).unwrap();
        prop_assert!(Inbound::new(named).unprotect(content, &mut again.clone()).is_err());
    }

    #[test]
    fn a_packet_with_a_bit_turned_is_refused_and_leaves_no_trace(
        suite in suites(),
        content in prop::sample::select(vec![Content::Rtp, Content::Rtcp]),
        bit in any::<prop::sample::Index>(),
    ) {
        let mut packet = match content { Content::Rtp => rtp(9, 7, b"sound"), Content::Rtcp => sender_report(7) };
        let plain = packet.clone();
        Outbound::new(key(suite, 3)).protect(content, &mut packet).unwrap();
        let inbound = Inbound::new(key(suite, 3));
        let mut turned = packet.clone();
        let bit = bit.index(packet.len() * 8);
        turned[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(inbound.unprotect(content, &mut turned).is_err());
        inbound.unprotect(content, &mut packet).unwrap();
        prop_assert_eq!(packet, plain);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(
        suite in suites(),
        content in prop::sample::select(vec![Content::Rtp, Content::Rtcp]),
        mut packet in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut plain = packet.clone();
        let _ = Outbound::new(key(suite, 3)).protect(content, &mut plain);
        prop_assert!(Inbound::new(key(suite, 4)).unprotect(content, &mut packet).is_err());
    }
}

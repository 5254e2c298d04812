//! Why a packet was not forwarded by the datapath that saw it: one enum for both datapaths, one counter
//! per variant.

/// What became of a packet that was not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Handed on unchanged: by the kernel program to the network stack, and so, if it belongs to a flow,
    /// to the userspace relay.
    Passed,
    /// Gone.
    Dropped,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $value:literal, $fate:ident, $label:literal;)+) => {
        /// Why a packet was not forwarded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant = $value,)+
        }

        impl Reason {
            /// Every reason, in the order of its number, which is its place in the kernel's counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// What becomes of the packet.
            #[inline(always)]
            #[must_use]
            pub const fn fate(self) -> Fate {
                match self {
                    $(Self::$variant => Fate::$fate,)+
                }
            }

            /// The name in metrics, in the command line and in the web page.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }

            /// A sentence for people.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

reasons! {
    /// Neither IPv4 nor IPv6, nor a single 802.1Q tag with one of them behind it: ARP and the like.
    NotIp = 0, Passed, "not_ip";
    /// IP, but not UDP.
    NotUdp = 1, Passed, "not_udp";
    /// UDP to an address or port that has no flow: SIP, DNS, DHCP and everything else of this host.
    NoFlow = 2, Passed, "no_flow";
    /// More than one VLAN tag.
    StackedVlan = 3, Passed, "stacked_vlan";
    /// The frame ends before its headers do, or before the length that they state.
    Truncated = 4, Passed, "truncated";
    /// The lengths in the IP and UDP headers contradict each other.
    BadLength = 5, Passed, "bad_length";
    /// The IPv4 header carries options, or extensions follow the IPv6 header.
    IpOptions = 6, Passed, "ip_options";
    /// A fragment of a larger packet, which only the stack can put together.
    Fragment = 7, Passed, "fragment";
    /// The port was given to another flow while this packet was under way.
    StaleSlot = 8, Passed, "stale_slot";
    /// The flow has not yet learned its source; the userspace relay carries it meanwhile.
    Learning = 9, Passed, "learning";
    /// The flow is carried by the userspace relay; the flow says why.
    Userspace = 10, Passed, "userspace";
    /// STUN, which the userspace relay answers or carries.
    Stun = 11, Passed, "stun";
    /// DTLS, which the userspace relay carries.
    Dtls = 12, Passed, "dtls";
    /// The hardware address of the next hop is not known; the stack resolves it.
    NextHopUnknown = 13, Passed, "next_hop_unknown";
    /// Longer than the way out allows; the userspace relay fragments it.
    ExceedsMtu = 14, Passed, "exceeds_mtu";
    /// The time to live would reach zero.
    TtlExpired = 15, Passed, "ttl_expired";
    /// The packet does not come from the address and port that the flow expects.
    WrongSource = 16, Dropped, "wrong_source";
    /// Neither RTP nor RTCP of version 2, on a port that carries only these.
    NotRtp = 17, Dropped, "not_rtp";
    /// Too short for the header of what it says it is.
    TooShort = 18, Dropped, "too_short";
    /// The other party is on hold with no address to send to, or signalling has stopped this direction.
    Blocked = 19, Dropped, "blocked";
    /// The way out refused the packet.
    SendFailed = 20, Dropped, "send_failed";
    /// The flow has learned nothing yet, and policy does not allow this source.
    SourceRefused = 21, Dropped, "source_refused";
    /// A UDP checksum of zero where IPv6 wants one; the userspace relay computes it.
    NoChecksum = 22, Passed, "no_checksum";
    /// Leaves by an interface that XDP cannot send by, such as a tunnel: the TC program behind forwards and counts it.
    LeavesByTc = 23, Passed, "leaves_by_tc";
    /// The source is on the deny list.
    Denied = 24, Dropped, "denied";
    /// More packets for SIP from this source than it may send.
    SourceRate = 25, Dropped, "source_rate";
    /// More packets for SIP from sources that are not known than all of them may send.
    UnknownRate = 26, Dropped, "unknown_rate";
    /// More packets of this stream than a stream may have.
    FlowRate = 27, Dropped, "flow_rate";
    /// The authentication tag of an SRTP packet is not that of its flow's key, or the key is not known yet.
    SrtpAuthentication = 28, Dropped, "srtp_authentication";
    /// An SRTP packet was there before, or is older than the replay window remembers.
    SrtpReplay = 29, Dropped, "srtp_replay";
    /// More synchronisation sources than may use one SRTP key.
    SrtpSources = 30, Dropped, "srtp_sources";
}

/// How many reasons there are: the length of the kernel's array of counters.
pub const REASONS: u32 = Reason::ALL.len() as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_at_the_place_of_its_number() {
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place, "{reason:?}");
        }
    }

    #[test]
    fn each_reason_explains_itself_in_a_sentence() {
        for reason in Reason::ALL {
            let text = reason.explanation();
            assert!(text.ends_with('.') && text.len() > 15, "{reason:?}: {text:?}");
        }
    }
}

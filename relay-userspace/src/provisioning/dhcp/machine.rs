//! What becomes of a datagram to the DHCP server's port.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use dhcproto::{
    Encodable as _,
    v4::{
        CLIENT_PORT, DhcpOption, Flags, MAGIC, MIN_PACKET_SIZE, Message, MessageType, Opcode, OptionCode,
        SERVER_PORT, UnknownOption, borrowed,
    },
};

use crate::{
    metrics::names,
    provisioning::{
        HardwareAddress,
        rate::{Admission, Allowance, Rates},
    },
};

/// Bytes of a message without options, the magic cookie included (RFC 2131 section 2).
const FIXED: usize = 240;
/// Where the hardware address's length is, and how long one can be.
const HARDWARE_LENGTH: (usize, u8) = (2, 16);
/// Ethernet's number and the length of its addresses (RFC 2131 section 2).
const ETHERNET: (u8, u8) = (1, 6);
/// Bytes of an IP datagram that every client takes (RFC 2131 section 2), and of the headers in it.
const DATAGRAM: (u16, usize) = (576, 28);
/// A phone asks a few times while it starts.
const EACH: Allowance = Allowance { burst: 6, interval: Duration::from_secs(2) };
/// An office that starts after a power cut.
const ALL: Allowance = Allowance { burst: 500, interval: Duration::from_millis(5) };
/// Askers that are told apart.
const ASKERS: usize = 2000;

/// What the answers carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The appliance's address on the phones' network.
    pub address: Ipv4Addr,
    /// The option that carries the provisioning URL.
    pub option: u8,
    /// The provisioning URL.
    pub url: String,
    /// Option 66.
    pub tftp_server: String,
    /// Option 42, if there is a clock.
    pub time_server: Option<Ipv4Addr>,
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It is no DHCP message of a client.
    Malformed,
    /// It asks for an answer to somebody else's address.
    ForeignAddress,
    /// Its sender, or all of them together, ask too often.
    TooFast,
}

impl Dropped {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::Malformed, Self::ForeignAddress, Self::TooFast];

    /// The metrics' label.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::ForeignAddress => "foreign_address",
            Self::TooFast => "too_fast",
        }
    }
}

/// What a datagram was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A message that the office's own server answers: its name.
    Seen(&'static str),
    /// A DHCPINFORM that is answered.
    Answered,
    /// Nothing comes of it.
    Dropped(Dropped),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// To whom.
    pub destination: SocketAddrV4,
    /// The message.
    pub payload: Vec<u8>,
}

/// What becomes of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// What it was.
    pub event: Event,
    /// The client's hardware address, if it is an Ethernet address.
    pub hardware: Option<HardwareAddress>,
    /// The client's IP address, if it has one already.
    pub address: Option<Ipv4Addr>,
    /// What the client calls itself (option 60).
    pub vendor_class: Option<String>,
    /// What is sent.
    pub reply: Option<Reply>,
}

impl Reaction {
    fn dropped(why: Dropped) -> Self {
        Self { event: Event::Dropped(why), hardware: None, address: None, vendor_class: None, reply: None }
    }
}

/// The state machine: it takes datagrams and returns what becomes of them.
#[derive(Debug)]
pub struct Responder {
    settings: Settings,
    rates: Rates<([u8; 16], Ipv4Addr)>,
}

impl Responder {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, rates: Rates::new(EACH, ALL, ASKERS) }
    }

    /// Takes a datagram that came from `source` to the server's port.
    pub fn receive(&mut self, now: Instant, source: SocketAddrV4, datagram: &[u8]) -> Reaction {
        let Some(request) = Request::read(datagram) else { return Reaction::dropped(Dropped::Malformed) };
        let mut reaction = Reaction {
            event: Event::Dropped(Dropped::Malformed),
            hardware: request.ethernet(),
            address: Some(request.message.ciaddr()).filter(|address| !address.is_unspecified()),
            vendor_class: request
                .option(OptionCode::ClassIdentifier)
                .map(|class| String::from_utf8_lossy(class).into_owned()),
            reply: None,
        };
        let seen = match request.kind {
            MessageType::Discover => names::dhcp::DISCOVER,
            MessageType::Request => names::dhcp::REQUEST,
            MessageType::Decline => names::dhcp::DECLINE,
            MessageType::Release => names::dhcp::RELEASE,
            MessageType::Inform => {
                match self.inform(now, source, &request) {
                    Ok(reply) => {
                        reaction.address = Some(*reply.destination.ip())
                            .filter(|_| reply.destination.port() == CLIENT_PORT)
                            .or(reaction.address);
                        reaction.event = Event::Answered;
                        reaction.reply = Some(reply);
                    }
                    Err(why) => return Reaction::dropped(why),
                }
                return reaction;
            }
            // Servers' messages and those that only servers exchange are none of a phone's.
            _ => return reaction,
        };
        reaction.event = Event::Seen(seen);
        reaction
    }

    fn inform(
        &mut self,
        now: Instant,
        source: SocketAddrV4,
        request: &Request<'_>,
    ) -> Result<Reply, Dropped> {
        let (client, agent) = (request.message.ciaddr(), request.message.giaddr());
        let (destination, flags) = if usable(client) {
            // Whoever names another's address would have the answer sent there; a relay agent speaks for others.
            if agent.is_unspecified() && *source.ip() != client && !source.ip().is_unspecified() {
                return Err(Dropped::ForeignAddress);
            }
            // RFC 2131 section 4.3.5: to the address given in ciaddr, by unicast.
            (SocketAddrV4::new(client, CLIENT_PORT), request.message.flags())
        } else if !client.is_unspecified() {
            return Err(Dropped::Malformed);
        } else if usable(agent) {
            // Section 4.1: to the relay agent, which has to broadcast, as it is not told an address.
            (SocketAddrV4::new(agent, SERVER_PORT), Flags::default().set_broadcast())
        } else if usable(*source.ip()) {
            // A client that forgot ciaddr is where it sends from.
            (SocketAddrV4::new(*source.ip(), CLIENT_PORT), request.message.flags())
        } else {
            return Err(Dropped::Malformed);
        };
        // By both: a relay agent sends for many clients.
        if self.rates.admit(now, (request.chaddr, *source.ip())) != Admission::Admitted {
            return Err(Dropped::TooFast);
        }
        let payload = self.acknowledge(request, flags).ok_or(Dropped::Malformed)?;
        Ok(Reply { destination, payload })
    }

    /// The DHCPACK (RFC 2131 table 3): no yiaddr, no lease time.
    fn acknowledge(&self, request: &Request<'_>, flags: Flags) -> Option<Vec<u8>> {
        let settings = &self.settings;
        let mut reply = Message::default();
        reply
            .set_opcode(Opcode::BootReply)
            .set_htype(request.message.htype())
            .set_xid(request.message.xid())
            .set_flags(flags)
            .set_ciaddr(request.message.ciaddr())
            .set_giaddr(request.message.giaddr())
            .set_chaddr(request.hardware());
        let options = reply.opts_mut();
        options.insert(DhcpOption::MessageType(MessageType::Ack));
        options.insert(DhcpOption::ServerIdentifier(settings.address));
        let asked = request.option(OptionCode::ParameterRequestList);
        let wanted = |code: u8| asked.is_none_or(|list| list.contains(&code));
        let url = OptionCode::from(settings.option);
        if wanted(settings.option) {
            let value = UnknownOption::new(url, settings.url.as_bytes().to_vec());
            options.insert(DhcpOption::Unknown(value));
        }
        if wanted(OptionCode::TFTPServerName.into()) {
            options.insert(DhcpOption::TFTPServerName(settings.tftp_server.as_bytes().to_vec()));
        }
        // Without a list only what the phone cannot do without.
        if asked.is_some()
            && wanted(OptionCode::NtpServers.into())
            && let Some(server) = settings.time_server
        {
            options.insert(DhcpOption::NtpServers(vec![server]));
        }
        // RFC 3046 section 2.2: given back as it came, as the last option.
        let agent = match request.option(OptionCode::RelayAgentInformation) {
            Some(value) => {
                [&[OptionCode::RelayAgentInformation.into(), u8::try_from(value.len()).ok()?], value].concat()
            }
            None => Vec::new(),
        };
        let most = usize::from(request.most_bytes()).saturating_sub(DATAGRAM.1 + agent.len());
        let mut encoded = reply.to_vec().ok()?;
        // What a phone can do without goes first.
        for code in [OptionCode::NtpServers, OptionCode::TFTPServerName, url] {
            if encoded.len() <= most {
                break;
            }
            reply.opts_mut().remove(code);
            encoded = reply.to_vec().ok()?;
        }
        if !agent.is_empty() {
            let end = encoded.pop();
            encoded.extend(agent);
            encoded.extend(end);
        }
        if encoded.len() < MIN_PACKET_SIZE {
            encoded.resize(MIN_PACKET_SIZE, 0);
        }
        Some(encoded)
    }
}

/// Whether an answer can be sent to an address.
fn usable(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast() || address.is_loopback())
}

/// A client's message.
struct Request<'a> {
    message: borrowed::Message<'a>,
    kind: MessageType,
    chaddr: [u8; 16],
    options: BTreeMap<u8, Vec<u8>>,
}

impl<'a> Request<'a> {
    /// Reads what is needed and nothing else: the decoder for whole messages has assertions on options that a
    /// phone may send wrong.
    fn read(datagram: &'a [u8]) -> Option<Self> {
        if datagram.len() < FIXED
            || datagram.get(HARDWARE_LENGTH.0).is_none_or(|length| *length > HARDWARE_LENGTH.1)
            || datagram.get(FIXED - MAGIC.len()..FIXED) != Some(&MAGIC)
        {
            return None;
        }
        let message = borrowed::Message::new(datagram).ok()?;
        if message.opcode() != Opcode::BootRequest {
            return None;
        }
        let mut options = BTreeMap::new();
        for option in message.opts() {
            options.entry(option.code().into()).or_insert_with(|| option.data().to_vec());
        }
        let kind = match options.get(&OptionCode::MessageType.into())?.as_slice() {
            [kind] => MessageType::from(*kind),
            _ => return None,
        };
        let mut chaddr = [0; 16];
        chaddr.copy_from_slice(datagram.get(28..44)?);
        Some(Self { message, kind, chaddr, options })
    }

    fn option(&self, code: OptionCode) -> Option<&[u8]> {
        self.options.get(&code.into()).map(Vec::as_slice)
    }

    fn hardware(&self) -> &[u8] {
        self.chaddr.get(..usize::from(self.message.hlen())).unwrap_or_default()
    }

    fn ethernet(&self) -> Option<HardwareAddress> {
        if (u8::from(self.message.htype()), self.message.hlen()) != ETHERNET {
            return None;
        }
        let address = HardwareAddress(self.hardware().try_into().ok()?);
        Some(address).filter(|address| address.is_a_host())
    }

    /// Option 57, or what every client takes.
    fn most_bytes(&self) -> u16 {
        self.option(OptionCode::MaxMessageSize)
            .and_then(|value| value.try_into().ok())
            .map_or(DATAGRAM.0, u16::from_be_bytes)
            .max(DATAGRAM.0)
    }
}

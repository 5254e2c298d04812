//! The appliance as a process of its own in the branch: media sessions and engine as the daemon has them, with calls that
//! come by the media room's surface, offer and answer, and no signalling around it.
//!
//! It tells its streams on standard output, and answers what it is asked by a datagram to [`CONTROL`].

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use branchline::datapath::kernel::attach::Lifetime;
use branchline::datapath::kernel::keeper::Port;
use branchline::datapath::kernel::programs::KernelLog;
use branchline::datapath::{Engine, Settings};
use branchline::media::{self, Answer, FlowChange, MediaNetwork, Negotiated, Offer, Sessions};
use branchline::net::{
    AttachChoice, DatapathChoice, Dscp, IcePolicy, Latching, NetworkId, PacketLimits, Priority, SrtpPolicy,
};
use branchline::srtp::system_random;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::sdp;
use crate::testbed::{self, ends};

/// Where it is asked, on the branch's loopback.
pub(crate) const CONTROL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7900);
/// What it says when all calls stand.
pub(crate) const READY: &str = "ready: ";

/// How it is to forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Way {
    /// By XDP in the driver.
    Native,
    /// By XDP in the network stack.
    Generic,
    /// By TC.
    Tc,
    /// In userspace, to which the kernel steers what it does not forward itself.
    Userspace,
    /// The same, with RTP from the office and SRTP to the centre, which the kernel cannot.
    UserspaceSrtp,
    /// In userspace without BPF: a socket for each port.
    UserspacePorts,
}

impl Way {
    /// What the servers' side takes.
    const fn srtp(self) -> SrtpPolicy {
        match self {
            Self::UserspaceSrtp => SrtpPolicy::Require,
            _ => SrtpPolicy::Pass,
        }
    }
}

/// What the child process is told on its command line.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// How it is to forward.
    #[arg(long, value_enum)]
    pub way: Way,
    /// How many calls.
    #[arg(long)]
    pub calls: usize,
    /// The interface to the office.
    #[arg(long)]
    pub arrivals: String,
    /// The interface to the centre.
    #[arg(long)]
    pub departures: String,
}

/// What it answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Flows by who carries them.
    pub carriers: BTreeMap<String, usize>,
    /// Packets that the kernel forwarded of all flows.
    pub kernel_packets: u64,
    /// Packets that userspace forwarded.
    pub userspace_packets: u64,
    /// Memory of the process alone in KiB: what it shares with the kernel, its tables, is not in it.
    pub resident_kib: u64,
}

/// Calls of one place: media ports are a pair for each call on each side.
const CALLS_PER_PLACE: usize = 25_000;
/// Flows of a call: RTP and RTCP, each way.
const FLOWS_PER_CALL: usize = 4;
/// The ports for media; 25,000 pairs fit.
const FIRST_PORT: u16 = 10_000;
/// No stream of the bench is to meet its ceiling, and each is to be compared with one.
const STREAM_LIMIT: u32 = 100_000_000;

/// Runs until it is ended.
///
/// # Errors
/// The engine does not start, or refuses a call.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> Result<()> {
    let places = arguments.calls.div_ceil(CALLS_PER_PLACE).max(1);
    let (engine, _rtcp) = Engine::start(&engine_settings(arguments, places), Vec::new()).await?;
    let mut sessions = Sessions::new(media_settings(places, arguments));
    let mut streams = Vec::with_capacity(arguments.calls);
    for call in 0..arguments.calls {
        streams.push(establish(&engine, &mut sessions, arguments.way, call)?);
    }
    let control = UdpSocket::bind(CONTROL).context("the bench's control socket")?;
    println!("{READY}{}", serde_json::to_string(&streams)?);
    tokio::task::spawn_blocking(move || answer(&control, &engine)).await?
}

fn answer(control: &UdpSocket, engine: &Engine) -> Result<()> {
    let mut asked = [0; 16];
    loop {
        let (_, from) = control.recv_from(&mut asked)?;
        let mut state = State { resident_kib: resident_kib()?, ..State::default() };
        // One flow after the other: who copies them all gives megabytes back while the packets pass that are measured.
        engine.each_carrier(|carrier| *state.carriers.entry(carrier.label().to_owned()).or_default() += 1);
        engine.each_count(|_, stats| {
            state.kernel_packets += stats.kernel_packets;
            state.userspace_packets += stats.relayed_packets;
        });
        control.send_to(&serde_json::to_vec(&state)?, from)?;
    }
}

/// A call as a proxy has it: what is offered and answered goes through the media room, and its flows to the engine.
fn establish(engine: &Engine, sessions: &mut Sessions, way: Way, call: usize) -> Result<SocketAddrV4> {
    let now = Instant::now();
    let place = u16::try_from(call / CALLS_PER_PLACE)?;
    let (from, to) = (NetworkId(2 * place), NetworkId(2 * place + 1));
    let [phone, server] = ends(call);
    let name = format!("call-{call}");
    let offer = sdp::description(phone);
    let offer =
        Offer { call: name.as_bytes(), from_tag: b"a", to_tag: None, from, to, sdp: offer.as_bytes() };
    let offered = install(engine, now, sessions.offer(now, &offer)?)?;
    let answer = match way.srtp() {
        SrtpPolicy::Pass => sdp::description(server),
        _ => sdp::sealed(server, &offered)?,
    };
    let answer =
        Answer { call: name.as_bytes(), from_tag: b"a", to_tag: b"b", from, to, sdp: answer.as_bytes() };
    let for_the_phone = install(engine, now, sessions.answer(now, &answer)?)?;
    sdp::media(&for_the_phone)
}

fn install(engine: &Engine, now: Instant, negotiated: Negotiated) -> Result<Vec<u8>> {
    for change in negotiated.changes {
        match change {
            FlowChange::Install(spec) => engine.install(now, spec)?,
            FlowChange::Remove(local) => bail!("a new call removed the flow at {local}"),
        }
    }
    Ok(negotiated.sdp)
}

fn engine_settings(arguments: &Arguments, places: usize) -> Settings {
    let attach = match arguments.way {
        Way::Native => AttachChoice::Native,
        Way::Generic => AttachChoice::Generic,
        Way::Tc => AttachChoice::Tc,
        Way::Userspace | Way::UserspaceSrtp => AttachChoice::Native,
        Way::UserspacePorts => AttachChoice::Userspace,
    };
    let wanted = match arguments.way {
        Way::UserspacePorts => DatapathChoice::Userspace,
        _ => DatapathChoice::Kernel,
    };
    let force_userspace = match arguments.way {
        Way::Userspace => vec![IpNet::from(Ipv4Net::default())],
        _ => Vec::new(),
    };
    let ports = (0..places)
        .flat_map(testbed::appliance)
        .zip([&arguments.arrivals, &arguments.departures].into_iter().cycle());
    let ports = ports.map(|(address, interface)| Port {
        interface: interface.clone(),
        address: address.into(),
        attach,
        sip: Vec::new(),
    });
    Settings {
        wanted,
        ports: ports.collect(),
        priority: Priority::MEDIA,
        signalling_priority: Priority::SIGNALLING,
        limits: PacketLimits { source: 0, unknown: 0, stream: STREAM_LIMIT },
        flows: (FLOWS_PER_CALL * arguments.calls) as u32,
        force_userspace,
        kernel_log: KernelLog::Off,
        lifetime: Lifetime::Process,
    }
}

fn media_settings(places: usize, arguments: &Arguments) -> media::Settings {
    let Arguments { way, calls, .. } = *arguments;
    // Of each place the office is first.
    let sides =
        (0..places).flat_map(testbed::appliance).zip([SrtpPolicy::Pass, way.srtp()].into_iter().cycle());
    let networks = sides.map(|(address, srtp)| MediaNetwork {
        name: address.to_string(),
        address: address.into(),
        advertised: address.into(),
        ports: FIRST_PORT..=u16::MAX,
        latching: Latching::SameAddress,
        srtp,
        ice: IcePolicy::Remove,
        rtp_dscp: Some(Dscp::EF),
        rtcp_dscp: Some(Dscp::EF),
    });
    media::Settings {
        networks: networks.collect(),
        max_sessions: calls,
        timeout: Duration::from_secs(3600),
        seed: 1,
        random: system_random,
    }
}

fn resident_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    line.split_whitespace().next().and_then(|word| word.parse().ok()).context("RssAnon is no number")
}

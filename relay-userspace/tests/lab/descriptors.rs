//! What calls take of the descriptors: nothing where the kernel steers, however many calls stand; a socket for each media
//! port where it cannot, until there are none left but those that are kept, when the next call is refused and told why.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use branchline::{
    datapath::{
        Engine, Settings as EngineSettings,
        kernel::{attach::Lifetime, keeper::Port, programs::KernelLog},
    },
    media::{Answer, FlowChange, MediaNetwork, Offer, Sessions, Settings as MediaSettings},
    net::{AttachChoice, DatapathChoice, Dscp, Latching, NetworkId, PacketLimits, Priority},
    srtp::KeyError,
};
use xtask::demo::appliance::Settings;
use xtask::lab::interrupt;
use xtask::lab::sipp::{Messages, Scenario};

use crate::no_ports::final_response;
use crate::site::{LIMIT, Site, engine};

/// Far more than one host's phones have.
const TABLES: &str = "[protection]\nsource_packets_per_second = 0\nunknown_packets_per_second = 0\n";
/// What the appliance is to get by with, as an administrator may set it.
const HARD_LIMIT: usize = 20_000;
/// Calls at a time, and new ones a second.
const CALLS: u32 = 2000;
const RATE: u32 = 100;
/// The last call is there before the first one ends.
const TALK: Duration = Duration::from_secs(40);
const ALL: Duration = Duration::from_secs(180);
/// Connections of those who look, which come and go.
const LOOKING: usize = 8;

fn set_limit(pid: u32, limit: usize) -> Result<()> {
    let status = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={limit}:{limit}")])
        .status()?;
    ensure!(status.success(), "prlimit: {status}");
    Ok(())
}

fn open_files(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

#[test]
fn two_thousand_calls_by_sip_take_no_descriptor_where_the_kernel_steers() -> Result<()> {
    let mut site = Site::start(Settings { tables: TABLES.to_owned(), ..engine("kernel") })?;
    let pid = site.appliance.pid();
    set_limit(pid, HARD_LIMIT)?;
    site.a_call_works()?;
    // The server's side would send the media of all calls, which is too much for it beside them.
    site.silence()?;
    let before = open_files(pid)?;
    let mut job = site.call(Scenario::PhoneCall, 1, TALK);
    (job.calls, job.rate, job.messages) = (Some(CALLS), RATE, Messages::NotKept);
    let mut job = job.start(&site.lab.office, site.lab.dir())?;
    let status = interrupt::wait_until(ALL, "all calls at a time", || {
        let status = site.status()?;
        let all = (CALLS as usize, 4 * CALLS as usize);
        Ok(((status.calls_active, status.flows) == all).then_some(status))
    })?;
    let during = open_files(pid)?;
    println!("{before} descriptors before, {during} with {} calls and {} flows", CALLS, status.flows);
    assert!(during <= before + LOOKING, "{during} descriptors, {before} before");
    assert_eq!((status.media_sockets, status.media_sockets_limit), (0, None));
    assert_eq!(status.open_files_limit, HARD_LIMIT);
    let text = site.appliance.show(&site.lab, &["status"])?;
    assert!(text.contains("media sockets  none"), "{text}");
    assert_eq!(site.metric("branchline_media_sockets", &[])?, 0.0);
    assert_eq!(site.metric("branchline_open_files_limit", &[])?, HARD_LIMIT as f64);
    job.succeed(ALL)?;
    Ok(())
}

#[test]
fn without_bpf_calls_work_up_to_the_descriptors_for_media_and_the_next_is_refused_and_told_what_to_do()
-> Result<()> {
    /// Half of them are for media: 20 calls.
    const LIMIT_OF_FILES: usize = 160;
    const FULL: usize = LIMIT_OF_FILES / 2;
    let site = Site::start(engine("userspace"))?;
    let pid = site.appliance.pid();
    set_limit(pid, LIMIT_OF_FILES)?;
    assert!(open_files(pid)? + LOOKING < LIMIT_OF_FILES - FULL, "the rest fits into what is kept");
    let mut job = site.call(Scenario::PhoneCall, 1, Duration::from_secs(10));
    (job.calls, job.rate) = (Some(FULL as u32 / 4), 20);
    let mut job = job.start(&site.lab.office, site.lab.dir())?;
    let status = interrupt::wait_until(LIMIT, "all descriptors for media in use", || {
        let status = site.status()?;
        Ok((status.media_sockets == FULL).then_some(status))
    })?;
    assert_eq!((status.media_sockets_limit, status.open_files_limit), (Some(FULL), LIMIT_OF_FILES));
    assert!(status.open_files < LIMIT_OF_FILES, "{}", status.open_files);
    assert!(!status.ready && status.not_ready_reason.is_some_and(|why| why.contains("descriptors")));
    let text = site.appliance.show(&site.lab, &["status"])?;
    assert!(text.contains(&format!("media sockets  {FULL} of {FULL}")), "{text}");
    let sockets = ["branchline_media_sockets", "branchline_media_sockets_limit"];
    for name in sockets {
        assert_eq!(site.metric(name, &[])?, FULL as f64, "{name}");
    }
    let findings = site.appliance.ask(&site.lab, &["doctor"])?;
    let open_files = findings
        .as_array()
        .and_then(|findings| findings.iter().find(|finding| finding["subject"] == "open files"))
        .context("nothing of open files")?;
    assert!(
        open_files["found"].as_str().is_some_and(|found| found.contains("80 of at most 80")),
        "{open_files}"
    );
    assert!(
        open_files["advice"].as_str().is_some_and(|advice| advice.contains("LimitNOFILE")),
        "{open_files}"
    );

    let response = final_response(&site)?;
    assert!(response.starts_with("SIP/2.0 503 No Media Sockets\r\n"), "{response}");
    let warning = response.lines().find(|line| line.starts_with("Warning: 399 "));
    assert!(warning.is_some_and(|warning| warning.contains("raise LimitNOFILE")), "{response}");
    assert_eq!(site.metric("branchline_sip_dropped_total", &[("reason", "no_descriptors")])?, 1.0);
    assert_eq!(site.metric("branchline_calls_ended_total", &[("outcome", "no_descriptors")])?, 1.0);
    let said = site.appliance.said();
    assert!(said.contains("no descriptors for the media of a call"), "{said}");
    let status = site.status()?;
    assert_eq!((status.media_sockets, status.media_sessions), (FULL, FULL / 4), "nothing of it is left");

    job.succeed(LIMIT)?;
    interrupt::wait_until(LIMIT, "free descriptors", || {
        let status = site.status()?;
        Ok((status.media_sockets == 0 && status.ready).then_some(()))
    })?;
    site.a_call_works()
}

const PHONE: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 11);
const OFFICE: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 1);
const CENTRE: Ipv4Addr = Ipv4Addr::new(10, 62, 0, 1);
/// In the namespace of the test's other self.
const INSIDE: &str = "BRANCHLINE_TEST_INSIDE";
/// The file system of pins is its own, too: the engine looks for what another one has left there.
const NETWORK: &str = "mount -t bpf bpf /sys/fs/bpf && ip link set lo up && ip address add 10.61.0.1/32 dev lo \
    && ip address add 10.61.0.11/32 dev lo && ip address add 10.62.0.1/32 dev lo && exec \"$@\"";

/// The programs steer for the network namespace of a process: the test starts itself in one, with the limit.
#[test]
fn ten_thousand_calls_fit_a_limit_of_twenty_thousand_descriptors() -> Result<()> {
    if env::var_os(INSIDE).is_some() {
        return ten_thousand_calls();
    }
    let name = "descriptors::ten_thousand_calls_fit_a_limit_of_twenty_thousand_descriptors";
    let output = Command::new("prlimit")
        .arg(format!("--nofile={HARD_LIMIT}:{HARD_LIMIT}"))
        .args(["unshare", "--net", "--mount", "sh", "-c", NETWORK, "sh"])
        .arg(env::current_exe()?)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(said.contains("1 passed"), "{said}");
    print!("{said}");
    Ok(())
}

/// Nothing here is encrypted.
fn no_keys(bytes: &mut [u8]) -> Result<(), KeyError> {
    bytes.fill(0);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn ten_thousand_calls() -> Result<()> {
    const CALLS: u16 = 10_000;
    let port = |address: Ipv4Addr| Port {
        interface: "lo".to_owned(),
        address: address.into(),
        // Steering needs no program at the interface.
        attach: AttachChoice::Userspace,
        sip: Vec::new(),
    };
    let settings = EngineSettings {
        wanted: DatapathChoice::Auto,
        ports: vec![port(OFFICE), port(CENTRE)],
        priority: Priority::MEDIA,
        signalling_priority: Priority::MEDIA,
        limits: PacketLimits { source: 0, unknown: 0, stream: 0 },
        flows: 65_536,
        force_userspace: Vec::new(),
        kernel_log: KernelLog::Off,
        lifetime: Lifetime::Process,
    };
    let (datapath, _copies) = Engine::start(&settings, Vec::new()).await?;
    assert_eq!(datapath.why_userspace(), None);
    let network = |name: &str, address: Ipv4Addr| MediaNetwork {
        name: name.to_owned(),
        address: address.into(),
        advertised: address.into(),
        ports: 16_384..=16_384 + 2 * (CALLS - 1) + 1,
        latching: Latching::SameAddress,
        srtp: Default::default(),
        ice: Default::default(),
        rtp_dscp: Some(Dscp::EF),
        rtcp_dscp: None,
    };
    let mut sessions = Sessions::new(MediaSettings {
        networks: vec![network("office", OFFICE), network("centre", CENTRE)],
        max_sessions: usize::from(CALLS),
        timeout: Duration::from_secs(60),
        seed: 1,
        random: no_keys,
    });
    let own = std::process::id();
    let before = open_files(own)?;
    let now = Instant::now();
    let carry = |changes: Vec<FlowChange>| {
        changes.into_iter().try_for_each(|change| match change {
            FlowChange::Install(spec) => datapath.install(now, spec),
            FlowChange::Remove(local) => {
                datapath.remove(now, local);
                Ok(())
            }
        })
    };
    // Both parties are this host; the networks differ.
    let sdp = |address: Ipv4Addr, port: u16| {
        format!(
            "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"
        )
    };
    let (from, to) = (NetworkId(0), NetworkId(1));
    for call in 0..CALLS {
        let (call, port) = (call.to_be_bytes(), 20_000 + 2 * call);
        let offer = sdp(PHONE, port);
        let offer = Offer { call: &call, from_tag: b"a", to_tag: None, from, to, sdp: offer.as_bytes() };
        carry(sessions.offer(now, &offer)?.changes)?;
        let answer = sdp(Ipv4Addr::new(10, 62, 0, 10), port);
        let answer = Answer { call: &call, from_tag: b"a", to_tag: b"b", from, to, sdp: answer.as_bytes() };
        carry(sessions.answer(now, &answer)?.changes)?;
    }
    let during = open_files(own)?;
    println!("{before} descriptors before, {during} with {CALLS} calls and {} flows", datapath.table_use().0);
    assert_eq!((datapath.table_use().0, during), (4 * usize::from(CALLS), before));
    assert_eq!(datapath.sockets(), None);

    // Packets of the first call and the last one come to the relay, from port and to port of their own.
    for call in [0, CALLS - 1] {
        let session = sessions.query(&call.to_be_bytes()).context("no session")?;
        let mut local = session.streams.iter().flat_map(|stream| stream.flows.iter().copied());
        let is_rtp = |local: &SocketAddr| local.ip() == OFFICE && local.port().is_multiple_of(2);
        let local = local.find(is_rtp).context("no flow in the office")?;
        let phone = UdpSocket::bind((PHONE, 20_000 + 2 * call))?;
        let packet = [&[0x80, 0, 0, 1, 0, 0, 0, 160, 0, 0, 0, 7][..], &[0x55; 160]].concat();
        phone.send_to(&packet, local)?;
        let source = SocketAddr::from((PHONE, 20_000 + 2 * call));
        interrupt::wait_until(LIMIT, "the packet at the relay", || {
            let report = datapath.report(local).context("no flow")?;
            Ok(report.learned.is_some_and(|(learned, _)| learned == source).then_some(()))
        })?;
    }
    Ok(())
}

//! Packets per second, and CPU time per packet, of the userspace relay. Needs root.
//!
//! `cargo bench -p relay-userspace --bench userspace` measures this build; with `-- --beside PROGRAM`, where `PROGRAM` is
//! this bench as another commit builds it, both are measured in turns and their ratio is told.
//!
//! Each measurement is a process in a network namespace of its own: generators send G.711 packets of 20 ms over the
//! loopback interface to media ports of the engine, whose packets leave by a virtual cable to a host that is not there, and
//! are counted on it. The CPU time is that of the relay's process alone, over all its threads. Offered are once a rate that loses
//! nothing, for the CPU time per packet, and once as much as the generators can, for the packets per second. The bench
//! refuses to report a paced row that lost packets.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use branchline::{
    datapath::{
        Engine, FlowSpec, Settings,
        kernel::{attach::Lifetime, keeper::Port, programs::KernelLog},
    },
    net::{AttachChoice, DatapathChoice, Dscp, Latching, NetworkId, PacketLimits, Priority},
};
use relay_ebpf::FlowKind;

const ROUNDS: usize = 7;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);
/// Generators begin before and end after what is measured.
const GENERATED: Duration = Duration::from_secs(4);
/// Streams of each generator.
const STREAMS: u16 = 64;
const PAYLOAD: usize = 172;
const PHONES: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 11);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 62, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 62, 0, 10);
const FIRST_PORT: u16 = 16_384;
const FIRST_PHONE: u16 = 4000;
/// The file system of pins is this process's own: what a daemon has pinned is left alone.
const NETWORK: &str = "mount -t bpf bpf /sys/fs/bpf && ip link set lo up \
    && ip address add 10.61.0.1/32 dev lo && ip address add 10.61.0.11/32 dev lo \
    && ip link add out0 type veth peer name end0 && ip link set out0 up && ip link set end0 up \
    && ip address add 10.62.0.1/24 dev out0 \
    && ip neighbour add 10.62.0.10 lladdr 02:00:00:00:00:10 dev out0 && exec \"$@\"";

/// What is measured.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    datapath: DatapathChoice,
    generators: u16,
    /// Packets a second of all generators; none for as many as they can.
    rate: Option<u32>,
}

const ROWS: [Row; 5] = [
    Row { name: "steered, 20,000/s", datapath: DatapathChoice::Auto, generators: 1, rate: Some(20_000) },
    Row { name: "ports, 20,000/s", datapath: DatapathChoice::Userspace, generators: 1, rate: Some(20_000) },
    Row { name: "steered, flood", datapath: DatapathChoice::Auto, generators: 1, rate: None },
    Row { name: "steered, flood on 2 cores", datapath: DatapathChoice::Auto, generators: 2, rate: None },
    Row { name: "ports, flood", datapath: DatapathChoice::Userspace, generators: 1, rate: None },
];

/// What came of it.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    cpu_ns: f64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => rounds(None),
        ["--beside", other] => rounds(Some(PathBuf::from(other))),
        ["relay", row] => relay(&ROWS[row.parse::<usize>()?]),
        ["generate", index, rate] => generate(index.parse()?, rate.parse()?),
        _ => bail!("arguments: none, or --beside PROGRAM"),
    }
}

fn rounds(other: Option<PathBuf>) -> Result<()> {
    let programs: Vec<PathBuf> = other.into_iter().chain([env::current_exe()?]).collect();
    let mut figures = vec![[const { Vec::<Figures>::new() }; 2]; ROWS.len()];
    for round in 0..ROUNDS {
        eprint!("\rround {} of {ROUNDS} ", round + 1);
        for (row, lists) in figures.iter_mut().enumerate() {
            for (program, list) in programs.iter().zip(lists) {
                list.push(measured(program, row).with_context(|| ROWS[row].name)?);
            }
        }
    }
    eprintln!();
    println!("median of {ROUNDS} rounds (min-max): packets/s, CPU ns per packet");
    for (row, lists) in ROWS.iter().zip(&figures) {
        let shown = &lists[..programs.len()];
        for (program, list) in programs.iter().zip(shown) {
            let [rate, cpu] = [spread(list, |one| one.per_second), spread(list, |one| one.cpu_ns)];
            let name = if program == &programs[programs.len() - 1] { "this build" } else { "the other" };
            println!(
                "{:<26} {name:<10} {:>9.0} ({:.0}-{:.0}) {:>7.0} ({:.0}-{:.0})",
                row.name, rate.0, rate.1, rate.2, cpu.0, cpu.1, cpu.2
            );
        }
        if let [before, after] = shown {
            let pairs: Vec<Figures> = before
                .iter()
                .zip(after)
                .map(|(before, after)| Figures {
                    per_second: after.per_second / before.per_second,
                    cpu_ns: before.cpu_ns / after.cpu_ns,
                })
                .collect();
            let [rate, cpu] = [spread(&pairs, |one| one.per_second), spread(&pairs, |one| one.cpu_ns)];
            println!(
                "{:<26} times as many packets/s: {:.2} ({:.2}-{:.2}); times less CPU: {:.2} ({:.2}-{:.2})",
                "", rate.0, rate.1, rate.2, cpu.0, cpu.1, cpu.2
            );
        }
    }
    Ok(())
}

/// Median, least and most.
fn spread(list: &[Figures], what: impl Fn(&Figures) -> f64) -> (f64, f64, f64) {
    let mut values: Vec<f64> = list.iter().map(what).collect();
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn measured(program: &Path, row: usize) -> Result<Figures> {
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", NETWORK, "sh"])
        .arg(program)
        .args(["relay", &row.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let mut words = said.split_whitespace();
    let mut number = || Ok::<f64, anyhow::Error>(words.next().context("too few words")?.parse()?);
    Ok(Figures { per_second: number()?, cpu_ns: number()? })
}

/// The engine in the namespace of a measurement; prints packets/s and CPU ns per packet.
#[tokio::main]
async fn relay(row: &Row) -> Result<()> {
    let port = |interface: &str, address: Ipv4Addr| Port {
        interface: interface.to_owned(),
        address: address.into(),
        // The packets come to sockets all the same.
        attach: AttachChoice::Userspace,
        sip: Vec::new(),
    };
    let settings = Settings {
        wanted: row.datapath,
        ports: vec![port("lo", INSIDE), port("out0", OUTSIDE)],
        priority: Priority::MEDIA,
        signalling_priority: Priority::MEDIA,
        limits: PacketLimits { source: 0, unknown: 0, stream: 0 },
        flows: 4096,
        force_userspace: Vec::new(),
        kernel_log: KernelLog::Off,
        lifetime: Lifetime::Process,
    };
    let (engine, _copies) = Engine::start(&settings, Vec::new()).await?;
    ensure!(
        engine.why_userspace().is_none() == (row.datapath == DatapathChoice::Auto),
        "{:?}",
        engine.why_userspace()
    );
    for stream in 0..STREAMS * row.generators {
        let [inside, outside] =
            [INSIDE, OUTSIDE].map(|address| SocketAddr::from((address, FIRST_PORT + 2 * stream)));
        let phone = SocketAddr::from((PHONES, FIRST_PHONE + stream));
        let server = SocketAddr::from((SERVER, 6000 + stream));
        engine.install(Instant::now(), flow([inside, outside], [phone, server]))?;
        engine.install(Instant::now(), flow([outside, inside], [server, phone]))?;
    }
    let rate = row.rate.map_or(0, |rate| rate / u32::from(row.generators));
    let generators: Vec<Child> = (0..row.generators)
        .map(|index| {
            let program = env::current_exe()?;
            Command::new("taskset")
                .args(["-c", &index.to_string()])
                .arg(program)
                .args(["generate", &index.to_string(), &rate.to_string()])
                .spawn()
        })
        .collect::<Result<_, _>>()?;
    tokio::time::sleep(WARM_UP).await;
    let (started, packets, cpu) = (Instant::now(), sent()?, cpu_ns()?);
    tokio::time::sleep(MEASURED).await;
    let (elapsed, packets, cpu) = (started.elapsed(), sent()? - packets, cpu_ns()? - cpu);
    let per_second = packets as f64 / elapsed.as_secs_f64();
    for mut generator in generators {
        ensure!(generator.wait()?.success(), "a generator failed");
    }
    if let Some(rate) = row.rate {
        let charged: u64 = engine.reports().iter().map(|report| report.stats.lost()).sum();
        ensure!(charged == 0, "{charged} packets were lost of {rate} a second");
    }
    println!("{per_second} {}", cpu as f64 / packets as f64);
    Ok(())
}

fn flow([local, out_source]: [SocketAddr; 2], [source, destination]: [SocketAddr; 2]) -> FlowSpec {
    FlowSpec {
        local,
        from: NetworkId(0),
        signalled: Some(source),
        latching: Latching::Signalled,
        out_source,
        destination: Some(destination),
        kind: FlowKind::Rtp,
        dscp: Some(Dscp::EF),
        clock_rate: 8000,
        turns: 0,
        rtcp: None,
        srtp: None,
        ice: None,
        forks: Vec::new(),
    }
}

/// Sends from the phones of a generator; a rate of 0 is as much as it can.
fn generate(index: u16, rate: u32) -> Result<()> {
    const BURSTS_PER_SECOND: u32 = 1000;
    let sockets: Vec<UdpSocket> = (index * STREAMS..(index + 1) * STREAMS)
        .map(|stream| {
            let socket = UdpSocket::bind((IpAddr::V4(PHONES), FIRST_PHONE + stream))?;
            socket.connect((INSIDE, FIRST_PORT + 2 * stream))?;
            Ok(socket)
        })
        .collect::<Result<_>>()?;
    let mut packet = [0x55; PAYLOAD];
    packet[..2].copy_from_slice(&[0x80, 0]);
    let started = Instant::now();
    let mut count = 0u32;
    while started.elapsed() < GENERATED {
        let until = if rate == 0 {
            count + u32::from(STREAMS)
        } else {
            let bursts = started.elapsed().as_millis() as u32 * BURSTS_PER_SECOND / 1000;
            bursts * rate / BURSTS_PER_SECOND
        };
        while count < until {
            let (round, stream) = (count / u32::from(STREAMS), count as usize % usize::from(STREAMS));
            packet[2..4].copy_from_slice(&(round as u16).to_be_bytes());
            packet[4..8].copy_from_slice(&(round * 160).to_be_bytes());
            packet[8..12].copy_from_slice(&(stream as u32).to_be_bytes());
            sockets[stream].send(&packet)?;
            count += 1;
        }
        if rate != 0 {
            thread::sleep(Duration::from_secs(1) / BURSTS_PER_SECOND);
        }
    }
    Ok(())
}

/// Packets that have left.
fn sent() -> Result<u64> {
    /// Received has eight columns (proc_pid_net(5)).
    const SENT_PACKETS: usize = 9;
    let devices = fs::read_to_string("/proc/self/net/dev")?;
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("out0:")).context("no out0")?;
    Ok(line.split_whitespace().nth(SENT_PACKETS).context("too few columns")?.parse()?)
}

/// Time that all threads of this process have spent on a CPU.
fn cpu_ns() -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        let times = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += times.split_whitespace().next().context("no schedstat")?.parse::<u64>()?;
    }
    Ok(sum)
}

//! `branchline bench-self`: what this box carries, measured on it. The trial itself is [`crate::trial`].

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use super::{
    Format,
    doctor::{self, Attach, Finding, Verdict},
};
use crate::{
    config::{Config, Control},
    control::StatusView,
    net::netlink,
    trial::{self, Facts, Limit, Options, Report, TrialError},
};

/// What is asked for.
#[derive(Debug, clap::Args)]
pub(super) struct BenchSelf {
    /// Two interfaces with a cable between them; packets leave by the first, and the second forwards them. They are moved
    /// into a network namespace for that time, and back. Without this, virtual cables are made, and nothing of this host
    /// is touched.
    #[arg(long, num_args = 2, value_names = ["INTERFACE", "INTERFACE"])]
    between: Vec<String>,
    /// Take these interfaces although they are used for something. They lose their addresses and routes: bring them up
    /// again by the host's own network configuration afterwards.
    #[arg(long, requires = "between")]
    take_interfaces: bool,
    /// For how many seconds packets are sent, roughly: 2 to 120.
    #[arg(long, default_value_t = 15, value_parser = RangedU64ValueParser::<u64>::new().range(2..=120))]
    seconds: u64,
    /// The configuration file, whose interfaces are not taken unasked and are looked at for warnings: the package's, where
    /// it is and no other is named.
    #[arg(long)]
    pub(super) config: Option<PathBuf>,
    /// The daemon's socket, to ask it what it has open if it runs.
    #[arg(long, default_value = Control::DEFAULT)]
    pub(super) socket: PathBuf,
    #[command(flatten)]
    pub(super) format: Format,
}

/// What is printed.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    #[serde(flatten)]
    report: Report,
    /// What `branchline doctor` warns of on this host.
    warnings: Vec<Finding>,
}

impl Told {
    /// Whether any rate was held.
    pub(super) fn held(&self) -> bool {
        self.report.held.is_some()
    }
}

/// Runs a trial. What is in the way is an error.
pub(super) async fn run(
    wanted: &BenchSelf,
    config: Option<&Config>,
    running: Option<&StatusView>,
) -> Result<Told, String> {
    let between = <[String; 2]>::try_from(wanted.between.clone()).ok();
    if let Some(between) = &between {
        may_take(between, wanted.take_interfaces, config, running).await?;
    }
    // Before the trial: what it makes is not to be found.
    let findings = doctor::examine(config, Attach::Leave, running).await;
    let warnings = findings.into_iter().filter(|finding| finding.verdict != Verdict::Good).collect();
    let options = Options { between, time: Duration::from_secs(wanted.seconds) };
    let report = attended(options).await.map_err(|error| error.to_string())?;
    Ok(Told { report, warnings })
}

/// Whether interfaces may be taken.
async fn may_take(
    between: &[String; 2],
    overruled: bool,
    config: Option<&Config>,
    running: Option<&StatusView>,
) -> Result<(), String> {
    let facts = facts(config, running).await.map_err(|error| error.to_string())?;
    let objections = trial::objections(&facts, between)?;
    if objections.is_empty() || overruled {
        return Ok(());
    }
    Err(format!("{}.\nIf that is meant: --take-interfaces", objections.join("; ")))
}

async fn facts(config: Option<&Config>, running: Option<&StatusView>) -> Result<Facts, netlink::Error> {
    let netlink = netlink::connect()?;
    let configured = config.into_iter().flat_map(|config| config.networks());
    let mut configured: Vec<String> = configured.map(|(_, network)| network.interface.clone()).collect();
    if let Some(running) = running {
        configured.extend(running.networks.iter().map(|network| network.interface.clone()));
    }
    let default = |(_, length, interface)| (length == 0).then_some(interface);
    Ok(Facts {
        links: netlink.links().await?,
        addresses: netlink.addresses().await?,
        parts: netlink.parts().await?,
        default_routes: netlink.routes().await?.into_iter().filter_map(default).collect(),
        configured,
    })
}

/// The trial on a thread of its own, with an eye on the signals that stop it.
async fn attended(options: Options) -> Result<Report, TrialError> {
    let thread_error = |error| TrialError::System { what: "a thread for the trial", error };
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, mut ended) = oneshot::channel();
    let told_to_stop = Arc::clone(&stop);
    let thread = std::thread::Builder::new().name("trial".to_owned()).spawn(move || {
        // Nobody waits for it any more if this process is about to end.
        let _ = sender.send(trial::run(&options, &told_to_stop, show_progress));
    });
    let thread = thread.map_err(thread_error)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(thread_error)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(thread_error)?;
    let result = loop {
        tokio::select! {
            result = &mut ended => break result,
            _ = interrupt.recv() => stop.store(true, Ordering::Relaxed),
            _ = terminate.recv() => stop.store(true, Ordering::Relaxed),
        }
    };
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    // Its namespace is gone when it is.
    let _ = thread.join();
    result.unwrap_or_else(|_| Err(thread_error(std::io::Error::other("it panicked"))))
}

fn show_progress(text: &str) {
    let mut out = std::io::stderr();
    let line = if out.is_terminal() { format!("\r\x1b[2K{text}") } else { format!("{text}\n") };
    // A terminal that is gone is no reason to stop.
    let _ = out.write_all(line.as_bytes());
}

/// For people.
pub(super) fn show(told: &Told) -> String {
    let report = &told.report;
    let place = match &report.between {
        None => "virtual cables in a network namespace of its own".to_owned(),
        Some([outer, inner]) => format!("from {outer} by {inner} and back"),
    };
    let mut text = format!(
        "{}, {} cores, kernel {}\nXDP {}, {place}; {} streams of {}-byte frames (G.711, 20 ms), one core forwards\n\n",
        report.processor, report.cores, report.kernel, report.mode, report.streams, report.frame_bytes
    );
    let mut line = |name: &str, value: String| text += &format!("{name:<24}  {value}\n");
    match &report.held {
        Some(held) => {
            line("highest rate held", format!("{:.0} packets a second, {} of {} lost", held.packets_per_second, held.lost, held.sent));
            line("CPU for each packet", format!("{:.0} ns, the core {:.0} % busy", held.cpu_ns_per_packet, held.busy * 100.0));
        }
        None => line(
            "highest rate held",
            "none: at every rate more than 1 packet in 100,000 was lost. Is there other work on this machine?".to_owned(),
        ),
    }
    let saturated = &report.saturated;
    line(
        "as fast as it goes",
        format!(
            "{:.0} packets a second arrived, {} of {} were lost, the core {:.0} % busy",
            saturated.packets_per_second,
            saturated.lost,
            saturated.sent,
            saturated.busy * 100.0
        ),
    );
    line(
        "the limit",
        match report.limit {
            Limit::Generator => "generator and sink: the core that forwards had time left, and carries more",
            Limit::ForwardingCore => "the core that forwards",
            Limit::Pauses => {
                "pauses: queues overflowed while the core had time left. Other work on this machine, or a virtual one \
                 that waits for its processor"
            }
        }
        .to_owned(),
    );
    line(
        "receive queues",
        match report.queues {
            1 => "1: one core works on what this interface receives".to_owned(),
            queues => format!("{queues}: so many cores can share what this interface receives"),
        },
    );
    text += &format!(
        "\n{:<20} {:>13} {:>11} {:>16} {:>8} {:>16}\n",
        "calls at a time", "bytes, 20 ms", "frame", "packets a second", "calls", "Mbit/s each way"
    );
    for calls in &report.calls {
        text += &format!(
            "{:<20} {:>13} {:>11} {:>16} {:>8} {:>16.1}{}\n",
            calls.codec.name,
            calls.codec.payload_bytes,
            calls.frame_bytes,
            calls.packets_per_second,
            calls.calls,
            calls.megabits_each_way,
            if calls.limited_by_cable { "  (the cable)" } else { "" }
        );
    }
    if !told.warnings.is_empty() {
        text += "\nWhat `branchline doctor` says of this host:\n";
        text += &doctor::show(&told.warnings);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::{CODECS, Calls, Point};

    fn told(held: Option<Point>) -> Told {
        let rate = held.map_or(0.0, |held| held.packets_per_second);
        let saturated = Point {
            sent: 2_000_000,
            arrived: 1_000_000,
            lost: 1_000_000,
            seconds: 1.0,
            packets_per_second: 1e6,
            cpu_ns_per_packet: 995.0,
            busy: 0.995,
        };
        Told {
            report: Report {
                between: None,
                mode: "native".to_owned(),
                cores: 2,
                kernel: "6.18".to_owned(),
                processor: "a processor".to_owned(),
                streams: 1000,
                frame_bytes: 214,
                queues: 1,
                cable_megabits: None,
                saturated,
                held,
                limit: Limit::of(&saturated, held.as_ref()),
                calls: CODECS.iter().map(|codec| Calls::of(*codec, rate, None)).collect(),
                runs: 10,
                packets: 3_000_000,
            },
            warnings: Vec::new(),
        }
    }

    #[test]
    fn the_table_names_the_rate_the_limit_and_the_calls() {
        let held = Point {
            sent: 812_345,
            arrived: 812_344,
            lost: 1,
            seconds: 1.0,
            packets_per_second: 812_344.0,
            cpu_ns_per_packet: 640.4,
            busy: 0.52,
        };
        let text = show(&told(Some(held)));
        for part in [
            "highest rate held         812344 packets a second, 1 of 812345 lost",
            "CPU for each packet       640 ns, the core 52 % busy",
            "the limit                 the core that forwards",
            "G.711                          160         214              100     8123            773.3",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn where_no_rate_was_held_it_says_so() {
        let text = show(&told(None));
        assert!(text.contains("none: at every rate more than 1 packet in 100,000 was lost"), "{text}");
    }
}

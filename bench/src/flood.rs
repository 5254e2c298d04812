//! A flood of the SIP port while calls run and new ones are set up: the real daemon, with phones and a server by SIPp.
//!
//! The same calls are made three times: undisturbed, under a flood from one host, and under one from thousands of
//! addresses that are nobody's.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use branchline::control::{FlowView, StatusView};
use xtask::demo::appliance::{self, Appliance, Settings};
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::sipp::{Job, Scenario, Sipp};
use xtask::lab::traffic::{APPLIANCE_SIP, PEER_SIP};
use xtask::lab::{Leg, MediaEndpoint, UdpChecksum, interrupt};

use crate::cores::{self, Core};
use crate::testbed::Testbed;
use crate::traffic::{Rate, from_many};

/// Packets a second that are asked for. The generator has its core together with phones, server and sink, and gets to some
/// nine tenths of it: half a million a second are what is to be reached.
pub(crate) const RATE: f64 = 600_000.0;
/// How long a flood lasts: as long as the calls are made, and a little more.
const TIME: Duration = Duration::from_secs(8);
/// Calls that talk all the while, and calls that are set up meanwhile, and how many of these a second.
const STANDING: u32 = 20;
const CALLS: u32 = 50;
const CALLS_PER_SECOND: u32 = 10;
const TALK: Duration = Duration::from_secs(1);
/// Calls take their talk, and this at most.
const LIMIT: Duration = Duration::from_secs(30);
/// The phones that stand, that call, and that floods.
const STANDING_PHONE: u8 = 3;
const CALLING_PHONE: u8 = 4;
const ATTACKER: u8 = 12;
/// How many addresses the second flood comes from.
const ADDRESSES: u32 = 10_000;
/// What the flood says.
const PAYLOAD: &[u8] = b"OPTIONS sip:x SIP/2.0\r\n";

/// Who floods, one after the other.
pub(crate) const FLOODS: [Flood; 3] = [Flood::None, Flood::OneHost, Flood::ManyAddresses];

/// Who floods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// Nobody.
    None,
    /// A host of the office's network.
    OneHost,
    /// Thousands of addresses.
    ManyAddresses,
}

impl Flood {
    /// For people.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::OneHost => "one host",
            Self::ManyAddresses => "10,000 addresses",
        }
    }
}

/// What became of calls under one of them.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Who flooded.
    pub flood: Flood,
    /// Packets of the flood.
    pub sent: u64,
    /// Packets a second that were really reached.
    pub rate: f64,
    /// Packets that the kernel dropped, by reason.
    pub dropped: Vec<(String, u64)>,
    /// Calls that were set up and ended as they should.
    pub successful: u64,
    /// Calls that failed.
    pub failed: u64,
    /// From INVITE to 200, on average, in milliseconds; the server lets it ring for 200 ms.
    pub setup_ms: f64,
    /// Retransmissions by the phone.
    pub retransmissions: u64,
    /// RTP packets of the standing calls that were heard, and that were lost.
    pub heard: u64,
    /// See `heard`.
    pub lost: u64,
    /// Those of them that never came to the appliance: the queue in front of it was full.
    pub lost_before: u64,
}

/// The reasons by which floods are dropped.
const REASONS: [&str; 3] = ["source_rate", "unknown_rate", "denied"];

struct Site<'t> {
    bed: &'t Testbed,
    appliance: Appliance,
    _server: Sipp,
    media: [MediaEndpoint; 2],
}

/// Makes the calls under each flood.
///
/// # Errors
/// The daemon does not start, or the calls cannot be made at all. A call that fails is counted.
pub(crate) fn run(bed: &Testbed, mut says: impl FnMut(&str)) -> Result<Vec<Outcome>> {
    let site = Site::start(bed)?;
    site.register(STANDING_PHONE)?;
    site.register(CALLING_PHONE)?;
    let standing = site.calls("standing", STANDING_PHONE, STANDING, STANDING, Duration::from_secs(120))?;
    site.media[0].follow(standing.orders(), standing.media_base())?;
    interrupt::wait_until(LIMIT, "standing calls with media", || {
        Ok((site.heard().0 > u64::from(STANDING) * 50).then_some(()))
    })?;
    let mut outcomes = Vec::new();
    for flood in FLOODS {
        says(flood.name());
        outcomes.push(site.under(flood).with_context(|| format!("flood by {}", flood.name()))?);
    }
    Ok(outcomes)
}

impl<'t> Site<'t> {
    fn start(bed: &'t Testbed) -> Result<Self> {
        let lab = &bed.lab;
        let settings = Settings {
            office_interface: bed.names.arrivals.clone(),
            centre: (bed.names.departures.clone(), APPLIANCE_CENTRE.into()),
            datapath: "engine = \"kernel\"\n".to_owned(),
            // What another daemon of this host has pinned is none of its business.
            launcher: ["unshare", "--mount", "sh", "-c", "mount -t bpf bpf /sys/fs/bpf && exec \"$@\"", "sh"]
                .map(str::to_owned)
                .to_vec(),
            ..Settings::of(appliance::program())
        };
        let appliance = Appliance::start_with(lab, &settings)?;
        bed.receive_first()?;
        // Behind the thread that takes the flood, as on a box whose cores all receive.
        for thread in cores::threads_of_family(appliance.pid())? {
            cores::pin(thread, Core::FORWARDING)?;
        }
        let server =
            Job::new(Scenario::Server, "server", SERVER, PEER_SIP, 40_000).start(&lab.centre, lab.dir())?;
        lab.centre.wait_for_udp(SocketAddrV4::new(SERVER, PEER_SIP), LIMIT)?;
        let media = [
            MediaEndpoint::start_with(&lab.office, 1, UdpChecksum::Computed)?,
            MediaEndpoint::start_with(&lab.centre, 2, UdpChecksum::Computed)?,
        ];
        media[1].follow(server.orders(), server.media_base())?;
        Ok(Self { bed, appliance, _server: server, media })
    }

    fn register(&self, index: u8) -> Result<()> {
        let user = format!("10{index:02}");
        let mut job =
            Job::new(Scenario::PhoneRegister, &format!("register-{user}"), phone(index), PEER_SIP, 60_000);
        job.destination = Some(SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP));
        job.rows = vec![vec![user.clone(), format!("[authentication username={user} password=lab{user}]")]];
        job.calls = Some(1);
        job.keys = vec![("contact_port".to_owned(), PEER_SIP.to_string())];
        job.start(&self.bed.lab.office, self.bed.lab.dir())?.succeed(LIMIT).map(drop)
    }

    fn calls(&self, name: &str, index: u8, calls: u32, rate: u32, talk: Duration) -> Result<Sipp> {
        let media = 20_000 + 4000 * u16::from(index - STANDING_PHONE);
        let mut job = Job::new(Scenario::PhoneCall, name, phone(index), PEER_SIP, media);
        job.destination = Some(SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP));
        job.rows = (0..calls).map(|call| vec![format!("10{index:02}"), format!("9{call:03}")]).collect();
        job.calls = Some(calls);
        job.rate = rate;
        job.pause = talk;
        job.start(&self.bed.lab.office, self.bed.lab.dir())
    }

    /// RTP packets that the standing calls' ends have heard, and that were lost on the way to them.
    fn heard(&self) -> (u64, u64) {
        let [office, centre] = self.legs();
        let sum = |read: fn(&Leg) -> u64| office.iter().chain(&centre).map(read).sum();
        (sum(|leg| leg.received), sum(|leg| leg.heard.lost()))
    }

    /// RTP packets that are missing where the appliance looks for them, by its own count.
    fn missing(&self) -> Result<u64> {
        let flows: Vec<FlowView> = serde_json::from_value(self.appliance.ask(&self.bed.lab, &["flows"])?)?;
        Ok(flows.iter().filter(|flow| flow.kind == "rtp").map(|flow| flow.lost).sum())
    }

    fn legs(&self) -> [Vec<Leg>; 2] {
        let office = self.media[0].legs();
        // The others' calls have no media of their own in the office.
        let calls: Vec<String> = office.iter().map(|leg| leg.call.clone()).collect();
        let centre = self.media[1].legs().into_iter().filter(|leg| calls.contains(&leg.call)).collect();
        [office, centre]
    }

    fn dropped(&self) -> Result<Vec<(String, u64)>> {
        let status: StatusView = serde_json::from_value(self.appliance.ask(&self.bed.lab, &["status"])?)?;
        let reasons =
            status.not_forwarded.into_iter().filter(|(reason, ..)| REASONS.contains(&reason.as_str()));
        Ok(reasons.map(|(reason, kernel, _)| (reason, kernel)).collect())
    }

    fn under(&self, flood: Flood) -> Result<Outcome> {
        let target = SocketAddrV4::new(APPLIANCE_OFFICE, APPLIANCE_SIP);
        let sources: Vec<(Ipv4Addr, u16)> = match flood {
            Flood::None => Vec::new(),
            Flood::OneHost => vec![(phone(ATTACKER), 40_000)],
            // RFC 2544's addresses for benches.
            Flood::ManyAddresses => (0..ADDRESSES)
                .map(|index| (Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + index), 5060))
                .collect(),
        };
        let (heard, before, missing) = (self.heard(), self.dropped()?, self.missing()?);
        let generator = if sources.is_empty() {
            None
        } else {
            let routes = from_many(sources, target);
            self.bed.traffic.set_streams(&routes)?;
            let (office, rate) = (&self.bed.lab.office, Rate::PerSecond(RATE));
            Some(self.bed.traffic.flood(office, routes.len(), PAYLOAD, rate, TIME)?)
        };
        let mut calls =
            self.calls(&format!("calls-{}", flood as u8), CALLING_PHONE, CALLS, CALLS_PER_SECOND, TALK)?;
        // Calls that hang have failed as much as those that end too early.
        let waited = calls.wait(LIMIT);
        if interrupt::happened() {
            waited?;
        }
        let tally = calls.tally()?;
        let (sent, time) = generator.map_or(Ok((0, TIME)), crate::traffic::Generator::finish)?;
        interrupt::sleep(Duration::from_secs(1))?;
        let (after, now) = (self.dropped()?, self.heard());
        let was =
            |reason: &str| before.iter().find(|(name, _)| name == reason).map_or(0, |(_, count)| *count);
        let dropped: Vec<(String, u64)> =
            after.into_iter().map(|(reason, count)| (reason.clone(), count - was(&reason))).collect();
        let all: u64 = dropped.iter().map(|(_, count)| count).sum();
        ensure!(
            flood == Flood::None || all > 0,
            "of {sent} packets of the flood none was dropped: nothing was measured"
        );
        Ok(Outcome {
            flood,
            sent,
            rate: sent as f64 / time.as_secs_f64(),
            dropped,
            successful: tally.successful,
            failed: u64::from(CALLS).saturating_sub(tally.successful),
            setup_ms: milliseconds(&calls.statistic("ResponseTime1(C)")?)?,
            retransmissions: calls.statistic("Retransmissions(C)")?.parse()?,
            heard: now.0 - heard.0,
            lost: now.1.saturating_sub(heard.1),
            lost_before: self.missing()?.saturating_sub(missing),
        })
    }
}

/// SIPp's hours, minutes, seconds and microseconds.
fn milliseconds(text: &str) -> Result<f64> {
    let parts: Vec<f64> = text.split(':').filter_map(|part| part.parse().ok()).collect();
    let [hours, minutes, seconds, micros] =
        <[f64; 4]>::try_from(parts).ok().with_context(|| format!("{text} is no time of SIPp"))?;
    Ok(((hours * 60.0 + minutes) * 60.0 + seconds) * 1e3 + micros / 1e3)
}

/// The outcomes as a table in Markdown.
#[must_use]
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| flood | packets sent | a second | dropped by the kernel | calls | failed | set-up, ms | retransmissions | \
         RTP heard | RTP lost | of these before the appliance |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        let dropped: Vec<String> = outcome
            .dropped
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {} | {} | {} | {:.0} | {} | {} | {} | {} |",
            outcome.flood.name(),
            outcome.sent,
            outcome.rate,
            if dropped.is_empty() { String::from("-") } else { dropped.join(", ") },
            outcome.successful + outcome.failed,
            outcome.failed,
            outcome.setup_ms,
            outcome.retransmissions,
            outcome.heard,
            outcome.lost,
            outcome.lost_before,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sipps_times_are_read() {
        assert!((milliseconds("00:00:01:203500").unwrap() - 1203.5).abs() < 1e-6);
        assert!(milliseconds("soon").is_err());
    }
}

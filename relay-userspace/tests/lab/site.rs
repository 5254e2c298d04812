//! A laboratory with a running appliance, a server, and phones that call when they are told to.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::control::{CallView, FlowView, StatusView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::network::{self, APPLIANCE_CENTRE, APPLIANCE_OFFICE, SERVER, phone};
use xtask::lab::sipp::{Job, Scenario, Sipp};
use xtask::lab::traffic::{APPLIANCE_SIP, PEER_SIP};
use xtask::lab::{Capture, Faults, Lab, Leg, MediaEndpoint, Packet, Routes, UdpChecksum, interrupt};

/// What is waited for comes within a moment; a machine that is busy otherwise takes longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// From where the server calls: its registrar has the other port.
const SERVER_CALLS_FROM: u16 = 5070;
/// The server's first media ports, as the one who is called and as the one who calls.
const SERVER_MEDIA: u16 = 40_000;
const SERVER_CALLS_MEDIA: u16 = 50_000;
/// After the last packet: whatever is under way has arrived and has been counted.
const SETTLE: Duration = Duration::from_millis(500);

/// A turn in this test binary.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The daemon that cargo has built for this test, with the laboratory's configuration.
pub(crate) fn settings() -> Settings {
    Settings::of(PathBuf::from(env!("CARGO_BIN_EXE_branchline")))
}

/// The same with one datapath and no other.
pub(crate) fn engine(engine: &str) -> Settings {
    Settings { datapath: format!("engine = \"{engine}\"\n"), ..settings() }
}

/// What is in the branch, in the office and in the centre. Dropping it takes it down.
pub(crate) struct Site {
    pub(crate) appliance: Appliance,
    pub(crate) server: Sipp,
    media: Option<[MediaEndpoint; 2]>,
    /// What was sent and heard until the silence.
    last: [Vec<Leg>; 2],
    pub(crate) lab: Lab,
    pub(crate) settings: Settings,
    _turn: MutexGuard<'static, ()>,
}

impl Site {
    pub(crate) fn start(settings: Settings) -> Result<Self> {
        Self::start_with(settings, Routes::None, UdpChecksum::Computed)
    }

    pub(crate) fn start_with(settings: Settings, routes: Routes, checksum: UdpChecksum) -> Result<Self> {
        Self::start_from(settings, routes, checksum, |settings, lab| Ok(settings.configuration(lab.dir())))
    }

    /// The same on networks that are changed before anything runs on them.
    pub(crate) fn start_on(settings: Settings, shape: impl FnOnce(&Lab) -> Result<()>) -> Result<Self> {
        Self::start_from(settings, Routes::None, UdpChecksum::Computed, |settings, lab| {
            shape(lab)?;
            Ok(settings.configuration(lab.dir()))
        })
    }

    /// The same with a file as it is after installing, but for the places that belong to the laboratory.
    pub(crate) fn start_unconfigured(settings: Settings) -> Result<Self> {
        Self::start_from(settings, Routes::None, UdpChecksum::Computed, |settings, lab| {
            Ok(format!("# Nothing yet.\n{}", settings.places(lab.dir())))
        })
    }

    pub(crate) fn start_from(
        settings: Settings,
        routes: Routes,
        checksum: UdpChecksum,
        configuration: impl FnOnce(&Settings, &Lab) -> Result<String>,
    ) -> Result<Self> {
        let turn = turn();
        let lab = Lab::create(routes)?;
        let appliance = Appliance::start_from(&lab, &settings, &configuration(&settings, &lab)?)?;
        let server = Job::new(Scenario::Server, "server", SERVER, PEER_SIP, SERVER_MEDIA)
            .start(&lab.centre, lab.dir())?;
        lab.centre.wait_for_udp(SocketAddrV4::new(SERVER, PEER_SIP), LIMIT)?;
        let media = [
            MediaEndpoint::start_with(&lab.office, 1, checksum)?,
            MediaEndpoint::start_with(&lab.centre, 2, checksum)?,
        ];
        media[1].follow(server.orders(), server.media_base())?;
        Ok(Self {
            appliance,
            server,
            media: Some(media),
            last: Default::default(),
            lab,
            settings,
            _turn: turn,
        })
    }

    /// Starts the appliance again, with what the settings are now.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.appliance = Appliance::start_with(&self.lab, &self.settings)?;
        Ok(())
    }

    /// Takes the store away, while no appliance runs: the next one knows of no call.
    pub(crate) fn forget_calls(&self) -> Result<()> {
        for file in std::fs::read_dir(self.lab.dir().join("state"))? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with("branchline.db") {
                std::fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }

    /// What phones and servers do wrong in calls that begin from now on: office, then centre.
    pub(crate) fn misbehave(&self, faults: [Faults; 2]) {
        for (endpoint, faults) in self.media.iter().flatten().zip(faults) {
            endpoint.misbehave(faults);
        }
    }

    /// What phones and servers have sent and heard so far: office, then centre.
    pub(crate) fn legs(&self) -> [Vec<Leg>; 2] {
        self.media.as_ref().map(|media| [media[0].legs(), media[1].legs()]).unwrap_or_default()
    }

    /// The last call's two ends as they were when all media ended: office, then centre.
    pub(crate) fn legs_at_end(&self) -> Result<[Leg; 2]> {
        let last = |legs: &[Leg]| legs.last().cloned().context("no media");
        Ok([last(&self.last[0])?, last(&self.last[1])?])
    }

    /// Ends all media, while the calls stand.
    pub(crate) fn silence(&mut self) -> Result<()> {
        for (endpoint, last) in self.media.take().into_iter().flatten().zip(&mut self.last) {
            *last = endpoint.stop()?;
        }
        std::thread::sleep(SETTLE);
        Ok(())
    }

    /// Has the phones' side of a call play and hear, if it does not yet.
    pub(crate) fn play(&self, sipp: &Sipp) -> Result<()> {
        self.media.as_ref().context("the media has ended")?[0].follow(sipp.orders(), sipp.media_base())
    }

    /// A phone registers a user, and the binding is what the server then knows of it.
    pub(crate) fn register(&self, index: u8, user: &str) -> Result<String> {
        let name = format!("register-{user}");
        let mut job = Job::new(Scenario::PhoneRegister, &name, phone(index), PEER_SIP, media_base(index));
        job.destination = Some(to_appliance(APPLIANCE_OFFICE));
        job.rows =
            vec![vec![user.to_owned(), format!("[authentication username={user} password=lab{user}]")]];
        job.calls = Some(1);
        job.keys = vec![("contact_port".to_owned(), PEER_SIP.to_string())];
        job.start(&self.lab.office, self.lab.dir())?.succeed(LIMIT)?;
        let bindings = self.server.logged("BINDING");
        let binding = bindings.into_iter().rev().find(|words| words.first().is_some_and(|word| word == user));
        binding.and_then(|words| words.into_iter().nth(1)).context("the server has seen no binding")
    }

    /// A phone's call, not started yet.
    pub(crate) fn call(&self, scenario: Scenario, index: u8, talk: Duration) -> Job {
        let mut job = Job::new(scenario, &format!("call-{index}"), phone(index), PEER_SIP, media_base(index));
        job.destination = Some(to_appliance(APPLIANCE_OFFICE));
        job.rows = vec![vec![format!("10{index:02}"), format!("90{index:02}")]];
        job.calls = Some(1);
        job.pause = talk;
        job
    }

    /// A phone calls, with media.
    pub(crate) fn phone_calls(&self, index: u8, talk: Duration) -> Result<Sipp> {
        let sipp = self.call(Scenario::PhoneCall, index, talk).start(&self.lab.office, self.lab.dir())?;
        self.play(&sipp)?;
        Ok(sipp)
    }

    /// The server calls a phone at a binding, with media; both ends are returned.
    pub(crate) fn server_calls(&self, index: u8, binding: &str, talk: Duration) -> Result<[Sipp; 2]> {
        self.server_calls_as(Scenario::ServerCall, index, binding, talk)
    }

    /// The same by a scenario.
    pub(crate) fn server_calls_as(
        &self,
        scenario: Scenario,
        index: u8,
        binding: &str,
        talk: Duration,
    ) -> Result<[Sipp; 2]> {
        let (office, centre) = (&self.lab.office, &self.lab.centre);
        let mut answer = Job::new(Scenario::PhoneAnswer, "answer", phone(index), PEER_SIP, media_base(index));
        answer.calls = Some(1);
        let answer = answer.start(office, self.lab.dir())?;
        office.wait_for_udp(SocketAddrV4::new(phone(index), PEER_SIP), LIMIT)?;
        self.play(&answer)?;
        let mut call = Job::new(scenario, "inbound", SERVER, SERVER_CALLS_FROM, SERVER_CALLS_MEDIA);
        call.destination = Some(to_appliance(APPLIANCE_CENTRE));
        call.rows = vec![vec!["9999".to_owned(), binding.to_owned()]];
        call.calls = Some(1);
        call.pause = talk;
        let call = call.start(centre, self.lab.dir())?;
        self.media.as_ref().context("the media has ended")?[1].follow(call.orders(), call.media_base())?;
        Ok([answer, call])
    }

    /// Captures of the office's wire and the centre's.
    pub(crate) fn captures(&self) -> Result<[Capture; 2]> {
        Ok([
            Capture::start(&self.lab.office, network::OUTER, "office", self.lab.dir())?,
            Capture::start(&self.lab.centre, network::OUTER, "centre", self.lab.dir())?,
        ])
    }

    pub(crate) fn flows(&self) -> Result<Vec<FlowView>> {
        ask(&self.appliance, &self.lab, "flows")
    }

    pub(crate) fn calls(&self) -> Result<Vec<CallView>> {
        ask(&self.appliance, &self.lab, "calls")
    }

    pub(crate) fn status(&self) -> Result<StatusView> {
        ask(&self.appliance, &self.lab, "status")
    }

    /// Waits until this many flows are there and all of them are as wanted.
    pub(crate) fn until_flows(
        &self,
        count: usize,
        wanted: impl Fn(&FlowView) -> bool,
    ) -> Result<Vec<FlowView>> {
        let mut last = Vec::new();
        interrupt::wait_until(LIMIT, "flows as wanted", || {
            last = self.flows()?;
            Ok((last.len() == count && last.iter().all(&wanted)).then(|| last.clone()))
        })
        .with_context(|| format!("{last:#?}"))
    }

    /// A metric, summed over what carries these labels.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(self.appliance.metrics(&self.lab)?.sum(name, labels))
    }

    /// A whole call with media in both directions works.
    pub(crate) fn a_call_works(&self) -> Result<()> {
        self.a_call_works_from(0)
    }

    /// The same for one of the phones, which has not called before.
    pub(crate) fn a_call_works_from(&self, index: u8) -> Result<()> {
        let mut call = self.phone_calls(index, Duration::from_secs(2))?;
        call.succeed(LIMIT)?;
        let [office, centre] = self.legs();
        for leg in [office.last(), centre.last()] {
            let leg = leg.context("no media")?;
            assert!(leg.sent > 0 && leg.received > 0, "media in both directions: {leg:?}");
        }
        Ok(())
    }
}

/// Asks the daemon by its own command line.
pub(crate) fn ask<T: serde::de::DeserializeOwned>(appliance: &Appliance, lab: &Lab, what: &str) -> Result<T> {
    Ok(serde_json::from_value(appliance.ask(lab, &[what])?)?)
}

/// Where the appliance takes SIP on one of its addresses.
pub(crate) fn to_appliance(address: Ipv4Addr) -> SocketAddrV4 {
    SocketAddrV4::new(address, APPLIANCE_SIP)
}

/// A phone's first media port.
pub(crate) fn media_base(index: u8) -> u16 {
    20_000 + 500 * u16::from(index)
}

/// Whether a packet is signalling.
pub(crate) fn is_sip(packet: &Packet) -> bool {
    packet.source.port() == APPLIANCE_SIP || packet.destination.port() == APPLIANCE_SIP
}

//! An appliance that is made up, and requests to its pages.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use bytes::Bytes;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;

use crate::{
    admin::{
        self, Appliance, Machine, Setup, TlsFacts, Web, Which,
        access::Secret,
        guard::{COOKIE, Source},
    },
    capture::{self, CaptureError, CaptureView, Captures, Part, Target, Wanted},
    config::{Config, ConfigError, changes, keys::Effect},
    control::{
        CallView, FlowView, ListenerView, NetworkView, PhoneView, RefusalView, RegistrationView,
        ReloadedView, ServerView, StatusView,
    },
    datapath::Way,
    log::{LogView, TopicView},
    metrics::Metrics,
    net::NetworkId,
    provisioning::{PhoneActivity, StageView, syslog::SyslogView},
    quality::{DirectionQuality, StreamQuality, Verdict},
    sip::Hop,
    store::{Entry, Scope, Store, StoreError, TraceStore, tests_support::Directory},
    trace::{self, TraceView, Traces, TracesView},
};

/// A configuration with two networks.
pub(super) const CONFIGURATION: &str = "# Graz\n[[network]]\nname = \"office\"\nrole = \"phones\"\ninterface = \"eth0\"\n\n\
     [[network]]\nname = \"centre\"\nrole = \"servers\"\ninterface = \"eth1\"\n\n\
     [upstream]\nservers = [\"10.62.0.10:5060\"]\n\n[sip]\ntimer_t1_ms = 500 # as ever\n";
/// Where the pages are.
pub(super) const HOST: &str = "10.61.0.1:8443";
pub(super) const ORIGIN: &str = "https://10.61.0.1:8443";
pub(super) const NAME: &str = "ann";
pub(super) const PASSWORD: &str = "correct horse battery";
/// The call that there is.
pub(super) const CALL: &str = "call/1?&#@host";
/// What a phone calls itself that means no good.
pub(super) const HOSTILE: &str = "<script>alert(1)</script>\"' & <b>";

/// An interface that the host does not have.
pub(super) const MISSING: &str = "wan7";

/// An appliance with one call, one phone, and a configuration file.
struct Pretended {
    restarts: Arc<AtomicUsize>,
    file: PathBuf,
    running: Mutex<Config>,
    store: Arc<Store>,
    captures: Arc<Captures>,
    traces: Traces,
}

impl Appliance for Pretended {
    fn status(&self) -> StatusView {
        StatusView {
            symptoms: Vec::new(),
            version: "1.2.3".to_owned(),
            uptime_seconds: 60,
            ready: false,
            not_ready_reason: Some("all media ports of network \"office\" are in use".to_owned()),
            datapath: "kernel".to_owned(),
            datapath_reason: None,
            networks: vec![NetworkView {
                name: "office".to_owned(),
                role: "phones".to_owned(),
                interface: "eth0".to_owned(),
                sip: "10.61.0.1:8060".to_owned(),
                listeners: vec![ListenerView { transport: "udp".to_owned(), port: 8060 }],
                attached: "native".to_owned(),
                attached_reason: None,
                ports_used: 4,
                ports: 4,
            }],
            servers: vec![ServerView {
                group: "upstream".to_owned(),
                fallback: false,
                server: "sip:10.62.0.10:5060".to_owned(),
                address: None,
                transport: None,
                state: "down".to_owned(),
                step: Some("name".to_owned()),
                reason: Some("no such name".to_owned()),
                since_seconds: None,
                updated_seconds: None,
                known_by: None,
                round_trip_ms: None,
                preferred: false,
            }],
            trunks: Vec::new(),
            plan_destinations: Vec::new(),
            survival_groups: Vec::new(),
            survival_seconds: None,
            emergency_calls_by: "servers".to_owned(),
            calls_active: 1,
            registrations: 1,
            transactions: 0,
            media_sessions: 1,
            flows: 4,
            flow_table_size: 65_536,
            open_files: 10,
            open_files_limit: 65_536,
            media_sockets: 0,
            media_sockets_limit: None,
            kernel_packets: 1000,
            userspace_packets: 1,
            not_forwarded: vec![("wrong_source".to_owned(), 1, 2)],
            waiting_for_restart: Vec::new(),
            configuration_error: None,
        }
    }

    fn calls(&self, _which: Which) -> Vec<CallView> {
        vec![CallView {
            call_id: CALL.to_owned(),
            from: HOSTILE.to_owned(),
            to: "9001".to_owned(),
            from_network: "office".to_owned(),
            to_network: "centre".to_owned(),
            state: "established".to_owned(),
            age_seconds: 61.0,
            answered_seconds: Some(60.0),
            outcome: None,
            from_agent: Some(HOSTILE.to_owned()),
            to_agent: None,
            refusals: Vec::new(),
            verdict: Some(Verdict::Lossy),
            mos: Some(3.5),
            streams: Vec::new(),
        }]
    }

    fn calls_named(&self, call_id: &str) -> Vec<CallView> {
        let with = |call: CallView| CallView { streams: vec![stream()], ..call };
        let calls = self.calls(Which::WithEnded).into_iter();
        calls.filter(|call| call.call_id == call_id).map(with).collect()
    }

    fn flows(&self, call_id: Option<&str>) -> Vec<FlowView> {
        vec![FlowView {
            call_id: call_id.map(str::to_owned),
            local: "10.61.0.1:20000".to_owned(),
            network: "office".to_owned(),
            kind: "rtp".to_owned(),
            datapath: "userspace".to_owned(),
            reason: Some("forced by the configuration".to_owned()),
            signalled: Some("10.61.0.11:4000".to_owned()),
            learned: Some("10.61.0.11:4002".to_owned()),
            learned_unix_ms: Some(1),
            out: "10.62.0.1:20000".to_owned(),
            destination: None,
            dscp_out: None,
            dscp_in: 46,
            kernel_packets: 0,
            userspace_packets: 5,
            bytes: 1000,
            expected: 6,
            lost: 1,
            duplicates: 0,
            reordered: 0,
            jitter_ms: 1.25,
            rtcp_packets: 0,
            ssrc: Some(7),
            wrong_source: 3,
            refused: 2,
            refused_sources: vec!["10.61.0.99:1 (2 packets)".to_owned()],
            refusals: vec![RefusalView {
                source: "10.61.0.99:1".to_owned(),
                network: "office".to_owned(),
                local: "10.61.0.1:16384".to_owned(),
                packets: 2,
                first_unix_ms: 1,
                last_unix_ms: 2,
                by: "userspace".to_owned(),
            }],
            refused_further: 3,
            srtp: None,
            srtp_authentication: 0,
            srtp_replay: 0,
            rtcp_destination: Some("10.62.0.10:6001".to_owned()),
        }]
    }

    fn phones(&self) -> Vec<PhoneView> {
        let stage = StageView {
            stage: "configuration_asked".to_owned(),
            count: 2,
            at_unix_ms: 1,
            detail: HOSTILE.to_owned(),
        };
        let activity = PhoneActivity {
            hardware_address: Some("00:04:f2:00:00:01".to_owned()),
            address: Some("10.61.0.11".to_owned()),
            stages: vec![stage],
            ..PhoneActivity::default()
        };
        let registration = RegistrationView {
            address_of_record: "1001@example.com".to_owned(),
            contact: "sip:1001@10.61.0.11".to_owned(),
            network: "office".to_owned(),
            user_agent: Some(HOSTILE.to_owned()),
            registered_seconds: 10,
            expires_seconds: 50,
        };
        vec![PhoneView { activity, registrations: vec![registration] }]
    }

    fn machine(&self) -> Machine {
        Machine::default()
    }

    fn started_unix(&self) -> i64 {
        0
    }

    fn put_entry(&self, entry: &Entry) -> Result<(), StoreError> {
        self.store.put_entry(entry)
    }

    fn remove_entry(&self, registration_id: &str) -> Result<bool, StoreError> {
        self.store.remove_entry(registration_id)
    }

    fn trust_certificate(&self, fingerprint: &str, by: &str) -> Result<bool, StoreError> {
        self.store.trust_certificate(fingerprint, by, 1)
    }

    fn forget_certificate(&self, fingerprint: &str) -> Result<bool, StoreError> {
        self.store.forget_certificate(fingerprint)
    }

    fn log(&self) -> LogView {
        let topic =
            TopicView { topic: "sip".to_owned(), level: Some("debug".to_owned()), until_restart: true };
        LogView {
            level: "info".to_owned(),
            topics: vec![topic],
            directory: None,
            retention_days: 7,
            fixed: false,
            lines_lost: 3,
            write_failures: 0,
        }
    }

    fn phone_logs(&self, phone: Option<IpAddr>, _lines: usize) -> Option<Vec<SyslogView>> {
        let line = SyslogView {
            phone: "10.61.0.11".to_owned(),
            received_unix_ms: 1_700_000_000_000,
            severity: "warning".to_owned(),
            facility: None,
            sent: None,
            host: None,
            application: Some("sip".to_owned()),
            data: None,
            message: HOSTILE.to_owned(),
        };
        Some(if phone.is_none_or(|phone| phone.to_string() == line.phone) { vec![line] } else { Vec::new() })
    }

    fn captures(&self) -> Result<Vec<CaptureView>, CaptureError> {
        self.captures.list()
    }

    fn start_capture(&self, wanted: &Wanted) -> Result<String, CaptureError> {
        if wanted.target == Target::Call(CALL.to_owned()) {
            self.captures.start(wanted).map(|(name, _)| name)
        } else {
            Err(CaptureError::NotFound(format!(
                "no call with Call-ID {:?} stands",
                wanted.target.to_string()
            )))
        }
    }

    fn stop_capture(&self, name: &str) -> Result<(), CaptureError> {
        self.captures.stop(name)
    }

    fn remove_capture(&self, name: &str) -> Result<(), CaptureError> {
        self.captures.remove(name)
    }

    fn capture_part(&self, name: &str, number: u64) -> Result<Part, CaptureError> {
        self.captures.part(name, number)
    }

    fn traces(&self, last: usize) -> TracesView {
        self.traces.list(last)
    }

    fn trace(&self, call_id: &str) -> Option<TraceView> {
        self.traces.trace(call_id)
    }

    fn interfaces(&self) -> Vec<(String, Vec<IpNet>)> {
        vec![("eth0".to_owned(), vec!["10.62.0.1/24".parse().unwrap()]), ("eth1".to_owned(), Vec::new())]
    }

    fn fits(&self, config: &Config, text: &str) -> Result<(), ConfigError> {
        let mut networks = config.networks();
        let Some((id, network)) = networks.find(|(_, network)| network.interface == MISSING) else {
            return Ok(());
        };
        Err(ConfigError {
            file: self.file.clone(),
            line: config.line_of_network(text, id),
            key: "network.interface".to_owned(),
            message: format!("interface {} does not exist", network.interface),
        })
    }

    fn tls(&self) -> TlsFacts {
        TlsFacts {
            own: true,
            certificate: None,
            authorities: 42,
            authority: Some("-----BEGIN CERTIFICATE-----\n".to_owned()),
            signed_by_authority: true,
        }
    }

    fn can_start(&self) -> Result<(), ConfigError> {
        let text = fs::read_to_string(&self.file).unwrap();
        self.fits(&Config::parse(&self.file, &text)?, &text)
    }

    fn restart(&self) {
        self.restarts.fetch_add(1, Ordering::SeqCst);
    }

    fn configuration_file(&self) -> PathBuf {
        self.file.clone()
    }

    fn reload(&self) -> Result<ReloadedView, ConfigError> {
        let new = Config::read(&self.file)?;
        let mut running = self.running.lock().unwrap();
        let mut view = ReloadedView::default();
        for changed in changes::between(&running, &new) {
            match changed.effect {
                Effect::Running => view.applied.push(changed.key),
                Effect::Restart => view.waiting_for_restart.push(changed.key),
            }
        }
        *running = new;
        Ok(view)
    }
}

/// A trace of the call that there is: its INVITE as it came and as it went.
fn traces(directory: &Path) -> Traces {
    let network = trace::Network {
        name: "office".to_owned(),
        address: "10.61.0.1".parse().unwrap(),
        ports: [8060, 8060, 8061, 0, 0, 0],
    };
    let limits = trace::Limits { messages: 200, bytes: 1 << 20, total: 4 << 20 };
    let traces = Traces::new(vec![network], limits, TraceStore::open(directory), Box::new(|_| {}));
    for (way, via, port) in
        [(Way::In, "", 5060), (Way::Out, "Via: SIP/2.0/UDP 10.61.0.1;branch=z9hG4bKo\r\n", 5070)]
    {
        let text = format!(
            "INVITE sip:9001@lab SIP/2.0\r\n{via}Via: SIP/2.0/UDP 10.61.0.11;branch=z9hG4bKp\r\nFrom: <sip:a@lab>;tag=f\r\n\
             To: <sip:9001@lab>\r\nSubject: {HOSTILE}\r\nCall-ID: {CALL}\r\nCSeq: 1 INVITE\r\n\r\n"
        );
        let hop = Hop::udp(NetworkId(0), SocketAddr::from(([10, 61, 0, 11], port)));
        traces.message(1_000_000_000, way, hop, &Bytes::from(text));
    }
    traces
}

/// The pages, and what is behind them.
pub(super) struct House {
    pub(super) web: Web,
    pub(super) store: Arc<Store>,
    pub(super) setup: Arc<Setup>,
    pub(super) metrics: Metrics,
    pub(super) file: PathBuf,
    pub(super) restarts: Arc<AtomicUsize>,
    pub(super) captures: Arc<Captures>,
    pages: Router,
    _directory: Directory,
}

/// An answer, its body read.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Who is signed in: cookie and token.
pub(super) struct Person {
    pub(super) cookie: String,
    pub(super) csrf: String,
}

impl House {
    pub(super) fn new(name: &str) -> Self {
        let directory = Directory::new(name);
        let file = directory.path().join("branchline.toml");
        fs::write(&file, CONFIGURATION).unwrap();
        let store = Arc::new(Store::open(&directory.path().join("state")).unwrap());
        let running = Mutex::new(Config::read(&file).unwrap());
        let restarts = Arc::new(AtomicUsize::new(0));
        let metrics = Metrics::new().unwrap();
        let network = capture::Network {
            name: "office".to_owned(),
            address: "10.61.0.1".parse().unwrap(),
            ports: [8060, 8060, 8061, 8060, 8060, 8060],
        };
        let captures = Captures::open(
            &directory.path().join("captures"),
            crate::config::Capture::default(),
            vec![network],
            Arc::clone(&store),
            &metrics.services,
        );
        let captures = Arc::new(captures.unwrap());
        let appliance = Pretended {
            restarts: Arc::clone(&restarts),
            file: file.clone(),
            running,
            store: Arc::clone(&store),
            captures: Arc::clone(&captures),
            traces: traces(directory.path()),
        };
        let own = "10.61.0.1".parse().unwrap();
        let setup = Arc::new(Setup::new("0.0.0.0:8443".parse().unwrap(), &[own]));
        let web = Web::new(Arc::new(appliance), Arc::clone(&store), Arc::clone(&setup), &metrics);
        let pages = admin::pages(&web);
        Self { web, store, setup, metrics, file, restarts, captures, pages, _directory: directory }
    }

    /// With an administrator.
    pub(super) async fn inhabited(name: &str) -> Self {
        let house = Self::new(name);
        let hash = house.web.passwords().hash(PASSWORD.to_owned().into()).await.unwrap();
        house.store.put_administrator(NAME, &hash, 0).unwrap();
        house
    }

    pub(super) fn sign_in(&self) -> Person {
        let mut sessions = self.web.sessions();
        let id = sessions.begin(Instant::now(), NAME);
        let session = sessions.resume(Instant::now(), id.as_str()).unwrap();
        Person { cookie: format!("{COOKIE}={}", id.as_str()), csrf: session.csrf.as_str().to_owned() }
    }

    pub(super) fn token(&self, name: &str, scope: Scope) -> String {
        let secret = Secret::random();
        assert!(self.store.add_api_token(&Secret::hash(secret.as_str()), name, scope, 0).unwrap());
        secret.as_str().to_owned()
    }

    pub(super) fn refused(&self, reason: &str) -> u64 {
        self.metrics.web_refused.with_label_values(&[reason]).get()
    }

    pub(super) fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap()
    }

    /// Sends a request from 10.61.0.11.
    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let mut request = request;
        request.headers_mut().entry(header::HOST).or_insert(HOST.parse().unwrap());
        request.extensions_mut().insert(Source("10.61.0.11".parse().unwrap()));
        let response = TowerToHyperService::new(self.pages.clone()).call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let body = String::from_utf8_lossy(&body).into_owned();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(super) async fn get(&self, path: &str, person: Option<&Person>) -> Answer {
        let mut request = Request::get(path);
        if let Some(person) = person {
            request = request.header(header::COOKIE, &person.cookie);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// Posts a form as a page of the person's does.
    pub(super) async fn post(&self, path: &str, person: &Person, fields: &[(&str, &str)]) -> Answer {
        let csrf = [("csrf", person.csrf.as_str())];
        let request = form(path).header(header::COOKIE, &person.cookie);
        self.send(request.header(header::ORIGIN, ORIGIN).body(encoded(fields.iter().chain(&csrf))).unwrap())
            .await
    }

    /// Asks the REST interface with a token.
    pub(super) async fn ask(&self, method: Method, path: &str, token: &str, body: Option<&str>) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_owned()));
        self.send(request.body(body).unwrap()).await
    }
}

/// The head of a request that carries a form.
pub(super) fn form(path: &str) -> axum::http::request::Builder {
    Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
}

/// Its body.
pub(super) fn encoded<'a>(fields: impl Iterator<Item = &'a (&'a str, &'a str)>) -> Body {
    let encode = admin::pages::encode;
    let pairs: Vec<String> =
        fields.map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    Body::from(pairs.join("&"))
}

/// A stream that is lossy on one side, and of which the other side knows little.
fn stream() -> StreamQuality {
    let direction = DirectionQuality {
        network: "office".to_owned(),
        to_network: "centre".to_owned(),
        source: Some("10.61.0.11:20000".to_owned()),
        verdict: Verdict::Lossy,
        what: "4.0 % lost between office and the appliance".to_owned(),
        codec: Some("G.711 mu-law".to_owned()),
        expected: 1000,
        received: 960,
        lost: 40,
        duplicates: 1,
        reordered: 2,
        loss_percent: Some(4.0),
        burst_ratio: Some(1.5),
        jitter_ms: Some(2.25),
        reported_lost: Some(41),
        reported_loss_percent: Some(4.1),
        reported_recent_loss_percent: Some(3.9),
        reported_jitter_ms: Some(2.5),
        reported_discarded_percent: None,
        reported_mos_listening: None,
        reported_mos_conversational: None,
        round_trip_ms: Some(1.5),
        one_way_ms: Some(10.0),
        scale: Some("narrowband".to_owned()),
        r_factor: Some(80.1),
        mos_listening: Some(4.03),
        mos_conversational: Some(4.02),
    };
    let unknown = DirectionQuality {
        network: "centre".to_owned(),
        to_network: "office".to_owned(),
        source: None,
        verdict: Verdict::Starting,
        what: HOSTILE.to_owned(),
        codec: None,
        loss_percent: None,
        burst_ratio: None,
        jitter_ms: None,
        reported_lost: None,
        reported_loss_percent: None,
        reported_recent_loss_percent: None,
        reported_jitter_ms: None,
        round_trip_ms: None,
        one_way_ms: None,
        scale: None,
        r_factor: None,
        mos_listening: None,
        mos_conversational: None,
        ..direction.clone()
    };
    StreamQuality {
        kind: "audio".to_owned(),
        verdict: Verdict::Lossy,
        worst: Verdict::Lossy,
        what: direction.what.clone(),
        directions: vec![direction, unknown],
    }
}

//! The central servers: one request to the first of them that answers.

use std::{
    io,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{self, HeaderValue},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use prometheus::IntCounterVec;
use rustls::ClientConfig;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{
    body::{Stream, Upload},
    digest::{Credentials, Session},
    names::Names,
    order::Order,
};
use crate::config::HttpServer;

/// An upload may take this many idle timeouts before the server begins its answer.
const UPLOAD_PATIENCE: u32 = 10;
/// Connections to one server that are kept for the next request.
const IDLE_CONNECTIONS: usize = 8;
/// How long they are kept: less than the servers' usual minute.
const KEPT: Duration = Duration::from_secs(20);
/// Bytes of the longest response head.
const MOST_HEAD: usize = 64 << 10;

/// What is needed to speak to the servers.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) servers: Vec<HttpServer>,
    /// Servers of DNS; none: the system's.
    pub(super) dns: Vec<IpAddr>,
    pub(super) credentials: Option<Credentials>,
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
}

/// A request, as it goes to each server.
pub(super) struct Ask<'a> {
    pub(super) method: &'a Method,
    /// Path and query.
    pub(super) target: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) upload: Upload,
    /// Headers for one server only, by which it can say that nothing has changed.
    pub(super) validators: Option<(&'a str, HeaderMap)>,
}

/// What came of it.
pub(super) enum Outcome {
    /// An answer, and the server that it came from.
    Answered(Response<Incoming>, String),
    /// Every server that answered failed by itself (5xx); the last one's answer.
    Failed(Response<Incoming>),
    /// The phone's own upload ended before its end.
    Broken(io::ErrorKind),
    /// No server can be reached; whether the last one was too slow.
    Unreachable {
        /// It was there but did not answer in time.
        too_slow: bool,
    },
}

/// All servers.
pub(super) struct Upstream {
    settings: Settings,
    client: Client<HttpsConnector<HttpConnector<Names>>, Stream>,
    order: Mutex<Order>,
    sessions: Vec<Mutex<Option<Session>>>,
    failures: IntCounterVec,
    down: AtomicBool,
}

impl Upstream {
    pub(super) fn new(settings: Settings, tls: ClientConfig, failures: IntCounterVec) -> Self {
        let mut http = HttpConnector::new_with_resolver(Names::new(&settings.dns));
        http.enforce_http(false);
        http.set_nodelay(true);
        // Of a name's addresses each gets its share of the time.
        http.set_connect_timeout(Some(settings.connect_timeout));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(MOST_HEAD)
            .build(https);
        for server in &settings.servers {
            failures.with_label_values(&[&server.to_string()]);
        }
        Self {
            order: Mutex::new(Order::new(settings.servers.len())),
            sessions: settings.servers.iter().map(|_| Mutex::default()).collect(),
            settings,
            client,
            failures,
            down: AtomicBool::new(false),
        }
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no server could be reached a moment ago.
    pub(super) fn is_down(&self) -> bool {
        self.order().all_failed(Instant::now())
    }

    /// Whether the appliance answers servers' challenges by itself.
    pub(super) fn has_credentials(&self) -> bool {
        self.settings.credentials.is_some()
    }

    /// The path by which a phone reaches what a server's redirection points to, if that is on one of the servers.
    pub(super) fn path_of(&self, location: &str) -> Option<String> {
        let servers = self.settings.servers.iter();
        servers
            .filter_map(|server| location.strip_prefix(&server.to_string()))
            .find(|path| path.starts_with('/'))
            .map(str::to_owned)
    }

    /// Asks one server after the other until one answers.
    pub(super) async fn send(&self, ask: Ask<'_>) -> Outcome {
        let candidates = self.order().candidates(Instant::now());
        let (mut failed, mut too_slow) = (None, false);
        for number in candidates {
            let Some(server) = self.settings.servers.get(number) else { continue };
            if !ask.upload.can_be_sent() {
                break;
            }
            let name = server.to_string();
            match self.exchange(number, server, &name, &ask).await {
                Ok(response) => {
                    self.order().worked(number);
                    if self.down.swap(false, Ordering::Relaxed) {
                        info!(server = name, "a server of files can be reached again");
                    }
                    if !response.status().is_server_error() {
                        return Outcome::Answered(response, name);
                    }
                    self.failures.with_label_values(&[&name]).inc();
                    debug!(server = name, status = %response.status(), target = ask.target, "a server of files failed");
                    failed = Some(response);
                }
                Err(error) => {
                    if let Some(kind) = ask.upload.broken() {
                        return Outcome::Broken(kind);
                    }
                    self.order().failed(Instant::now(), number);
                    self.failures.with_label_values(&[&name]).inc();
                    too_slow = error.kind() == io::ErrorKind::TimedOut;
                    debug!(server = name, %error, "a server of files cannot be reached");
                }
            }
        }
        match failed {
            Some(response) => Outcome::Failed(response),
            None => {
                if self.is_down() && !self.down.swap(true, Ordering::Relaxed) {
                    warn!(
                        "no server of files can be reached (key provisioning.servers); last good copies are served"
                    );
                }
                Outcome::Unreachable { too_slow }
            }
        }
    }

    /// One request to one server, once more if it wants to know who asks.
    async fn exchange(
        &self,
        number: usize,
        server: &HttpServer,
        name: &str,
        ask: &Ask<'_>,
    ) -> io::Result<Response<Incoming>> {
        let response = self.request(number, server, name, ask).await?;
        // A phone's own credentials are between it and the server.
        let ours = self.settings.credentials.is_some() && !ask.headers.contains_key(header::AUTHORIZATION);
        if response.status() != StatusCode::UNAUTHORIZED || !ours || !ask.upload.can_be_sent() {
            return Ok(response);
        }
        let Some(session) = Session::from_challenge(response.headers()) else { return Ok(response) };
        if let Some(place) = self.sessions.get(number) {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        }
        drop(response);
        self.request(number, server, name, ask).await
    }

    async fn request(
        &self,
        number: usize,
        server: &HttpServer,
        name: &str,
        ask: &Ask<'_>,
    ) -> io::Result<Response<Incoming>> {
        // Concatenated, not resolved: the path was checked, and the base is the configuration's.
        let uri: Uri = format!("{server}{}", ask.target)
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let mut request = Request::new(ask.upload.body());
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = ask.headers.clone();
        if let Some((whose, validators)) = &ask.validators
            && *whose == name
        {
            request.headers_mut().extend(validators.clone());
        }
        if let Some(value) = self.authorization(number, ask, &path) {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let patience = match ask.upload {
            Upload::None => self.settings.idle_timeout,
            Upload::Buffered(_) | Upload::Once(..) => self.settings.idle_timeout * UPLOAD_PATIENCE,
        };
        match timeout(patience, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(io::Error::other(chain(&error))),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer in time")),
        }
    }

    fn authorization(&self, number: usize, ask: &Ask<'_>, path: &str) -> Option<HeaderValue> {
        let credentials = self.settings.credentials.as_ref()?;
        if ask.headers.contains_key(header::AUTHORIZATION) {
            return None;
        }
        let mut session = self.sessions.get(number)?.lock().unwrap_or_else(PoisonError::into_inner);
        let cnonce = format!("{:032x}", rand::random::<u128>());
        let value = session.as_mut()?.authorize(credentials, ask.method, path, &cnonce);
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// An error with its causes, which hyper keeps apart.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

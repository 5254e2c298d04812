//! What becomes of one request of a phone.

use std::{
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http_body_util::{BodyExt as _, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{self, HeaderValue},
};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tracing::debug;

use super::{
    answer::{Answer, Source, method_label, status_label},
    body::{Counted, Stream, Upload, empty, watched},
    cache::{Cache, Copy, Description, Key},
    flight::{Flights, Leader, Part, learned},
    growing::{self, Growing},
    request::{self, Refusal},
    upstream::{Ask, Outcome, Upstream},
};
use crate::{
    metrics::ServiceMetrics,
    provisioning::{HardwareAddress, Inventory, Who},
};

/// Fetches into the cache that go on at a time, whoever still waits for them.
const FETCHES: usize = 32;
/// Bytes of an upload that can be sent again after a server's challenge, and how many of them there can be.
const BUFFERED: usize = 1 << 20;
const BUFFERS: usize = 16;
/// How often a request joins others before it goes by itself.
const JOINS: usize = 3;
/// Headers by which a phone asks for less than the whole file.
const CONDITIONS: [header::HeaderName; 6] = [
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];

/// What the first of several requests for a file learned.
#[derive(Debug, Clone)]
enum Learned {
    /// The file comes; whose request it suits is in its description.
    Comes(Growing),
    /// Nothing has changed: the copy is as good as new.
    Unchanged,
    /// Nobody can be asked.
    Nobody(StatusCode),
    /// Each has to ask for itself.
    Ask,
}

/// Limits and times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) idle: Duration,
    pub(super) cached_file: u64,
    pub(super) upload: u64,
}

/// The relay, without its listeners.
pub(super) struct Relay {
    pub(super) upstream: Upstream,
    pub(super) cache: Option<Arc<Cache>>,
    pub(super) limits: Limits,
    pub(super) phones: Arc<Inventory>,
    pub(super) metrics: ServiceMetrics,
    flights: Flights<Learned>,
    fetches: Arc<Semaphore>,
    buffers: Semaphore,
}

impl Relay {
    pub(super) fn new(
        upstream: Upstream,
        cache: Option<Arc<Cache>>,
        limits: Limits,
        phones: Arc<Inventory>,
        metrics: ServiceMetrics,
    ) -> Self {
        Self {
            upstream,
            cache,
            limits,
            phones,
            metrics,
            flights: Flights::default(),
            fetches: Arc::new(Semaphore::new(FETCHES)),
            buffers: Semaphore::new(BUFFERS),
        }
    }

    /// Answers a request, and notes when the answer has gone out what the phone got.
    pub(super) async fn handle(
        self: Arc<Self>,
        phone: IpAddr,
        request: Request<Incoming>,
    ) -> Response<Stream> {
        let method = request.method().clone();
        let checked = request::target(&method, request.uri());
        let shown = checked.clone().unwrap_or_else(|_| request.uri().path().to_owned());
        let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let now = SystemTime::now();
        if let Some(agent) = agent {
            self.phones.user_agent(now, Who::Address(phone), agent);
        }
        if let Some(hardware) = hardware_in(&shown) {
            self.phones.claimed(now, phone, hardware);
        }
        let answer = match checked {
            Ok(target) => match self.cache_for(&request) {
                Some(cache) => self.cached(cache, phone, &target, request.headers()).await,
                None => self.pass(phone, &target, request).await,
            },
            Err(refusal) => self.refuse(refusal),
        };
        let (status, source) = (answer.response.status(), answer.source);
        self.metrics
            .provisioning_requests
            .with_label_values(&[method_label(&method), status_label(status), source.as_label()])
            .inc();
        debug!(%phone, %method, target = shown, %status, source = source.as_label(), "a phone's request");
        let stage = request::stage(&method, &shown);
        let relay = Arc::clone(&self);
        answer.response.map(|body| {
            let told = move |bytes: u64| {
                relay.metrics.provisioning_bytes.with_label_values(&[source.as_label()]).inc_by(bytes);
                let detail =
                    format!("{method} {shown}: {}, {bytes} bytes, {}", status.as_u16(), source.as_label());
                relay.phones.note(SystemTime::now(), Who::Address(phone), stage, &detail);
            };
            Counted::new(body, told).boxed_unsync()
        })
    }

    fn refuse(&self, refusal: Refusal) -> Answer {
        self.metrics.provisioning_refused.with_label_values(&[refusal.as_label()]).inc();
        let mut answer = Answer::own(refusal.status(), refusal.sentence());
        if refusal == Refusal::Method {
            let allowed = HeaderValue::from_static("GET, HEAD, PUT, POST");
            answer.response.headers_mut().insert(header::ALLOW, allowed);
        }
        answer
    }

    /// The cache, if an answer may come from it or go into it: what a phone asks for with credentials of its own is
    /// nobody else's (RFC 9111 section 3.5).
    fn cache_for(&self, request: &Request<Incoming>) -> Option<&Arc<Cache>> {
        let is_open = request.method() == Method::GET
            && !request.headers().contains_key(header::AUTHORIZATION)
            && request.body().is_end_stream();
        self.cache.as_ref().filter(|_| is_open)
    }

    /// A request that only the server can answer. A HEAD that it cannot is answered from the cache.
    async fn pass(&self, phone: IpAddr, target: &str, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let upload = match self.upload(&parts.headers, body).await {
            Ok(upload) => upload,
            Err(answer) => return answer,
        };
        let headers = request::to_server(&parts.headers, phone);
        let ask = Ask { method: &parts.method, target, headers: &headers, upload, validators: None };
        match self.upstream.send(ask).await {
            Outcome::Answered(response, _) => self.relayed(response),
            failure => {
                let is_open =
                    parts.method == Method::HEAD && !parts.headers.contains_key(header::AUTHORIZATION);
                if let Some(cache) = self.cache.as_ref().filter(|_| is_open)
                    && let Some(copy) = stored(cache, phone, target, &parts.headers).await
                {
                    let mut answer = Answer::whole(cache, copy, &parts.headers, Source::Stale);
                    *answer.response.body_mut() = empty();
                    return answer;
                }
                self.failure(failure)
            }
        }
    }

    async fn upload(&self, headers: &HeaderMap, body: Incoming) -> Result<Upload, Answer> {
        if body.is_end_stream() {
            return Ok(Upload::None);
        }
        let length = body.size_hint().exact();
        if length.is_some_and(|length| length > self.limits.upload) {
            return Err(self.refuse(Refusal::TooLarge));
        }
        if !self.upstream.has_credentials() || headers.contains_key(header::AUTHORIZATION) {
            return Ok(Upload::once(watched(body, self.limits.idle, self.limits.upload), length));
        }
        // A challenge comes after the body was sent, so it has to be there a second time.
        let Ok(_turn) = self.buffers.acquire().await else {
            return Err(Answer::own(StatusCode::SERVICE_UNAVAILABLE, "the relay stops\n"));
        };
        let body = Limited::new(watched(body, self.limits.idle, self.limits.upload), BUFFERED);
        match body.collect().await {
            Ok(whole) => Ok(Upload::Buffered(whole.to_bytes())),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(self.refuse(Refusal::TooLargeToRepeat))
            }
            Err(_) => Err(Answer::own(StatusCode::BAD_REQUEST, "the request ended before its end\n")),
        }
    }

    /// A request that the cache may help with. Whatever it has, the server is asked.
    async fn cached(&self, cache: &Arc<Cache>, phone: IpAddr, target: &str, headers: &HeaderMap) -> Answer {
        let key = Key::of(target);
        for _ in 0..JOINS {
            let receiver = match self.flights.join(key) {
                Part::Leader(leader) => return self.lead(cache, leader, phone, target, headers).await,
                Part::Follower(receiver) => receiver,
                Part::Alone => break,
            };
            match learned(receiver).await {
                Some(Learned::Comes(growing)) if growing.copy.description.is_for(phone, headers) => {
                    return Answer::copied(cache, &growing, headers, Source::Cache);
                }
                Some(Learned::Unchanged) => match stored(cache, phone, target, headers).await {
                    Some(copy) => return Answer::whole(cache, copy, headers, Source::Cache),
                    None => break,
                },
                Some(Learned::Nobody(status)) => {
                    return match stored(cache, phone, target, headers).await {
                        Some(copy) => Answer::whole(cache, copy, headers, Source::Stale),
                        None => Answer::own(status, "no server of files can be reached\n"),
                    };
                }
                Some(Learned::Comes(_) | Learned::Ask) => break,
                None => {}
            }
        }
        let passed = request::to_server(headers, phone);
        let ask =
            Ask { method: &Method::GET, target, headers: &passed, upload: Upload::None, validators: None };
        match self.upstream.send(ask).await {
            Outcome::Answered(response, _) => self.relayed(response),
            failure => self.failure(failure),
        }
    }

    /// The request that asks the server, for itself and for those that wait.
    async fn lead(
        &self,
        cache: &Arc<Cache>,
        leader: Leader<Learned>,
        phone: IpAddr,
        target: &str,
        headers: &HeaderMap,
    ) -> Answer {
        let copy = stored(cache, phone, target, headers).await;
        if let Some(copy) = copy {
            if self.upstream.is_down() {
                leader.tell(Learned::Nobody(StatusCode::BAD_GATEWAY));
                return Answer::whole(cache, copy, headers, Source::Stale);
            }
            let mut passed = request::to_server(headers, phone);
            // What the phone has is compared with the copy here; the server is asked about the copy.
            for name in CONDITIONS {
                passed.remove(name);
            }
            let validators = Some((copy.description.server.as_str(), validators(&copy.description)));
            let ask =
                Ask { method: &Method::GET, target, headers: &passed, upload: Upload::None, validators };
            match self.upstream.send(ask).await {
                Outcome::Answered(response, _) if response.status() == StatusCode::NOT_MODIFIED => {
                    leader.tell(Learned::Unchanged);
                    return Answer::whole(cache, copy, headers, Source::Cache);
                }
                Outcome::Answered(response, server) => {
                    return self.fresh(cache, leader, phone, target, headers, response, &server).await;
                }
                Outcome::Failed(_) | Outcome::Unreachable { .. } | Outcome::Broken(_) => {
                    leader.tell(Learned::Nobody(StatusCode::BAD_GATEWAY));
                    return Answer::whole(cache, copy, headers, Source::Stale);
                }
            }
        }
        let passed = request::to_server(headers, phone);
        let ask =
            Ask { method: &Method::GET, target, headers: &passed, upload: Upload::None, validators: None };
        match self.upstream.send(ask).await {
            Outcome::Answered(response, server) => {
                self.fresh(cache, leader, phone, target, headers, response, &server).await
            }
            failure => {
                let answer = self.failure(failure);
                leader.tell(Learned::Nobody(answer.response.status()));
                answer
            }
        }
    }

    /// An answer of a server that the cache may keep.
    #[expect(clippy::too_many_arguments, reason = "a request and its response, both whole")]
    async fn fresh(
        &self,
        cache: &Arc<Cache>,
        leader: Leader<Learned>,
        phone: IpAddr,
        target: &str,
        headers: &HeaderMap,
        response: Response<Incoming>,
        server: &str,
    ) -> Answer {
        let key = Key::of(target);
        let status = response.status();
        if [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND, StatusCode::GONE].contains(&status) {
            // What the server no longer gives is not given when it cannot be asked either.
            let cache = Arc::clone(cache);
            let _ = spawn_blocking(move || cache.remove(key)).await;
        }
        let described = (status == StatusCode::OK)
            .then(|| {
                let kept = request::passed_on(response.headers());
                Description::of(target, server, phone, headers, &kept, SystemTime::now())
            })
            .flatten();
        let length = response.body().size_hint().exact();
        let fits = length.is_none_or(|length| length <= self.limits.cached_file);
        let permit = Arc::clone(&self.fetches).try_acquire_owned().ok();
        let (Some(description), true, Some(permit)) = (described, fits, permit) else {
            leader.tell(Learned::Ask);
            return self.relayed(response);
        };
        let begun = {
            let cache = Arc::clone(cache);
            spawn_blocking(move || cache.begin(key, description, length)).await
        };
        let draft = match begun.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(draft) => draft,
            Err(error) => {
                self.metrics.provisioning_not_cached.inc();
                cache.failed(&error);
                leader.tell(Learned::Ask);
                return self.relayed(response);
            }
        };
        let Some(length) = length else {
            leader.tell(Learned::Ask);
            let most = self.limits.cached_file;
            let idle = self.limits.idle;
            let cache = Arc::clone(cache);
            let (mut head, body) = self.relayed_head(response);
            *head.body_mut() = growing::passing(cache, body, draft, most, idle);
            return Answer { response: head, source: Source::Upstream };
        };
        let (growing, progress) = match Growing::of(&draft, length) {
            Ok(growing) => growing,
            Err(error) => {
                self.metrics.provisioning_not_cached.inc();
                cache.failed(&error);
                leader.tell(Learned::Ask);
                return self.relayed(response);
            }
        };
        leader.tell(Learned::Comes(growing.clone()));
        let (filled, idle) = (Arc::clone(cache), self.limits.idle);
        // It goes on when the phone that began it has gone: phones read a little of their firmware, compare, and
        // come again.
        tokio::spawn(async move {
            growing::fetch(filled, response.into_body(), draft, length, idle, progress).await;
            drop((leader, permit));
        });
        Answer::copied(cache, &growing, headers, Source::Upstream)
    }

    /// A server's answer as it is.
    fn relayed(&self, response: Response<Incoming>) -> Answer {
        let (mut head, body) = self.relayed_head(response);
        *head.body_mut() = watched(body, self.limits.idle, u64::MAX);
        Answer { response: head, source: Source::Upstream }
    }

    fn relayed_head(&self, response: Response<Incoming>) -> (Response<Stream>, Incoming) {
        let (parts, body) = response.into_parts();
        let mut head = Response::new(empty());
        *head.status_mut() = parts.status;
        *head.headers_mut() = request::passed_on(&parts.headers);
        // Phones have no way to the servers but this one.
        let location = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        if let Some(path) = location.and_then(|location| self.upstream.path_of(location))
            && let Ok(path) = HeaderValue::try_from(path)
        {
            head.headers_mut().insert(header::LOCATION, path);
        }
        (head, body)
    }

    fn failure(&self, failure: Outcome) -> Answer {
        match failure {
            Outcome::Answered(response, _) | Outcome::Failed(response) => self.relayed(response),
            Outcome::Broken(io::ErrorKind::FileTooLarge) => self.refuse(Refusal::TooLarge),
            Outcome::Broken(_) => Answer::own(StatusCode::BAD_REQUEST, "the request ended before its end\n"),
            Outcome::Unreachable { too_slow: true } => {
                Answer::own(StatusCode::GATEWAY_TIMEOUT, "no server of files answers in time\n")
            }
            Outcome::Unreachable { too_slow: false } => {
                Answer::own(StatusCode::BAD_GATEWAY, "no server of files can be reached\n")
            }
        }
    }
}

/// A copy that suits a phone's request.
async fn stored(cache: &Arc<Cache>, phone: IpAddr, target: &str, headers: &HeaderMap) -> Option<Copy> {
    let (cache, key) = (Arc::clone(cache), Key::of(target));
    let copy = spawn_blocking(move || cache.get(key)).await.ok().flatten()?;
    Some(copy).filter(|copy| copy.description.target == target && copy.description.is_for(phone, headers))
}

/// The headers by which a server can say that a copy is as good as new (RFC 9110 section 13.1).
fn validators(description: &Description) -> HeaderMap {
    [(header::IF_NONE_MATCH, description.etag()), (header::IF_MODIFIED_SINCE, description.modified())]
        .into_iter()
        .filter_map(|(name, value)| Some((name, HeaderValue::try_from(value?).ok()?)))
        .collect()
}

/// The hardware address with which the name of a phone's own file begins.
fn hardware_in(target: &str) -> Option<HardwareAddress> {
    let name = target.split('?').next()?.rsplit('/').next()?;
    let (digits, rest) = name.split_at_checked(12)?;
    HardwareAddress::from_digits(digits)
        .filter(|address| address.is_a_host() && (rest.starts_with('.') || rest.starts_with('-')))
}

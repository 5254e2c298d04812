//! Session timers (RFC 4028), kept by the appliance where not both sides of a call keep one.
//!
//! Two sides that both know timers settle them between themselves, and nothing is touched. Toward a side that knows them
//! while the other does not, the appliance speaks for the other: it adds what belongs to them to the other's INVITE and
//! UPDATE, takes it out of the answers, and refreshes, or sees that it is refreshed. A side that knows no timers is refreshed
//! all the same if that is configured for itself: so dead calls are found. A refresh is an UPDATE where the side takes it,
//! else a re-INVITE with what it was told last.
//!
//! Invariant: an interval is never below 90 seconds (section 5), whatever a peer asks for.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{
    Conversing,
    speak::{Purpose, SDP_TYPE, Spoken, Words},
};
use crate::{
    media::MediaRelay,
    proxy::{
        call::Party,
        machine::{Proxy, Relay},
        measure::{Conversion, DropReason, Outcome},
        request::{Plan, Refuse},
    },
    sip::wire::{Editor, HeaderName, Message, Method, Params, scan},
};

/// The least interval (RFC 4028 section 5), in seconds.
const LEAST: u32 = 90;
/// Longest interval that is believed: a day. Times are added to clocks, which have an end.
const MOST: u32 = 86_400;
/// How long a refresh that met another request, or was refused, waits until it is sent again.
const AGAIN: Duration = Duration::from_secs(10);
/// What is left of an interval when a side that refreshes is given up, at most (RFC 4028 section 10), in seconds.
const MARGIN: u32 = 32;

/// Who refreshes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::proxy) enum Refresher {
    /// The appliance.
    Us,
    /// The side itself.
    Them,
}

/// The session timer that is kept with one side.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Clock {
    /// Seconds.
    pub(in crate::proxy) interval: u32,
    /// The least that the side has asked for.
    pub(in crate::proxy) least: u32,
    pub(in crate::proxy) refresher: Refresher,
    /// When to refresh, or when the side has failed to.
    pub(in crate::proxy) next: Instant,
    /// When the session has expired.
    pub(in crate::proxy) end: Instant,
    /// A 422 has made it longer since it was refreshed last.
    pub(in crate::proxy) longer: bool,
}

impl Clock {
    pub(in crate::proxy) fn new(now: Instant, interval: u32, refresher: Refresher) -> Self {
        let interval = interval.clamp(LEAST, MOST);
        let mut clock = Self { interval, least: LEAST, refresher, next: now, end: now, longer: false };
        clock.begin(now);
        clock
    }

    /// The session was refreshed.
    fn begin(&mut self, now: Instant) {
        self.longer = false;
        let left = self.interval - (self.interval / 3).min(MARGIN);
        self.end = now + Duration::from_secs(left.into());
        self.next = match self.refresher {
            Refresher::Us => now + Duration::from_secs((self.interval / 2).into()),
            Refresher::Them => self.end,
        };
    }

    /// Takes the interval that a 422 asks for: once, for a side could ask for one more each time. Says whether it did.
    fn lengthen(&mut self, message: Option<&Message>) -> bool {
        let wanted = message.and_then(least).filter(|least| *least <= MOST && *least > self.interval);
        let Some(wanted) = wanted.filter(|_| !self.longer) else { return false };
        (self.interval, self.least, self.longer) = (wanted, wanted, true);
        true
    }
}

/// What Session-Expires says (RFC 4028 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expires {
    seconds: u32,
    /// Whether the sender of the request refreshes; `None` if nothing is said.
    uac: Option<bool>,
}

fn named<'m>(message: &'m Message, names: [&'static str; 2]) -> Option<&'m [u8]> {
    message
        .headers()
        .find(|header| names.iter().any(|name| header.spelling.eq_ignore_ascii_case(name.as_bytes())))
        .map(|header| header.value)
}

/// Session-Expires of a message; one that cannot be read counts as none.
fn expires(message: &Message) -> Option<Expires> {
    let value = named(message, ["Session-Expires", "x"])?;
    let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
    let (seconds, params) = value.split_at_checked(end)?;
    let seconds = scan::number(scan::trim(seconds))?;
    let uac = match Params(params).value("refresher") {
        Some(word) if word.eq_ignore_ascii_case(b"uac") => Some(true),
        Some(word) if word.eq_ignore_ascii_case(b"uas") => Some(false),
        _ => None,
    };
    Some(Expires { seconds, uac })
}

fn least(message: &Message) -> Option<u32> {
    let value = named(message, ["Min-SE", "Min-SE"])?;
    let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
    scan::number(scan::trim(value.get(..end)?))
}

fn names_timer(message: &Message, name: HeaderName) -> bool {
    message.values(name).any(|option| option.eq_ignore_ascii_case(b"timer"))
}

/// Whether who sent a message knows session timers.
pub(super) fn is_supported(message: &Message) -> bool {
    names_timer(message, HeaderName::Supported)
        || names_timer(message, HeaderName::Require)
        || (!message.is_request() && expires(message).is_some())
}

/// Takes Session-Expires out, and the demand to know what it is.
fn strip(editor: &mut Editor<'_>) {
    let message = editor.message();
    for header in message.headers() {
        let is = |name: &str| header.spelling.eq_ignore_ascii_case(name.as_bytes());
        if is("Session-Expires") || is("x") || is("Min-SE") {
            editor.replace(header.line, b"");
        } else if header.name == HeaderName::Require {
            let options: Vec<&[u8]> = scan::split_commas(header.value).collect();
            let kept: Vec<&[u8]> =
                options.iter().copied().filter(|option| !option.eq_ignore_ascii_case(b"timer")).collect();
            if kept.is_empty() {
                editor.replace(header.line, b"");
            } else if kept.len() < options.len() {
                editor.replace(header.value, &kept.join(&b", "[..]));
            }
        }
    }
}

impl Conversing {
    /// What a request of the appliance's own says of the timer that it keeps with a side: header lines, or nothing.
    pub(super) fn own_timer_lines(&self, party: Party) -> String {
        let Some(clock) = self.clock_of(party).filter(|_| self.voice(party).timer) else {
            return String::new();
        };
        let refresher = if clock.refresher == Refresher::Us { "uac" } else { "uas" };
        format!(
            "Supported: timer\r\nSession-Expires: {};refresher={refresher}\r\nMin-SE: {}\r\n",
            clock.interval, clock.least,
        )
    }

    /// The interval of the timers that are kept in this call, in seconds; 0: none are.
    fn interval(&self) -> u32 {
        let [caller, callee] = &self.voices;
        let seconds = match (caller.seconds, callee.seconds) {
            (0, seconds) | (seconds, 0) => seconds,
            (caller, callee) => caller.min(callee),
        };
        if seconds == 0 { 0 } else { seconds.max(self.least) }
    }
}

fn carries_timer(method: &Method) -> bool {
    matches!(method, Method::Invite | Method::Update)
}

impl Proxy {
    /// What is wrong with the timer that a request asks for: an interval that is too short (RFC 4028 section 6).
    pub(in crate::proxy) fn refuses_timer(
        conversing: &Conversing,
        party: Party,
        message: &Message,
    ) -> Option<Refuse> {
        if !carries_timer(message.method()) || conversing.interval() == 0 || !is_supported(message) {
            return None;
        }
        let settled = conversing.tag.is_some() && conversing.clock_of(party).is_none();
        let short = expires(message).is_some_and(|asked| asked.seconds < LEAST);
        (short && !settled).then(|| {
            let mut refuse = Refuse::because(422, DropReason::SessionTimer, "Session Interval Too Small");
            refuse.add(&format!("Min-SE: {LEAST}\r\n"));
            refuse
        })
    }

    /// What a request gets on its way to a side that keeps a timer with the appliance: header names and values.
    pub(in crate::proxy) fn timer_lines(
        &self,
        number: u64,
        from: Party,
        message: &Message,
    ) -> Vec<(&'static str, String)> {
        let Some(conversing) = self.calls.get(&number).and_then(|call| call.conversing.as_deref()) else {
            return Vec::new();
        };
        let interval = conversing.interval();
        let asks = conversing.voice(from).timer || expires(message).is_some();
        if interval == 0 || !carries_timer(message.method()) || asks {
            return Vec::new();
        }
        let (interval, refresher, least) = match (&conversing.tag, conversing.clock_of(from.other())) {
            // Before it was answered nobody knows what the callee keeps.
            (None, _) => (interval, "uac", conversing.least.max(LEAST)),
            (Some(_), Some(clock)) if conversing.voice(from.other()).timer => {
                let refresher = if clock.refresher == Refresher::Us { "uac" } else { "uas" };
                (clock.interval, refresher, clock.least)
            }
            (Some(_), _) => return Vec::new(),
        };
        vec![
            ("Supported", "timer".to_owned()),
            ("Session-Expires", format!("{interval};refresher={refresher}")),
            ("Min-SE", least.to_string()),
        ]
    }

    /// A response to a request that may carry a timer: what it says of the timers is taken, and what its reader is told of
    /// them is written.
    pub(in crate::proxy) fn timer_response(
        &mut self,
        now: Instant,
        relay: &Relay,
        status: u16,
        editor: &mut Editor<'_>,
    ) {
        if !(200..300).contains(&status) || !carries_timer(&relay.method) {
            return;
        }
        let Some((number, asker, tag)) = &relay.call else { return };
        let message = editor.message();
        let asked = self.transactions.request(relay.server).and_then(expires);
        let Some(conversing) = self.calls.get_mut(number).and_then(|call| call.conversing.as_deref_mut())
        else {
            return;
        };
        let (interval, answerer) = (conversing.interval(), asker.other());
        if interval == 0 {
            return;
        }
        let first = tag.is_none();
        let told = expires(message);
        let knows = [*asker, answerer].map(|side| conversing.voice(side).timer);
        let mut began = false;
        match knows {
            [true, true] => {}
            // The appliance answers for a side that knows nothing of timers.
            [true, false] => {
                let wanted = asked.map_or(interval, |asked| asked.seconds.min(interval).max(LEAST));
                let uac = asked.and_then(|asked| asked.uac).unwrap_or(false);
                let refresher = if uac { Refresher::Them } else { Refresher::Us };
                let before = conversing.clock_of(*asker).map_or(LEAST, |clock| clock.least);
                *conversing.clock(*asker) =
                    Some(Clock { least: before, ..Clock::new(now, wanted, refresher) });
                let word = if uac { "uac" } else { "uas" };
                editor.append_header("Require", format_args!("timer"));
                editor.append_header("Session-Expires", format_args!("{wanted};refresher={word}"));
                began = first;
            }
            // It has asked for a side that does not.
            [false, true] => {
                if let Some(told) = told {
                    let refresher = if told.uac == Some(false) { Refresher::Them } else { Refresher::Us };
                    let before = conversing.clock_of(answerer).map_or(LEAST, |clock| clock.least);
                    let least = before.max(conversing.least);
                    *conversing.clock(answerer) =
                        Some(Clock { least, ..Clock::new(now, told.seconds, refresher) });
                    began = first;
                }
                strip(editor);
            }
            [false, false] => {}
        }
        if knows != [true, true] {
            for party in [*asker, answerer] {
                let seconds = conversing.voice(party).seconds;
                if seconds > 0 && conversing.clock_of(party).is_none() {
                    *conversing.clock(party) = Some(Clock::new(now, seconds, Refresher::Us));
                    began = first;
                }
            }
        }
        let number = *number;
        if began {
            self.converted(Conversion::SessionTimer);
        }
        self.reschedule(number);
    }

    /// Whether a side wants a longer interval than the appliance has asked for: then it is asked again.
    pub(in crate::proxy) fn asks_longer(&mut self, relay: &Relay, message: &Message) -> Option<u32> {
        let (number, asker, tag) = relay.call.as_ref()?;
        let conversing = self.calls.get_mut(number)?.conversing.as_deref_mut()?;
        if !carries_timer(&relay.method)
            || conversing.interval() == 0
            || conversing.voice(*asker).timer
            || relay.cancelled
        {
            return None;
        }
        let least = least(message).filter(|least| *least <= MOST)?;
        if tag.is_none() {
            return (least > conversing.interval()).then_some(least);
        }
        let clock = conversing.clock(asker.other()).as_mut()?;
        (least > clock.interval).then(|| {
            clock.interval = least;
            clock.least = least;
            least
        })
    }

    /// Sends a request once more, with the interval that its recipient wants.
    pub(in crate::proxy) fn ask_longer(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        client: crate::sip::transaction::ClientId,
        relay: &mut Relay,
        least: u32,
    ) -> bool {
        let Some(request) = self.transactions.request(relay.server).cloned() else { return false };
        let request = self.inner_request(relay.ingress, request);
        let invited = self.invited_by(relay);
        if !self.offsets.raise(now, relay.ingress.network, &request, invited) {
            return false;
        }
        let plan = Plan {
            uri: relay.uri.clone(),
            others: relay.others.clone(),
            redirected: relay.redirected,
            standing: relay.call.clone().filter(|(.., tag)| tag.is_some()),
            least_timer: least,
            ..Plan::to(relay.egress, relay.routes)
        };
        self.supersede(now, media, client, relay);
        if let Err(refuse) = self.forward(now, media, relay.server, relay.ingress, &request, &plan) {
            self.refuse(now, relay.server, &request, refuse);
        }
        true
    }

    /// A side's timer is due: it is refreshed, or has failed to refresh.
    pub(super) fn timer_due(&mut self, now: Instant, media: &mut dyn MediaRelay, number: u64, party: Party) {
        let busy = self.is_busy(number);
        let Some(call) = self.calls.get_mut(&number) else { return };
        let live = call.is_live();
        let Some(conversing) = call.conversing.as_deref_mut() else { return };
        if !live {
            *conversing.clock(party) = None;
            return;
        }
        let update = conversing.voice(party).update;
        let lines = conversing.own_timer_lines(party);
        let Some(clock) = conversing.clock(party).as_mut().filter(|clock| clock.next <= now) else { return };
        if clock.refresher == Refresher::Them {
            return self.hang_up(now, media, number, "Session expired", Outcome::Timeout);
        }
        clock.next = now + AGAIN;
        if busy {
            return;
        }
        // Its answer says when the next one is due.
        clock.next = now + self.settings.timers.timeout() + AGAIN;
        if update {
            let words =
                Words { method: Method::Update, purpose: Purpose::Refresh, headers: &lines, body: None };
            self.speak(now, number, party, &words);
        } else if let Some(offer) = self.offer_of_other(now, media, number, party) {
            let headers = format!("{lines}{SDP_TYPE}");
            let words = Words {
                method: Method::Invite,
                purpose: Purpose::Refresh,
                headers: &headers,
                body: Some(&offer),
            };
            self.speak(now, number, party, &words);
        }
    }

    /// An offer of the appliance's own has met a side that wants a longer interval. Says whether it is made again.
    pub(super) fn offers_longer(&mut self, spoken: &Spoken, message: Option<&Message>) -> bool {
        let conversing = self.calls.get_mut(&spoken.call).and_then(|call| call.conversing.as_deref_mut());
        let clock = conversing.and_then(|conversing| conversing.clock(spoken.toward).as_mut());
        clock.is_some_and(|clock| clock.lengthen(message))
    }

    /// A refresh of the appliance's own, or another offer, which is one too, was answered, or was not.
    pub(super) fn refreshed(
        &mut self,
        now: Instant,
        media: &mut dyn MediaRelay,
        spoken: &Spoken,
        status: u16,
        message: Option<&Message>,
    ) {
        let number = spoken.call;
        let Some(conversing) = self.calls.get_mut(&number).and_then(|call| call.conversing.as_deref_mut())
        else {
            return;
        };
        let Some(clock) = conversing.clock(spoken.toward).as_mut() else { return };
        match status {
            200..300 => {
                if let Some(told) = message.and_then(expires) {
                    clock.interval = told.seconds.clamp(LEAST, MOST);
                    clock.refresher = if told.uac == Some(false) { Refresher::Them } else { Refresher::Us };
                }
                clock.begin(now);
            }
            // RFC 4028 section 10: these say that there is no call any more.
            408 | 481 => self.hang_up(now, media, number, "Session refresh failed", Outcome::Timeout),
            503 if message.is_none() && now >= clock.end => {
                self.hang_up(now, media, number, "Session refresh failed", Outcome::Timeout);
            }
            422 if clock.lengthen(message) => clock.next = now,
            405 | 501 if spoken.method == Method::Update => {
                clock.next = now;
                conversing.voice_mut(spoken.toward).update = false;
            }
            491 => {
                let wait = self.glare(now, number, spoken.toward.other());
                if let Some(clock) = self
                    .calls
                    .get_mut(&number)
                    .and_then(|call| call.conversing.as_deref_mut())
                    .and_then(|conversing| conversing.clock(spoken.toward).as_mut())
                {
                    clock.next = now + wait;
                }
            }
            // It lives, and does not want to.
            _ => {
                let half = Duration::from_secs((clock.interval / 2).into());
                clock.next = now + if message.is_some() { half } else { AGAIN };
            }
        }
    }
}

//! What is asked and what is answered; also the form of `--output json`, so fields are added and never
//! renamed.

use serde::{Deserialize, Serialize};

use crate::{
    capture::{CaptureView, Target},
    log::LogView,
    provisioning::{PhoneActivity, syslog::SyslogView},
    quality::{StreamQuality, Verdict},
    symptoms::Symptom,
    trace::{TraceView, TracesView},
};

/// A question to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// How the appliance is.
    Status,
    /// The calls.
    Calls {
        /// Those that have ended too.
        ended: bool,
        /// This call only, ended or not, with the quality of its streams.
        #[serde(default)]
        call_id: Option<String>,
    },
    /// The flows.
    Flows {
        /// Of this call only.
        call_id: Option<String>,
    },
    /// Start anew, with the configuration as it is now. Calls that stand are ended or lose their signalling.
    Restart,
    /// Read the configuration file again and apply what can be applied.
    Reload,
    /// Make a one-time link by which an administrator is set.
    SetupLink,
    /// The phones.
    Phones,
    /// The last lines of phones' logs.
    Syslog {
        /// Of the phone with this IP address only.
        phone: Option<String>,
        /// How many.
        lines: usize,
    },
    /// The log's levels.
    Log,
    /// Set a topic's level until the restart.
    SetLogTopic {
        /// Which.
        topic: String,
        /// The level; `default`: as configured.
        level: String,
    },
    /// The prefixes whose packets are dropped.
    Denials,
    /// Drop the packets of a prefix.
    Deny {
        /// Which.
        prefix: ipnet::IpNet,
        /// For so many minutes; until the daemon ends unless it is given.
        minutes: Option<u64>,
    },
    /// Take that back.
    Allow {
        /// For which prefix.
        prefix: ipnet::IpNet,
    },
    /// The captures.
    Captures,
    /// Begin a capture.
    StartCapture {
        /// Of what.
        target: Target,
        /// Whom to encrypt it to, besides those of the configuration, as age's public keys.
        recipients: Vec<String>,
        /// Whether keys of SRTP go into it.
        with_srtp_keys: bool,
        /// For so many seconds at most.
        seconds: Option<u64>,
        /// Of so many MiB at most.
        mib: Option<u64>,
        /// Sealed or not; as configured unless it is given.
        encrypt: Option<bool>,
    },
    /// Stop a capture.
    StopCapture {
        /// Its name.
        name: String,
    },
    /// Remove a capture that has ended.
    RemoveCapture {
        /// Its name.
        name: String,
    },
    /// A part of a capture's file.
    CapturePart {
        /// Its name.
        name: String,
        /// The part's number, from 0.
        number: u64,
    },
    /// The last traces.
    Traces {
        /// How many.
        last: usize,
    },
    /// A part of a trace.
    Trace {
        /// Of which Call-ID.
        call_id: String,
        /// The messages from so many on.
        from: usize,
    },
    /// The servers' certificates that no authority vouches for.
    Certificates,
    /// The certificate of the appliance's own authority.
    Authority,
    /// Trust one of them.
    TrustCertificate {
        /// Its fingerprint, or the beginning of it.
        fingerprint: String,
        /// Who does.
        by: String,
    },
    /// Forget one of them.
    ForgetCertificate {
        /// Its fingerprint, or the beginning of it.
        fingerprint: String,
    },
    /// The authentication entries.
    Entries,
    /// Add or replace an authentication entry.
    PutEntry {
        /// The registration that it is for.
        registration_id: String,
        /// The user name.
        user: String,
        /// The password.
        password: String,
        /// Extensions that it may be used for too.
        aliases: Vec<String>,
    },
    /// Remove an authentication entry.
    RemoveEntry {
        /// Its registration.
        registration_id: String,
    },
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<StatusView>),
    /// To [`Request::Calls`].
    Calls(Vec<CallView>),
    /// To [`Request::Flows`].
    Flows(Vec<FlowView>),
    /// To [`Request::Reload`].
    Reloaded(ReloadedView),
    /// To [`Request::SetupLink`].
    SetupLink(SetupLinkView),
    /// To [`Request::Phones`], the one that was heard of last first.
    Phones(Vec<PhoneView>),
    /// To [`Request::Syslog`], oldest first.
    Syslog(Vec<SyslogView>),
    /// To [`Request::Log`].
    Log(LogView),
    /// To [`Request::Denials`].
    Denials(Vec<DenialView>),
    /// To [`Request::Captures`], the newest first.
    Captures(Vec<CaptureView>),
    /// To [`Request::StartCapture`]: the capture's name.
    CaptureStarted(CaptureStartedView),
    /// To [`Request::CapturePart`].
    CapturePart(CapturePartView),
    /// To [`Request::Traces`].
    Traces(TracesView),
    /// To [`Request::Trace`].
    Trace(Box<TraceView>),
    /// To [`Request::Certificates`].
    Certificates(Vec<CertificateView>),
    /// To [`Request::Authority`]: PEM.
    Authority(String),
    /// To [`Request::Entries`].
    Entries(Vec<EntryView>),
    /// A change was made.
    Done,
    /// What is wrong with the request.
    Error(String),
}

/// A capture that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStartedView {
    /// Its name.
    pub name: String,
}

/// A part of a capture's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturePartView {
    /// Its bytes, base64 (RFC 4648 section 4).
    pub content: String,
    /// Whether another part follows.
    pub more: bool,
}

/// A phone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PhoneView {
    /// What it asked for besides calls.
    #[serde(flatten)]
    pub activity: PhoneActivity,
    /// Its registrations that stand.
    pub registrations: Vec<RegistrationView>,
}

/// A registration of a phone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegistrationView {
    /// Whose calls it takes, `user@host`.
    pub address_of_record: String,
    /// The phone's own contact.
    pub contact: String,
    /// The phone's network.
    #[serde(default)]
    pub network: String,
    /// Seconds until it ends.
    pub expires_seconds: u64,
    /// Seconds since it was granted first.
    pub registered_seconds: u64,
    /// What the phone calls itself.
    pub user_agent: Option<String>,
}

/// How the appliance is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusView {
    /// Version of the daemon.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Whether calls work.
    pub ready: bool,
    /// Why not.
    pub not_ready_reason: Option<String>,
    /// `kernel` or `userspace`.
    pub datapath: String,
    /// Why it is not the kernel's.
    pub datapath_reason: Option<String>,
    /// The networks.
    pub networks: Vec<NetworkView>,
    /// The servers.
    pub servers: Vec<ServerView>,
    /// Ways to the telephone network beside the servers.
    #[serde(default)]
    pub trunks: Vec<TrunkView>,
    /// The destinations of server plans, each by the plan's name and its place in it.
    #[serde(default)]
    pub plan_destinations: Vec<TrunkView>,
    /// Seconds for which the office has been on its own; none while a server serves.
    #[serde(default)]
    pub survival_seconds: Option<u64>,
    /// The groups of servers whose phones are on their own.
    #[serde(default)]
    pub survival_groups: Vec<String>,
    /// By which way emergency calls leave first: `trunk` or `servers`.
    #[serde(default)]
    pub emergency_calls_by: String,
    /// What is wrong, the worst first.
    #[serde(default)]
    pub symptoms: Vec<Symptom>,
    /// Calls that stand or are being set up.
    pub calls_active: usize,
    /// Phones' bindings.
    pub registrations: usize,
    /// SIP transactions under way.
    pub transactions: usize,
    /// Media sessions.
    pub media_sessions: usize,
    /// Flows.
    pub flows: usize,
    /// Flows that there can be.
    pub flow_table_size: u32,
    /// Descriptors that the daemon has open.
    pub open_files: usize,
    /// Descriptors that it may have open.
    pub open_files_limit: usize,
    /// Sockets of media ports that are open.
    pub media_sockets: usize,
    /// How many may be; none where media ports take no sockets.
    pub media_sockets_limit: Option<usize>,
    /// Packets that the kernel program forwarded.
    pub kernel_packets: u64,
    /// Packets that the userspace relay sent on.
    pub userspace_packets: u64,
    /// Packets that were not forwarded: reason, by the kernel program, by the relay.
    pub not_forwarded: Vec<(String, u64, u64)>,
    /// Keys whose new values in the file take effect with the next start.
    #[serde(default)]
    pub waiting_for_restart: Vec<String>,
    /// Why the file as it is now is not valid: what ran before runs on.
    #[serde(default)]
    pub configuration_error: Option<String>,
}

/// What reading the configuration file again has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReloadedView {
    /// Keys whose new values are in effect.
    pub applied: Vec<String>,
    /// Keys whose new values take effect with the next start; those of earlier changes too.
    pub waiting_for_restart: Vec<String>,
}

/// A one-time link.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetupLinkView {
    /// The same link by each of the appliance's addresses. Whoever has it can set an administrator.
    pub links: Vec<String>,
    /// For how many hours it can be used.
    pub valid_hours: u64,
}

/// A prefix whose packets are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialView {
    /// The prefix.
    pub prefix: String,
    /// Why.
    pub why: String,
    /// Since when, in seconds since 1970; absent where the configuration has it.
    pub since_unix: Option<i64>,
    /// For how many seconds more; absent where it has no end.
    pub seconds_left: Option<u64>,
    /// Packets that were dropped, since the rule came to the kernel.
    pub packets: u64,
}

/// A network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkView {
    /// Its name.
    pub name: String,
    /// `phones`, `servers` or `gateway`.
    pub role: String,
    /// Its interface.
    pub interface: String,
    /// The address and port of SIP.
    pub sip: String,
    /// Its ports by transport.
    pub listeners: Vec<ListenerView>,
    /// How the relay is attached: `native`, `generic` or `userspace`.
    pub attached: String,
    /// Why it is not native.
    pub attached_reason: Option<String>,
    /// Media ports in use.
    pub ports_used: usize,
    /// Media ports.
    pub ports: usize,
}

/// A port of SIP.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListenerView {
    /// `udp`, `tcp`, `tls`, `legacy-tls`, `ws` or `wss`.
    pub transport: String,
    /// The port.
    pub port: u16,
}

/// A server at one of its addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerView {
    /// The group that it is in, by name; empty for a trunk.
    #[serde(default)]
    pub group: String,
    /// Whether it is used only while no other of its group serves.
    #[serde(default)]
    pub fallback: bool,
    /// As configured.
    pub server: String,
    /// Its address; none while its name does not resolve.
    pub address: Option<String>,
    /// By what it is reached there: `udp`, `tcp` or `tls`.
    #[serde(default)]
    pub transport: Option<String>,
    /// `up`, `down`, `standby` or `unknown`.
    pub state: String,
    /// At which step it fails: `name`, `route`, `tcp`, `tls` or `sip`.
    pub step: Option<String>,
    /// Why, in words.
    pub reason: Option<String>,
    /// Seconds for which this has been so.
    pub since_seconds: Option<f64>,
    /// Seconds since it was last found to be so; none as long as nothing is known of it.
    #[serde(default)]
    pub updated_seconds: Option<f64>,
    /// By what: `probe`, `answer` (to a phone's request, or that there was none) or `request` (of its own).
    #[serde(default)]
    pub known_by: Option<String>,
    /// Milliseconds that it took to answer the last probe.
    pub round_trip_ms: Option<f64>,
    /// Whether it is the one that is tried first.
    pub preferred: bool,
}

/// A way to the telephone network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrunkView {
    /// Its name.
    pub name: String,
    /// Its other end, at each of its addresses.
    pub servers: Vec<ServerView>,
}

/// A certificate of a server that no authority vouches for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateView {
    /// SHA-256, hexadecimal.
    pub fingerprint: String,
    /// Who showed it.
    pub server: String,
    /// Why it is not believed by itself.
    pub why: String,
    /// Who it is for.
    pub subject: String,
    /// Who made it.
    pub issuer: String,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// How it is signed.
    pub signature_algorithm: String,
    /// X.509's version.
    pub version: u32,
    /// From when it holds, RFC 2822.
    pub not_before: String,
    /// Until when.
    pub not_after: String,
    /// Names and addresses that it is for.
    pub names: Vec<String>,
    /// When it was first met, in seconds since 1970.
    pub first_seen_unix: i64,
    /// When it was last met.
    pub last_seen_unix: i64,
    /// When it was trusted.
    pub trusted_unix: Option<i64>,
    /// By whom.
    pub trusted_by: Option<String>,
    /// The chain, PEM.
    pub chain_pem: String,
}

/// An authentication entry, without its password.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EntryView {
    /// The registration that it is for.
    pub registration_id: String,
    /// The user name.
    pub user: String,
    /// Extensions that it may be used for too.
    pub aliases: Vec<String>,
    /// The realms in which it can be used without its password.
    #[serde(default)]
    pub realms: Vec<String>,
    /// Whether its password is still kept, so that it can be used in any realm.
    #[serde(default)]
    pub password_kept: bool,
}

/// A call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CallView {
    /// Its Call-ID.
    pub call_id: String,
    /// The caller.
    pub from: String,
    /// The called party.
    pub to: String,
    /// The caller's network.
    pub from_network: String,
    /// The called party's network.
    pub to_network: String,
    /// Where it stands.
    pub state: String,
    /// Seconds since its INVITE.
    pub age_seconds: f64,
    /// Seconds that it has been, or was, answered.
    pub answered_seconds: Option<f64>,
    /// How it ended.
    pub outcome: Option<String>,
    /// The caller's phone.
    pub from_agent: Option<String>,
    /// The called party's phone.
    pub to_agent: Option<String>,
    /// Once its flows are gone: the sources whose packets they refused. Those of a call that stands are its flows'.
    #[serde(default)]
    pub refusals: Vec<RefusalView>,
    /// What is the matter with its worst stream now; what was, once it has ended.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// The lowest score of its directions, 1 to 4.5.
    #[serde(default)]
    pub mos: Option<f64>,
    /// The quality of its streams; empty in lists.
    #[serde(default)]
    pub streams: Vec<StreamQuality>,
}

/// A source whose packets a flow refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalView {
    /// Address and port.
    pub source: String,
    /// The network that its packets came from.
    pub network: String,
    /// Where they arrived.
    pub local: String,
    /// How many came.
    pub packets: u64,
    /// When the first came, in milliseconds since 1970.
    pub first_unix_ms: u64,
    /// When the last came.
    pub last_unix_ms: u64,
    /// Who refused them: `kernel` or `userspace`.
    pub by: String,
}

/// A flow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FlowView {
    /// The call that it belongs to.
    pub call_id: Option<String>,
    /// Where its packets arrive.
    pub local: String,
    /// The network that they come from.
    pub network: String,
    /// `rtp`, `rtcp` or `opaque`.
    pub kind: String,
    /// `kernel`, `userspace`, `learning`, `awaiting_next_hop` or `blocked`.
    pub datapath: String,
    /// Why it is not in the kernel.
    pub reason: Option<String>,
    /// Where the session description says that they come from.
    pub signalled: Option<String>,
    /// Where they really come from.
    pub learned: Option<String>,
    /// When that was learned, in milliseconds since 1970.
    pub learned_unix_ms: Option<u64>,
    /// Where they leave from.
    pub out: String,
    /// Where they go.
    pub destination: Option<String>,
    /// The DSCP that they get; none: they keep theirs.
    pub dscp_out: Option<u8>,
    /// The DSCP that the last one came with.
    pub dscp_in: u8,
    /// Packets that the kernel forwarded.
    pub kernel_packets: u64,
    /// Packets that userspace relayed.
    pub userspace_packets: u64,
    /// Bytes by both.
    pub bytes: u64,
    /// RTP packets that should have arrived.
    pub expected: u64,
    /// RTP packets that did not.
    pub lost: u64,
    /// RTP packets that came again.
    pub duplicates: u32,
    /// RTP packets that were overtaken.
    pub reordered: u32,
    /// Interarrival jitter in milliseconds.
    pub jitter_ms: f64,
    /// RTCP packets among all.
    pub rtcp_packets: u32,
    /// The stream's SSRC.
    pub ssrc: Option<u32>,
    /// Packets from elsewhere that were dropped after the flow had learned its source.
    pub wrong_source: u32,
    /// Packets that were refused while the flow learned.
    pub refused: u64,
    /// Where the first of all these came from.
    pub refused_sources: Vec<String>,
    /// The same in full.
    #[serde(default)]
    pub refusals: Vec<RefusalView>,
    /// Refused packets from sources beyond those.
    #[serde(default)]
    pub refused_further: u64,
    /// What SRTP becomes, as `AEAD_AES_128_GCM to RTP`; none if packets go as they come.
    #[serde(default)]
    pub srtp: Option<String>,
    /// Packets whose SRTP authentication failed.
    #[serde(default)]
    pub srtp_authentication: u64,
    /// SRTP packets that were there before.
    #[serde(default)]
    pub srtp_replay: u64,
    /// Where RTCP goes that comes multiplexed with RTP; none if it has a flow of its own.
    #[serde(default)]
    pub rtcp_destination: Option<String>,
}

//! What is asked and what is answered; also the form of `--output json`, so fields are added and never
//! renamed.

use serde::{Deserialize, Serialize};

use crate::provisioning::{PhoneActivity, syslog::SyslogView};

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
    },
    /// The flows.
    Flows {
        /// Of this call only.
        call_id: Option<String>,
    },
    /// The phones.
    Phones,
    /// The last lines of phones' logs.
    Syslog {
        /// Of the phone with this IP address only.
        phone: Option<String>,
        /// How many.
        lines: usize,
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
    /// To [`Request::Phones`], the one that was heard of last first.
    Phones(Vec<PhoneView>),
    /// To [`Request::Syslog`], oldest first.
    Syslog(Vec<SyslogView>),
    /// What is wrong with the request.
    Error(String),
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
    /// The server.
    pub upstream: String,
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
    /// Packets that the kernel program forwarded.
    pub kernel_packets: u64,
    /// Packets that the userspace relay sent on.
    pub userspace_packets: u64,
    /// Packets that were not forwarded: reason, by the kernel program, by the relay.
    pub not_forwarded: Vec<(String, u64, u64)>,
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
    /// How the relay is attached: `native`, `generic` or `userspace`.
    pub attached: String,
    /// Why it is not native.
    pub attached_reason: Option<String>,
    /// Media ports in use.
    pub ports_used: usize,
    /// Media ports.
    pub ports: usize,
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
    /// Where the first of these came from.
    pub refused_sources: Vec<String>,
}

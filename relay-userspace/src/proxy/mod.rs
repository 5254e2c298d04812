//! The SIP proxy: where each message goes, and what becomes of it on the way.
//!
//! Call-stateful and transparent, in the manner of a session border controller: Call-ID, tags, CSeq and everything
//! that is not named here pass byte for byte; Via, Record-Route, Contact, the Request-URI's own address and session
//! descriptions are rewritten so that neither side needs a route to the other. [`Proxy`] does no I/O: datagrams and
//! the time go in, datagrams and measures come out.
//!
//! Invariants: a request goes only to the configured servers, to a phone that has registered, or to the other party
//! of a dialog, so the appliance is no open relay. A session description leaves only after the media room has
//! rewritten it. Where peers are configured to get what the other side does not send, the appliance also speaks itself
//! (`converse`); all other calls pass without it. Every piece of state has an end: transactions by their timers, calls by BYE or by the media room's
//! word, subscriptions by their expiry. RFC 3261 section 16, RFC 3264, 3581, 5393, 5658, 6026, 6076.

mod admission;
mod alone;
mod call;
mod converse;
mod credentials;
mod dual;
mod failover;
mod fork;
mod forward;
mod groups;
mod identity;
mod large;
mod machine;
mod measure;
mod negotiate;
mod next_nonce;
mod peers;
mod prove;
mod reconfigure;
mod request;
mod response;
mod reuse;
mod routing;
mod settings;
mod standing;
#[cfg(test)]
mod tests;
mod ways;

pub use admission::{Capacity, Load};
pub use call::{CallInfo, CallState};
pub use credentials::{Credential, Credentials};
pub use machine::{Output, Proxy};
pub use measure::{Conversion, DropReason, EmergencyWay, Measure, Outcome, SecondRegistration, SurvivalCall};
pub use peers::Peers;
pub use reconfigure::Changes;
pub use routing::{Alone, EmergencyCalls, Precedence, Routing, Rule};
pub use settings::{Limits, Network, Ports, Settings, Upstream};
pub use standing::{CallRecord, NotTakenUp};

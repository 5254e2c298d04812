//! The local socket by which the command line asks the daemon: one line of JSON there, one back.
//!
//! The socket is only for root and the daemon's user. A request is small and bounded; an answer may be as
//! long as there are flows.

mod messages;
mod socket;

pub use messages::{
    CallView, CapturePartView, CaptureStartedView, CertificateView, DenialView, EntryView, FlowView,
    ListenerView, NetworkView, PhoneView, RefusalView, RegistrationView, ReloadedView, Request, Response,
    ServerView, SetupLinkView, StatusView, TrunkView,
};
pub use socket::{Answers, ask, bind, serve};

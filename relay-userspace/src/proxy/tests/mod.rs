//! The proxy between a phone and a server that the tests play. Whole messages are compared; what is random in them
//! is masked.

mod admission;
mod bounds;
mod calls;
mod corpus;
mod credentials;
mod delayed_offers;
mod dialects;
mod dual;
mod failover;
mod failures;
mod groups;
mod harness;
mod hold;
mod hostile;
mod hostile_descriptions;
mod identity;
mod joined;
mod large;
mod negotiation;
mod prove;
mod reconfigure;
mod redirects;
mod registration;
mod reuse;
mod routing;
mod session_timers;
mod softphones;
mod standing;
mod stun;
mod survival;
mod transferors;
mod transfers;
mod transports;

//! SIP over connections: TCP, TLS and WebSocket, listening and connecting, cut into whole messages.
//!
//! This is a driver: it has the sockets and no opinion. Messages and the fate of connections come out of one channel;
//! what is to be sent goes in by [`Streams::send`], which never waits. A connection is named by its [`Hop`](super::Hop)
//! and is used in both directions for as long as it lives (RFC 3261 section 18, RFC 5923). UDP needs none of this.
//!
//! Invariants: the number of connections, what waits in each and the time of each step are bounded, so that a peer that
//! connects and is silent, or that does not read, costs a little memory for a little while.

mod connection;
mod framing;
mod queue;
mod socket;
mod streams;
mod table;
#[cfg(test)]
mod tests;
mod websocket;

pub use framing::{Frame, Framer, FramingError, with_length};
pub use streams::{BindError, Direction, Event, Limits, Listen, Settings, Step, Streams, Why};

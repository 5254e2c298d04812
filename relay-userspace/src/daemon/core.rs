//! The daemon's one shared state: the proxy with its media plane, and the sockets that its messages leave
//! by. Every input takes the lock, feeds the state machine, and sends what came out after giving the lock
//! back.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    net::UdpSocket,
    sync::{Notify, mpsc},
    task::yield_now,
    time::{MissedTickBehavior, interval, sleep_until},
};
use tracing::{debug, info, warn};

use super::{measures::Measures, plane::MediaPlane};
use crate::{
    datapath::{Engine, RtcpPacket, monotonic_ns},
    net::NetworkId,
    proxy::{Outcome, Output, Proxy},
};

/// Bytes of the largest UDP datagram.
const DATAGRAM: usize = 65_535;
/// Datagrams that are taken from a socket before others get their turn.
const TURN: usize = 64;
/// How often silent calls are looked for, and jitter is entered.
const TICK: Duration = Duration::from_secs(5);

/// What a lock protects.
pub(super) struct State {
    pub(super) proxy: Proxy,
    pub(super) plane: MediaPlane,
}

/// The daemon's shared state.
pub(super) struct Core {
    state: Mutex<State>,
    pub(super) engine: Arc<Engine>,
    pub(super) measures: Measures,
    sockets: Vec<Arc<UdpSocket>>,
    /// Woken when the proxy's next deadline may have changed.
    deadline: Notify,
}

/// A message to send.
struct Transmit {
    network: NetworkId,
    destination: SocketAddr,
    payload: Bytes,
}

impl Core {
    pub(super) fn new(
        proxy: Proxy,
        plane: MediaPlane,
        engine: Arc<Engine>,
        measures: Measures,
        sockets: Vec<Arc<UdpSocket>>,
    ) -> Self {
        Self { state: Mutex::new(State { proxy, plane }), engine, measures, sockets, deadline: Notify::new() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Feeds the state machine and returns what it wants sent.
    fn feed(&self, input: impl FnOnce(&mut State)) -> Vec<Transmit> {
        let mut state = self.state();
        input(&mut state);
        let mut transmits = Vec::new();
        while let Some(output) = state.proxy.poll_output() {
            match output {
                Output::Transmit { network, destination, payload } => {
                    transmits.push(Transmit { network, destination, payload });
                }
                Output::Measure(measure) => self.measures.enter(measure),
            }
        }
        drop(state);
        self.deadline.notify_one();
        transmits
    }

    async fn send(&self, transmits: Vec<Transmit>) {
        for transmit in transmits {
            let Some(socket) = self.sockets.get(transmit.network.index()) else { continue };
            // A message that cannot be sent is as good as lost on the way: the timers see to it.
            if let Err(error) = socket.send_to(&transmit.payload, transmit.destination).await {
                debug!(%error, destination = %transmit.destination, "sending SIP");
            }
        }
    }

    /// Receives SIP on a network until the socket fails.
    pub(super) async fn receive(self: Arc<Self>, network: NetworkId) {
        let Some(socket) = self.sockets.get(network.index()).cloned() else { return };
        let mut buffer = vec![0; DATAGRAM];
        loop {
            if let Err(error) = socket.readable().await {
                warn!(%error, %network, "the SIP socket cannot be waited for; signalling stops here");
                return;
            }
            let mut transmits = Vec::new();
            let mut taken = 0;
            while taken < TURN {
                match socket.try_recv_from(&mut buffer) {
                    Ok((length, source)) => {
                        taken += 1;
                        let datagram = Bytes::copy_from_slice(&buffer[..length]);
                        let now = Instant::now();
                        transmits.extend(self.feed(|state| {
                            state.proxy.receive(now, &mut state.plane, network, source, &datagram);
                        }));
                    }
                    // An ICMP error for something that was sent earlier comes out here; it ends nothing.
                    Err(_) => break,
                }
            }
            self.send(transmits).await;
            if taken == TURN {
                // A socket that is ready never makes its task wait: under a flood nothing else would run
                // on this thread.
                yield_now().await;
            }
        }
    }

    /// Runs the proxy's timers.
    pub(super) async fn keep_time(self: Arc<Self>) {
        /// Without a deadline there is nothing to do until the next message.
        const IDLE: Duration = Duration::from_secs(3600);
        loop {
            let deadline = {
                let state = self.state();
                let next = [state.proxy.poll_timeout(), state.plane.next_reap()].into_iter().flatten().min();
                next.unwrap_or_else(|| Instant::now() + IDLE)
            };
            tokio::select! {
                () = sleep_until(deadline.into()) => {
                    let transmits = self.feed(|state| {
                        let now = Instant::now();
                        state.plane.reap(now);
                        state.proxy.handle_timeout(now, &mut state.plane);
                    });
                    self.send(transmits).await;
                }
                () = self.deadline.notified() => {}
            }
        }
    }

    /// Looks now and then for calls that ended unnoticed, and enters the streams' jitter.
    pub(super) async fn look_around(self: Arc<Self>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = HashMap::new();
        loop {
            tick.tick().await;
            self.measures.jitter(&self.engine.reports(), &mut seen);
            let transmits = self.feed(|state| {
                let now = Instant::now();
                for call in state.plane.silent(now, monotonic_ns()) {
                    info!(call = %String::from_utf8_lossy(&call), "no media and no signalling: the call has ended unnoticed");
                    state.proxy.end_call(now, &mut state.plane, &call, Outcome::MediaTimeout);
                }
            });
            self.send(transmits).await;
        }
    }

    /// Reads the RTCP packets that pass.
    pub(super) async fn read_rtcp(self: Arc<Self>, mut copies: mpsc::Receiver<RtcpPacket>) {
        while let Some(packet) = copies.recv().await {
            let times = self.state().plane.rtcp(&packet);
            for time in times {
                self.measures.metrics.rtcp_round_trip.observe(time.as_secs_f64());
            }
        }
    }
}

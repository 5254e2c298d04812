//! What the relay's tasks find in the paths is what the flows would have decided, whatever signalling and other packets
//! have done before.

use proptest::{prelude::*, sample::select};

use super::{
    super::super::paths::{Look, Verdict},
    *,
};

const INSIDE_RTCP: &str = "10.61.0.1:16385";
const OUTSIDE_RTCP: &str = "10.62.0.1:16401";
/// Of another call, at the same port of the other address.
const CROSSED: &str = "10.62.0.1:16384";
const BRANCH: &str = "10.61.0.1:16500";
const LOCALS: [&str; 6] = [INSIDE, OUTSIDE, INSIDE_RTCP, OUTSIDE_RTCP, CROSSED, BRANCH];
/// Parties, one of which sends from elsewhere too, and one that is another leg in this host.
const PARTIES: [&str; 5] = [PHONE, SERVER, "10.61.0.11:4044", "10.62.0.20:7000", OUTSIDE];

#[derive(Debug, Clone)]
enum Step {
    /// Both directions of a stream, RTP at even places.
    Install(Box<[FlowSpec; 2]>),
    /// A branch more at the outside, or one less.
    Fork {
        with: bool,
    },
    Remove(&'static str),
    Tap(&'static str),
    Untap,
    Packet {
        local: &'static str,
        source: &'static str,
        payload: Vec<u8>,
    },
}

fn party() -> impl Strategy<Value = Option<&'static str>> {
    prop::option::weighted(0.8, select(&PARTIES[..]))
}

fn latching() -> impl Strategy<Value = Latching> {
    select(&[Latching::Signalled, Latching::SameAddress, Latching::Any][..])
}

fn install() -> impl Strategy<Value = Step> {
    (any::<bool>(), [party(), party()], [latching(), latching()], 0..3u32, any::<[bool; 2]>()).prop_map(
        |(is_rtcp, [phone, server], [inside, outside], turns, multiplexed)| {
            let [a, b] = if is_rtcp { [INSIDE_RTCP, OUTSIDE_RTCP] } else { [INSIDE, OUTSIDE] };
            let kind = if is_rtcp { FlowKind::Rtcp } else { FlowKind::Rtp };
            let way = |out: &str, to: Option<&str>| RtcpWay {
                out_source: at(out),
                destination: to.map(at),
                dscp: Some(Dscp::EF),
            };
            let [to_outside, to_inside] = multiplexed.map(|is| is && !is_rtcp);
            Step::Install(Box::new([
                FlowSpec {
                    kind,
                    turns,
                    rtcp: to_outside.then(|| way(OUTSIDE_RTCP, server).into()),
                    ..spec(a, phone, b, server, inside)
                },
                FlowSpec {
                    kind,
                    dscp: None,
                    rtcp: to_inside.then(|| way(INSIDE_RTCP, phone).into()),
                    ..spec(b, server, a, phone, outside)
                },
            ]))
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let payload = prop_oneof![
        4 => (0..40u16).prop_map(rtp),
        2 => Just([&[0x80, 200, 0, 1][..], &[0; 24]].concat()),
        1 => Just([&[0, 1, 0, 0][..], &[0; 20]].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    let packet = (select(&LOCALS[..]), select(&PARTIES[..]), payload)
        .prop_map(|(local, source, payload)| Step::Packet { local, source, payload });
    prop_oneof![
        3 => install(),
        1 => any::<bool>().prop_map(|with| Step::Fork { with }),
        1 => select(&LOCALS[..]).prop_map(Step::Remove),
        1 => select(&LOCALS[..]).prop_map(Step::Tap),
        1 => Just(Step::Untap),
        12 => packet,
    ]
}

/// Flows, with the other end of their tap.
struct Side {
    flows: Flows,
    tapped: Vec<crate::datapath::Tapped>,
}

impl Side {
    fn new(with_kernel: bool) -> Self {
        let mut flows =
            if with_kernel { flows_with(&[]) } else { Flows::new(SharedArray::on_heap(64), None, vec![]) };
        // A second in a thousand packets and those that may be ahead: some are refused.
        flows.set_stream_limit(2);
        Self { flows, tapped: Vec::new() }
    }

    fn signal(&mut self, now: Instant, step: &Step) {
        match step {
            Step::Install(specs) => {
                for spec in &**specs {
                    self.flows.install(now, spec.clone()).unwrap();
                }
            }
            Step::Fork { with } => {
                let Some(report) = self.flows.report(at(OUTSIDE)) else { return };
                let fork = Fork {
                    out_source: at(BRANCH),
                    ..spec(OUTSIDE, None, BRANCH, None, Latching::Any).party()
                };
                let forks = if *with { vec![fork] } else { Vec::new() };
                self.flows
                    .install(now, spec(BRANCH, Some(PHONE), OUTSIDE, Some(SERVER), Latching::Any))
                    .unwrap();
                self.flows.install(now, FlowSpec { forks, ..report.spec }).unwrap();
            }
            Step::Remove(local) => drop(self.flows.remove(now, at(local))),
            Step::Tap(local) => {
                let (tap, tapped) = Tap::new(1);
                self.flows.attach_tap(now, at(local), &tap);
                self.tapped.push(tapped);
            }
            Step::Untap => {
                // The one that is longest there: others of the same flow may go on.
                if !self.tapped.is_empty() {
                    drop(self.tapped.remove(0));
                }
                self.flows.release_taps(now);
            }
            Step::Packet { .. } => {}
        }
    }

    /// Reports as text, for they cannot be compared.
    fn state(&self) -> Vec<String> {
        let mut reports: Vec<String> =
            self.flows.reports().iter().map(|report| format!("{report:?}")).collect();
        reports.sort();
        reports.push(format!("{:?}", self.flows.totals().get(&NetworkId(0))));
        reports
    }
}

proptest! {
    #[test]
    fn a_packet_that_finds_a_path_goes_as_if_the_flows_had_been_asked(
        with_kernel in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let (mut asked, mut looked) = (Side::new(with_kernel), Side::new(with_kernel));
        let mut now = Instant::now();
        for (time, step) in (1u64..).zip(&steps) {
            now += Duration::from_millis(300);
            asked.signal(now, step);
            looked.signal(now, step);
            if let Step::Packet { local, source, payload } = step {
                let arrival = Arrival {
                    local: at(local),
                    source: at(source),
                    type_of_service: 1,
                    payload,
                    monotonic_ns: time * 1_000_000,
                    unix_ms: time,
                };
                let watched = asked.flows.taps(at(local)).map(|watchers| watchers.taps.len());
                let expected = asked.flows.packet(now, &arrival);
                let (result, watchers) = match looked.flows.paths.look(&arrival) {
                    Look::Decided(Verdict::Go(departure), watchers) => (Ok(departure), watchers),
                    Look::Decided(Verdict::Refused(reason), watchers) => (Err(reason), watchers),
                    Look::Decided(Verdict::Translate(..), _) => panic!("there is no SRTP"),
                    Look::Ask => (looked.flows.packet(now, &arrival), looked.flows.taps(at(local))),
                };
                prop_assert_eq!(result, expected, "{:?}", step);
                prop_assert_eq!(watchers.map(|watchers| watchers.taps.len()), watched, "{:?}", step);
                for side in [&asked, &looked] {
                    if let Ok(departure) = &expected {
                        side.flows.paths.sent(departure);
                    }
                }
            }
            prop_assert_eq!(looked.state(), asked.state(), "{:?}", step);
            for local in LOCALS.map(at) {
                prop_assert_eq!(looked.flows.paths.path(local), looked.flows.path(local), "{} {:?}", local, step);
            }
        }
    }
}

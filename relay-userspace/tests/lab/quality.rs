//! The quality of calls whose media is spoilt on purpose, over both datapaths: the figures are those of what was done, and
//! what is wrong is named with its side.

use std::time::Duration;

use anyhow::{Context as _, Result};
use branchline::control::CallView;
use branchline::quality::{DirectionQuality, StreamQuality, Verdict};
use xtask::lab::network::phone;
use xtask::lab::{Fate, Faults, interrupt};

use crate::site::{LIMIT, Site, engine};

/// Long enough for the packets that are waited for, and short enough for the silence that follows not to be a verdict.
const TALK: Duration = Duration::from_secs(13);
/// Longer than it takes to find that somebody is not heard.
const LONG_TALK: Duration = Duration::from_secs(30);
/// Packets that a test waits for.
const ENOUGH: u64 = 300;

fn named(site: &Site, call_id: &str) -> Result<CallView> {
    let answer = site.appliance.ask(&site.lab, &["calls", "--call-id", call_id])?;
    let calls: Vec<CallView> = serde_json::from_value(answer)?;
    calls.into_iter().next().context("no such call")
}

fn stream(call: &CallView) -> Result<&StreamQuality> {
    call.streams.first().context("no stream")
}

fn from<'a>(stream: &'a StreamQuality, network: &str) -> Result<&'a DirectionQuality> {
    stream.directions.iter().find(|way| way.network == network).context("no such direction")
}

/// The phone loses two packets of fifty in a row, repeats some and has some overtaken; and of what comes to it, it gets
/// nineteen of twenty. The server sends every other packet late.
const OFFICE: Faults = Faults {
    send: |number| match number % 100 {
        20 | 21 | 70 | 71 => Fate::Lost,
        40 => Fate::Twice,
        60 => Fate::Overtaken,
        _ => Fate::Sent,
    },
    hear: |number| number % 20 != 7,
};
const CENTRE: Faults =
    Faults { send: |number| if number % 2 == 0 { Fate::Late } else { Fate::Sent }, hear: |_| true };

fn a_spoilt_call(datapath: &str) -> Result<()> {
    let mut site = Site::start(engine(datapath))?;
    site.misbehave([OFFICE, CENTRE]);
    let mut call = site.phone_calls(0, TALK)?;
    let settled = |flow: &branchline::control::FlowView| {
        flow.kind == "rtcp" && flow.rtcp_packets > 5 || flow.expected > ENOUGH
    };
    site.until_flows(4, settled)?;
    let call_id = site.calls()?.first().context("no call")?.call_id.clone();
    site.silence()?;
    let [office, centre] = site.legs_at_end()?;
    let view = named(&site, &call_id)?;
    let stream = stream(&view)?;
    let (up, down) = (from(stream, "office")?, from(stream, "centre")?);

    let (sent, made) = (office.sent - office.twice, (office.lost, office.twice, office.overtaken));
    assert_eq!((up.lost, u64::from(up.duplicates), u64::from(up.reordered)), made, "{up:#?}");
    assert_eq!((up.received, up.expected), (sent, sent + office.lost));
    assert_eq!((down.received, down.lost), (centre.sent, 0), "{down:#?}");
    assert!(made.0 > 5 && made.1 > 1 && made.2 > 1, "{made:?}");
    let share = office.lost as f64 / up.expected as f64;
    let near = |value: Option<f64>, wanted: f64| value.is_some_and(|value| (value - wanted).abs() < 1e-9);
    assert!(near(up.loss_percent, share * 100.0), "{up:#?}");
    assert!(near(up.burst_ratio, 2.0 * (1.0 - share)), "always two in a row: {up:#?}");
    assert!(down.jitter_ms.context("no jitter")? > 5.0, "every other packet is 10 ms late: {down:#?}");

    // What the server misses is what the phone lost; what the phone misses was lost behind the appliance.
    assert_eq!((up.verdict, down.verdict, stream.verdict), (Verdict::Lossy, Verdict::Lossy, Verdict::Lossy));
    assert!(up.what.ends_with("% lost between office and the appliance"), "{}", up.what);
    assert!(
        down.what.ends_with("% lost between the appliance and office, as its RTCP reports"),
        "{}",
        down.what
    );
    let reported = down.reported_loss_percent.context("no report")?;
    assert!((4.0..6.5).contains(&reported), "one in twenty: {down:#?}");
    assert!(up.reported_loss_percent.context("no report")? < 2.0 + up.loss_percent.context("no loss")?);
    for way in [up, down] {
        assert_eq!((way.codec.as_deref(), way.scale.as_deref()), (Some("G.711 mu-law"), Some("narrowband")));
        assert!(
            way.round_trip_ms.is_some() && way.one_way_ms.is_some() && way.reported_jitter_ms.is_some(),
            "{way:#?}"
        );
        let (listening, talking) =
            (way.mos_listening.context("MOS")?, way.mos_conversational.context("MOS")?);
        assert!((3.0..4.3).contains(&listening) && talking <= listening, "{way:#?}");
    }
    let text = site.appliance.show(&site.lab, &["calls", "--call-id", &call_id])?;
    for words in
        ["lossy", "lost before the appliance", "office > centre", "G.711 mu-law", "MOS listening, talking"]
    {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    call.succeed(LIMIT)?;
    let ended = interrupt::wait_until(LIMIT, "end of the call", || {
        Ok(Some(named(&site, &call_id)?).filter(|call| call.outcome.is_some()))
    })?;
    assert_eq!(ended.verdict, Some(Verdict::Lossy), "{ended:#?}");
    assert_eq!(ended.streams.len(), 1, "the record keeps its figures");
    assert_eq!(site.metric("branchline_streams_ended_total", &[("verdict", "lossy")])?, 1.0);
    for (network, direction) in [("office", "from_phones"), ("centre", "from_servers")] {
        let labels = [("network", network), ("direction", direction)];
        for name in ["mos", "loss_ratio", "reported_loss_ratio", "jitter_seconds", "round_trip_seconds"] {
            let count = site.metric(&format!("branchline_stream_{name}_count"), &labels)?;
            assert_eq!(count, 1.0, "{name} {labels:?}");
        }
    }
    Ok(())
}

#[test]
fn the_figures_of_a_spoilt_call_are_those_of_what_was_done_to_it_in_the_kernel() -> Result<()> {
    a_spoilt_call("kernel")
}

#[test]
fn the_figures_of_a_spoilt_call_are_those_of_what_was_done_to_it_in_userspace() -> Result<()> {
    a_spoilt_call("userspace")
}

#[test]
fn one_way_audio_is_named_with_its_side_and_suppressed_silence_is_no_loss_over_both_datapaths() -> Result<()>
{
    for datapath in ["kernel", "userspace"] {
        let site = Site::start(engine(datapath))?;
        // The phone sends reports and no sound; the server speaks for a tenth of a second in two.
        let mute = Faults { send: |_| Fate::Silence, hear: |_| true };
        let quiet = Faults {
            send: |number| if number % 100 < 5 { Fate::Sent } else { Fate::Silence },
            hear: |_| true,
        };
        site.misbehave([mute, quiet]);
        let mut call = site.phone_calls(0, LONG_TALK)?;
        let call_id = interrupt::wait_until(LIMIT, "a call", || {
            Ok(site.calls()?.first().map(|call| call.call_id.clone()))
        })?;
        let view = interrupt::wait_until(LIMIT, "a verdict", || {
            let call = named(&site, &call_id)?;
            let found = call.streams.first().is_some_and(|stream| {
                let verdicts: Vec<Verdict> = stream.directions.iter().map(|way| way.verdict).collect();
                verdicts == [Verdict::OneWayAudio, Verdict::SilenceSuppressed]
            });
            Ok(found.then_some(call))
        })
        .with_context(|| format!("{datapath}: {:#?}", named(&site, &call_id)))?;
        let stream = stream(&view)?;
        assert_eq!((stream.verdict, view.verdict), (Verdict::OneWayAudio, Some(Verdict::OneWayAudio)));
        let (up, down) = (from(stream, "office")?, from(stream, "centre")?);
        let source = format!("nothing comes from office ({}:", phone(0));
        assert!(up.what.starts_with(&source), "{}", up.what);
        assert_eq!(
            (up.expected, up.loss_percent, up.mos_listening),
            (0, None, None),
            "nothing is known of it"
        );
        assert_eq!((down.lost, down.loss_percent), (0, Some(0.0)), "{down:#?}");
        interrupt::wait_until(LIMIT, "the symptom", || {
            let symptoms = site.status()?.symptoms;
            let told = symptoms
                .iter()
                .any(|symptom| symptom.what.starts_with("not a packet has come from network office"));
            Ok(told.then_some(()))
        })?;
        call.succeed(LONG_TALK + LIMIT)?;
        assert_eq!(site.metric("branchline_streams_ended_total", &[("verdict", "one_way_audio")])?, 1.0);
    }
    Ok(())
}

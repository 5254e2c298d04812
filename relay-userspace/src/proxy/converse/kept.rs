//! What of a call in which the appliance speaks is kept beyond this process.

use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    Conversing, Voice,
    face::Face,
    origin::Origin,
    timers::{Clock, Refresher},
};
use crate::store::{Epoch, text};

/// A call in which the appliance speaks, as it is kept. What was under way is not: it is begun anew when it is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::proxy) struct ConversingRecord {
    voices: [Voice; 2],
    tag: Option<String>,
    clocks: [Option<ClockRecord>; 2],
    #[serde(default)]
    origins: [Option<Origin>; 2],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    face: Option<Face>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ClockRecord {
    interval: u32,
    least: u32,
    refresher: Refresher,
    next_unix_ms: i64,
    end_unix_ms: i64,
}

impl Conversing {
    pub(in crate::proxy) fn record(&self, epoch: &Epoch) -> ConversingRecord {
        let clock = |clock: &Clock| ClockRecord {
            interval: clock.interval,
            least: clock.least,
            refresher: clock.refresher,
            next_unix_ms: epoch.unix_ms(clock.next),
            end_unix_ms: epoch.unix_ms(clock.end),
        };
        ConversingRecord {
            voices: self.voices.clone(),
            tag: self.tag.as_ref().and_then(|tag| text(tag)),
            clocks: self.clocks.each_ref().map(|kept| kept.as_ref().map(clock)),
            origins: self.origins.clone(),
            face: self.face.clone(),
        }
    }

    pub(in crate::proxy) fn take_up(record: &ConversingRecord, epoch: &Epoch) -> Self {
        let instant = |at: i64| -> Instant { epoch.instant(at) };
        let clock = |kept: &ClockRecord| Clock {
            interval: kept.interval,
            least: kept.least,
            refresher: kept.refresher,
            next: instant(kept.next_unix_ms),
            end: instant(kept.end_unix_ms),
            longer: false,
        };
        Self {
            voices: record.voices.clone(),
            tag: record.tag.clone().map(Bytes::from),
            clocks: record.clocks.each_ref().map(|kept| kept.as_ref().map(clock)),
            origins: record.origins.clone(),
            face: record.face.clone(),
            ..Self::default()
        }
    }
}

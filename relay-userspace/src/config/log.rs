//! What is logged, by topic, and for how long it is kept.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogWord {
    /// Nothing.
    Off,
    /// What fails.
    Error,
    /// What may fail soon, too.
    Warn,
    /// What happens, too.
    Info,
    /// What helps to find a fault, too.
    Debug,
    /// Everything.
    Trace,
}

impl LogWord {
    /// All of them, the least first.
    pub const ALL: [Self; 6] = [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// As the file spells it.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// Reads what the file spells.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|word| word.as_label() == text)
    }
}

/// Levels of topics; those without one follow `log.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// Messages and registrations.
    pub sip: Option<LogWord>,
    /// Media sessions.
    pub media: Option<LogWord>,
    /// Flows and packets.
    pub datapath: Option<LogWord>,
    /// The central servers, their names and certificates.
    pub servers: Option<LogWord>,
    /// DHCP, clock, phones' logs, files.
    pub provisioning: Option<LogWord>,
    /// Pages, REST and command line.
    pub web: Option<LogWord>,
    /// Start, configuration, captures, and everything else.
    pub status: Option<LogWord>,
}

/// A time of day, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct DayTime {
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
}

impl TryFrom<String> for DayTime {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let read = |text: &str| {
            let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u8>().ok())?
        };
        let parts = text.split_once(':').and_then(|(hour, minute)| Some((read(hour)?, read(minute)?)));
        match parts {
            Some((hour, minute)) if hour < 24 && minute < 60 => Ok(Self { hour, minute }),
            _ => Err(format!("{text:?} is no time of day: write \"HH:MM\", 00:00 to 23:59, UTC")),
        }
    }
}

impl fmt::Display for DayTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter by module as tracing reads it.
    pub level: String,
    /// Levels of topics.
    pub topics: Topics,
    /// Where files are kept, one for each day; none: standard error alone.
    pub directory: Option<PathBuf>,
    /// Days after which a file is removed.
    pub retention_days: u64,
    /// Whether the files of past days are compressed.
    pub compress: bool,
    /// When, UTC.
    pub compress_at: DayTime,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            topics: Topics::default(),
            directory: None,
            retention_days: 7,
            compress: true,
            compress_at: DayTime { hour: 3, minute: 0 },
        }
    }
}

impl Log {
    /// What is wrong: key and message.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        /// Ten years.
        const MOST_DAYS: u64 = 3650;
        tracing_subscriber::EnvFilter::try_new(&self.level)
            .map_err(|error| ("log.level", format!("{:?} is no log filter: {error}", self.level)))?;
        if !(1..=MOST_DAYS).contains(&self.retention_days) {
            let message = format!("{} is out of range: 1 to {MOST_DAYS}", self.retention_days);
            return Err(("log.retention_days", message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_two_digits_and_two_digits() {
        for (text, expected) in [
            ("03:00", Some((3, 0))),
            ("23:59", Some((23, 59))),
            ("24:00", None),
            ("3:00", None),
            ("03:60", None),
            ("+3:00", None),
            ("0300", None),
        ] {
            let read = DayTime::try_from(text.to_owned());
            assert_eq!(read.clone().ok().map(|time| (time.hour, time.minute)), expected, "{text}");
            assert!(read.map_or_else(|error| error.contains("HH:MM"), |time| time.to_string() == text));
        }
    }
}

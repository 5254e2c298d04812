//! Topics: what people call parts of the log, and which modules belong to each.

use std::collections::BTreeMap;

use crate::config::{self, LogWord, Topics};

/// A part of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Messages and registrations.
    Sip,
    /// Media sessions.
    Media,
    /// Flows and packets.
    Datapath,
    /// The central servers, their names and certificates.
    Servers,
    /// DHCP, clock, phones' logs, files.
    Provisioning,
    /// Pages, REST and command line.
    Web,
    /// Start, configuration, captures, and everything else.
    Status,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Sip, Self::Media, Self::Datapath, Self::Servers, Self::Provisioning, Self::Web, Self::Status];

    /// Its name.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Sip => "sip",
            Self::Media => "media",
            Self::Datapath => "datapath",
            Self::Servers => "servers",
            Self::Provisioning => "provisioning",
            Self::Web => "web",
            Self::Status => "status",
        }
    }

    /// The topic of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.as_label() == name)
    }

    /// The modules whose lines belong to it. A longer name wins over a shorter one.
    fn targets(self) -> &'static [&'static str] {
        match self {
            Self::Sip => &["branchline::sip", "branchline::proxy", "branchline::registrar"],
            Self::Media => &[
                "branchline::media",
                "branchline::sdp",
                "branchline::srtp",
                "branchline::quality",
                "branchline::daemon::plane",
            ],
            Self::Datapath => &["branchline::datapath", "relay_ebpf"],
            Self::Servers => &[
                "branchline::upstream",
                "branchline::daemon::names",
                "branchline::daemon::certificates",
                "branchline::tls",
            ],
            Self::Provisioning => &["branchline::provisioning", "branchline::daemon::services"],
            Self::Web => &["branchline::admin", "branchline::control"],
            Self::Status => &[
                "branchline::daemon",
                "branchline::capture",
                "branchline::pcapng",
                "branchline::trace",
                "branchline::config",
                "branchline::log",
                "branchline::metrics",
                "branchline::net",
                "branchline::store",
                "branchline::symptoms",
            ],
        }
    }

    /// Its level in a configuration.
    pub(super) fn configured(self, topics: &Topics) -> Option<LogWord> {
        match self {
            Self::Sip => topics.sip,
            Self::Media => topics.media,
            Self::Datapath => topics.datapath,
            Self::Servers => topics.servers,
            Self::Provisioning => topics.provisioning,
            Self::Web => topics.web,
            Self::Status => topics.status,
        }
    }
}

/// What anybody could make say something with every datagram; what is wrong with it is counted here instead.
const QUIET: &str = "stun_types=off,";

/// The filter: the base, then what topics set; the last of two that name the same module wins.
pub(super) fn filter(config: &config::Log, overrides: &BTreeMap<Topic, LogWord>) -> String {
    let mut filter = format!("{QUIET}{}", config.level);
    for topic in Topic::ALL {
        let level = overrides.get(&topic).copied().or_else(|| topic.configured(&config.topics));
        let Some(level) = level else { continue };
        for target in topic.targets() {
            filter.push_str(&format!(",{target}={}", level.as_label()));
        }
    }
    filter
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_filter_has_the_base_then_topics_and_what_was_set_until_the_restart_wins() {
        let topics = Topics { media: Some(LogWord::Debug), web: Some(LogWord::Warn), ..Topics::default() };
        let config = config::Log { level: "info".to_owned(), topics, ..config::Log::default() };
        let rows = [
            (
                "as configured",
                None,
                "stun_types=off,info,branchline::media=debug,branchline::sdp=debug,branchline::srtp=debug,branchline::quality=debug,branchline::daemon::plane=debug,\
                 branchline::admin=warn,branchline::control=warn",
            ),
            (
                "one set",
                Some((Topic::Media, LogWord::Off)),
                "stun_types=off,info,branchline::media=off,branchline::sdp=off,branchline::srtp=off,branchline::quality=off,branchline::daemon::plane=off,\
                 branchline::admin=warn,branchline::control=warn",
            ),
        ];
        for (description, set, expected) in rows {
            let filter = filter(&config, &set.into_iter().collect());
            assert_eq!(filter, expected, "{description}");
            tracing_subscriber::EnvFilter::try_new(&filter).unwrap();
        }
    }

    #[test]
    fn every_room_of_the_daemon_belongs_to_a_topic() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let rooms: Vec<String> = fs::read_to_string(source.join("lib.rs"))
            .unwrap()
            .lines()
            .filter_map(|line| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned()))
            .collect();
        assert!(rooms.len() > 10, "{rooms:?}");
        let targets: Vec<&str> = Topic::ALL.into_iter().flat_map(Topic::targets).copied().collect();
        // The command line logs nothing, splicing and a trial neither.
        for room in rooms.iter().filter(|room| !matches!(room.as_str(), "cli" | "splice" | "trial")) {
            let target = format!("branchline::{room}");
            assert!(targets.contains(&target.as_str()), "{target}");
        }
        assert_eq!(Topic::parse("servers"), Some(Topic::Servers));
        assert_eq!(Topic::parse("server"), None);
    }
}

//! Which keys differ between two configurations, and when each takes effect.

use super::{
    Config,
    keys::{
        Effect, GROUP_KEYS, KEYS, Key, NETWORK_KEYS, PEER_KEYS, PLAN_DESTINATION_KEYS, PLAN_KEYS, ROUTE_KEYS,
        TRUNK_KEYS,
    },
};

/// A key that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Its name; `network.NAME.key` in a network.
    pub key: String,
    /// When its new value takes effect.
    pub effect: Effect,
}

/// What differs, in the order of the file. Values are compared, not spellings: a default that is written out is no
/// change. Networks are compared by position; when there are more or fewer of them, that is the one change told.
#[must_use]
pub fn between(before: &Config, after: &Config) -> Vec<Changed> {
    let mut changed = Vec::new();
    if before.networks().count() == after.networks().count() {
        for ((_, old), (_, new)) in before.networks().zip(after.networks()) {
            for key in NETWORK_KEYS.iter().filter(|key| (key.value)(old) != (key.value)(new)) {
                changed
                    .push(Changed { key: format!("network.{}.{}", old.name, key.name), effect: key.effect });
            }
        }
    } else {
        changed.push(Changed { key: "network".to_owned(), effect: Effect::Restart });
    }
    changed.extend(tables("group", GROUP_KEYS, &before.groups, &after.groups));
    changed.extend(tables("peer", PEER_KEYS, &before.peers, &after.peers));
    changed.extend(tables("trunk", TRUNK_KEYS, &before.trunks, &after.trunks));
    let plans = tables("server_plan", PLAN_KEYS, &before.server_plans, &after.server_plans);
    let destinations = |config: &Config| -> Vec<_> {
        config.server_plans.iter().flat_map(|plan| plan.destinations.clone()).collect()
    };
    let counts = |config: &Config| -> Vec<_> {
        config.server_plans.iter().map(|plan| plan.destinations.len()).collect()
    };
    let moved = (counts(before) != counts(after))
        .then(|| Changed { key: "server_plan".to_owned(), effect: Effect::Running });
    changed.extend(plans.or(moved).or_else(|| {
        tables("server_plan", PLAN_DESTINATION_KEYS, &destinations(before), &destinations(after))
    }));
    changed.extend(tables("route", ROUTE_KEYS, &before.routes, &after.routes));
    for key in KEYS.iter().filter(|key| (key.value)(before) != (key.value)(after)) {
        changed.push(Changed { key: key.name.to_owned(), effect: key.effect });
    }
    changed
}

/// The change of tables of which there may be many: one, whatever differs in them.
fn tables<T>(name: &str, keys: &[Key<T>], before: &[T], after: &[T]) -> Option<Changed> {
    let same = |(old, new): (&T, &T)| keys.iter().all(|key| (key.value)(old) == (key.value)(new));
    let differ = before.len() != after.len() || !before.iter().zip(after).all(same);
    differ.then(|| Changed { key: name.to_owned(), effect: Effect::Running })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn changes_are_told_by_key_with_their_effect_and_a_default_that_is_written_out_is_none() {
        let good = "[[network]]\nname = \"office\"\nrole = \"phones\"\ninterface = \"eth0\"\n\
                    [[network]]\nname = \"centre\"\nrole = \"servers\"\ninterface = \"eth1\"\n\
                    [upstream]\nservers = [\"10.62.0.10:5060\"]\n";
        let third = "[[network]]\nname = \"lab\"\nrole = \"phones\"\ninterface = \"eth2\"\n[upstream]";
        type Expected = &'static [(&'static str, Effect)];
        let rows: [(&str, &str, &str, Expected); 5] = [
            ("nothing", "", "", &[]),
            ("a default written out", "[upstream]", "[sip]\ntimer_t1_ms = 500\n[upstream]", &[]),
            (
                "one of each effect",
                "[upstream]",
                "[sip]\ntimer_t1_ms = 600\ntcp_connect_timeout_ms = 3000\n[upstream]",
                &[("sip.timer_t1_ms", Effect::Running), ("sip.tcp_connect_timeout_ms", Effect::Restart)],
            ),
            (
                "a network's key",
                "interface = \"eth1\"",
                "interface = \"eth2\"",
                &[("network.centre.interface", Effect::Restart)],
            ),
            ("a network more", "[upstream]", third, &[("network", Effect::Restart)]),
        ];
        let parse = |text: &str| Config::parse(Path::new("branchline.toml"), text).unwrap();
        for (description, from, to, expected) in rows {
            let after = parse(&good.replacen(from, to, 1));
            let found = between(&parse(good), &after);
            let found: Vec<_> = found.iter().map(|changed| (changed.key.as_str(), changed.effect)).collect();
            assert_eq!(found, expected, "{description}");
        }
    }
}

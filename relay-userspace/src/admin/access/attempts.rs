//! The limit on wrong attempts, by where they come from and by which account they are for.
//!
//! The first few are free; each further one doubles the wait, up to a quarter of an hour. A success clears what its
//! source has on it, not what the account has: who guesses an account from many places does not profit from its owner's
//! signing in. An account alone is never shut for more than a few seconds, or anybody could lock its owner out.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Wrong attempts from one source before it has to wait.
const FREE_FOR_SOURCE: u32 = 5;
/// Wrong attempts for one account before everybody has to wait for it.
const FREE_FOR_ACCOUNT: u32 = 20;
/// The first wait.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// The longest wait of a source.
const LONGEST_FOR_SOURCE: Duration = Duration::from_secs(15 * 60);
/// The longest wait for an account.
const LONGEST_FOR_ACCOUNT: Duration = Duration::from_secs(5);
/// After so long without a wrong attempt all is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(15 * 60);
/// Sources and accounts that are remembered; beyond, the one whose last wrong attempt is oldest gives way.
const MOST: usize = 4096;
/// Characters of an account's name that count.
const NAME: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Source(IpAddr),
    Account(String),
}

#[derive(Debug)]
struct Wrong {
    count: u32,
    last: Instant,
}

impl Wrong {
    fn wait(&self, who: &Who) -> Duration {
        let (free, longest) = match who {
            Who::Source(_) => (FREE_FOR_SOURCE, LONGEST_FOR_SOURCE),
            Who::Account(_) => (FREE_FOR_ACCOUNT, LONGEST_FOR_ACCOUNT),
        };
        match self.count.checked_sub(free) {
            None => Duration::ZERO,
            Some(beyond) => FIRST_WAIT.saturating_mul(1 << beyond.min(16)).min(longest),
        }
    }
}

/// Wrong attempts that are remembered.
#[derive(Debug, Default)]
pub struct Attempts {
    wrong: HashMap<Who, Wrong>,
}

impl Attempts {
    /// Whether an attempt may be made now.
    ///
    /// # Errors
    /// How long to wait.
    pub fn check(&self, now: Instant, source: IpAddr, account: Option<&str>) -> Result<(), Duration> {
        let waits = both(source, account).into_iter().flatten().filter_map(|who| {
            let wrong = self.wrong.get(&who)?;
            let passed = now.saturating_duration_since(wrong.last);
            (passed < FORGOTTEN).then(|| wrong.wait(&who).saturating_sub(passed))
        });
        match waits.max() {
            Some(wait) if wait > Duration::ZERO => Err(wait),
            _ => Ok(()),
        }
    }

    /// An attempt was wrong.
    pub fn wrong(&mut self, now: Instant, source: IpAddr, account: Option<&str>) {
        for who in both(source, account).into_iter().flatten() {
            if !self.wrong.contains_key(&who) && self.wrong.len() >= MOST {
                self.make_room(now);
            }
            let wrong = self.wrong.entry(who).or_insert(Wrong { count: 0, last: now });
            if now.saturating_duration_since(wrong.last) >= FORGOTTEN {
                wrong.count = 0;
            }
            *wrong = Wrong { count: wrong.count.saturating_add(1), last: now };
        }
    }

    /// An attempt was right.
    pub fn right(&mut self, source: IpAddr) {
        self.wrong.remove(&Who::Source(network(source)));
    }

    fn make_room(&mut self, now: Instant) {
        self.wrong.retain(|_, wrong| now.saturating_duration_since(wrong.last) < FORGOTTEN);
        if self.wrong.len() >= MOST {
            let oldest = self.wrong.iter().min_by_key(|(_, wrong)| wrong.last).map(|(who, _)| who.clone());
            if let Some(who) = oldest {
                self.wrong.remove(&who);
            }
        }
    }
}

fn both(source: IpAddr, account: Option<&str>) -> [Option<Who>; 2] {
    let name = account.map(|name| Who::Account(name.chars().take(NAME).collect()));
    [Some(Who::Source(network(source))), name]
}

/// An IPv6 host has all of a /64 to choose its addresses from (RFC 4291 section 2.5.1).
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn five_wrong_attempts_are_free_then_each_doubles_the_wait_until_all_is_forgotten() {
        let start = Instant::now();
        let (source, mut attempts) = (ip("10.0.0.1"), Attempts::default());
        for _ in 0..4 {
            attempts.wrong(start, source, None);
            assert_eq!(attempts.check(start, source, None), Ok(()));
        }
        for seconds in [2, 4, 8, 16] {
            attempts.wrong(start, source, None);
            assert_eq!(attempts.check(start, source, None), Err(Duration::from_secs(seconds)));
        }
        assert_eq!(attempts.check(start + Duration::from_secs(16), source, None), Ok(()));
        for _ in 0..100 {
            attempts.wrong(start, source, None);
        }
        assert_eq!(attempts.check(start, source, None), Err(LONGEST_FOR_SOURCE));
        assert_eq!(attempts.check(start, ip("10.0.0.2"), None), Ok(()), "another source");
        assert_eq!(attempts.check(start + FORGOTTEN, source, None), Ok(()));
        attempts.right(source);
        assert_eq!(attempts.check(start, source, None), Ok(()), "a success clears it");
    }

    #[test]
    fn an_account_guessed_from_many_places_makes_all_wait_a_little_and_a_success_does_not_clear_it() {
        let start = Instant::now();
        let mut attempts = Attempts::default();
        for host in 0..40 {
            attempts.wrong(start, ip(&format!("10.0.0.{host}")), Some("ann"));
        }
        attempts.right(ip("10.0.1.1"));
        assert_eq!(attempts.check(start, ip("10.0.1.1"), Some("ann")), Err(LONGEST_FOR_ACCOUNT));
        assert_eq!(attempts.check(start, ip("10.0.1.1"), Some("bob")), Ok(()));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source_and_the_table_is_bounded() {
        let start = Instant::now();
        let mut attempts = Attempts::default();
        for host in 0..FREE_FOR_SOURCE {
            attempts.wrong(start, ip(&format!("2001:db8::{host:x}")), None);
        }
        assert!(attempts.check(start, ip("2001:db8::ffff"), None).is_err());
        assert!(attempts.check(start, ip("2001:db8:0:1::1"), None).is_ok());
        for number in 0..10_000u32 {
            let long = format!("{number}{}", "x".repeat(1000));
            attempts.wrong(start, IpAddr::from(number.to_be_bytes()), Some(&long));
        }
        assert_eq!(attempts.wrong.len(), MOST);
    }
}

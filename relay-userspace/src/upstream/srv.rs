//! The order in which the targets of SRV records are tried. RFC 2782, "Usage rules" under Weight. The records may be those
//! of several names and transports: priorities and weights hold over all of them.

use crate::net::Transport;

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvRecord {
    /// By what it is reached: that of the name that the record was found under.
    pub transport: Transport,
    /// Smaller ones are tried first.
    pub priority: u16,
    /// Among equals, how often it comes first.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host, without a dot at its end.
    pub host: String,
}

/// Orders records: by priority, and among equals at random by weight. `random` gives a number from 0 to its argument,
/// both included.
pub fn order(mut records: Vec<SrvRecord>, mut random: impl FnMut(u32) -> u32) -> Vec<SrvRecord> {
    // Those of weight 0 stand first among equals, so that they are chosen rarely, but are.
    records.sort_by_key(|record| (record.priority, record.weight != 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let equals = records.iter().take_while(|record| record.priority == first.priority);
        let total: u32 = equals.clone().map(|record| u32::from(record.weight)).sum();
        let count = equals.count();
        let wanted = random(total);
        let mut sum = 0;
        let chosen = records.iter().take(count).position(|record| {
            sum += u32::from(record.weight);
            sum >= wanted
        });
        ordered.push(records.remove(if total == 0 {
            random(count as u32 - 1) as usize
        } else {
            chosen.unwrap_or(0)
        }));
    }
    ordered
}

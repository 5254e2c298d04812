//! Quality: how good a call sounds, and what is wrong with one that does not.
//!
//! The kernel counts what arrives (`relay_ebpf::FlowStats`), and RTCP tells what arrived at the far end. This room puts
//! both together, for each direction of each stream:
//!
//! - `rtcp` reads compound RTCP packets (RFC 3550 section 6, RFC 3611), and `book` keeps what each party said last, with
//!   the round-trip times between it and the appliance.
//! - `codec` knows what each codec costs, and `emodel` makes a rating and an opinion score of it (ITU-T G.107, G.107.1).
//! - `assess` computes the figures of one direction, and `diagnosis` tells over time which trouble a stream has, in one
//!   of few [`Verdict`]s, and on which side.
//!
//! Everything is pure: what it says can be tried without a network and without waiting. Invariant: what was not measured
//! or not reported is empty, never zero.

mod assess;
mod book;
mod codec;
mod diagnosis;
mod emodel;
mod rtcp;
mod view;

pub use assess::{Figures, Reported, Seen, assess};
pub use book::{Book, Heard};
pub use codec::{Band, Codec, CodecCost, Format, Provenance};
pub use diagnosis::{Finding, Place, Sight, Verdict, Watch, Wish};
pub use emodel::{
    Impairments, Scale, delay_impairment, effective_equipment_impairment, mos_of_rating, rating,
};
pub use rtcp::{Compound, ReportBlock, VoipMetrics, read};
pub use view::{DirectionQuality, StreamQuality};

//! What the appliance counts and times, for Prometheus. Names and label values are in [`names`]; the
//! dashboards' check reads the same list from `/metrics`.
//!
//! Invariant: no label's values grow with calls or phones.

pub mod names;
mod registry;
mod services;

pub use registry::{Metrics, MetricsError, raise};
pub use services::ServiceMetrics;

//! The dashboard, with Debian's Prometheus, under real calls.

use std::time::Duration;

use anyhow::Result;
use xtask::dashboards::{self, Prometheus};
use xtask::demo::appliance::Appliance;
use xtask::lab::traffic::Via;
use xtask::lab::{Lab, Plan, Routes, Traffic};

use crate::site::{settings, turn};

#[test]
fn every_panel_returns_data_under_real_calls_and_names_what_the_daemon_exports() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let appliance = Appliance::start_with(&lab, &settings())?;
    let mut prometheus = Prometheus::start(&lab)?;
    // Counters that begin with their first event have no rate: some calls before, more while Prometheus watches.
    let plan = Plan { calls: 6, talk: Duration::from_secs(6), via: Via::Appliance };
    for _ in 0..2 {
        let mut traffic = Traffic::begin(&lab, plan)?;
        traffic.call(&lab)?;
        assert_eq!(traffic.finish()?.complaints, Vec::<String>::new());
    }
    let faults = dashboards::faults(&lab, &appliance.metrics(&lab)?, &mut prometheus)?;
    assert!(faults.is_empty(), "{faults:#?}");
    Ok(())
}

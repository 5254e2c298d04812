//! A daemon that gets no time for a while, as on a hypervisor that stops its guest: what has come meanwhile counts, and not
//! that time has passed.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use xtask::demo::appliance::Settings;

use crate::by_hand::{Place, Stage, sdp};
use crate::site::engine;

/// Transactions live for 64*T1, which is 6.4 s.
const TABLES: &str = "[sip]\ntimer_t1_ms = 100\n";
const LONGER: Duration = Duration::from_secs(7);

#[test]
fn an_answer_that_waited_counts_although_the_time_for_it_is_over() -> Result<()> {
    let stage = Stage::start_with(&Settings { tables: TABLES.to_owned(), ..engine("auto") })?;
    let invite = stage.invite(1, None, &sdp(Place::Office, "m=audio 26000 RTP/AVP 8\r\n"))?;
    stage.phone.receive("SIP/2.0 100")?;
    stage.appliance.signal(libc::SIGSTOP);
    let answer = sdp(Place::Centre, "m=audio 36000 RTP/AVP 8\r\n");
    stage.server.respond(&invite, "183 Session Progress", "server", &answer)?;
    thread::sleep(LONGER);
    stage.appliance.signal(libc::SIGCONT);
    let said = stage.phone.receive("SIP/2.0 ")?;
    assert!(said.starts_with("SIP/2.0 183 "), "{said}");
    let accepted = stage.answer(&invite, "200 OK", "server", &answer)?;
    stage.ack(1, &accepted)?;
    assert!(stage.appliance.said().contains("this process had no time"), "{}", stage.appliance.said());
    Ok(())
}

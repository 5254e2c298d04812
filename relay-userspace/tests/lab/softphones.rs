//! Softphones in a real browser: SIP over its own WebSocket, through the appliance, with a real server behind it.
//!
//! What they do is in `tests/browser/softphone.mjs`.

use std::fs;
use std::net::SocketAddrV4;

use anyhow::{Result, bail, ensure};
use branchline::control::{CallView, StatusView};
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::kamailio::Kamailio;
use xtask::lab::network::{APPLIANCE_OFFICE, SERVER};
use xtask::lab::traffic::PEER_SIP;
use xtask::lab::{Lab, Routes, interrupt};

use crate::browser::{pictures, visit};
use crate::site::{LIMIT, ask, settings, turn};

const ORIGIN: &str = "http://127.0.0.1:8081";
const WS: u16 = 8080;
const WSS: u16 = 8444;

#[test]
fn browsers_register_and_call_by_websocket_and_one_that_is_gone_is_not_waited_for() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let _server = Kamailio::start(&lab, SocketAddrV4::new(SERVER, PEER_SIP))?;
    let settings = Settings {
        office: format!("sip_ws_port = {WS}\nsip_wss_port = {WSS}\n"),
        tables: format!("[sip]\nwebsocket_origins = [\"{ORIGIN}\"]\n"),
        ..settings()
    };
    let appliance = Appliance::start_with(&lab, &settings)?;
    for user in ["1001", "1002"] {
        appliance.tell(&lab, &["entries", "set", user], &format!("lab{user}\n"))?;
    }
    let (ws, wss) = (format!("ws://{APPLIANCE_OFFICE}:{WS}"), format!("wss://{APPLIANCE_OFFICE}:{WSS}"));
    let (shots, done) = (pictures(), lab.dir().join("done"));
    let environment = [
        ("WS", ws.as_str()),
        ("WSS", &wss),
        ("ORIGIN", ORIGIN),
        ("SHOTS", &shots.to_string_lossy()),
        ("DONE", &done.to_string_lossy()),
    ];
    let connections = |transport: &str| -> Result<f64> {
        let labels = [("network", "office"), ("transport", transport)];
        Ok(appliance.metrics(&lab)?.sum("branchline_sip_connections", &labels))
    };
    visit(&lab.office, "softphone.mjs", &environment, |wish| {
        match wish {
            "look at the call" => {
                let calls: Vec<CallView> = ask(&appliance, &lab, "calls")?;
                ensure!(
                    !calls.is_empty() && calls.iter().all(|call| call.state == "established"),
                    "{calls:#?}"
                );
                assert_eq!((connections("ws")?, connections("wss")?), (1.0, 1.0));
            }
            "wait until it is gone" => interrupt::wait_until(LIMIT, "end of the WebSocket", || {
                Ok((connections("wss")? == 0.0).then_some(()))
            })?,
            other => bail!("the script asks for {other:?}"),
        }
        Ok(fs::write(&done, "")?)
    })?;
    interrupt::wait_until(LIMIT, "end of the calls", || {
        let status = ask::<StatusView>(&appliance, &lab, "status")?;
        Ok((status.calls_active == 0 && status.flows == 0).then_some(()))
    })?;
    let refused = [("transport", "ws"), ("step", "websocket")];
    let refused = appliance.metrics(&lab)?.sum("branchline_sip_connection_failures_total", &refused);
    assert!((refused - 1.0).abs() < f64::EPSILON, "{refused}");
    Ok(())
}

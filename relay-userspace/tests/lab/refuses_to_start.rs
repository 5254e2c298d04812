//! What keeps the daemon from starting is named, on standard error, and the exit status is not zero. What only
//! makes it worse is said, and it works.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Output;

use anyhow::{Context as _, Result, bail};
use xtask::demo::appliance::{ADMIN, Appliance, Settings};
use xtask::lab::network::APPLIANCE_CENTRE;
use xtask::lab::{Lab, Routes, interrupt};

use crate::site::{LIMIT, Site, engine, settings, to_appliance, turn};

/// Capabilities without which there is no BPF; CAP_SYS_ADMIN would stand in for the others.
const BPF_CAPABILITIES: &str = "-bpf,-net_admin,-perfmon,-sys_admin";

/// Starts the daemon with a configuration that it must refuse.
pub(crate) fn refused(lab: &Lab, settings: &Settings, configuration: &str) -> Result<Output> {
    let file = lab.dir().join("refused.toml");
    fs::write(&file, configuration)?;
    let mut command = settings.command(lab, &file);
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn()?;
    let ended = interrupt::wait_until(LIMIT, "end of a daemon that cannot start", || Ok(child.try_wait()?));
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    ended.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(output)
}

pub(crate) fn check(description: &str, output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code != 0), "{description}: {} {said}", output.status);
    // The last line is the reason; what the log said before does not count.
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("branchline: "), "{description}: {said}");
    for word in words {
        assert!(last.contains(word), "{description}: no `{word}` in: {last}");
    }
}

#[test]
fn a_wrong_configuration_is_named_and_nothing_starts() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let settings = settings();
    let good = settings.configuration(lab.dir());
    let rows: [(&str, &str, &str, &[&str]); 5] = [
        (
            "interface missing",
            "interface = \"eth1\"",
            "interface = \"wan7\"",
            &["centre", "wan7", "does not exist", "eth0, eth1"],
        ),
        (
            "address not on the interface",
            "address = \"10.61.0.1\"",
            "address = \"10.61.0.77\"",
            &["office", "10.61.0.77", "eth0", "network.address"],
        ),
        (
            "unknown key",
            "[upstream]",
            "[upstream]\nserver = 1",
            &["refused.toml, line 14, key upstream.server", "unknown field"],
        ),
        ("unknown table", "[admin]", "[admim]", &["refused.toml", "admim", "unknown field"]),
        (
            "wrong value",
            "role = \"phones\"",
            "role = \"telephones\"",
            &["refused.toml, line 3, key network.role", "telephones"],
        ),
    ];
    for (description, from, to, words) in rows {
        assert!(good.contains(from), "{description}: {good}");
        let output = refused(&lab, &settings, &good.replacen(from, to, 1))?;
        check(description, &output, words);
    }
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_starts() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let settings = settings();
    let good = settings.configuration(lab.dir());
    let sip = SocketAddr::V4(to_appliance(APPLIANCE_CENTRE));

    let taken = lab.branch.enter(move || UdpSocket::bind(sip))??;
    check(
        "SIP port taken",
        &refused(&lab, &settings, &good)?,
        &["centre", &sip.to_string(), "network.sip_port"],
    );
    drop(taken);

    let taken = lab.branch.enter(|| TcpListener::bind(ADMIN))??;
    check("admin port taken", &refused(&lab, &settings, &good)?, &["admin.listen", &ADMIN.to_string()]);
    drop(taken);

    let taken = lab.branch.enter(|| TcpListener::bind("0.0.0.0:8443"))??;
    check("the pages' port taken", &refused(&lab, &settings, &good)?, &["web.listen", "0.0.0.0:8443"]);
    drop(taken);

    // And with all of them free it does start.
    Appliance::start_with(&lab, &settings).map(drop)
}

#[test]
fn beside_another_daemon_a_second_one_names_the_socket_or_the_program_in_its_way() -> Result<()> {
    let site = Site::start(engine("kernel"))?;
    let (lab, settings) = (&site.lab, &site.settings);
    let elsewhere = |text: &str| {
        text.replace(&ADMIN.to_string(), "127.0.0.1:9461") + "\n[web]\nlisten = \"127.0.0.1:8444\"\n"
    };
    let apart = |text: &str| elsewhere(text).replace("role = ", "sip_port = 8062\nrole = ");
    let socket = xtask::demo::appliance::socket(lab.dir());
    let own_socket = |text: &str| text.replace("control.sock", "second.sock");
    let good = settings.configuration(lab.dir());

    let output = refused(lab, settings, &apart(&good))?;
    check("another daemon's control socket", &output, &["another daemon", &socket.display().to_string()]);
    // Where XDP is demanded; otherwise TC would do.
    let native = own_socket(&apart(&good)).replace("role = ", "attach = \"native\"\nrole = ");
    let output = refused(lab, settings, &native)?;
    let words = ["eth0", "another XDP program", "\"branchline_rela\"", "attach = \"tc\""];
    check("another XDP program", &output, &words);
    // The daemon that was there first has noticed nothing of it.
    site.a_call_works()
}

#[test]
fn without_the_right_to_load_bpf_it_says_so_and_carries_calls_in_userspace() -> Result<()> {
    let launcher = [
        "setpriv".to_owned(),
        format!("--inh-caps={BPF_CAPABILITIES}"),
        format!("--bounding-set={BPF_CAPABILITIES}"),
        "--".to_owned(),
    ];
    let demanding = Settings { launcher: launcher.to_vec(), ..engine("kernel") };
    {
        let _turn = turn();
        let lab = Lab::create(Routes::None)?;
        let output = refused(&lab, &demanding, &demanding.configuration(lab.dir()))?;
        check("engine = \"kernel\" without capabilities", &output, &["datapath", "CAP_BPF"]);
    }
    let site = Site::start(Settings { launcher: launcher.to_vec(), ..engine("auto") })?;
    let said = site.appliance.said();
    assert!(said.contains("all media goes through userspace") && said.contains("CAP_BPF"), "{said}");
    let status = site.status()?;
    assert_eq!(status.datapath, "userspace");
    let reason = status.datapath_reason.context("status gives no reason")?;
    assert!(reason.contains("CAP_BPF"), "{reason}");
    for network in &status.networks {
        assert_eq!(
            (network.attached.as_str(), network.attached_reason.as_ref()),
            ("userspace", Some(&reason))
        );
    }
    let labels = [("datapath", "userspace"), ("reason", reason.as_str())];
    assert_eq!(site.metric("branchline_datapath_info", &labels)?, 1.0);
    for interface in ["eth0", "eth1"] {
        let labels = [("interface", interface), ("mode", "userspace")];
        assert_eq!(site.metric("branchline_attach_mode", &labels)?, 1.0);
    }
    site.a_call_works()?;
    let carried = site.metric("branchline_media_packets_total", &[("datapath", "userspace")])?;
    if carried == 0.0 {
        bail!("no packet was counted as carried by userspace");
    }
    Ok(())
}

//! rtpengine, driven by its NG protocol: bencoded dictionaries in datagrams, each with a cookie before it. In userspace, and
//! where its kernel module is to be had, with that.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use xtask::lab::network::{APPLIANCE_CENTRE, APPLIANCE_OFFICE};
use xtask::lab::{Namespace, Running, interrupt};

use super::{EXPEDITED, LIMIT, Media};
use crate::sdp;
use crate::testbed::{Testbed, ends};

/// Where it takes commands.
pub(crate) const NG: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2223);

/// The kernel's table of streams that the bench uses.
const TABLE: &str = "0";
/// Where the kernel module shows its tables.
const MODULE: &str = "/proc/rtpengine";

/// Who moves the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Its process.
    Process,
    /// Its kernel module, told by the process.
    Kernel,
}

/// The rule by which a namespace's packets come to the kernel module. It goes with this.
pub(super) struct Rule {
    namespace: String,
}

impl Rule {
    const WHAT: [&str; 7] = ["INPUT", "-p", "udp", "-j", "RTPENGINE", "--id", TABLE];

    pub(super) fn set(branch: &Namespace) -> Result<Self> {
        load_module()?;
        branch.run("iptables", &[&["-I"], &Self::WHAT[..]].concat())?;
        Ok(Self { namespace: branch.name().to_owned() })
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "iptables", "-D"]).args(Self::WHAT);
        // The namespace goes soon, and the rule with it.
        let _ = xtask::process::output(&mut command);
    }
}

/// Loads its kernel module, if that is not there yet.
///
/// # Errors
/// Why there is none.
pub(crate) fn load_module() -> Result<()> {
    if Path::new(MODULE).exists() {
        return Ok(());
    }
    ensure!(Path::new("/proc/modules").exists(), "this kernel loads no modules");
    let loaded = xtask::process::output(Command::new("modprobe").arg("xt_RTPENGINE"));
    loaded.context("Debian's packages rtpengine-kernel-dkms and rtpengine-iptables have it")?;
    ensure!(Path::new(MODULE).exists(), "the module is loaded, and shows no {MODULE}");
    Ok(())
}

/// How many streams its kernel module forwards.
pub(crate) fn in_kernel() -> Result<usize> {
    let list = Path::new(MODULE).join(TABLE).join("list");
    let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    Ok(text.lines().filter(|line| line.starts_with("local ")).count())
}

pub(crate) fn start(
    bed: &Testbed,
    calls: usize,
    media: Media,
    by: By,
) -> Result<(Running, Vec<SocketAddrV4>)> {
    let branch = &bed.lab.branch;
    let mut command = bed.command("rtpengine");
    command.args(["--config-file=none", "--foreground", "--log-stderr", "--log-level=3"]);
    match by {
        // No table: it does not look for its module.
        By::Process => command.arg("--table=-1"),
        // What it has learned after a while goes to the kernel, so it learns at once.
        By::Kernel => command.args(["--no-fallback", "--endpoint-learning=immediate", "--table", TABLE]),
    };
    // One worker, for it has one core.
    command.args(["--num-threads=1", "--port-min=10000", "--port-max=65000", "--delete-delay=0"]);
    command.arg(format!("--interface=office/{APPLIANCE_OFFICE}"));
    command.arg(format!("--interface=centre/{APPLIANCE_CENTRE}"));
    command.arg(format!("--listen-ng={NG}")).arg(format!("--tos={EXPEDITED}"));
    let mut running = Running::start(&mut command, "rtpengine", bed.lab.dir())?;
    interrupt::wait_until(LIMIT, "rtpengine on its NG port", || {
        running.still_runs()?;
        let pong = branch.wait_for_udp(NG, std::time::Duration::from_millis(1));
        Ok(pong.is_ok().then_some(()))
    })?;
    let mut streams = Vec::with_capacity(calls);
    for call in 0..calls {
        streams.push(establish(branch, call, media).with_context(|| running.last_words())?);
    }
    Ok((running, streams))
}

fn establish(branch: &Namespace, call: usize, media: Media) -> Result<SocketAddrV4> {
    let [phone, server] = ends(call);
    let name = format!("call-{call}");
    let offer = sdp::description(phone);
    let common =
        [("ICE", Value::Text("remove")), ("call-id", Value::Text(&name)), ("from-tag", Value::Text("a"))];
    let replaced = Value::List(&["origin", "session-connection"]);
    let protocol = match media {
        Media::Plain => "RTP/AVP",
        Media::Sealed => "RTP/SAVP",
    };
    let offer = [
        ("command", Value::Text("offer")),
        ("direction", Value::List(&["office", "centre"])),
        ("replace", replaced),
        ("sdp", Value::Text(&offer)),
        ("transport-protocol", Value::Text(protocol)),
    ];
    let offered = request(branch, &format!("offer-{call}"), &common, &offer)?;
    let answer = match media {
        Media::Plain => sdp::description(server),
        Media::Sealed => sdp::sealed(server, &offered)?,
    };
    let answer = [
        ("command", Value::Text("answer")),
        ("replace", replaced),
        ("sdp", Value::Text(&answer)),
        ("to-tag", Value::Text("b")),
    ];
    sdp::media(&request(branch, &format!("answer-{call}"), &common, &answer)?)
}

/// What stands behind a key.
#[derive(Clone, Copy)]
enum Value<'a> {
    Text(&'a str),
    List(&'a [&'a str]),
}

fn text(text: &str) -> String {
    format!("{}:{text}", text.len())
}

/// Sends a command, and returns the description that comes back. A cookie that was there before gets the answer that was
/// given then.
fn request(
    branch: &Namespace,
    cookie: &str,
    common: &[(&str, Value<'_>)],
    own: &[(&str, Value<'_>)],
) -> Result<Vec<u8>> {
    let mut dictionary = format!("{cookie} d");
    for (key, value) in common.iter().chain(own) {
        dictionary += &text(key);
        match value {
            Value::Text(value) => dictionary += &text(value),
            Value::List(list) => {
                let items: String = list.iter().map(|item| text(item)).collect();
                dictionary += &format!("l{items}e");
            }
        }
    }
    dictionary.push('e');
    let answer = super::ask(branch, NG, dictionary.into_bytes())?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    ensure!(answer.contains("6:result2:ok"), "rtpengine says: {answer}");
    let (length, rest) =
        answer.split_once("3:sdp").and_then(|(_, rest)| rest.split_once(':')).context("no description")?;
    let length: usize = length.parse().context("no length")?;
    Ok(rest.get(..length).context("a description cut short")?.as_bytes().to_vec())
}

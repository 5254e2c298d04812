//! NAT in the kernel: each port is translated to a server's address and port, and DSCP is set on the way out.

use anyhow::Result;
use xtask::lab::Namespace;
use xtask::lab::network::APPLIANCE_CENTRE;

use super::numbered_port;
use crate::testbed::ends;

/// The rules in place. They go with the namespace, or with this.
pub(super) struct Rules {
    namespace: String,
}

impl Rules {
    pub(super) fn set(branch: &Namespace, calls: usize) -> Result<Self> {
        let elements: Vec<String> = (0..calls)
            .map(|call| {
                let (address, port) = ends(call)[1];
                format!("{} : {address} . {port}", numbered_port(call))
            })
            .collect();
        let text = format!(
            "table ip bench {{\n\
             map targets {{\ntype inet_service : ipv4_addr . inet_service\nelements = {{ {} }}\n}}\n\
             chain arrivals {{\ntype nat hook prerouting priority dstnat;\ndnat ip to udp dport map @targets\n}}\n\
             chain departures {{\ntype nat hook postrouting priority srcnat;\nip daddr 10.62.0.0/24 snat to {APPLIANCE_CENTRE}\n}}\n\
             chain marking {{\ntype filter hook postrouting priority mangle;\nip protocol udp ip dscp set ef\n}}\n\
             }}\n",
            elements.join(", ")
        );
        let file = xtask::workspace::scratch("bench")?.join(format!("{}.nft", branch.name()));
        std::fs::write(&file, text)?;
        let rules = Self { namespace: branch.name().to_owned() };
        let loaded = branch.run("nft", &["-f", &file.to_string_lossy()]);
        std::fs::remove_file(&file)?;
        loaded?;
        branch.set("net/ipv4/ip_forward", "1")?;
        Ok(rules)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let script = "nft delete table ip bench; echo 0 > /proc/sys/net/ipv4/ip_forward";
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "sh", "-c", script]);
        // The namespace goes soon, and the rules with it.
        let _ = xtask::process::output(&mut command);
    }
}

//! Which modules a guest needs, and in which order they load: each behind those that it depends on (modules.dep(5)).

/// What a guest boots from (virtio, 9p, overlay) and what the tests use. Those that a kernel has built in are no modules.
pub(super) const WANTED: &[&str] = &[
    "virtio_pci",
    "9p",
    "9pnet_virtio",
    "overlay",
    "veth",
    "8021q",
    "wireguard",
    "tun",
    "sch_ingress",
    "cls_bpf",
    "bridge",
    "macvlan",
];

/// The files of these modules and of what they depend on, as `modules.dep` has them, in the order in which they load.
pub(super) fn in_order<'i>(index: &'i str, wanted: &[&str]) -> Vec<&'i str> {
    let mut order: Vec<&str> = Vec::new();
    for name in wanted {
        let Some((file, needs)) = index
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(file, _)| module_name(file) == name.replace('-', "_"))
        else {
            continue;
        };
        // A line names all that a module depends on, the nearest first: they load from the end.
        for next in needs.split_whitespace().rev().chain([file]) {
            if !order.contains(&next) {
                order.push(next);
            }
        }
    }
    order
}

/// The name by which a kernel knows the module in a file.
fn module_name(file: &str) -> String {
    let file = file.rsplit('/').next().unwrap_or(file);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_loads_behind_what_it_depends_on_and_once() {
        let index = "kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n\
                     kernel/net/9p/9pnet.ko.xz:\n\
                     kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/drivers/virtio/virtio.ko.xz\n\
                     kernel/drivers/net/vhost-tun.ko.xz: kernel/drivers/net/tun.ko.xz\n\
                     kernel/drivers/net/tun.ko.xz:\n";
        assert_eq!(
            in_order(index, &["virtio_pci", "9p", "9pnet_virtio", "tun"]),
            [
                "kernel/fs/netfs/netfs.ko.xz",
                "kernel/net/9p/9pnet.ko.xz",
                "kernel/fs/9p/9p.ko.xz",
                "kernel/drivers/virtio/virtio.ko.xz",
                "kernel/net/9p/9pnet_virtio.ko.xz",
                "kernel/drivers/net/tun.ko.xz",
            ],
            "what is built in is left out"
        );
    }

    #[test]
    fn a_module_s_name_has_underscores_whatever_its_file_has() {
        for (file, expected) in [
            ("kernel/net/sched/sch_ingress.ko", "sch_ingress"),
            ("kernel/arch/x86/crypto/chacha-x86_64.ko.xz", "chacha_x86_64"),
            ("kernel/drivers/net/tun.ko.zst", "tun"),
        ] {
            assert_eq!(module_name(file), expected, "{file}");
        }
    }
}

use super::*;

const OFFICE: &str = "[[network]]\nname = \"office\"\nrole = \"phones\"\ninterface = \"eth0\"\n";
const CENTRE: &str = "[[network]]\nname = \"centre\"\nrole = \"servers\"\ninterface = \"eth1\"\n";
const SERVERS: &str = "[upstream]\nservers = [\"10.62.0.10:5060\"]\n";

fn parse(text: &str) -> Config {
    Config::parse(Path::new("branchline.toml"), text).unwrap()
}

/// `eth0` in the office, `eth1` to the centre, `eth2` with the office's subnet, `eth3` without an address that means
/// the same everywhere, `eth4` with IPv6 alone.
fn host() -> Host {
    let link = |index: u32, name: &str| Link {
        index,
        name: name.to_owned(),
        address: None,
        mtu: 1500,
        up: true,
        kind: None,
        xdp: netlink::Attached::Nothing,
        layer3: false,
        parent: None,
        vlan: None,
    };
    let address = |interface, ip: [u8; 4], prefix| InterfaceAddress { interface, ip: ip.into(), prefix };
    let ipv6 = |interface, ip: &str| InterfaceAddress { interface, ip: ip.parse().unwrap(), prefix: 64 };
    Host {
        links: vec![
            link(1, "lo"),
            link(2, "eth0"),
            link(3, "eth1"),
            link(4, "eth2"),
            link(5, "eth3"),
            link(6, "eth4"),
        ],
        addresses: vec![
            address(1, [127, 0, 0, 1], 8),
            address(2, [10, 61, 0, 1], 24),
            address(2, [10, 61, 0, 2], 24),
            address(3, [10, 62, 0, 1], 24),
            address(4, [10, 61, 0, 200], 25),
            ipv6(3, "fe80::1"),
            ipv6(3, "fd62::1"),
            ipv6(5, "fe80::2"),
            ipv6(6, "fd64::1"),
        ],
        ephemeral: Some(32_768..=60_999),
    }
}

/// Everything but whether ports are free: that is the host's that the test runs on.
fn misfit(text: &str) -> Option<Misfit> {
    let (config, host) = (parse(text), host());
    let networks = match find_addresses(&config, &host) {
        Ok(networks) => networks,
        Err(misfit) => return Some(misfit),
    };
    check_shared_addresses(&networks)
        .and_then(|()| check_ports_are_left(&networks, &host))
        .and_then(|()| check_families(&config, &networks))
        .and_then(|()| check_apart(&config, &networks, &host))
        .err()
}

#[test]
fn what_the_host_does_not_have_is_told_at_the_networks_key() {
    let with = |from: &str, to: &str| [OFFICE, CENTRE, SERVERS].concat().replacen(from, to, 1);
    /// Network, key and message.
    type Expected = Option<(Option<u16>, &'static str, &'static str)>;
    let rows: [(&str, String, Expected); 18] = [
        ("as it should be", with("", ""), None),
        (
            "no such interface",
            with("\"eth1\"", "\"wan7\""),
            Some((
                Some(1),
                "network.interface",
                "interface wan7 does not exist; there are lo, eth0, eth1, eth2, eth3, eth4",
            )),
        ),
        (
            "an interface without an address",
            with("\"eth1\"", "\"eth3\""),
            Some((Some(1), "network.interface", "interface eth3 has no address; give it one first")),
        ),
        ("the interface's second address", with("\"eth0\"\n", "\"eth0\"\naddress = \"10.61.0.2\"\n"), None),
        (
            "an address of nobody",
            with("\"eth0\"\n", "\"eth0\"\naddress = \"10.61.0.77\"\n"),
            Some((
                Some(0),
                "network.address",
                "10.61.0.77 is not an address of interface eth0; it has 10.61.0.1, 10.61.0.2",
            )),
        ),
        (
            "an address of another interface",
            with("\"eth1\"\n", "\"eth1\"\naddress = \"10.61.0.1\"\n"),
            Some((
                Some(1),
                "network.address",
                "10.61.0.1 is not an address of interface eth1; it has 10.62.0.1, fd62::1",
            )),
        ),
        (
            "subnets that overlap",
            with("\"eth1\"", "\"eth2\""),
            Some((
                Some(1),
                "network.interface",
                "10.61.0.128/25 by eth2 and 10.61.0.0/24 by eth0 overlap (network \"office\"): hosts in both are \
                 reached by one of the two only; choose another interface, or renumber one side",
            )),
        ),
        (
            "both sides by one interface, on two addresses",
            with("\"eth1\"\n", "\"eth0\"\naddress = \"10.61.0.2\"\n").replace("10.62.0.10", "10.61.0.10"),
            None,
        ),
        (
            "a server among the phones",
            with("10.62.0.10", "10.61.0.50"),
            Some((
                None,
                "upstream.servers",
                "sip:10.61.0.50:5060 is among the phones: 10.61.0.0/24 is the subnet of network \"office\", by eth0",
            )),
        ),
        (
            "the appliance as its own server",
            with("10.62.0.10:5060", "10.62.0.1:8060"),
            Some((None, "upstream.servers", "sip:10.62.0.1:8060 is this appliance itself")),
        ),
        ("another program on the appliance as the server", with("10.62.0.10:5060", "10.62.0.1:5060"), None),
        ("a server by name", with("10.62.0.10:5060", "sip.example.com"), None),
        (
            "an IPv6 server from an IPv6 address",
            with("\"eth1\"\n", "\"eth1\"\naddress = \"fd62::1\"\n").replace("10.62.0.10", "[fd62::10]"),
            None,
        ),
        (
            "an IPv6 server by an interface with IPv6 alone",
            with("\"eth1\"", "\"eth4\"").replace("10.62.0.10", "[fd64::10]"),
            None,
        ),
        (
            "an IPv6 server from an IPv4 address",
            with("10.62.0.10:5060", "[fd62::10]:5060"),
            Some((
                None,
                "upstream.servers",
                "sip:[fd62::10]:5060 is of another family than 10.62.0.1, the appliance's address on network \
                 \"centre\": give the server, or that network (network.address), an address of the other's family",
            )),
        ),
        (
            "an IPv6 server among the phones",
            with("\"eth0\"", "\"eth4\"")
                .replace("\"eth1\"\n", "\"eth1\"\naddress = \"fd62::1\"\n")
                .replace("10.62.0.10", "[fd64::10]"),
            Some((
                None,
                "upstream.servers",
                "sip:[fd64::10]:5060 is among the phones: fd64::/64 is the subnet of network \"office\", by eth4",
            )),
        ),
        (
            "an address of another family is told to others",
            with("\"eth1\"\n", "\"eth1\"\nadvertised = \"2001:db8::1\"\n"),
            Some((
                Some(1),
                "network.advertised",
                "2001:db8::1 is of another family than 10.62.0.1, which it stands for",
            )),
        ),
        (
            "a link-local address",
            with("\"eth1\"\n", "\"eth1\"\naddress = \"fe80::1\"\n"),
            Some((
                Some(1),
                "network.address",
                "fe80::1 is not an address of interface eth1; it has 10.62.0.1, fd62::1",
            )),
        ),
    ];
    for (description, text, expected) in rows {
        let expected = expected.map(|(network, key, message)| Misfit {
            network: network.map(NetworkId),
            key,
            message: message.to_owned(),
        });
        assert_eq!(misfit(&text), expected, "{description}");
    }
}

#[test]
fn a_misfit_is_told_with_the_line_of_its_network() {
    let text = ["# Graz\n", OFFICE, "\n", CENTRE, SERVERS].concat().replacen("\"eth1\"", "\"wan7\"", 1);
    let config = parse(&text);
    let misfit = find_addresses(&config, &host()).err().unwrap();
    let error = misfit.in_file(Path::new("branchline.toml"), &text, &config);
    assert_eq!(
        error.to_string(),
        "branchline.toml, line 7, key network.interface: interface wan7 does not exist; there are lo, eth0, eth1, eth2, eth3, eth4"
    );
}

#[test]
fn networks_that_turn_out_to_share_an_address_need_ports_of_their_own() {
    let text = |second: &str| {
        let second = format!("interface = \"eth0\"\naddress = \"10.61.0.1\"\n{second}");
        [OFFICE, &CENTRE.replace("interface = \"eth1\"\n", &second), SERVERS].concat()
    };
    let rows = [
        ("both defaults", "sip_port = 8070\n", Some("their media_ports must not overlap")),
        (
            "SIP among the other's media",
            "sip_port = 20000\nmedia_ports = \"40000-50000\"\n",
            Some("SIP port 20000 of one is among the other's media_ports"),
        ),
        ("apart", "sip_port = 8070\nmedia_ports = \"40000-50000\"\n", None),
    ];
    for (description, second, expected) in rows {
        let config = parse(&text(second));
        let networks = find_addresses(&config, &host()).unwrap();
        let message = check_shared_addresses(&networks).err().map(|misfit| misfit.message);
        assert_eq!(message.is_some(), expected.is_some(), "{description}: {message:?}");
        assert!(message.unwrap_or_default().contains(expected.unwrap_or_default()), "{description}");
    }
}

#[test]
fn a_port_that_another_program_has_is_told_unless_the_running_daemon_has_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = |rest: u16| format!("[web]\nlisten = \"127.0.0.1:8443\"\nrest_port = {rest}\n");
    let (before, after) = (parse(&text(0)), parse(&text(port)));
    let misfit = check(&after, &before, &host(), Examine::Changes).unwrap_err();
    assert_eq!((misfit.network, misfit.key), (None, "web.rest_port"));
    assert!(misfit.message.contains(&format!("127.0.0.1:{port} cannot be bound")), "{}", misfit.message);
    assert_eq!(check(&after, &after, &host(), Examine::Everything), Ok(()), "it is the daemon's own");
    let elsewhere = parse("[web]\nlisten = \"192.0.2.77:8443\"\n");
    let misfit = check(&elsewhere, &before, &host(), Examine::Changes).unwrap_err();
    assert_eq!(misfit.key, "web.listen");
    assert!(misfit.message.contains("192.0.2.77 cannot be bound"), "{}", misfit.message);
    drop(taken);
    assert_eq!(check(&after, &before, &host(), Examine::Changes), Ok(()));
}

#[test]
fn what_was_not_changed_may_be_gone_for_a_while_but_nothing_starts_without_it() {
    let running = parse(&[OFFICE, &CENTRE.replace("eth1", "wan7"), SERVERS].concat());
    let changed =
        parse(&[OFFICE, &CENTRE.replace("eth1", "wan7"), SERVERS, "[datapath]\nflows = 128\n"].concat());
    assert_eq!(check(&changed, &running, &host(), Examine::Changes), Ok(()));
    let misfit = check(&changed, &running, &host(), Examine::Everything).unwrap_err();
    assert_eq!((misfit.network, misfit.key), (Some(NetworkId(1)), "network.interface"));
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let before = parse("");
    for (key, text) in [
        (
            "provisioning.password_file",
            "[provisioning]\nservers = [\"http://10.62.0.10\"]\nuser = \"a\"\npassword_file = \"/nonexistent/p\"\n",
        ),
        ("tls.authorities", "[tls]\nauthorities = \"/nonexistent/a.pem\"\n"),
        (
            "tls.certificate",
            "[tls]\ncertificate = \"/nonexistent/c.pem\"\nprivate_key = \"/nonexistent/k.pem\"\n",
        ),
    ] {
        let misfit = check(&parse(text), &before, &host(), Examine::Changes).unwrap_err();
        assert_eq!(misfit.key, key);
        assert!(misfit.message.contains("/nonexistent/"), "{}", misfit.message);
    }
}

#[test]
fn media_ports_leave_some_for_sockets_that_ask_for_any() {
    let with = |ports: &str| misfit(&format!("{OFFICE}media_ports = \"{ports}\"\n{CENTRE}{SERVERS}"));
    let all = with("20000-65535").unwrap();
    assert_eq!((all.network.map(|id| id.0), all.key), (Some(0), "network.media_ports"));
    assert_eq!(
        all.message,
        "20000-65535 leaves 0 of the ports 32768-60999, from which the kernel serves every program that asks for any port \
         (net.ipv4.ip_local_port_range): leave at least 256, or give the kernel another range"
    );
    assert!(with("33023-65535").is_some(), "255 are left");
    assert_eq!(with("33024-65535"), None, "256 are left");
    assert_eq!(with("20000-32767"), None, "none is taken");
}

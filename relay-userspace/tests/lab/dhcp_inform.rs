//! A phone that has its address asks by DHCPINFORM where its files are, and the office's own DHCP server goes on
//! leasing as if the appliance were not there.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context as _, Result};
use branchline::control::PhoneView;
use xtask::demo::appliance::{Appliance, Settings};
use xtask::lab::dhcp::{self, Dnsmasq};
use xtask::lab::network::{self, APPLIANCE_OFFICE, phone};
use xtask::lab::{Capture, Lab, Packet, Routes};

use crate::refuses_to_start::{check, refused};
use crate::site::{ask, settings, turn};

const TABLES: &str = "[dhcp]\nenabled = true\nurl = \"http://10.61.0.1:8088\"\n[clock]\nenabled = true\n";
const FIRST_LEASE: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 100);
const LAST_LEASE: Ipv4Addr = Ipv4Addr::new(10, 61, 0, 110);
/// The phone's address and the office's DHCP server's, by their numbers.
const PHONE: u8 = 1;
const DHCP_SERVER: u8 = 2;
/// Ports of servers and of clients (RFC 2131 section 4.1).
const TO_SERVERS: u16 = 67;
const TO_CLIENTS: u16 = 68;

fn with_services() -> Settings {
    Settings { tables: TABLES.to_owned(), ..settings() }
}

fn from_server(packets: &[Packet], server: Ipv4Addr) -> Vec<&Packet> {
    packets
        .iter()
        .filter(|packet| packet.source.port() == TO_SERVERS && *packet.source.ip() == server)
        .collect()
}

#[test]
fn an_inform_is_answered_and_leases_stay_the_business_of_the_offices_own_server() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let server = lab.own_host(DHCP_SERVER)?;
    let client = lab.own_host(PHONE)?;
    let appliance = Appliance::start_with(&lab, &with_services())?;
    let dnsmasq = Dnsmasq::start(&server, FIRST_LEASE, LAST_LEASE, lab.dir())?;
    let capture = Capture::start(&lab.branch, network::TO_OFFICE, "office", lab.dir())?;

    let leased = dhcp::lease(&client, "420HD")?;
    assert!(leased.contains(&format!("obtained from {}", phone(DHCP_SERVER))), "{leased}");
    // The office's server answers too, and the phone takes whichever comes first.
    let told = dhcp::inform(&client, phone(PHONE), "Polycom-VVX", lab.dir())?;
    assert!(told.contains("reason=INFORM"), "{told}");
    let again = dhcp::lease(&client, "420HD")?;
    assert!(again.contains(&format!("obtained from {}", phone(DHCP_SERVER))), "{again}");
    let said = dnsmasq.said();
    for word in ["DHCPDISCOVER", "DHCPOFFER", "DHCPREQUEST", "DHCPACK"] {
        assert!(said.matches(&format!("{word}(")).count() >= 2, "{word} twice in:\n{said}");
    }
    drop(dnsmasq);
    let told = dhcp::inform(&client, phone(PHONE), "Polycom-VVX", lab.dir())?;
    for line in [
        "reason=INFORM",
        "new_dhcp_message_type=5",
        "new_dhcp_server_identifier=10.61.0.1",
        "new_provisioning_url=http://10.61.0.1:8088",
        "new_tftp_server_name=10.61.0.1",
        "new_ntp_servers=10.61.0.1",
    ] {
        assert!(told.lines().any(|told| told == line), "no {line} in:\n{told}");
    }
    assert!(!told.contains("lease_time"), "{told}");

    // On the wire: what the appliance sent is acknowledgements without an address, to the phone alone.
    let packets = capture.finish()?;
    let ours = from_server(&packets, APPLIANCE_OFFICE);
    assert!(!ours.is_empty());
    for packet in &ours {
        assert_eq!((*packet.destination.ip(), packet.destination.port()), (phone(PHONE), TO_CLIENTS));
        assert_eq!(packet.payload[16..20], [0; 4], "yiaddr");
        assert_eq!(packet.payload[12..16], phone(PHONE).octets(), "ciaddr");
    }

    let phones: Vec<PhoneView> = ask(&appliance, &lab, "phones")?;
    let phone_seen = phones
        .iter()
        .find(|seen| seen.activity.address.as_deref() == Some(phone(PHONE).to_string().as_str()))
        .with_context(|| format!("{phones:#?}"))?;
    assert!(phone_seen.activity.hardware_address.is_some());
    let stages: Vec<&str> = phone_seen.activity.stages.iter().map(|stage| stage.stage.as_str()).collect();
    assert_eq!(stages, ["dhcp_seen", "inform_answered"], "{phones:#?}");
    let metrics = appliance.metrics(&lab)?;
    let count = |kind: &str| metrics.sum("branchline_dhcp_messages_total", &[("type", kind)]);
    assert_eq!(count("inform"), ours.len() as f64);
    assert!(count("discover") >= 2.0 && count("request") >= 2.0);
    assert_eq!(metrics.sum("branchline_dhcp_dropped_total", &[]), 0.0);
    Ok(())
}

#[test]
fn a_port_that_another_program_has_is_named_with_its_table() -> Result<()> {
    let _turn = turn();
    let lab = Lab::create(Routes::None)?;
    let settings = with_services();
    let configuration = settings.configuration(lab.dir());
    for (port, table, words) in [
        (TO_SERVERS, "[dhcp]", ["office", "eth0", "0.0.0.0:67"]),
        (123, "[clock]", ["office", "eth0", "10.61.0.1:123"]),
    ] {
        let taken = lab.branch.enter(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))??;
        let words = [&[table], &words as &[&str]].concat();
        check(table, &refused(&lab, &settings, &configuration)?, &words);
        drop(taken);
    }
    // A server of this very network on the same host cannot live beside it, whatever it shares.
    let (first, last) = (FIRST_LEASE, LAST_LEASE);
    let dnsmasq = Dnsmasq::start(&lab.branch, first, last, lab.dir())?;
    check(
        "dnsmasq",
        &refused(&lab, &settings, &configuration)?,
        &["[dhcp]", "another program has this port"],
    );
    drop(dnsmasq);
    Appliance::start_with(&lab, &settings).map(drop)
}

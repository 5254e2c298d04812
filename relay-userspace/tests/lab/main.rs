//! The daemon as it is built, between real peers in network namespaces, judged by captures on the wires.
//!
//! Needs root, and the peers that `cargo xtask setup --for test` installs. The tests take turns: they share
//! the processors with their own phones. Each builds a laboratory of its own and takes it down, so they run
//! beside a demo.

mod attachment;
mod bench_self;
mod browser;
mod busy_hour;
mod by_hand;
mod bystanders;
mod call_on_the_wire;
mod capture;
mod capture_of_phones;
mod clock;
mod conversions;
mod credentials;
mod dashboards;
mod descriptors;
mod dhcp_inform;
mod dual;
mod first_configuration;
mod flood;
mod forking;
mod full_disk;
mod generic_mode;
mod groups;
mod hostile_services;
mod hostile_sip;
mod ice;
mod ipv6;
mod large_requests;
mod legacy_tls;
mod linphone;
mod logs;
mod many_phones;
mod moved;
mod naptr;
mod next_hops;
mod no_leaks;
mod no_ports;
mod one_armed;
mod package;
mod pages;
mod phones;
mod provisioning;
mod quality;
mod real_peers;
mod refuses_to_start;
mod remembers_phones;
mod rest_port;
mod reuse;
mod site;
mod softphones;
mod srtp;
mod stands_still;
mod stops_cleanly;
mod streams;
mod survival;
mod survives;
mod syslog;
mod trace;
mod transports;
mod tunnel;
mod tunnel_call;
mod two_servers;
mod wrong_source;

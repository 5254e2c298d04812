//! From the configuration to what each room is told: values only, nothing is opened here.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use crate::{
    config::{
        self, Config, Group, GroupServers, Network, NumberForm, Route, ServerPlan, SurvivalTable, Trunk,
    },
    datapath::{
        Settings as EngineSettings,
        kernel::{attach::Lifetime, keeper::Port, programs::KernelLog},
    },
    media::{Marks, MediaNetwork, Settings as MediaSettings},
    net::{Dscp, NetworkId, Role, Transport},
    proxy,
    sip::{
        transaction::{NetworkTimers, Timers},
        transport,
    },
    srtp::system_random,
    tls::{self, Authorities, Identity, LegacyAcceptor, TlsError, Trust},
    upstream::{
        self, DestinationSettings, Emergency, Form, GroupSettings, Numbering, SurvivalSettings, WhenDown,
    },
};

/// A network with its address found.
pub(super) struct Ready<'a> {
    pub(super) id: NetworkId,
    pub(super) network: &'a Network,
    pub(super) address: IpAddr,
    /// Bytes of the largest packet on its interface, if it says.
    pub(super) mtu: Option<usize>,
}

impl Ready<'_> {
    pub(super) fn bound(&self) -> SocketAddr {
        SocketAddr::from((self.address, self.network.sip_port))
    }

    pub(super) fn advertised(&self) -> IpAddr {
        self.network.advertised.unwrap_or(self.address)
    }
}

/// What the datapath is told.
pub(super) fn engine_settings(config: &Config, networks: &[Ready<'_>]) -> EngineSettings {
    EngineSettings {
        wanted: config.datapath.engine,
        ports: networks.iter().map(port).collect(),
        priority: config.dscp.media_priority,
        signalling_priority: config.dscp.sip_priority,
        limits: config.protection.limits(),
        flows: *config.datapath.flows.as_ref(),
        force_userspace: config.datapath.force_userspace.clone(),
        kernel_log: if config.datapath.kernel_log { KernelLog::On } else { KernelLog::Off },
        lifetime: Lifetime::Pinned,
    }
}

fn port(ready: &Ready<'_>) -> Port {
    let network = ready.network;
    Port {
        interface: network.interface.clone(),
        address: ready.address,
        attach: network.attach,
        sip: Transport::ALL.iter().filter_map(|transport| network.port(*transport)).collect(),
    }
}

/// What media sessions are told.
pub(super) fn media_settings(config: &Config, networks: &[Ready<'_>]) -> MediaSettings {
    let marks = marks(config);
    MediaSettings {
        networks: networks
            .iter()
            .map(|ready| MediaNetwork {
                name: ready.network.name.clone(),
                address: ready.address,
                advertised: ready.advertised(),
                ports: ready.network.media_ports.range(),
                latching: ready.network.latching,
                srtp: ready.network.srtp,
                ice: ready.network.ice,
                rtp_dscp: marks.rtp,
                rtcp_dscp: marks.rtcp,
            })
            .collect(),
        max_sessions: config.sip.max_calls,
        timeout: Duration::from_secs(config.media.timeout_seconds),
        seed: rand::random(),
        random: system_random,
    }
}

/// TCP and TLS.
pub(super) fn stream_settings(
    config: &Config,
    networks: &[Ready<'_>],
    identity: &Identity,
    authorities: &Authorities,
    trust: &Arc<Trust>,
) -> Result<transport::Settings, TlsError> {
    let tls = &config.tls;
    Ok(transport::Settings {
        networks: networks
            .iter()
            .map(|ready| transport::Listen {
                network: ready.id,
                address: ready.address,
                ports: Transport::CONNECTED
                    .into_iter()
                    .filter_map(|transport| Some((transport, ready.network.port(transport)?)))
                    .collect(),
            })
            .collect(),
        marking: config.dscp.of_sip(),
        connect_timeout: Duration::from_millis(config.sip.tcp_connect_timeout_ms),
        server: tls::server_config(identity, authorities, tls)?,
        legacy: Arc::new(LegacyAcceptor::new(identity, authorities, tls)),
        client: tls::client_config(identity, authorities, trust, tls)?,
        origins: config.sip.websocket_origins.clone(),
        limits: transport::Limits::default(),
    })
}

/// What the proxy is told.
pub(super) fn proxy_settings(config: &Config, networks: &[Ready<'_>]) -> proxy::Settings {
    let sides = networks
        .iter()
        .map(|ready| proxy::Network {
            id: ready.id,
            name: ready.network.name.clone(),
            role: ready.network.role,
            identity: ready.network.identity,
            bound: ready.address,
            advertised: ready.advertised(),
            ports: proxy::Ports {
                udp: ready.network.sip_port,
                tcp: ready.network.port(Transport::Tcp),
                tls: ready.network.port(Transport::Tls),
                legacy_tls: ready.network.port(Transport::LegacyTls),
                ws: ready.network.port(Transport::Ws),
                wss: ready.network.port(Transport::Wss),
            },
            challenge: ready.network.challenge,
            mtu: ready.mtu,
        })
        .collect();
    // The configuration was checked to have a network of servers.
    let upstream = networks
        .iter()
        .find(|ready| ready.network.role == Role::Servers)
        .map_or(NetworkId(0), |ready| ready.id);
    let changes = proxy_changes(config);
    let upstream = proxy::Upstream {
        probe: changes.probe,
        patience: changes.patience,
        recovery: changes.recovery,
        retry: changes.retry,
        redirects: changes.redirects,
        silence: changes.silence,
        dual: changes.dual,
        ..proxy::Upstream::new(upstream, changes.servers)
    };
    let mut settings = proxy::Settings::new(sides, upstream, rand::random());
    settings.groups = changes.groups;
    settings.trusted = changes.trusted;
    settings.timers = changes.timers;
    settings.timer_c = changes.timer_c;
    settings.tcp_above = changes.tcp_above;
    settings.limits.calls = changes.calls;
    settings.capacities = changes.capacities;
    settings.peers = changes.peers;
    settings.routing = changes.routing;
    settings
}

/// What of the proxy's settings can change while it runs.
pub(super) fn proxy_changes(config: &Config) -> proxy::Changes {
    proxy::Changes {
        trusted: config.upstream.trusted.clone(),
        timers: timers(config),
        timer_c: config.ring_timeout(),
        tcp_above: Some(config.sip.tcp_above_bytes).filter(|above| *above > 0),
        calls: config.sip.max_calls,
        capacities: capacities(config),
        peers: proxy::Peers::new(config.networks(), &config.peers),
        servers: config.upstream.servers.as_ref().clone(),
        probe: (config.upstream.probe_seconds > 0)
            .then(|| Duration::from_secs(config.upstream.probe_seconds)),
        patience: Duration::from_secs(config.upstream.oos_force_seconds),
        recovery: Duration::from_secs(config.upstream.recovery_seconds),
        retry: config.upstream.retry_statuses.clone(),
        redirects: config.upstream.redirects,
        silence: config.upstream.silence,
        dual: config.upstream.dual_registration,
        groups: groups(config),
        routing: routing(config),
    }
}

/// Groups of servers for some of the phones; of one with a line, one for each of its domains.
fn groups(config: &Config) -> Vec<GroupSettings> {
    let of = |group: &Group| {
        // The check of the configuration has seen to its network.
        let network = config.network_of_group(group).unwrap_or(NetworkId(0));
        let settings = |list: GroupServers| GroupSettings {
            name: group.name.clone(),
            servers: upstream::Settings {
                lesser: list.proxies,
                probe: (group.probe_seconds > 0).then(|| Duration::from_secs(group.probe_seconds)),
                patience: Duration::from_secs(group.oos_force_seconds),
                recovery: Duration::from_secs(group.recovery_seconds),
                silence: group.silence,
                ..upstream::Settings::new(network, list.servers)
            },
            members: upstream::Members { users: group.numbers.clone(), domains: list.domains },
            retry: group.retry_statuses.clone(),
            redirects: group.redirects,
            dual: group.dual_registration,
        };
        group.lists().into_iter().map(settings).collect::<Vec<_>>()
    };
    config.groups.iter().flat_map(of).collect()
}

/// What networks take of calls.
fn capacities(config: &Config) -> HashMap<NetworkId, proxy::Capacity> {
    let limit = |number: u32| (number > 0).then_some(number);
    let of = |network: &Network| proxy::Capacity {
        calls: limit(network.max_calls),
        kbps: limit(network.max_kbps),
    };
    config.networks().map(|(id, network)| (id, of(network))).collect()
}

/// The timers, those of networks that have some of their own beside the others.
fn timers(config: &Config) -> NetworkTimers {
    let sip = &config.sip;
    let timers = |t1, t2, t4, invite_retries, other_retries| Timers {
        t1: Duration::from_millis(t1),
        t2: Duration::from_millis(t2),
        t4: Duration::from_millis(t4),
        invite_retries,
        other_retries,
    };
    let own = config.networks().map(|(id, network)| {
        let own = timers(
            network.timer_t1_ms.unwrap_or(sip.timer_t1_ms),
            network.timer_t2_ms.unwrap_or(sip.timer_t2_ms),
            network.timer_t4_ms.unwrap_or(sip.timer_t4_ms),
            network.invite_retries.unwrap_or(sip.invite_retries),
            network.other_retries.unwrap_or(sip.other_retries),
        );
        (id, own)
    });
    let all =
        timers(sip.timer_t1_ms, sip.timer_t2_ms, sip.timer_t4_ms, sip.invite_retries, sip.other_retries);
    NetworkTimers { all, own: own.filter(|(_, own)| *own != all).collect() }
}

/// The ways of calls.
fn routing(config: &Config) -> proxy::Routing {
    proxy::Routing {
        rules: config.routes.iter().filter(|route| route.enabled).map(rule).collect(),
        precedence: if config.routing.registration_has_priority {
            proxy::Precedence::RegisteredPhones
        } else {
            proxy::Precedence::Rules
        },
        emergency: proxy::EmergencyCalls {
            numbers: config.emergency.numbers.clone(),
            dial: config.emergency.dial.clone(),
        },
        numbering: numbering(&config.numbering),
        trunks: config.trunks.iter().filter_map(|trunk| trunk_settings(config, trunk)).collect(),
        plans: config.server_plans.iter().flat_map(|plan| plan_settings(config, plan)).collect(),
        alone: alone(&config.survival),
    }
}

/// The office's place; nothing of it without a country code.
fn numbering(table: &config::Numbering) -> Numbering {
    if table.country_code.is_empty() {
        return Numbering::default();
    }
    Numbering::new(upstream::Place {
        country: table.country_code.clone(),
        area: table.area_code.clone(),
        national: table.national_prefix.clone(),
        international: table.international_prefix.clone(),
        national_digits: Some(table.national_digits).filter(|digits| *digits > 0),
        outside: table.outside_prefix.clone(),
    })
}

fn rule(route: &Route) -> proxy::Rule {
    proxy::Rule {
        name: route.name.clone(),
        from: route.from.clone(),
        to: route.to.clone(),
        target: route.target.clone(),
        destinations: route.destinations.clone(),
    }
}

/// A trunk; none without its network, which the check of the configuration has seen to.
fn trunk_settings(config: &Config, trunk: &Trunk) -> Option<upstream::TrunkSettings> {
    let (network, _) = config.networks().find(|(_, network)| match &trunk.network {
        Some(name) => network.name == *name,
        None => network.role == Role::Gateway,
    })?;
    Some(upstream::TrunkSettings {
        name: trunk.name.clone(),
        peer: upstream::Settings {
            probe: (trunk.oos_check_seconds > 0).then(|| Duration::from_secs(trunk.oos_check_seconds)),
            when_down: WhenDown::Asked,
            patience: Duration::from_secs(trunk.oos_force_seconds),
            recovery: Duration::from_secs(trunk.recovery_timeout_seconds),
            ..upstream::Settings::new(network, vec![trunk.contact.clone()])
        },
        prefix: trunk.prefix.clone(),
        replace_prefix: trunk.replace_prefix.clone(),
        numbers: match trunk.numbers {
            NumberForm::AsDialled => Form::AsDialled,
            NumberForm::E164 => Form::E164,
            NumberForm::National => Form::National,
            NumberForm::International => Form::International,
        },
        priority: trunk.priority,
        cost: trunk.cost,
        emergency: if trunk.emergency { Emergency::Carried } else { Emergency::Refused },
    })
}

/// The destinations of a plan; none without its network, which the check of the configuration has seen to.
fn plan_settings(config: &Config, plan: &ServerPlan) -> Vec<DestinationSettings> {
    let found = config.networks().find(|(_, network)| match &plan.network {
        Some(name) => network.name == *name,
        None => network.role == Role::Servers,
    });
    let Some((network, _)) = found else { return Vec::new() };
    let settings = |(position, to): (usize, &config::PlanDestination)| DestinationSettings {
        plan: plan.name.clone(),
        name: format!("{}/{}", plan.name, position + 1),
        peer: upstream::Settings {
            recovery: Duration::from_secs(config.upstream.recovery_seconds),
            ..upstream::Settings::new(network, vec![to.contact.clone()])
        },
        patience: (to.timeout_seconds > 0).then(|| Duration::from_secs(to.timeout_seconds)),
    };
    plan.destinations.iter().enumerate().map(settings).collect()
}

/// What the office does on its own.
fn alone(table: &SurvivalTable) -> Option<proxy::Alone> {
    const DAY: u64 = 24 * 3600;
    table.enabled.then(|| proxy::Alone {
        when: SurvivalSettings {
            enter_after: Duration::from_secs(table.enter_after_seconds),
            leave_after: Duration::from_secs(table.leave_after_seconds),
        },
        registration: Duration::from_secs(table.registration_seconds),
        unproven: table.unproven_phones,
        remember: Duration::from_secs(table.remember_days * DAY),
        message: table.tell_phones.then(|| (table.message_begin.clone(), table.message_end.clone())),
    })
}

/// The code points of media.
pub(super) fn marks(config: &Config) -> Marks {
    let mark = |dscp: Dscp| Some(dscp).filter(|dscp| *dscp != Dscp::DEFAULT);
    Marks { rtp: mark(config.dscp.rtp), rtcp: mark(config.dscp.rtcp) }
}

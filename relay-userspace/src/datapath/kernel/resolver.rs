//! Keeps the next hops current from netlink: routes, neighbours and interfaces, and every change of them.
//!
//! A thin driver around a pure decision, [`View::resolve`]. Neighbours that media goes to are probed while
//! they are unknown, and again when they have gone stale: the kernel program uses a neighbour's address
//! without the stack's knowledge, so the stack would never confirm it by itself.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, warn};

use super::{
    super::flows::Flows,
    keeper::{Egress, carrier},
    next_hops::{LinkLayer, Resolution},
};
use crate::net::netlink::{Error, Handle, Link, Neighbour, News, Route, subscribe};

/// How often everything is read anew, in case news were lost, and stale neighbours are probed.
const REFRESH: Duration = Duration::from_secs(10);
/// How long the kernel program may still use a way that was just taken from it.
const PAUSE: Duration = Duration::from_millis(2);

/// The kind of a virtual wire between two namespaces, as netlink names it.
const VETH: &str = "veth";

/// What is known of the network around.
#[derive(Debug, Default)]
struct View {
    links: HashMap<u32, Link>,
    neighbours: HashMap<(u32, IpAddr), Neighbour>,
    routes: HashMap<IpAddr, Result<Route, String>>,
    /// Interfaces that packets can be sent out of.
    egresses: HashMap<u32, Egress>,
}

/// What news are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Neighbours only, which are taken into the view.
    Neighbours,
    /// Interfaces or routes: all has to be read anew.
    Everything,
}

impl View {
    /// Takes all news that wait: a burst of them, as when an interface comes or a routing daemon starts,
    /// is answered by reading everything once. Neighbours that were forgotten while media goes there come
    /// out too.
    fn take_news(&mut self, first: News, more: &mut mpsc::Receiver<News>) -> (Scope, Vec<Neighbour>) {
        let (mut scope, mut forgotten) = (Scope::Neighbours, Vec::new());
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                News::Neighbour(neighbour) => {
                    let before = self.neighbours.insert((neighbour.interface, neighbour.ip), neighbour);
                    let was_known = before.is_some_and(|known| known.address.is_some());
                    if neighbour.address.is_none() && was_known && self.is_used(&neighbour) {
                        forgotten.push(neighbour);
                    }
                }
                News::Link | News::Route => scope = Scope::Everything,
            }
            next = more.try_recv().ok();
        }
        (scope, forgotten)
    }

    /// Whether media goes by a neighbour.
    fn is_used(&self, neighbour: &Neighbour) -> bool {
        let mut routes = self.routes.values().flatten();
        routes.any(|route| {
            (route.interface, route.neighbour, route.local) == (neighbour.interface, neighbour.ip, false)
        })
    }

    /// The way to an address, or what is missing.
    fn resolve(&self, to: IpAddr) -> Result<Resolution, String> {
        let route = match self.routes.get(&to) {
            Some(Ok(route)) => route,
            Some(Err(error)) => return Err(format!("no route to {to}: {error}")),
            None => return Err(format!("the way to {to} is being looked up")),
        };
        if route.local {
            return Err(format!("{to} is an address of this host"));
        }
        let link = self.links.get(&route.interface).ok_or_else(|| {
            format!("the way to {to} leads out of interface {}, which is gone", route.interface)
        })?;
        let name = &link.name;
        if !link.up {
            return Err(format!("{name} is down"));
        }
        let carrier = carrier(&self.links, link)?;
        let egress = self.egresses.get(&carrier.index).ok_or_else(|| {
            format!("the way to {to} leads out of {name}, which no configured network uses")
        })?;
        let layer = match link.address {
            None if link.layer3 => LinkLayer::Nothing,
            None => return Err(format!("{name} is neither an Ethernet interface nor a tunnel")),
            Some(source) => {
                let known = self.neighbours.get(&(link.index, route.neighbour));
                let neighbour = known.and_then(|known| known.address).ok_or_else(|| {
                    let asked = if route.neighbour.is_ipv4() { "ARP" } else { "neighbour discovery" };
                    format!("{} on {name} has not answered {asked} yet", route.neighbour)
                })?;
                LinkLayer::Ethernet { source, neighbour, vlan: link.vlan }
            }
        };
        Ok(Resolution {
            index: carrier.index,
            // A veth's other end is not woken for what XDP turns back on this one, unless it runs XDP itself; it is
            // for what is redirected.
            turns_back: carrier.kind.as_deref() != Some(VETH),
            device: egress.device,
            mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
            link: layer,
            by_tc: egress.by_tc.clone(),
        })
    }
}

/// Runs for as long as it is polled. With each news of interfaces, `attach` brings what is attached to them up to date,
/// and tells by which of them packets can be sent. Without news, as after a netlink message that cannot be read, everything is
/// still read anew now and then, and the news are asked for again.
pub(in super::super) async fn run(
    netlink: Handle,
    mut news: mpsc::Receiver<News>,
    flows: Arc<Mutex<Flows>>,
    wanted: Arc<Notify>,
    mut attach: impl FnMut(&HashMap<u32, Link>) -> HashMap<u32, Egress>,
) {
    let mut view = View::default();
    let mut refresh = interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut subscribed = true;
    loop {
        let result = tokio::select! {
            _ = refresh.tick() => {
                if !subscribed && let Ok(again) = subscribe() {
                    (news, subscribed) = (again, true);
                }
                reread(&netlink, &mut view, &flows).await
            }
            () = wanted.notified() => look_up(&netlink, &mut view, &flows).await,
            item = news.recv(), if subscribed => match item {
                None => {
                    warn!("next hops: netlink's news have ended; asking for them again in {} s", REFRESH.as_secs());
                    subscribed = false;
                    Ok(())
                }
                Some(first) => match view.take_news(first, &mut news) {
                    // Ask at once, rather than with the next packet.
                    (Scope::Neighbours, forgotten) => probe(&netlink, &forgotten).await,
                    (Scope::Everything, _) => reread(&netlink, &mut view, &flows).await,
                },
            },
        };
        if let Err(error) = result {
            warn!(%error, "next hops: netlink could not be read; trying again in {} s", REFRESH.as_secs());
        }
        if !view.links.is_empty() {
            view.egresses = attach(&view.links);
        }
        apply(&view, &flows).await;
    }
}

/// Looks up the ways to where flows go that were taken up, before a program meets their packets. What cannot be looked up
/// is left to [`run`].
pub(in super::super) async fn prime(netlink: &Handle, flows: &Mutex<Flows>, egresses: HashMap<u32, Egress>) {
    let mut view = View { egresses, ..View::default() };
    if let Err(error) = reread(netlink, &mut view, flows).await {
        warn!(%error, "next hops: netlink could not be read; trying again");
    }
    apply(&view, flows).await;
}

/// Asks the kernel to find out the hardware addresses of neighbours.
async fn probe(netlink: &Handle, neighbours: &[Neighbour]) -> Result<(), Error> {
    for neighbour in neighbours {
        netlink.probe(neighbour.interface, neighbour.ip).await?;
    }
    Ok(())
}

/// Reads interfaces, neighbours and the route to each destination; probes neighbours that need it.
async fn reread(netlink: &Handle, view: &mut View, flows: &Mutex<Flows>) -> Result<(), Error> {
    view.links = netlink.links().await?.into_iter().map(|link| (link.index, link)).collect();
    view.neighbours = netlink
        .neighbours()
        .await?
        .into_iter()
        .map(|neighbour| ((neighbour.interface, neighbour.ip), neighbour))
        .collect();
    let destinations = with(flows, |flows| {
        flows.next_hops().map(|(hops, _)| (hops.take_unresolved(), hops.destinations()).1).unwrap_or_default()
    });
    view.routes.clear();
    for to in destinations {
        find(netlink, view, to).await;
    }
    Ok(())
}

/// Looks up the addresses that flows have come to want.
async fn look_up(netlink: &Handle, view: &mut View, flows: &Mutex<Flows>) -> Result<(), Error> {
    let wanted =
        with(flows, |flows| flows.next_hops().map(|(hops, _)| hops.take_unresolved()).unwrap_or_default());
    for to in wanted {
        find(netlink, view, to).await;
    }
    Ok(())
}

/// Finds the route to an address, and probes the neighbour there unless it is known and fresh.
async fn find(netlink: &Handle, view: &mut View, to: IpAddr) {
    let route = match netlink.route(to).await {
        Ok(Some(route)) => Ok(route),
        Ok(None) => Err("the kernel names no interface".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    if let Ok(route) = &route
        && !route.local
    {
        let known = view.neighbours.get(&(route.interface, route.neighbour));
        if known.is_none_or(|known| known.address.is_none() || known.stale)
            && let Err(error) = netlink.probe(route.interface, route.neighbour).await
        {
            debug!(%error, neighbour = %route.neighbour, "cannot probe");
        }
    }
    view.routes.insert(to, route);
}

/// Brings what is known to the kernel's table.
async fn apply(view: &View, flows: &Mutex<Flows>) {
    let mut paused = HashSet::new();
    with(flows, |flows| {
        let Some((hops, tables)) = flows.next_hops() else { return };
        for to in hops.destinations() {
            let resolution = view.resolve(to);
            if hops.must_pause(to, &resolution) {
                hops.resolved(tables, to, Err(format!("the way to {to} is changing")));
                paused.insert(to);
            } else {
                hops.resolved(tables, to, resolution);
            }
        }
    });
    if !paused.is_empty() {
        sleep(PAUSE).await;
        with(flows, |flows| {
            let Some((hops, tables)) = flows.next_hops() else { return };
            for to in paused {
                hops.resolved(tables, to, view.resolve(to));
            }
        });
    }
}

fn with<T>(flows: &Mutex<Flows>, work: impl FnOnce(&mut Flows) -> T) -> T {
    work(&mut flows.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        datapath::shared::SharedArray,
        net::netlink::{self, Attached},
    };

    const TO: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 62, 0, 10));
    const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 62, 0, 254));

    fn view() -> View {
        let link = Link {
            index: 3,
            name: "wan".into(),
            address: Some([2; 6]),
            mtu: 1500,
            up: true,
            kind: None,
            xdp: Attached::Nothing,
            layer3: false,
            parent: None,
            vlan: None,
        };
        let neighbour = Neighbour { interface: 3, ip: GATEWAY, address: Some([4; 6]), stale: false };
        View {
            links: [(3, link)].into(),
            neighbours: [((3, GATEWAY), neighbour)].into(),
            routes: [(TO, Ok(Route { interface: 3, neighbour: GATEWAY, local: false }))].into(),
            egresses: [(3, Egress { device: 1, by_tc: None })].into(),
        }
    }

    #[tokio::test]
    async fn next_hops_are_kept_even_when_the_news_end() {
        let (sender, news) = mpsc::channel(1);
        drop(sender);
        let flows = Flows::new(SharedArray::on_heap(1), None, Vec::new());
        let flows = Arc::new(Mutex::new(flows));
        let kept = run(netlink::connect().unwrap(), news, flows, Arc::default(), |_| HashMap::new());
        assert!(tokio::time::timeout(Duration::from_millis(200), kept).await.is_err(), "it has given up");
    }

    #[test]
    fn a_burst_of_news_is_taken_at_once() {
        let (sender, mut news) = mpsc::channel(200);
        let moved = Neighbour { interface: 3, ip: GATEWAY, address: Some([6; 6]), stale: false };
        for _ in 0..100 {
            sender.try_send(News::Route).unwrap();
        }
        sender.try_send(News::Neighbour(moved)).unwrap();
        let mut view = view();
        assert_eq!(view.take_news(News::Link, &mut news).0, Scope::Everything);
        assert!(news.is_empty());
        let expected = LinkLayer::Ethernet { source: [2; 6], neighbour: [6; 6], vlan: None };
        assert_eq!(view.resolve(TO).unwrap().link, expected);
        assert_eq!(view.take_news(News::Neighbour(moved), &mut news), (Scope::Neighbours, vec![]));
        let gone = Neighbour { address: None, ..moved };
        assert_eq!(view.take_news(News::Neighbour(gone), &mut news), (Scope::Neighbours, vec![gone]));
    }

    #[test]
    fn a_way_is_resolved_through_the_gateway() {
        let expected = Resolution {
            index: 3,
            turns_back: true,
            device: 1,
            mtu: 1500,
            link: LinkLayer::Ethernet { source: [2; 6], neighbour: [4; 6], vlan: None },
            by_tc: None,
        };
        assert_eq!(view().resolve(TO), Ok(expected.clone()));
        let mut wire = view();
        wire.links.get_mut(&3).unwrap().kind = Some("veth".to_owned());
        let redirected = Resolution { turns_back: false, ..expected };
        assert_eq!(wire.resolve(TO), Ok(redirected), "a veth does not turn packets back");
    }

    #[test]
    fn a_vlan_s_packets_leave_by_what_it_stands_on_with_its_tag() {
        let mut view = view();
        let wan = view.links[&3].clone();
        let vlan = Link {
            index: 9,
            name: "wan.100".into(),
            address: Some([8; 6]),
            mtu: 1496,
            parent: Some(3),
            vlan: Some(100),
            ..wan
        };
        view.links.insert(9, vlan.clone());
        view.neighbours.insert(
            (9, GATEWAY),
            Neighbour { interface: 9, ip: GATEWAY, address: Some([7; 6]), stale: false },
        );
        view.routes.insert(TO, Ok(Route { interface: 9, neighbour: GATEWAY, local: false }));
        let expected = Resolution {
            index: 3,
            turns_back: true,
            device: 1,
            mtu: 1496,
            link: LinkLayer::Ethernet { source: [8; 6], neighbour: [7; 6], vlan: Some(100) },
            by_tc: None,
        };
        assert_eq!(view.resolve(TO), Ok(expected));
        // Within another VLAN there would be two tags.
        view.links.insert(3, Link { vlan: Some(5), parent: Some(2), ..view.links[&3].clone() });
        assert!(view.resolve(TO).unwrap_err().contains("is a VLAN within a VLAN"));
        // And an interface of another namespace is not one of ours.
        view.links.remove(&3);
        assert!(view.resolve(TO).unwrap_err().contains("not in this network namespace"));
    }

    #[test]
    fn a_tunnel_s_packets_leave_without_a_link_layer_by_tc() {
        let mut view = view();
        let wan = view.links.get_mut(&3).unwrap();
        (wan.address, wan.layer3) = (None, true);
        view.egresses.get_mut(&3).unwrap().by_tc = Some("TC does".to_owned());
        view.neighbours.clear();
        let way = view.resolve(TO).unwrap();
        assert_eq!((way.link, way.by_tc.as_deref()), (LinkLayer::Nothing, Some("TC does")));
    }

    #[test]
    fn what_is_missing_is_named() {
        type Change = fn(&mut View);
        let rows: [(&str, Change, &str); 7] = [
            ("no route yet", |v| v.routes.clear(), "is being looked up"),
            (
                "no route at all",
                |v| drop(v.routes.insert(TO, Err("unreachable".into()))),
                "no route to 10.62.0.10: unreachable",
            ),
            (
                "own address",
                |v| drop(v.routes.insert(TO, Ok(Route { interface: 1, neighbour: TO, local: true }))),
                "an address of this host",
            ),
            ("interface gone", |v| v.links.clear(), "which is gone"),
            ("unconfigured interface", |v| v.egresses.clear(), "wan, which no configured network uses"),
            (
                "no Ethernet",
                |v| v.links.get_mut(&3).unwrap().address = None,
                "wan is neither an Ethernet interface nor a tunnel",
            ),
            ("unknown neighbour", |v| v.neighbours.clear(), "10.62.0.254 on wan has not answered ARP yet"),
        ];
        for (description, change, expected) in rows {
            let mut view = view();
            change(&mut view);
            let error = view.resolve(TO).unwrap_err();
            assert!(error.contains(expected), "{description}: {error}");
        }
    }
}

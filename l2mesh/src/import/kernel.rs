//! The kernel's vxlan devices of this network namespace, over rtnetlink: reading needs no privileges.

use std::{
    collections::{BTreeMap, btree_map},
    net::IpAddr,
};

use anyhow::{bail, ensure};

use super::{
    Told,
    assemble::{all_taken, assemble, usable},
    device::{Device, Entry, list},
    draft::{Comment, Draft},
};
use crate::{
    config::Cidr,
    underlay::{
        Link, Netlink,
        belongings::Belongings,
        fdb::FdbEntry,
        routes::Route,
        vxlan::{BridgeSettings, Vxlan, VxlanLink},
    },
};

/// Greatest number of routes that a comment names.
const ROUTES_SHOWN: usize = 5;

/// The mesh of the devices called `names`, or of all.
///
/// # Errors
/// One of them is not there or no vxlan device, none is there, or they make no mesh.
pub(super) async fn read(names: &[String], told: Told<'_>) -> anyhow::Result<Draft> {
    let mut host = Host::read().await?;
    let links = host.chosen(names).await?;
    let mut devices = Vec::new();
    for link in links {
        devices.push(host.device(link, told).await?);
    }
    let (devices, problems) = usable(devices, !names.is_empty())?;
    all_taken(&devices, told.peers)?;
    let attach = host.attach(&devices);
    assemble(&devices, head(&devices, names, attach, &problems))
}

/// Everything that is asked once, whatever the number of devices, and routes as they are asked for.
struct Host {
    netlink: Netlink,
    links: BTreeMap<u32, Link>,
    vxlan_links: Vec<VxlanLink>,
    bridges: BTreeMap<u32, BridgeSettings>,
    fdb: BTreeMap<u32, Vec<FdbEntry>>,
    belongings: BTreeMap<u32, Belongings>,
    routes: BTreeMap<(IpAddr, Option<IpAddr>), Option<Route>>,
}

impl Host {
    async fn read() -> anyhow::Result<Self> {
        let netlink = Netlink::open()?;
        let mut fdb = BTreeMap::<u32, Vec<FdbEntry>>::new();
        for entry in netlink.fdb().await? {
            fdb.entry(entry.device).or_default().push(entry);
        }
        Ok(Self {
            links: netlink.links().await?.into_iter().map(|link| (link.index, link)).collect(),
            vxlan_links: netlink.vxlan_links().await?,
            bridges: netlink.bridges().await?,
            fdb,
            belongings: netlink.belongings().await?,
            routes: BTreeMap::new(),
            netlink,
        })
    }

    /// The devices to import, in the order asked for.
    async fn chosen(&mut self, names: &[String]) -> anyhow::Result<Vec<VxlanLink>> {
        let is_own = |it: &VxlanLink| it.link.alias.as_deref().is_some_and(|alias| alias.starts_with("l2mesh:"));
        let (own, mut found): (Vec<_>, Vec<_>) = std::mem::take(&mut self.vxlan_links).into_iter().partition(is_own);
        if names.is_empty() {
            ensure!(
                !found.is_empty(),
                "no vxlan device is in this network namespace (see `ip link show type vxlan`): enter the right one by \
                 `nsenter --net=`, or import from files with --netplan or --tinc"
            );
            return Ok(found);
        }
        let there: Vec<String> = found.iter().map(|it| it.link.name.clone()).collect();
        let mut chosen: Vec<VxlanLink> = Vec::new();
        for name in names {
            // Whatever the kernel takes for a name, alternative ones included.
            let Some(link) = self.netlink.link_by_name(name).await? else {
                let there = if there.is_empty() { "none".into() } else { list(&there) };
                bail!("{name}: no such device in this network namespace; its vxlan devices are: {there}");
            };
            let is_in = |list: &[VxlanLink]| list.iter().position(|it| it.link.index == link.index);
            ensure!(is_in(&own).is_none(), "{name} belongs to l2mesh: that needs no import");
            ensure!(is_in(&chosen).is_none(), "{name} is named twice");
            let Some(place) = is_in(&found) else {
                let kind = link.kind.map_or_else(|| "no virtual device".into(), |kind| format!("of the kind {kind}"));
                bail!("{name} is {kind}, not a vxlan device (see `ip -d link show dev {name}`)");
            };
            chosen.push(found.remove(place));
        }
        Ok(chosen)
    }

    async fn device(&mut self, found: VxlanLink, told: Told<'_>) -> anyhow::Result<Device> {
        let VxlanLink { link, vxlan, port_settings, neighbour_suppression } = found;
        let mut device = Device {
            name: link.name.clone(),
            mtu: Some(link.mtu),
            neighbour_suppression,
            source: told.local.or(vxlan.local),
            vxlan,
            ..Device::default()
        };
        // Indices and routes are those of the other namespace then.
        let other_namespace = link.link_netnsid.is_some();
        for entry in self.fdb.get(&link.index).into_iter().flatten() {
            let via = entry.via.filter(|&via| !other_namespace && Some(via) != device.vxlan.dev);
            let FdbEntry { mac, destination, port, vni, origin, .. } = *entry;
            let via = via.map(|index| self.name_of(index));
            device.entries.push(Entry { mac, destination, port, vni, via, origin });
        }
        device.add_peers(told.peers);
        if other_namespace {
            let text = "sends from another network namespace than this one: a mesh and its interfaces are made where the \
                        underlay is: move it back there first";
            device.problem = Some(text.into());
        } else {
            self.below(&mut device).await?;
        }
        self.above(&mut device, &link, &port_settings);
        Ok(device)
    }

    /// The underlay: this host's address there, the interface and its MTU.
    async fn below(&mut self, device: &mut Device) -> anyhow::Result<()> {
        let Vxlan { local, dev, .. } = device.vxlan;
        let mut interface: Option<Link> = dev.and_then(|index| self.links.get(&index).cloned());
        let (mut elsewhere, mut sources): (Vec<String>, Vec<IpAddr>) = (Vec::new(), Vec::new());
        for remote in device.forwarding().members {
            // From an address that is not on this host there is no route.
            let mut route = self.route(remote, device.source).await?;
            if route.is_none() && device.source.is_some() {
                route = self.route(remote, None).await?;
            }
            let Some(route) = route else {
                device.notes.push(format!("{remote}: there is no route to it now."));
                continue;
            };
            if let Some(source) = route.preferred_source.filter(|source| !sources.contains(source)) {
                sources.push(source);
            }
            match &interface {
                Some(known) if known.index == route.oif => {}
                Some(_) => elsewhere.push(format!("{remote} ({})", self.name_of(route.oif))),
                None => interface = self.links.get(&route.oif).cloned(),
            }
        }
        device.source = device.source.or(sources.first().copied());
        if local.is_none()
            && let [first, others @ ..] = sources.as_slice()
            && !others.is_empty()
            && device.source == Some(*first)
        {
            let others = list(others);
            let text = format!("no `local`: to some the kernel sends from {others}, l2mesh to all from {first}.");
            device.notes.push(text);
        }
        if let Some(link) = interface {
            device.mode_kernel = !link.has_ethernet;
            if !elsewhere.is_empty() {
                let (remotes, name) = (list(&elsewhere), &link.name);
                device.notes.push(format!(
                    "routed through another interface than {name}: {remotes}: l2mesh receives on one interface."
                ));
            }
            device.underlay_mtu = Some(link.mtu);
            device.underlay = Some(link.name);
        }
        Ok(())
    }

    async fn route(&mut self, remote: IpAddr, source: Option<IpAddr>) -> anyhow::Result<Option<Route>> {
        match self.routes.entry((remote, source)) {
            btree_map::Entry::Occupied(known) => Ok(known.get().clone()),
            btree_map::Entry::Vacant(place) => Ok(place.insert(self.netlink.route_to(remote, source).await?).clone()),
        }
    }

    /// The bridge, addresses, routes.
    fn above(&self, device: &mut Device, link: &Link, port_settings: &[&'static str]) {
        if let Some(index) = link.master
            && let Some(master) = self.links.get(&index)
        {
            if let Some(settings) = self.bridges.get(&index) {
                self.bridge(device, master, *settings, port_settings);
            } else {
                let (name, kind) = (&device.name, master.kind.as_deref().unwrap_or("device"));
                let text = format!("{name} is in the {kind} {}: put the new interface there.", master.name);
                device.notes.push(text);
            }
        }
        let Some(Belongings { routes, neighbours, .. }) = self.belongings.get(&link.index) else { return };
        self.addresses(device, link);
        let name = &device.name;
        if !routes.is_empty() {
            let more = if routes.len() > ROUTES_SHOWN { ", ..." } else { "" };
            let shown = list(&routes[..routes.len().min(ROUTES_SHOWN)]);
            let text = format!("routes go with {name}: add them to the new interface: {shown}{more}");
            device.notes.push(text);
        }
        if *neighbours > 0 {
            let text = format!("permanent neighbours (`ip neigh`) go with {name}: {neighbours}.");
            device.notes.push(text);
        }
    }

    fn bridge(&self, device: &mut Device, bridge: &Link, settings: BridgeSettings, port_settings: &[&'static str]) {
        let (name, port) = (&bridge.name, device.name.clone());
        device.bridge = Some(name.clone());
        device.link_local = settings.link_local;
        let mut note = |text| device.notes.push(text);
        if settings.link_local {
            note(format!("link-local: {name} speaks STP, or forwards 01:80:c2:00:00:0x."));
        }
        if settings.vlan_filtering {
            note(format!(
                "{name} filters VLANs: give the new port those of the old one (`bridge vlan show dev {port}`)."
            ));
        }
        if !port_settings.is_empty() {
            let settings = port_settings.join(", ");
            note(format!("bridge port: {settings}: set that on the new port (`bridge link set`)."));
        }
        let addresses = self.belongings.get(&bridge.index).into_iter().flat_map(|it| &it.addresses);
        let kept = addresses.filter(|it| !it.automatic).map(|it| format!("{}/{}", it.address, it.prefix));
        let kept: Vec<String> = kept.collect();
        if !kept.is_empty() {
            note(format!("{name} keeps its addresses ({}): they are not l2mesh's.", kept.join(", ")));
        }
    }

    fn addresses(&self, device: &mut Device, link: &Link) {
        let found = self.belongings.get(&link.index).into_iter().flat_map(|it| &it.addresses);
        for found in found.filter(|it| !it.automatic) {
            let cidr = Cidr { address: found.address, prefix: found.prefix };
            let text = if device.bridge.is_some() {
                format!("{cidr} is on a port of a bridge, where it has no use: left out.")
            } else if !found.permanent {
                format!("{cidr} is a lease (DHCP) or from a router advertisement: left out, it comes again.")
            } else if let Some(peer) = found.peer {
                format!("{} peer {peer}: left out: l2mesh adds addresses of a subnet only.", found.address)
            } else if device.addresses.iter().any(|other| other.address == cidr.address) {
                format!("{cidr}: left out: the address is there with another prefix length.")
            } else {
                device.addresses.push(cidr);
                continue;
            };
            device.notes.push(text);
        }
    }

    /// The command line that takes over: who this host is must be said where its address is not on the interface, and where
    /// that is another one of this host (a loopback address), that it sends from there.
    fn attach(&self, devices: &[Device]) -> String {
        let underlay = devices.iter().find_map(|device| device.underlay.as_deref());
        let mut command = format!("l2mesh attach --iface {} --config FILE", underlay.unwrap_or("IFACE"));
        if let Some(source) = devices.iter().find_map(|device| device.source) {
            let has = |it: &Belongings| it.addresses.iter().any(|address| address.address == source);
            let on: Vec<String> =
                self.belongings.iter().filter(|(_, it)| has(it)).map(|(&it, _)| self.name_of(it)).collect();
            if !on.iter().any(|name| Some(name.as_str()) == underlay) {
                command += &format!(" --node {source}");
                if !on.is_empty() {
                    command += &format!(" --local {source}");
                }
            }
        }
        if devices.iter().any(|device| device.mode_kernel) {
            command += " --mode kernel";
        }
        command
    }

    fn name_of(&self, index: u32) -> String {
        self.links.get(&index).map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }
}

/// Where this is from, how to hand over, what is missing.
fn head(devices: &[Device], names: &[String], attach: String, problems: &[String]) -> Vec<Comment> {
    let command = ["l2mesh import"].into_iter().chain(names.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
    let mut head = vec![
        Comment::text(format!("Made by `{command}` from the kernel's vxlan devices and their forwarding entries.")),
        Comment::text("The same file goes to every host that runs l2mesh. To hand over on this one:"),
    ];
    for device in devices {
        head.push(Comment::Command(format!("ip link delete dev {}", device.name)));
    }
    let mut underlays: Vec<&str> = devices.iter().filter_map(|device| device.underlay.as_deref()).collect();
    underlays.sort_unstable();
    underlays.dedup();
    head.push(Comment::Command(attach));
    head.push(Comment::text(
        "and see to it that nothing makes the devices again at boot. The new interfaces have the old names, but MAC \
         addresses of their own: DHCP reservations and static entries for the old ones do not follow. What \
         `l2mesh import` says on another host, its addresses above all, joins this file when that host moves.",
    ));
    if underlays.len() > 1 {
        head.push(Comment::text(format!("The devices are on {}: l2mesh receives on one interface.", list(&underlays))));
    }
    head.extend(problems.iter().map(|problem| Comment::text(format!("Not imported: {problem}."))));
    head
}

//! From the command line to a running mesh, in the order in which a failure does no harm.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use aya::programs::TcAttachType;
use l2mesh_common::tables::{Fact, PeerId};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Agent, Receive, ReceiveMode,
    control::{Control, live_agent},
    events::News,
    identity::{Identity, identity},
    kernel_mode,
    overlay::Overlays,
    own_hooks::OwnHooks,
    signals::Signals,
};
use crate::{
    cli::{AttachArgs, Mode, XdpTx},
    config::{Mesh, TxHook},
    dataplane::{
        bridges,
        devices::{self, Devices, Known},
        fill::fill,
        hooks::{self, Hook, XdpOutcome},
        object::{Object, Tc},
        pins::{Owner, PinDir, PinnedMeta, State, interface_name},
        tables::Tables,
        teardown,
        view::{Place, View},
    },
    underlay::{
        Link, Netlink,
        complaints::Complaints,
        features::driver,
        watch::{Change, Watch},
    },
};

/// How long attach waits for the first answers of next hops before it says that it is up.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);
/// How long it waits for carriers of its own devices, which others' changes of interfaces can hold up.
const CARRIER: Duration = Duration::from_secs(10);
/// Drivers whose XDP programs cannot pass metadata on (`xdp_prepare_buff(.., false)`; dataplane.md 5).
const WITHOUT_METADATA: [&str; 7] = ["ena", "gve", "gvnic", "hv_netvsc", "mana", "vmxnet3", "xen-netfront"];

/// Joins the mesh, that of `file` or of the flags. Returns when it is up, or without an agent if it was told to stop while it waited for the network. On
/// failure nothing is left behind.
///
/// # Errors
/// One sentence that says what is wrong, where, and what to do.
pub(crate) async fn start(
    args: &AttachArgs,
    file: Option<&Mesh>,
    pin_root: &Path,
    signals: &mut Signals,
) -> anyhow::Result<Option<Agent>> {
    let netlink = Netlink::open()?;
    let link = underlay_interface(&netlink, &args.iface).await?;
    let by_kernel = kernel_mode::chosen(args.mode, &link)?;
    let mut control = Control::claim(&link.name, link.index)?;
    refuse_second(pin_root, &link)?;
    let mut watch = Watch::open()?;
    let identity = tokio::select! {
        identity = identity(args, file, &netlink, &link, &mut watch) => identity?,
        () = signals.next() => return Ok(None),
        request = control.next() => {
            request?.answer(&Ok(Vec::new())).await;
            return Ok(None);
        }
    };
    if by_kernel.is_some() {
        identity.mesh.allows_mode_kernel(identity.own)?;
    }
    let owner = Owner::new(&link.name, link.index)?;
    let pins = PinDir::of(pin_root, &owner)?;
    let adopts = match pins.state(&owner)? {
        State::Valid => true,
        State::OtherLayout => bail!(
            "{} was attached by another version of l2mesh whose tables this one cannot read: run `l2mesh detach --iface {}` first",
            link.name,
            link.name
        ),
        State::Empty | State::Stale => {
            // What a killed attach left half made.
            let gone = teardown::remove_all(&netlink, &link.name, &pins, &mut || ()).await.result()?;
            if !gone.is_empty() {
                log::info!("removed what an earlier attach left: {}", teardown::summary(&gone));
            }
            false
        }
    };
    let built = build(args, by_kernel, &identity, &link, &owner, &pins, adopts, &netlink).await;
    let (view, tables, object, devices, mode, own_hooks) = match built {
        Ok(built) => built,
        Err(error) => return Err(give_up(error, adopts, &netlink, &link, &pins).await),
    };
    let underlay = &identity.mesh.underlay;
    let may_shortcut = mode.receive != Receive::Kernel && args.tx_hook.unwrap_or(underlay.tx_hook) == TxHook::Auto;
    let mut agent = Agent {
        view,
        pins,
        tables,
        object,
        devices,
        mode,
        netlink,
        watch,
        control,
        may_shortcut,
        fdb_age: underlay.fdb_age,
        persist: args.persist,
        source: identity.source,
        unreachable: BTreeMap::new(),
        is_up: false,
        broken: BTreeSet::new(),
        overlays: Overlays::default(),
        own_hooks,
        netns_cookie: owner.netns_cookie,
        told_fault: None,
        unpinned: None,
        news: News::default(),
        complaints: hear_complaints(),
        links: BTreeMap::new(),
        paths: BTreeMap::new(),
        prober: None,
        stats: Arc::default(),
        targets: Vec::new(),
        told_lateness: String::new(),
    };
    match agent.finish().await {
        Ok(()) => Ok(Some(agent)),
        Err(error) => Err(give_up(error, adopts, &agent.netlink, &link, &agent.pins).await),
    }
}

/// Without them the mesh works as long as no path takes less than its first link.
fn hear_complaints() -> Complaints {
    let (complaints, refused) = Complaints::open();
    if let Some(error) = refused {
        log::warn!("routers that say that a packet is too big are not heard: {error}");
    }
    complaints
}

/// Leaves a mesh that was there before as it is, and nothing of one that was not.
async fn give_up(error: anyhow::Error, adopts: bool, netlink: &Netlink, link: &Link, pins: &PinDir) -> anyhow::Error {
    if adopts {
        return error.context("the mesh keeps forwarding as before, without an agent");
    }
    for failure in &teardown::remove_all(netlink, &link.name, pins, &mut || ()).await.failed {
        log::error!("{failure:#}");
    }
    error
}

impl Agent {
    /// Egress programs, first next hops, overlay interfaces up.
    async fn finish(&mut self) -> anyhow::Result<()> {
        let networks = &self.devices.networks;
        // Those that were there before are as their user left them.
        let new = networks.iter().filter(|pair| pair.is_new);
        let overlays = new.filter_map(|pair| Some(pair.overlay.as_ref()?.index));
        let ends: Vec<u32> = networks.iter().map(|pair| pair.hidden).chain(overlays).collect();
        self.attach_egress_programs()?;
        self.netlink.set_all_up(&ends).await?;
        self.wait_for_carrier().await?;
        self.look_at_overlays().await?;
        let deadline = Instant::now() + FIRST_ANSWERS;
        loop {
            self.look_up_next_hops().await?;
            if self.unreachable.is_empty() || Instant::now() > deadline {
                break;
            }
            // An answer is a change of a neighbour; there may be thousands of others.
            let pause = Instant::now() + Duration::from_millis(100);
            while let Ok(change) = timeout_at(pause, self.watch.next()).await {
                let change = change?;
                if self.note(change) && matches!(change, Change::Neighbour { .. }) {
                    break;
                }
            }
        }
        self.tell_missing();
        self.start_prober()?;
        self.test_firewall().await
    }

    /// Of a pair, the end that came up first sends once the kernel has noticed that the other is there too
    /// (`linkwatch_do_dev`): what it is given before is lost.
    async fn wait_for_carrier(&self) -> anyhow::Result<()> {
        let new: HashSet<u32> = self.devices.networks.iter().filter(|it| it.is_new).map(|it| it.hidden).collect();
        let deadline = Instant::now() + CARRIER;
        loop {
            let start = Instant::now();
            let links = self.netlink.links().await?;
            let waiting = links.iter().filter(|link| new.contains(&link.index) && !link.oper_up).count();
            if waiting == 0 || start > deadline {
                return Ok(());
            }
            sleep(start.elapsed()).await;
        }
    }

    /// The one line that says that the mesh is up.
    pub(crate) fn up_line(&self) -> String {
        let View { interface, node, peers, networks, .. } = &self.view;
        let networks: Vec<String> =
            networks.iter().take(3).map(|it| format!("{} (VNI {}) on {}", it.name, it.vni, it.interface)).collect();
        let more = self.view.networks.len().saturating_sub(3);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let missing = match self.unreachable.len() {
            0 => String::new(),
            count => format!(", {count} not reachable yet"),
        };
        let count = peers.len();
        let peers = if count == 1 { "1 peer".to_owned() } else { format!("{count} peers") };
        format!("up: node {node} on {interface}, {peers}{missing}, {}{more}, mode {}", networks.join(", "), self.mode)
    }
}

type Built = (View, Tables, Object, Devices, ReceiveMode, OwnHooks);

#[expect(clippy::too_many_arguments, reason = "all that is known by then, each used once")]
async fn build(
    args: &AttachArgs,
    by_kernel: Option<ReceiveMode>,
    identity: &Identity,
    link: &Link,
    owner: &Owner,
    pins: &PinDir,
    adopts: bool,
    netlink: &Netlink,
) -> anyhow::Result<Built> {
    let (known_peers, known_devices) = if adopts { known(&Tables::open(pins)?)? } else { Default::default() };
    let place = Place {
        interface: &link.name,
        ifindex: link.index,
        mtu: link.mtu,
        local: identity.local,
        addresses: &identity.addresses,
        by_kernel: by_kernel.is_some(),
        // Of a veth, what XDP sends waits or is lost where the far end has no XDP program (`veth_xdp_flush`, `veth_xdp_xmit` in
        // drivers/net/veth.c), and nobody here can see that end.
        xdp_tx: match args.xdp_tx {
            XdpTx::Auto => driver(&link.name).is_ok_and(|driver| driver != "veth"),
            XdpTx::On => true,
            XdpTx::Off => false,
        },
    };
    let view = View::new(&identity.mesh, identity.own, place, &known_peers)?;
    let underlay = &identity.mesh.underlay;
    devices::refuse_port(&view, underlay.private_port, &known_devices)?;
    pins.create()?;
    let mut devices = devices::ensure(netlink, &view, underlay.private_port, &known_devices).await?;
    let mut object = Object::load(pins, underlay.fdb_size)?;
    let mut tables = Tables::open(pins)?;
    fill(&mut tables, &view, &devices)?;
    tables.set_fact(Fact::UdpPort, &devices.port_text(view.port))?;
    hooks::fill_calls(&mut object, pins, &mut tables)?;
    bridges::ensure(netlink, &view, &mut devices, &mut tables).await?;
    let own_hooks = OwnHooks::attach(&mut object, pins, netlink, view.ifindex, &devices).await?;
    hooks::attach_tc(&mut object, pins, ingress(&devices.helper.name, Tc::Helper))?;
    let mode = match by_kernel {
        Some(mode) => {
            kernel_mode::leave_underlay(pins, &devices)?;
            mode
        }
        None => attach_underlay(args.mode, &mut object, pins, &view)?,
    };
    tables.set_fact(Fact::Mode, &mode.to_string())?;
    // Last: from here on the pins are those of a whole attach.
    tables.meta.set(0, owner.meta()?, 0).context("cannot write META")?;
    Ok((view, tables, object, devices, mode, own_hooks))
}

fn ingress(interface: &str, program: Tc) -> Hook<'_> {
    Hook { interface, program, side: TcAttachType::Ingress, vni: None }
}

/// TC first, XDP last: with XDP and no TC, inner frames would enter the host's stack as the NIC's own.
fn attach_underlay(wanted: Mode, object: &mut Object, pins: &PinDir, view: &View) -> anyhow::Result<ReceiveMode> {
    hooks::attach_tc(object, pins, ingress(&view.interface, Tc::Underlay))?;
    let driver = driver(&view.interface).unwrap_or_default();
    let objection = match wanted {
        Mode::Tc => Some("as asked for".to_owned()),
        Mode::Auto if driver == "veth" => Some("veth copies every frame for XDP".to_owned()),
        Mode::Auto if WITHOUT_METADATA.contains(&&*driver) => {
            Some(format!("the driver {driver} passes no XDP metadata"))
        }
        _ => None,
    };
    let is_automatic = wanted == Mode::Auto;
    if let Some(reason) = objection {
        hooks::detach_xdp(pins)?;
        return Ok(ReceiveMode { receive: Receive::Tc, is_automatic, reason });
    }
    match hooks::attach_xdp(object, pins, &view.interface, view.ifindex)? {
        XdpOutcome::Attached => {
            let reason = if is_automatic {
                format!("the driver {driver} takes XDP programs")
            } else {
                "as asked for".to_owned()
            };
            Ok(ReceiveMode { receive: Receive::Xdp, is_automatic, reason })
        }
        XdpOutcome::Refused(reason) if is_automatic => Ok(ReceiveMode { receive: Receive::Tc, is_automatic, reason }),
        XdpOutcome::Refused(reason) => bail!("no mode xdp: {reason}: use --mode tc"),
    }
}

/// What the tables of an earlier attach say about peers and devices.
fn known(tables: &Tables) -> anyhow::Result<(Vec<(IpAddr, PeerId)>, Known)> {
    let peers = tables.vteps.iter().map(|entry| entry.map(|(address, id)| (address.ip(), id)));
    let pairs =
        tables.networks.iter().map(|entry| entry.map(|(vni, network)| (vni, (network.port_ifindex, network.mac))));
    let settings = tables.settings.get(&0, 0)?;
    let helper = Some((settings.helper_ifindex, settings.helper_port, settings.port));
    Ok((peers.collect::<Result<_, _>>()?, Known { pairs: pairs.collect::<Result<_, _>>()?, helper }))
}

/// An agent outlives its interface, and goes on where it can when one of the same name comes back, as a tunnel does.
fn refuse_second(pin_root: &Path, link: &Link) -> anyhow::Result<()> {
    let name = &link.name;
    for pins in PinDir::all(pin_root)? {
        if let PinnedMeta::Found(meta) = pins.meta()?
            && interface_name(&meta) == *name
            && meta.ifindex != link.index
            && let Some(pid) = live_agent(meta.ifindex)?
        {
            bail!(
                "process {pid} is the agent of an interface {name} that is gone, and of its mesh: run `l2mesh detach --iface \
                 {name}` first"
            );
        }
    }
    Ok(())
}

async fn underlay_interface(netlink: &Netlink, name: &str) -> anyhow::Result<Link> {
    let Some(link) = netlink.link_by_name(name).await? else {
        let names: Vec<String> =
            netlink.links().await?.into_iter().map(|link| link.name).filter(|name| name != "lo").collect();
        bail!("there is no interface {name:?}: there are {}", names.join(", "));
    };
    ensure!(link.up, "{name} is down: bring it up first, `ip link set {name} up`");
    Ok(link)
}

/// `CAP_NET_ADMIN` and `CAP_BPF`, numbers 12 and 39 (linux/capability.h).
///
/// # Errors
/// `verb` needs them, and we have not got them.
pub(crate) fn require_privileges(verb: &str) -> anyhow::Result<()> {
    const NEEDED: u64 = 1 << 12 | 1 << 39;
    let status = fs::read_to_string("/proc/thread-self/status").context("cannot read /proc/thread-self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    ensure!(
        effective.is_some_and(|set| set & NEEDED == NEEDED),
        "{verb} needs CAP_NET_ADMIN and CAP_BPF: run it as root"
    );
    Ok(())
}

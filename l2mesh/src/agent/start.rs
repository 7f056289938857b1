//! From the command line to a running mesh, in the order in which a failure does no harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use l2mesh_common::tables::Fact;

use super::{
    Agent, Receive, ReceiveMode,
    arrange::{ingress, known},
    control::{Control, live_agent, server::Server},
    events::News,
    file_watch::FileWatch,
    identity::{Identity, identity},
    kernel_mode,
    overlay::Overlays,
    own_hooks::OwnHooks,
    signals::Signals,
    wishes::Wishes,
};
use crate::{
    cli::{AttachArgs, Mode, XdpTx},
    config::{Document, Mesh},
    dataplane::{
        devices::Devices,
        hooks::{self, XdpOutcome},
        migrate,
        object::{Object, Tc},
        pins::{Owner, PinDir, PinnedMeta, State, interface_name},
        tables::Tables,
        teardown,
        view::{Place, View},
    },
    underlay::{Link, Netlink, complaints::Complaints, features::driver, watch::Watch},
};

/// How long attach waits for the first answers of next hops before it says that it is up.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);
/// Drivers whose XDP programs cannot pass metadata on (`xdp_prepare_buff(.., false)`; dataplane.md 5).
const WITHOUT_METADATA: [&str; 7] = ["ena", "gve", "gvnic", "hv_netvsc", "mana", "vmxnet3", "xen-netfront"];

/// Joins the mesh, that of `file` or of the flags. Returns when it is up, or without an agent if it was told to stop while it waited for the network. On
/// failure nothing is left behind.
///
/// # Errors
/// One sentence that says what is wrong, where, and what to do.
pub(crate) async fn start(
    args: &AttachArgs,
    file: Option<(Document, Mesh)>,
    pin_root: &Path,
    signals: &mut Signals,
) -> anyhow::Result<Option<Agent>> {
    let (document, file) = file.unzip();
    let netlink = Netlink::open()?;
    let link = underlay_interface(&netlink, &args.iface).await?;
    let by_kernel = kernel_mode::chosen(args.mode, &link)?;
    let mut control = Control::claim(&link.name, link.index)?;
    refuse_second(pin_root, &link)?;
    let mut watch = Watch::open()?;
    let identity = tokio::select! {
        identity = identity(args, file.as_ref(), &netlink, &link, &mut watch) => identity?,
        () = signals.end() => return Ok(None),
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
    let (adopts, next) = match pins.state(&owner)? {
        State::Valid => {
            pins.beside().forget()?;
            (true, None)
        }
        State::OtherLayout => (true, Some(migrate::begin(&link.name, &pins, identity.mesh.underlay.fdb_size)?)),
        State::Empty | State::Stale => {
            // What a killed attach left half made.
            let gone = teardown::remove_all(&netlink, &link.name, &pins, &mut || ()).await.result()?;
            if !gone.is_empty() {
                log::info!("removed what an earlier attach left: {}", teardown::summary(&gone));
            }
            (false, None)
        }
    };
    let document = document.unwrap_or_else(|| Document::from_flags(&identity.mesh, identity.own));
    match Box::pin(build(
        args,
        document,
        by_kernel,
        identity,
        &link,
        owner,
        (pins.clone(), next.clone()),
        adopts,
        (netlink.clone(), watch, control),
    ))
    .await
    {
        Ok(mut agent) => {
            agent.server = Server::open(&agent.pins.socket());
            Ok(Some(agent))
        }
        Err(error) => {
            let dropped = next.map_or(Ok(()), |next| next.forget());
            Err(give_up(dropped.err().unwrap_or(error), adopts, &netlink, &link, &pins).await)
        }
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

#[expect(clippy::too_many_arguments, reason = "all that is known by then, each used once")]
async fn build(
    args: &AttachArgs,
    document: Document,
    by_kernel: Option<ReceiveMode>,
    identity: Identity,
    link: &Link,
    owner: Owner,
    (home, next): (PinDir, Option<PinDir>),
    adopts: bool,
    (netlink, watch, control): (Netlink, Watch, Control),
) -> anyhow::Result<Agent> {
    let pins = next.unwrap_or_else(|| home.clone());
    let known_peers = if adopts { known(&Tables::open(&pins)?)?.0 } else { Vec::new() };
    let underlay = identity.mesh.underlay.clone();
    let view =
        View::new(&identity.mesh, identity.own, place(args, &identity, link, by_kernel.is_some()), &known_peers)?;
    pins.create()?;
    let mut object = Object::load(&pins, underlay.fdb_size)?;
    let mut tables = Tables::open(&pins)?;
    hooks::fill_calls(&mut object, &pins, &mut tables)?;
    let file_watch = args.config.as_deref().filter(|_| args.watch).map(FileWatch::open).transpose()?;
    let mut agent = Agent {
        args: args.clone(),
        mesh: identity.mesh,
        own: identity.own,
        document,
        wishes: Wishes::default(),
        file_watch,
        view: view.clone(),
        pins,
        tables,
        object,
        devices: Devices::default(),
        mode: by_kernel.unwrap_or(ReceiveMode::UNDECIDED),
        netlink,
        watch,
        server: Server::default(),
        control,
        may_shortcut: false,
        fdb_age: underlay.fdb_age,
        persist: args.persist,
        source: identity.source,
        unreachable: BTreeMap::new(),
        is_up: false,
        broken: BTreeSet::new(),
        overlays: Overlays::default(),
        own_hooks: OwnHooks::default(),
        netns_cookie: owner.netns_cookie,
        told_fault: None,
        unpinned: None,
        news: News::default(),
        complaints: hear_complaints(),
        links: BTreeMap::new(),
        paths: BTreeMap::new(),
        prober: None,
        retired: None,
        targets: Vec::new(),
        told_lateness: String::new(),
        told_differences: BTreeMap::new(),
        told_status: String::new(),
    };
    agent.take_settings();
    agent.arrange(view, underlay.private_port).await?;
    agent.attach_underlay(args.mode)?;
    agent.tables.set_fact(Fact::Mode, &agent.mode.to_string())?;
    // Last: from here on the pins are those of a whole attach.
    agent.tables.meta.set(0, owner.meta()?, 0).context("cannot write META")?;
    migrate::tell_formats(&mut agent.tables)?;
    if agent.pins.path() != home.path() {
        migrate::finish(&home, &agent.pins, &mut agent.tables)?;
        agent.pins = home;
    }
    agent.bring_up(FIRST_ANSWERS).await?;
    agent.tell_missing();
    agent.start_prober()?;
    agent.test_firewall().await?;
    Ok(agent)
}

/// The underlay interface for which a view is made.
pub(super) fn place<'a>(args: &AttachArgs, identity: &'a Identity, link: &'a Link, by_kernel: bool) -> Place<'a> {
    Place {
        interface: &link.name,
        ifindex: link.index,
        mtu: link.mtu,
        local: identity.local,
        addresses: &identity.addresses,
        by_kernel,
        // Of a veth, what XDP sends waits or is lost where the far end has no XDP program (`veth_xdp_flush`, `veth_xdp_xmit` in
        // drivers/net/veth.c), and nobody here can see that end.
        xdp_tx: match args.xdp_tx {
            XdpTx::Auto => driver(&link.name).is_ok_and(|driver| driver != "veth"),
            XdpTx::On => true,
            XdpTx::Off => false,
        },
    }
}

impl Agent {
    /// Programs at the underlay interface, where the mode has any.
    fn attach_underlay(&mut self, wanted: Mode) -> anyhow::Result<()> {
        if self.mode.receive == Receive::Kernel {
            return kernel_mode::leave_underlay(&self.pins, &self.devices);
        }
        self.mode = attach_underlay(wanted, &mut self.object, &self.pins, &self.view)?;
        Ok(())
    }
}

/// Why a driver is better off without XDP, if it is.
pub(crate) fn objection_to_xdp(driver: &str) -> Option<String> {
    if driver == "veth" {
        return Some("veth copies every frame for XDP".to_owned());
    }
    WITHOUT_METADATA.contains(&driver).then(|| format!("the driver {driver} passes no XDP metadata"))
}

/// TC first, XDP last: with XDP and no TC, inner frames would enter the host's stack as the NIC's own.
fn attach_underlay(wanted: Mode, object: &mut Object, pins: &PinDir, view: &View) -> anyhow::Result<ReceiveMode> {
    hooks::attach_tc(object, pins, ingress(&view.interface, Tc::Underlay))?;
    let driver = driver(&view.interface).unwrap_or_default();
    let objection = match wanted {
        Mode::Tc => Some("as asked for".to_owned()),
        Mode::Auto => objection_to_xdp(&driver),
        Mode::Xdp | Mode::Kernel => None,
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

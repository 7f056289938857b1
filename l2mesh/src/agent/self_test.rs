//! Does the host's firewall let the mesh port in? What the programs hand to the kernel's receive path goes through its
//! INPUT chains: a firewall that drops the port lets pings pass and hangs bulk TCP (design.md 3).

use std::{net::IpAddr, time::Duration};

use anyhow::Context as _;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use l2mesh_common::{
    tables::Fact,
    verdict::Verdict,
    wire::{Endpoint, EtherType, EthernetHeader, HeadersV4, HeadersV6, MacAddr, Mark, PerFrame, Template},
};
use tokio::time::{Instant, sleep};

use super::{Agent, Receive, chronicle::Subject};
use crate::dataplane::{
    hooks::{self, XdpOutcome},
    object::Tc,
    pins::PinDir,
    tables::Tables,
    view::View,
};

/// How long the frame may take.
const LIMIT: Duration = Duration::from_secs(1);
/// Any port of the range that VTEPs use.
const FIRST_SOURCE_PORT: u16 = 49152;
/// Octets of the test frame.
const FRAME: usize = 60;

impl Agent {
    /// Sends ourselves a frame the way that merged frames take and says if it does not arrive.
    pub(crate) async fn test_firewall(&mut self) -> anyhow::Result<()> {
        let Some(frame) = self.test_frame().await? else { return Ok(()) };
        let before = self.tables.counter(Verdict::SelfTest)?.frames;
        let program = self.object.tc(&self.pins, Tc::SelfTest)?;
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
        program.test_run(options).context("cannot run the firewall test")?;
        let deadline = Instant::now() + LIMIT;
        while self.tables.counter(Verdict::SelfTest)?.frames == before {
            if Instant::now() > deadline {
                return self.firewall_drops();
            }
            sleep(Duration::from_millis(5)).await;
        }
        let arrives = format!("lets UDP port {} in", self.devices.helper_port);
        if self.tables.fact(Fact::Firewall) != arrives {
            self.say(log::Level::Info, Subject::of("firewall"), format!("the host's firewall {arrives}"));
            self.tables.set_fact(Fact::Firewall, &arrives)?;
        }
        Ok(())
    }

    fn firewall_drops(&mut self) -> anyhow::Result<()> {
        let port = self.devices.helper_port;
        let drops = format!("drops UDP port {port} (tested every minute)");
        if self.tables.fact(Fact::Firewall) != drops {
            self.tables.set_fact(Fact::Firewall, &drops)?;
            let hurts = match self.mode.receive {
                Receive::Kernel => "nothing is received in mode kernel",
                Receive::Tc | Receive::Xdp => "pings pass, but bulk TCP received in mode tc hangs",
            };
            let text = format!(
                "the host's firewall drops UDP port {port}: {hurts}. Allow it, \
                 as with `iptables -I INPUT -p udp --dport {port} -j ACCEPT` or `nft insert rule inet filter input udp dport {port} accept`"
            );
            self.say(log::Level::Warn, Subject::of("firewall"), text);
        }
        if self.mode.is_automatic && self.mode.receive == Receive::Tc {
            let View { interface, ifindex, .. } = &self.view;
            if hooks::attach_xdp(&mut self.object, &self.pins, interface, *ifindex)? == XdpOutcome::Attached {
                self.set_mode(Receive::Xdp, "the host's firewall drops the mesh port, which mode tc needs")?;
            }
        }
        Ok(())
    }

    /// A frame from a peer to us: from ourselves, the kernel would drop it as martian. None where it would be dropped for
    /// reasons that are not the firewall's: the interface is down, our address is gone, or no peer is behind the interface
    /// (`rp_filter`).
    async fn test_frame(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let link = self.netlink.link_by_index(self.view.ifindex).await?.filter(|link| link.up);
        let Some(link) = link else { return Ok(None) };
        let Some((local, peer)) = self.peer_behind_interface().await? else { return Ok(None) };
        let Some(vni) = self.view.networks.first().map(|network| network.vni) else {
            return Ok(None);
        };
        Ok(frame(link.mac, (peer, local), vni, self.view.port))
    }

    /// Our address, and that of a peer which the kernel expects behind the underlay interface.
    async fn peer_behind_interface(&self) -> anyhow::Result<Option<(IpAddr, IpAddr)>> {
        for peer in &self.view.peers {
            if let Some(local) = self.view.source_towards(peer)
                && self.netlink.route_to(local, None).await?.is_some_and(|route| route.local)
                && let Some(route) = self.netlink.route_to(peer.address, Some(local)).await?
                && route.oif == self.view.ifindex
                && !route.local
            {
                return Ok(Some((local, peer.address)));
            }
        }
        Ok(None)
    }
}

/// The frame, from a peer to us. `None` if the two are of different IP versions.
pub(crate) fn frame(mac: Option<MacAddr>, (peer, local): (IpAddr, IpAddr), vni: u32, port: u16) -> Option<Vec<u8>> {
    // Without Ethernet header the kernel takes this one off (`__bpf_redirect_no_mac` in net/core/filter.c).
    let mac = mac.unwrap_or(MacAddr::ZERO);
    let nobody = MacAddr::SELF_TEST;
    let inner = EthernetHeader::new(MacAddr::BROADCAST, nobody, EtherType::SELF_TEST);
    let len = u32::try_from(FRAME).ok()?;
    let per_frame = PerFrame { vni, inner, len, source_port: FIRST_SOURCE_PORT, tos: 0, mark: Mark::NONE };
    let mut frame = match (peer, local) {
        (IpAddr::V4(peer), IpAddr::V4(local)) => {
            let source = Endpoint { mac: nobody, address: peer.into() };
            let template = Template::v4(source, Endpoint { mac, address: local.into() }, port);
            bytemuck::bytes_of(&HeadersV4::new(&template, &per_frame).parsed()).to_vec()
        }
        (IpAddr::V6(peer), IpAddr::V6(local)) => {
            let source = Endpoint { mac: nobody, address: peer.into() };
            let template = Template::v6(source, Endpoint { mac, address: local.into() }, port);
            bytemuck::bytes_of(&HeadersV6::new(&template, &per_frame).parsed()).to_vec()
        }
        _ => return None,
    };
    frame.resize(frame.len() - EthernetHeader::LEN + FRAME, 0);
    Some(frame)
}

/// Runs the pinned program with the frame, for others than the agent: whether it arrived.
///
/// # Errors
/// The program is not there, or cannot be run.
pub(crate) async fn run_pinned(pins: &PinDir, tables: &Tables, frame: &[u8]) -> anyhow::Result<bool> {
    let path = pins.pin(Tc::SelfTest.name());
    let program = SchedClassifier::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let before = tables.counter(Verdict::SelfTest)?.frames;
    let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
    program.test_run(options).context("cannot run the firewall test")?;
    let deadline = Instant::now() + LIMIT;
    loop {
        if tables.counter(Verdict::SelfTest)?.frames != before {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        sleep(Duration::from_millis(5)).await;
    }
}

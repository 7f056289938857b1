//! One network on many hosts: the mesh that most tests need.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic;
use std::thread;
use std::time::Duration;

use crate::frames::Frame;
use crate::host::Host;
use crate::kernel_vxlan::{KernelVxlan, VxlanOptions};
use crate::lab::Lab;
use crate::mesh::Agent;
use crate::tap::Tap;

/// How long a frame may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A network with VNI 16 over all these hosts: l2m0 on the nodes, vx0 on the others.
///
/// The hosts have the inner addresses [`Segment::v4`] and [`Segment::v6`] in the order nodes, plain.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Hosts that run l2mesh.
    pub nodes: &'a [Host],
    /// Hosts with a vxlan device of the kernel.
    pub plain: &'a [Host],
    /// Further arguments of `l2mesh attach`.
    pub args: &'a [&'a str],
    /// What the mesh is told; by flags if `None`.
    pub file: Option<File<'a>>,
}

/// A configuration file: what stands there besides nodes, VNI and interface. A node is called as its host.
#[derive(Clone, Copy, Debug, Default)]
pub struct File<'a> {
    /// Lines in the table `[underlay]`.
    pub underlay: &'a str,
    /// Lines in the table `[[network]]`, and tables that follow it.
    pub network: &'a str,
    /// Lines in the `[[node]]` of every node.
    pub node: &'a str,
}

/// A [`File::node`] that is not probed: nothing is on the wires but what a test sends.
pub const NOT_PROBED: &str = "probes = false\n";

impl<'a> Segment<'a> {
    /// The network's identifier.
    pub const VNI: u32 = 16;
    /// Octets of an inner IP packet over an IPv4 underlay of 1500.
    pub const MTU: u32 = 1450;
    /// The longest datagram that is not fragmented, octets of data.
    pub const LONGEST_UDP: usize = Self::MTU as usize - 28;

    /// Of nodes only, by flags.
    #[must_use]
    pub fn of(nodes: &'a [Host], args: &'a [&'a str]) -> Self {
        Self { nodes, plain: &[], args, file: None }
    }

    /// Octets of an inner IP packet over an underlay of 1500: the same on every host, and less if any is reached over IPv6.
    #[must_use]
    #[track_caller]
    pub fn mtu(&self) -> u32 {
        let over_v6 = self.nodes.iter().chain(self.plain).any(|host| host.vtep().is_ipv6());
        if over_v6 { Self::MTU - 20 } else { Self::MTU }
    }

    /// The inner IPv4 address of the host at this place, counted from 0.
    #[must_use]
    #[track_caller]
    pub fn v4(place: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 8, 0, u8::try_from(place + 1).expect("few hosts"))
    }

    /// The inner IPv6 address.
    #[must_use]
    #[track_caller]
    pub fn v6(place: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::try_from(place + 1).expect("few hosts"))
    }

    /// Gives an interface both inner addresses of a place.
    #[track_caller]
    pub fn address(host: &Host, interface: &str, place: usize) {
        host.wait_carrier(interface);
        host.add_address(interface, &format!("{}/24", Self::v4(place)));
        host.add_address(interface, &format!("{}/64", Self::v6(place)));
    }

    /// Attaches all nodes at the same time, and gives l2m0 its addresses.
    #[must_use = "dropping the agents ends them"]
    #[track_caller]
    pub fn up(&self, lab: &Lab) -> Vec<Agent> {
        self.up_with(lab, "")
    }

    /// [`Self::up`] with further lines in the `[[node]]` of every plain host, where there is a file.
    #[must_use = "dropping the agents ends them"]
    #[track_caller]
    pub fn up_with(&self, lab: &Lab, plain: &str) -> Vec<Agent> {
        let path = self.file.map(|file| self.write(lab, &file, plain));
        let attach = |(place, host): (usize, &Host)| {
            // No router solicitations or MLD reports of l2m0's own between the frames of a test.
            host.run("sysctl -qw net.ipv6.conf.default.addr_gen_mode=1");
            let told = path.as_ref().map_or_else(|| self.flags(host), |path| vec!["--config".to_owned(), path.clone()]);
            let args: Vec<&str> = told.iter().map(String::as_str).chain(self.args.iter().copied()).collect();
            let agent = host.attach(&args);
            Self::address(host, "l2m0", place);
            agent
        };
        thread::scope(|scope| {
            let attach = &attach;
            let threads: Vec<_> = self.nodes.iter().enumerate().map(|one| scope.spawn(move || attach(one))).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
            };
            threads.into_iter().map(join).collect()
        })
    }

    /// Attaches all nodes by flags, one after the other, without IPv6 and inner addresses: they send nothing of
    /// their own.
    #[must_use = "dropping the agents ends them"]
    #[track_caller]
    pub fn up_silent(&self) -> Vec<Agent> {
        let attach = |host: &Host| {
            host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
            let flags = self.flags(host);
            let args: Vec<&str> = flags.iter().map(String::as_str).chain(self.args.iter().copied()).collect();
            host.attach(&args)
        };
        self.nodes.iter().map(attach).collect()
    }

    /// Makes the vxlan devices of the others; `options` without a MTU get [`Self::mtu`]. Without learning they are told
    /// where the nodes' MAC addresses are, so the nodes are to be up.
    #[track_caller]
    pub fn plain_up(&self, options: &VxlanOptions) -> Vec<KernelVxlan> {
        let all: Vec<&Host> = self.nodes.iter().chain(self.plain).collect();
        let options = VxlanOptions { mtu: options.mtu.or(Some(self.mtu())), ..options.clone() };
        let make = |(index, host): (usize, &Host)| {
            let own = host.vtep();
            let peers: Vec<IpAddr> = all.iter().map(|peer| peer.vtep()).filter(|peer| *peer != own).collect();
            let device = host.kernel_vxlan(own, &peers, &options);
            if !options.learning {
                for node in self.nodes {
                    device.add_mac(node.mac("l2m0"), node.vtep());
                }
            }
            Self::address(host, &options.name, self.nodes.len() + index);
            device
        };
        self.plain.iter().enumerate().map(make).collect()
    }

    fn flags(&self, own: &Host) -> Vec<String> {
        let mut flags = ["--vni", "16", "--overlay", "l2m0"].map(str::to_owned).to_vec();
        for (flag, hosts) in [("--peer", self.nodes), ("--plain-peer", self.plain)] {
            for host in hosts.iter().filter(|host| host.name() != own.name()) {
                flags.extend([flag.to_owned(), host.vtep().to_string()]);
            }
        }
        flags
    }

    #[track_caller]
    fn write(&self, lab: &Lab, file: &File<'_>, plain: &str) -> String {
        let rest = format!(
            "[underlay]\n{}\n[[network]]\nname = \"lan\"\nvni = {}\ninterface = \"l2m0\"\n{}\n",
            file.underlay,
            Self::VNI,
            file.network
        );
        write_mesh(lab, &[(self.nodes, "l2mesh", file.node), (self.plain, "vxlan", plain)], &rest)
    }
}

/// A configuration file: these hosts, called as they are, and all other tables as they stand here. Returns its path.
#[must_use]
#[track_caller]
pub fn mesh_file(lab: &Lab, nodes: &[Host], rest: &str) -> String {
    write_mesh(lab, &[(nodes, "l2mesh", "")], rest)
}

/// The same with [`NOT_PROBED`].
#[must_use]
#[track_caller]
pub fn mesh_file_not_probed(lab: &Lab, nodes: &[Host], rest: &str) -> String {
    write_mesh(lab, &[(nodes, "l2mesh", NOT_PROBED)], rest)
}

#[track_caller]
fn write_mesh(lab: &Lab, nodes: &[(&[Host], &str, &str)], rest: &str) -> String {
    let mut text = String::new();
    for (hosts, kind, lines) in nodes {
        for host in *hosts {
            let (name, address) = (host.name(), host.vtep());
            writeln!(text, "[[node]]\nname = \"{name}\"\naddress = \"{address}\"\nkind = \"{kind}\"\n{lines}")
                .expect("a String takes everything");
        }
    }
    let path = lab.directory().join("mesh.toml");
    fs::write(&path, text + rest).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path.display().to_string()
}

/// A tap on the overlay interface of every host.
#[must_use]
#[track_caller]
pub fn taps(nodes: &[Host], plain: &[Host]) -> Vec<Tap> {
    let nodes = nodes.iter().map(|host| Tap::open(host, "l2m0"));
    nodes.chain(plain.iter().map(|host| Tap::open(host, "vx0"))).collect()
}

/// Every tap in turn sends the frames that `frames` makes for it: each must arrive at every other exactly once and
/// never come back.
#[track_caller]
pub fn assert_flooded(taps: &mut [Tap], frames: impl Fn(&Tap) -> Vec<Frame>) {
    for sender in 0..taps.len() {
        taps.iter_mut().for_each(Tap::clear);
        let frames = frames(&taps[sender]);
        for frame in &frames {
            taps[sender].send(frame);
        }
        let marker = taps[sender].send_marker(taps[sender].mac());
        for receiver in (0..taps.len()).filter(|receiver| *receiver != sender) {
            let received = taps[receiver].until(&marker, LIMIT);
            for frame in &frames {
                let times = received.iter().filter(|received| received.frame.is_padded(frame)).count();
                assert_eq!(times, 1, "from {sender} to {receiver}: {frame:?}");
            }
        }
        // Whatever comes back to the sender comes before what is sent when all have theirs.
        let last = (sender + 1) % taps.len();
        let echo = taps[last].send_marker(taps[last].mac());
        let returned = taps[sender].until(&echo, LIMIT);
        let ours = |received: &&crate::Received| frames.iter().any(|frame| received.frame.is_padded(frame));
        assert_eq!(returned.iter().find(ours), None, "back at {sender}");
    }
}

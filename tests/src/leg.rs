//! One direction of the way between two hosts, and what is wrong with it: a TC program on the fabric's ports drops what a map
//! says, so that a change takes effect at once and is not a command that runs for some milliseconds.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

use aya::maps::{Array, Map, MapData};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};

use crate::foreign::{BPF_PROG_TYPE_SCHED_CLS, TC_ACT_UNSPEC, attach_tc, instruction, map_create, pin, prog_load};
use crate::host::Host;
use crate::lab::Lab;

/// Octets of an Ethernet header, which the program sees too.
const ETHERNET: u32 = 14;
/// Everything, in thousandths.
const ALL: u32 = 1000;
const TC_ACT_SHOT: i32 = 2;
/// Instructions between those that compare addresses and those that let pass: see `end` in [`dropping`].
const REST: i16 = 17;

/// One direction between two hosts. Dropping it heals it.
pub struct Leg {
    fault: Array<MapData, u64>,
    name: String,
    _programs: Vec<SchedClassifier>,
}

impl fmt::Debug for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Lab {
    /// The way of all IP packets from one host to all addresses of another, healthy so far.
    #[must_use = "dropping it heals it"]
    #[track_caller]
    pub fn leg(&self, from: &Host, to: &Host) -> Leg {
        let (fabric, name) = (self.fabric(), format!("from {} to {}", from.name(), to.name()));
        let map = map_create().expect("an array map");
        let targets = to.uplinks().into_iter();
        let targets = targets.flat_map(|to| [Some(to.address.into()), to.address6.map(IpAddr::from)]).flatten();
        let mut programs = Vec::new();
        for target in targets {
            let program = prog_load(BPF_PROG_TYPE_SCHED_CLS, &dropping(map.as_raw_fd(), target));
            let pin = pin(&fabric, &program.unwrap_or_else(|error| panic!("{name}: a program that drops: {error}")));
            for uplink in from.uplinks().iter().filter(|uplink| !uplink.port.is_empty()) {
                let options = TcAttachOptions::TcxOrder(LinkOrder::first());
                programs.push(attach_tc(&fabric, &uplink.port, &pin, TcAttachType::Ingress, options));
            }
        }
        let map = MapData::from_fd(map).expect("a map");
        let fault = Array::try_from(Map::Array(map)).expect("an array of u64");
        Leg { fault, name, _programs: programs }
    }

    /// Both directions between two hosts.
    #[must_use = "dropping them heals them"]
    #[track_caller]
    pub fn legs(&self, a: &Host, b: &Host) -> [Leg; 2] {
        [self.leg(a, b), self.leg(b, a)]
    }
}

impl Leg {
    /// Nothing gets through.
    #[track_caller]
    pub fn cut(&mut self) {
        self.set(ALL, 0);
    }

    /// So many of a thousand packets are lost.
    #[track_caller]
    pub fn lose(&mut self, per_thousand: u32) {
        self.set(per_thousand, 0);
    }

    /// IP packets of more octets are lost, and nobody says so.
    #[track_caller]
    pub fn lose_longer_than(&mut self, octets: u32) {
        self.set(ALL, octets + ETHERNET);
    }

    /// All gets through.
    #[track_caller]
    pub fn heal(&mut self) {
        self.set(0, 0);
    }

    fn set(&mut self, per_thousand: u32, longer_than: u32) {
        let fault = u64::from(longer_than) << 32 | u64::from(per_thousand);
        self.fault.set(0, fault, 0).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }
}

/// Drops what is for `target`, is longer than the upper half of the map's entry says, and loses a throw of dice against the lower.
fn dropping(map: i32, target: IpAddr) -> Vec<u8> {
    let (kind, at, address): (u16, i32, Vec<u8>) = match target {
        IpAddr::V4(address) => (0x0800, 30, address.octets().to_vec()),
        IpAddr::V6(address) => (0x86dd, 38, address.octets().to_vec()),
    };
    let words: Vec<i32> =
        address.chunks(4).map(|word| i32::from_be_bytes(word.try_into().expect("four octets"))).collect();
    let to_pass = |compared: usize| i16::try_from((words.len() - compared) * 2).expect("few") - 1 + REST;
    let mut code = vec![
        // r6 = the packet, for what loads its octets
        instruction(0xbf, 0x16, 0, 0),
        // if skb->protocol is another, pass
        instruction(0x61, 0x60, 16, 0),
        instruction(0x55, 0x00, to_pass(0) + 1, i32::from(kind.to_be())),
    ];
    for (compared, word) in words.iter().enumerate() {
        // w0 = four octets of the destination; if they differ, pass
        code.push(instruction(0x20, 0, 0, at + 4 * i32::try_from(compared).expect("few")));
        code.push(instruction(0x56, 0x00, to_pass(compared), *word));
    }
    let end = [
        // r0 = lookup(map, 0)
        instruction(0x62, 0x0a, -4, 0),
        instruction(0x18, 0x11, 0, map),
        instruction(0, 0, 0, 0),
        instruction(0xbf, 0xa2, 0, 0),
        instruction(0x07, 0x02, 0, -4),
        instruction(0x85, 0, 0, 1),
        instruction(0x15, 0x00, 10, 0),
        instruction(0xbf, 0x07, 0, 0),
        // if skb->len <= longer_than, pass
        instruction(0x61, 0x61, 0, 0),
        instruction(0x61, 0x72, 4, 0),
        instruction(0xbd, 0x21, 6, 0),
        // if bpf_get_prandom_u32() % 1000 >= per_thousand, pass
        instruction(0x85, 0, 0, 7),
        instruction(0x94, 0x00, 0, 1000),
        instruction(0x61, 0x71, 0, 0),
        instruction(0x3d, 0x10, 2, 0),
        // drop
        instruction(0xb7, 0x00, 0, TC_ACT_SHOT),
        instruction(0x95, 0, 0, 0),
        // pass
        instruction(0xb7, 0x00, 0, TC_ACT_UNSPEC),
        instruction(0x95, 0, 0, 0),
    ];
    code.extend(end);
    code.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Wiring, traffic};

    #[test]
    fn what_is_dropped() {
        let lab = Lab::new("legs");
        let [a, b, c] = lab.routed(["a", "b", "c"], &Wiring { ipv6: true, ..Wiring::default() });
        let both = [IpAddr::from(b.address()), b.address6().into()];
        let mut leg = lab.leg(&a, &b);
        for to in both {
            assert_eq!(traffic::ping(&a, to, 3).lost(), 0, "{to}");
        }
        leg.cut();
        for to in both {
            assert_eq!(traffic::ping(&a, to, 1).received, 0, "{to}");
        }
        assert_eq!((traffic::ping(&a, c.address(), 1).lost(), traffic::ping(&b, c.address6(), 1).lost()), (0, 0));
        leg.lose_longer_than(1000);
        for (to, header) in both.into_iter().zip([28, 48]) {
            assert_eq!(traffic::ping_sized(&a, to, 1, 1000 - header).lost(), 0, "{to}");
            assert_eq!(traffic::ping_sized(&a, to, 1, 1001 - header).lost(), 1, "{to}");
        }
        leg.lose(300);
        let lost = traffic::ping(&a, b.address(), 100).lost();
        assert!((10..=55).contains(&lost), "{lost}");
        leg.heal();
        assert_eq!(traffic::ping(&a, b.address(), 3).lost(), 0);
        leg.cut();
        drop(leg);
        assert_eq!(traffic::ping(&a, b.address(), 3).lost(), 0);
    }
}

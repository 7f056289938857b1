//! An interface that is in a VLAN, as with a VLAN device on it (this kernel has none): programs give every frame sent its
//! tags, beside the frame and before it is cut up, and take them off every frame received.

use std::fmt;

use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};

use crate::foreign::{BPF_PROG_TYPE_SCHED_CLS, TC_ACT_UNSPEC, attach_tc, instruction, pin, prog_load};
use crate::host::Host;

/// `BPF_FUNC_skb_vlan_push` and `BPF_FUNC_skb_vlan_pop` of linux/bpf.h.
const VLAN_PUSH: i32 = 18;
const VLAN_POP: i32 = 19;
/// Where the tag's content stands in `struct __sk_buff`.
const VLAN_TCI: i16 = 24;
const TC_ACT_SHOT: i32 = 2;

/// Tags on an interface. Dropping it takes them off.
pub struct Tagging {
    _programs: [SchedClassifier; 2],
    what: String,
}

impl fmt::Debug for Tagging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Tagging {
    /// Everything that the interface sends gets these tags, type and content, the outermost first. Of what it receives, only
    /// frames with exactly these are let in, without them.
    ///
    /// The programs are the first on the interface: what stands behind them sees tagged frames.
    #[must_use = "dropping it takes the tags off"]
    #[track_caller]
    pub fn start(host: &Host, interface: &str, tags: &[(u16, u16)]) -> Self {
        let what = format!("{interface} on {} in {tags:04x?}", host.name());
        let attach = |code: &[u8], side| {
            let program = prog_load(BPF_PROG_TYPE_SCHED_CLS, code).unwrap_or_else(|error| panic!("{what}: {error}"));
            attach_tc(host, interface, &pin(host, &program), side, TcAttachOptions::TcxOrder(LinkOrder::first()))
        };
        let programs = [attach(&pushing(tags), TcAttachType::Egress), attach(&popping(tags), TcAttachType::Ingress)];
        Self { _programs: programs, what }
    }
}

fn pushing(tags: &[(u16, u16)]) -> Vec<u8> {
    let push = |(kind, content): &(u16, u16)| {
        vec![
            // r1 = r6
            instruction(0xbf, 0x61, 0, 0),
            // r2 = type in wire order, r3 = content
            instruction(0xb7, 0x02, 0, i32::from(kind.to_be())),
            instruction(0xb7, 0x03, 0, i32::from(*content)),
            instruction(0x85, 0, 0, VLAN_PUSH),
        ]
    };
    program(tags.iter().rev().map(push).collect())
}

fn popping(tags: &[(u16, u16)]) -> Vec<u8> {
    let pop = |(_, content): &(u16, u16)| {
        vec![
            // r2 = *(u32 *)(r6 + VLAN_TCI), r0 = r2 - content
            instruction(0x61, 0x62, VLAN_TCI, 0),
            instruction(0xbf, 0x20, 0, 0),
            instruction(0x17, 0x00, 0, i32::from(*content)),
            // Another tag.
            instruction(0x55, 0x00, 2, 0),
            instruction(0xbf, 0x61, 0, 0),
            instruction(0x85, 0, 0, VLAN_POP),
        ]
    };
    program(tags.iter().map(pop).collect())
}

/// `r6 = context`, the steps, each of which must leave 0 in r0, `return TC_ACT_UNSPEC`.
fn program(steps: Vec<Vec<[u8; 8]>>) -> Vec<u8> {
    let mut code = vec![instruction(0xbf, 0x16, 0, 0)];
    for step in steps {
        code.extend(step);
        // if r0 == 0 goto +2; return TC_ACT_SHOT
        code.push(instruction(0x15, 0x00, 2, 0));
        code.push(instruction(0xb7, 0x00, 0, TC_ACT_SHOT));
        code.push(instruction(0x95, 0, 0, 0));
    }
    code.push(instruction(0xb7, 0x00, 0, TC_ACT_UNSPEC));
    code.push(instruction(0x95, 0, 0, 0));
    code.concat()
}

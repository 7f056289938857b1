//! What is learned of neighbours, counted; and what is known and not used.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use l2mesh_tests::{File, Frame, Lab, MacAddr, Segment, Tap, Wiring, taps};

const LIMIT: Duration = Duration::from_secs(5);
const FIRST: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x11]);
const SECOND: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x12]);

/// The O flag of an advertisement: it replaces what was known.
const OVERRIDES: u8 = 0x20;

/// Each sentence of the owner is counted once, and a question is carried for the reason that is counted.
#[test]
fn what_is_known_and_why_it_is_not_used() {
    let lab = Lab::new("neighbours");
    let hosts = lab.switch(["a", "b"], &Wiring::default());
    let file = File { underlay: "", network: "neighbour-suppression = true", ..File::default() };
    let _agents = Segment { nodes: &hosts, plain: &[], args: &["--mode", "tc"], file: Some(file) }.up(&lab);
    // Nobody but the taps has anything to say.
    hosts.iter().for_each(|host| drop(host.run("ip address flush dev l2m0")));
    let mut taps: [Tap; 2] = taps(&hosts, &[]).try_into().expect("two");
    let a = &hosts[0];
    let verdicts =
        ["neighbour-learned", "neighbour-unsure", "neighbour-forgotten", "neighbour-unknown", "neighbour-answered"];
    let counts = || verdicts.map(|verdict| a.counter(verdict));
    let (v4, v6, group) = (Segment::v4(49), Segment::v6(49), MacAddr([0x33, 0x33, 0, 0, 0, 1]));
    let (own, own6) = (Segment::v4(0), Segment::v6(0));
    let announce = |mac: MacAddr, address: IpAddr, flags: u8| match address {
        IpAddr::V4(address) => Frame::arp_request(mac, address, address),
        IpAddr::V6(address) => Frame::neighbour_announcement(mac, address, flags),
    };
    let question = |asker: MacAddr, address: IpAddr| match address {
        IpAddr::V4(address) => Frame::arp_request(asker, own, address),
        IpAddr::V6(address) => Frame::neighbour_solicitation(asker, own6, address),
    };
    // From one host to the other, and what is counted over it.
    let mut passes = |what: &str, from: usize, frame: &Frame, expected: [u64; 5]| {
        let before = counts();
        taps[from].send(frame);
        taps[1 - from].wait_frame(what, LIMIT, |received| received.is_padded(frame));
        let now = counts();
        let change: [u64; 5] = std::array::from_fn(|at| now[at] - before[at]);
        assert_eq!(change, expected, "{what}: {verdicts:?}");
    };
    let asker = a.mac("l2m0");
    for (address, own_address) in [(IpAddr::from(v4), IpAddr::from(own)), (v6.into(), own6.into())] {
        // The asker itself, once.
        passes("the asker announces itself", 0, &announce(asker, own_address, OVERRIDES), [1, 0, 0, 0, 0]);
        passes("a question for nobody", 0, &question(asker, address), [0, 0, 0, 1, 0]);
        passes("its owner", 1, &announce(FIRST, address, OVERRIDES), [1, 0, 0, 0, 0]);
        passes("its owner again", 1, &announce(FIRST, address, OVERRIDES), [0; 5]);
        // On our side.
        passes("ours", 0, &announce(FIRST, address, OVERRIDES), [0; 5]);
        passes("a question for ours", 0, &question(asker, address), [0, 1, 0, 0, 0]);
        passes("it goes back", 1, &announce(FIRST, address, OVERRIDES), [0; 5]);
        // Asked in person, it has not answered yet.
        passes("in person", 0, &question(asker, address).to(FIRST), [0; 5]);
        passes("it is in doubt", 0, &question(asker, address), [0, 1, 0, 0, 0]);
        passes("it is there", 1, &announce(FIRST, address, OVERRIDES), [0; 5]);
    }
    // One that has asked has not said whether it is a router.
    let another: Ipv6Addr = Segment::v6(50);
    passes("its question", 1, &Frame::neighbour_solicitation(SECOND, another, own6), [1, 0, 0, 0, 0]);
    passes("half is known", 0, &question(asker, another.into()), [0, 1, 0, 0, 0]);
    // Another who does not say that it replaces the owner: both may be right.
    passes("no override", 1, &announce(SECOND, v6.into(), 0), [0, 0, 1, 0, 0]);
    passes("nothing is known", 0, &question(asker, v6.into()), [0, 0, 0, 1, 0]);
    passes("no override of nothing", 1, &announce(SECOND, v6.into(), 0), [0; 5]);
    let advertisement = Frame::neighbour_advertisement(FIRST, v6, group, own6);
    passes("an answer to all", 1, &advertisement, [1, 0, 0, 0, 0]);
    let before = a.counter("neighbour-answered");
    taps[0].clear();
    taps[0].send(&question(asker, v6.into()));
    taps[0].wait_frame("the answer", LIMIT, |frame| frame.source() == FIRST);
    assert_eq!(a.counter("neighbour-answered"), before + 1);
}

//! What holds whatever happens.

use std::format;

use proptest::prelude::*;

use super::*;

/// What may happen around the addresses 10.8.0.1 to 4 and the MAC addresses 2:..:1 to 4.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// ARP from a peer (true) or from our side: operation, MAC, sender, target, to all.
    Arp(bool, u16, u8, u8, u8, bool),
    /// Any frame from a MAC address behind the peer.
    Frame(u8),
    /// An ACK: address, MAC address.
    Lease(u8, u8),
    /// Milliseconds pass.
    Wait(u64),
}

/// Mostly every address is at the MAC address of its number, and those from 3 on are behind the peer.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let sender = (any::<bool>(), 0..=4_u8).prop_map(|(usual, other)| (!usual).then_some(other));
    let usual = prop::bool::weighted(0.9);
    let arp = (usual, prop::bool::weighted(0.8), 1..=4_u8, prop::option::weighted(0.1, sender), 1..=4_u8, usual)
        .prop_map(|(usual, is_request, mac, sender, target, to_all)| {
            let sender = sender.flatten().unwrap_or(mac);
            Event::Arp((mac >= 3) == usual, if is_request { 1 } else { 2 }, mac, sender, target, to_all)
        });
    let event = prop_oneof![
        16 => arp,
        2 => (1..=4_u8).prop_map(Event::Frame),
        1 => (1..=4_u8, 1..=4_u8).prop_map(|(address, mac)| Event::Lease(address, mac)),
        3 => prop_oneof![9 => 0..2_000_u64, 1 => 0..400_000_u64].prop_map(Event::Wait),
    ];
    prop::collection::vec(event, 0..100)
}

proptest! {
    /// Whatever happened before, an answer says what was said last, by one who may, not long ago, and not doubted since;
    /// and the asker has been heard by all.
    #[test]
    fn answers_are_sure(events in events()) {
        let mut host = Host { stations: HashMap::new(), ..Host::new() };
        // Of each address: the MAC address said last, from a peer, when; when it was asked in person last.
        let mut said: HashMap<u8, (u8, bool, u64)> = HashMap::new();
        let mut doubted: HashMap<u8, u64> = HashMap::new();
        let mut told: HashMap<u8, (u8, u64)> = HashMap::new();
        // Of each MAC address: when it was heard behind the peer; nothing from when it sent on our side.
        let mut placed: HashMap<u8, u64> = HashMap::new();
        for event in events {
            let now = host.now;
            match event {
                Event::Wait(milliseconds) => host.now += milliseconds * 1_000_000,
                Event::Frame(mac) => {
                    host.receive_from([2, 0, 0, 0, 0, mac]);
                    placed.insert(mac, now);
                }
                Event::Lease(address, mac) => {
                    let claim = Claim { key: address4([10, 8, 0, address]), mac: MacAddr([2, 0, 0, 0, 0, mac]), kind: Kind::Whole };
                    leased(&mut host, &claim);
                    let is_remote = host.stations.contains_key(&claim.station());
                    said.insert(address, (mac, is_remote, now));
                    if is_remote || told.get(&address).is_some_and(|told| told.0 != mac) {
                        told.remove(&address);
                    }
                }
                Event::Arp(remote, operation, mac, sender, target, to_all) => {
                    let ip = |last| if last == 0 { NOBODY } else { [10, 8, 0, last] };
                    let source = [2, 0, 0, 0, 0, mac];
                    let destination = if to_all { BROADCAST } else { [2, 0, 0, 0, 0, 5] };
                    let frame = an_arp(destination, operation, (source, ip(sender)), ip(target));
                    let answer = if remote {
                        host.receive_from(source);
                        placed.insert(mac, now);
                        incoming(&mut host, &frame, PEER);
                        None
                    } else {
                        placed.remove(&mac);
                        sent_by(&mut host, &station(source));
 outgoing(&mut host, &frame, to_all)
                    };
                    let context = format!("{event:?} {answer:?}");
                    if let Some(answer) = answer {
                        prop_assert!(operation == 1 && sender != 0 && sender != target && to_all, "{}", context);
                        let &(owner, from_peer, heard) = said.get(&target).expect("something was said");
                        prop_assert_eq!(answer, Answer { mac: MacAddr([2, 0, 0, 0, 0, owner]), router: false });
                        prop_assert!(from_peer && now - heard <= HEARD_NS && owner != mac, "{}", context);
                        prop_assert!(doubted.get(&target).is_none_or(|&then| then <= heard), "{}", context);
                        prop_assert!(placed.get(&owner).is_some_and(|&then| now - then <= HEARD_NS), "{}", context);
                        let &(asker, when) = told.get(&sender).expect("the asker was heard");
                        prop_assert!(asker == mac && now - when <= TOLD_NS, "{}", context);
                    } else {
                        if sender != 0 {
                            said.insert(sender, (mac, remote, now));
                            if remote || told.get(&sender).is_some_and(|told| told.0 != mac) {
                                told.remove(&sender);
                            }
                            if !remote && to_all {
                                told.insert(sender, (mac, now));
                            }
                        }
                        if operation == 1 && sender != target && (sender == 0 || !to_all) {
                            doubted.insert(target, now);
                        }
                    }
                }
            }
        }
    }

    /// A probe, an announcement, duplicate address detection, anything in person: never a question for anyone.
    #[test]
    fn what_only_the_owner_answers(octets: [u8; 28], destination: [u8; 6], source: [u8; 6], what in 0..3_u8) {
        let mut packet = arp_parsed(&octets);
        let head = arp_octets(1, ASKER, OWNER);
        let mut ethernet = ethernet(BROADCAST, source);
        if what < 2 {
            bytemuck::bytes_of_mut(&mut packet)[..8].copy_from_slice(&head[..8]);
        }
        match what {
            0 => packet.sender = Ipv4Octets(NOBODY),
            1 => packet.target = packet.sender,
            _ => ethernet.destination = MacAddr(destination),
        }
        let question = arp(VNI, &ethernet, &packet).question;
        prop_assert!(!matches!(question, Question::Anyone(_)) || ethernet.destination == MacAddr::BROADCAST && what == 2);
    }

    #[test]
    fn duplicate_address_detection_is_never_answered(target: [u8; 16], option: Option<(u8, [u8; 6])>, mac: [u8; 6]) {
        let said = an_nd(NS, 0, [[0; 16], group(target), target], mac, option);
        prop_assert!(!matches!(said.question, Question::Anyone(_)) && said.claim.is_none());
    }

    /// Any octets of any length are taken or left.
    #[test]
    fn any_octets(arp_octets: [u8; 28], nd_octets in prop::collection::vec(any::<u8>(), 64..80), ethernet: [u8; 14]) {
        let ethernet = bytemuck::pod_read_unaligned(&ethernet);
        let mut host = Host::acquainted();
        let (message, _) = nd_parsed(&nd_octets);
        for said in [arp(VNI, &ethernet, &arp_parsed(&arp_octets)), read_nd(&ethernet, &nd_octets), router(VNI, &ethernet, &message.header)] {
            host.receive(said);
            host.send(ASKER.0, said);
        }
    }
}

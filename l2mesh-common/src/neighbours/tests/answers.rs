//! When an answer is given.

use super::*;

#[test]
fn the_second_question_is_answered() {
    let mut host = Host::acquainted();
    for _ in 0..3 {
        assert_eq!((host.ask(), &host.counted[..]), (at(OWNER.0), &[][..]));
    }
    // Another asker is to be heard by all first.
    let second = ([2, 0, 0, 0, 0, 3], [10, 8, 0, 3]);
    let question = an_arp(BROADCAST, 1, second, OWNER.1);
    assert_eq!(host.send(second.0, question), None);
    assert_eq!(host.counted, [Verdict::AskerTold, Verdict::NeighbourLearned]);
    assert_eq!(host.send(second.0, question), at(OWNER.0));
    // And the first again after a while.
    host.now += TOLD_NS + 1;
    assert_eq!((host.ask(), &host.counted[..]), (None, &[Verdict::AskerTold][..]));
    assert_eq!(host.ask(), at(OWNER.0));
    // And from another MAC address.
    let moved = (OTHER_MAC, ASKER.1);
    assert_eq!(host.send(OTHER_MAC, an_arp(BROADCAST, 1, moved, OWNER.1)), None);
    assert_eq!(host.counted, [Verdict::AskerTold, Verdict::NeighbourMoved]);
}

#[test]
fn who_is_asked_in_person_is_doubted_until_it_is_heard() {
    let unicast = an_arp(OWNER.0, 1, ASKER, OWNER.1);
    let probe = an_arp(BROADCAST, 1, (ASKER.0, NOBODY), OWNER.1);
    for question in [unicast, probe] {
        let mut host = Host::acquainted();
        host.now += SECOND;
        assert_eq!(host.send(ASKER.0, question), None);
        assert_eq!((host.ask(), &host.counted[..1]), (None, &[Verdict::NeighbourUnsure][..]));
        host.now += SECOND;
        host.receive(an_arp(ASKER.0, 2, OWNER, ASKER.1));
        assert_eq!(host.ask(), at(OWNER.0));
        // The same asked by somebody behind a peer.
        host.now += SECOND;
        host.receive(question);
        assert_eq!(host.ask(), None);
    }
}

/// An announcement of our side.
fn sent_and_heard(host: &mut Host, who: ([u8; 6], [u8; 4])) {
    assert_eq!(host.send(who.0, an_arp(BROADCAST, 1, who, who.1)), None);
}

#[test]
fn nobody_is_answered_for_that_is_not_surely_there() {
    type Case = (&'static str, fn(&mut Host), bool);
    let cases: [Case; 8] = [
        ("as it was", |_| {}, true),
        ("long ago", |host| host.now += HEARD_NS + 1, false),
        ("its MAC address is nowhere", |host| host.stations.clear(), false),
        ("its MAC address sends on our side", |host| assert_eq!(host.send(OWNER.0, Said::NOTHING), None), false),
        (
            "and is heard behind the peer again",
            |host| {
                host.send(OWNER.0, Said::NOTHING);
                host.receive_from(OWNER.0);
            },
            true,
        ),
        ("its address is on our side", |host| sent_and_heard(host, (OTHER_MAC, OWNER.1)), false),
        (
            "its MAC address is static",
            |host| {
                host.stations.entry(station(OWNER.0)).and_modify(|it| (it.flags, it.seen_ns) = (FdbEntry::STATIC, 0));
            },
            true,
        ),
        ("it says that it is at a group", |host| host.receive(an_arp(BROADCAST, 2, ([1; 6], OWNER.1), OWNER.1)), false),
    ];
    for (name, change, answered) in cases {
        let mut host = Host::acquainted();
        change(&mut host);
        // So that it is not the asker who is to be heard.
        sent_and_heard(&mut host, ASKER);
        assert_eq!(host.ask().is_some(), answered, "{name}");
    }
}

#[test]
fn a_move_is_followed_at_once() {
    let mut host = Host::acquainted();
    for said in [
        an_arp(BROADCAST, 1, (OTHER_MAC, OWNER.1), OWNER.1),
        an_arp(BROADCAST, 2, OWNER, OWNER.1),
        an_arp(ASKER.0, 2, (OTHER_MAC, OWNER.1), ASKER.1),
        an_arp(BROADCAST, 1, OWNER, ASKER.1),
    ] {
        let mac = said.claim.expect("one").mac;
        host.receive(said);
        assert_eq!(host.counted, [Verdict::NeighbourMoved]);
        assert_eq!(host.ask(), at(mac.0));
    }
    assert_eq!(host.neighbours[&address4(OWNER.1)].moves, 4);
}

#[test]
fn what_dhcp_grants_is_known() {
    let mut host = Host::new();
    host.ask();
    for (mac, answer) in [(OWNER.0, at(OWNER.0)), (ASKER.0, None)] {
        leased(&mut host, &Claim { key: address4(OWNER.1), mac: MacAddr(mac), kind: Kind::Whole });
        assert_eq!(host.ask(), answer, "a client behind a peer is answered for, one on our side is not");
    }
}

#[test]
fn a_full_table_learns_nothing() {
    let mut host = Host { room: 1, ..Host::new() };
    assert_eq!(host.ask(), None);
    host.receive(an_arp(ASKER.0, 2, OWNER, ASKER.1));
    assert_eq!(host.counted, [Verdict::NeighboursFull]);
    assert_eq!((host.ask(), &host.counted[..]), (None, &[Verdict::NeighbourUnknown][..]));
}

#[test]
fn routers_are_answered_for_as_routers() {
    let (asker, owner) = ((v6(1), ASKER.0), (v6(2), OWNER.0));
    let other = (v6(2), OTHER_MAC);
    let mut host = Host::new();
    let ask = |host: &mut Host| host.send(asker.1, solicitation(asker, owner.0));
    assert_eq!(ask(&mut host), None);
    let router = EthernetHeader::new(MacAddr(BROADCAST), MacAddr(owner.1), EtherType::IPV6);
    let announcement =
        super::router(VNI, &router, &nd_parsed(&nd_octets(NS, 0, [owner.0, group(owner.0), owner.0], None)).0.header);
    let expected = |mac: [u8; 6], router| Some(Answer { mac: MacAddr(mac), router });
    let cases = [
        ("its own solicitation does not say", solicitation(owner, v6(3)), None),
        ("a host", advertisement(owner, 0x60), expected(owner.1, false)),
        ("still one", solicitation(owner, v6(3)), expected(owner.1, false)),
        ("a router from now on", advertisement(owner, 0xe0), expected(owner.1, true)),
        ("still one", solicitation(owner, v6(3)), expected(owner.1, true)),
        ("a host again", an_nd(NA, 0x40, [owner.0, asker.0, owner.0], owner.1, None), expected(owner.1, false)),
        ("it announces itself", announcement, expected(owner.1, true)),
        ("elsewhere, and nobody knows as what", solicitation(other, v6(3)), None),
        ("there it is a router", advertisement(other, 0xa0), expected(other.1, true)),
        ("a proxy contradicts", advertisement(owner, 0xc0), None),
        ("the proxy alone is not believed", advertisement(owner, 0xc0), None),
        ("the owner is", advertisement(other, 0x20), expected(other.1, false)),
    ];
    for (name, said, answer) in cases {
        host.receive(said);
        assert_eq!(ask(&mut host), answer, "{name}");
    }
}

#[test]
fn an_answer_is_one_number() {
    for router in [false, true] {
        let answer = Answer { mac: MacAddr(OWNER.0), router };
        assert_eq!(Answer::from_bits(answer.to_bits()), answer);
        assert_ne!(answer.to_bits(), 0);
    }
}

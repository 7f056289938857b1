//! What frames say.

use super::*;

#[test]
fn what_arp_says() {
    let claim =
        |sender: ([u8; 6], [u8; 4])| Some(Claim { key: address4(sender.1), mac: MacAddr(sender.0), kind: Kind::Whole });
    let owner = address4(OWNER.1);
    for (name, said, expected_claim, question) in [
        ("request", an_arp(BROADCAST, 1, ASKER, OWNER.1), claim(ASKER), Question::Anyone(owner)),
        ("unicast request", an_arp(OWNER.0, 1, ASKER, OWNER.1), claim(ASKER), Question::Owner(owner)),
        ("request to a group", an_arp([1; 6], 1, ASKER, OWNER.1), claim(ASKER), Question::Owner(owner)),
        ("probe", an_arp(BROADCAST, 1, (ASKER.0, NOBODY), OWNER.1), None, Question::Owner(owner)),
        ("announcement", an_arp(BROADCAST, 1, ASKER, ASKER.1), claim(ASKER), Question::None),
        ("reply", an_arp(ASKER.0, 2, OWNER, ASKER.1), claim(OWNER), Question::None),
        ("gratuitous reply", an_arp(BROADCAST, 2, OWNER, OWNER.1), claim(OWNER), Question::None),
        ("reply from nobody", an_arp(ASKER.0, 2, (OWNER.0, NOBODY), ASKER.1), None, Question::None),
        ("reverse request", an_arp(BROADCAST, 3, ASKER, OWNER.1), None, Question::None),
        ("for nobody", an_arp(BROADCAST, 1, ASKER, NOBODY), claim(ASKER), Question::None),
        ("for a group", an_arp(BROADCAST, 1, ASKER, [224, 0, 0, 1]), claim(ASKER), Question::None),
        ("for loopback", an_arp(BROADCAST, 1, ASKER, [127, 0, 0, 1]), claim(ASKER), Question::None),
        ("from a group", an_arp(BROADCAST, 1, (ASKER.0, [239, 1, 1, 1]), OWNER.1), None, Question::None),
    ] {
        assert_eq!(said, Said { claim: expected_claim, question }, "{name}");
    }
    // Somebody asks for another: who is answered, and to where?
    let request = arp_parsed(&arp_octets(1, ASKER, ([0; 6], OWNER.1)));
    let said = arp(VNI, &ethernet(BROADCAST, OTHER_MAC), &request);
    assert_eq!(said, Said { claim: claim(ASKER), question: Question::None });
}

#[test]
fn what_neighbour_discovery_says() {
    let (asker, owner) = ((v6(1), ASKER.0), (v6(2), OWNER.0));
    let claim = |who: ([u8; 16], [u8; 6]), kind| Some(Claim { key: address6(who.0), mac: MacAddr(who.1), kind });
    let advertised = |router, overrides| claim(owner, Kind::Advertisement { router, overrides });
    let solicited = claim(asker, Kind::Solicitation);
    let target = address6(owner.0);
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 8, 0, 2];
    let ns = |source, destination, target, option| an_nd(NS, 0, [source, destination, target], asker.1, option);
    let na = |flags, option| an_nd(NA, flags, [owner.0, asker.0, owner.0], owner.1, option);
    for (name, said, claim, question) in [
        ("solicitation", solicitation(asker, owner.0), solicited, Question::Anyone(target)),
        ("unicast", ns(asker.0, owner.0, owner.0, Some((1, asker.1))), solicited, Question::Owner(target)),
        ("unicast without option", ns(asker.0, owner.0, owner.0, None), None, Question::Owner(target)),
        (
            "to the wrong group",
            ns(asker.0, group(v6(3)), owner.0, Some((1, asker.1))),
            solicited,
            Question::Owner(target),
        ),
        ("to all without option", ns(asker.0, group(owner.0), owner.0, None), None, Question::None),
        ("duplicate address detection", ns([0; 16], group(owner.0), owner.0, None), None, Question::Owner(target)),
        (
            "the same with a nonce",
            ns([0; 16], group(owner.0), owner.0, Some((14, [1; 6]))),
            None,
            Question::Owner(target),
        ),
        (
            "the same against the RFC",
            ns([0; 16], group(owner.0), owner.0, Some((1, asker.1))),
            None,
            Question::Owner(target),
        ),
        ("for itself", solicitation(asker, asker.0), solicited, Question::None),
        (
            "for another",
            an_nd(NS, 0, [asker.0, group(owner.0), owner.0], OTHER_MAC, Some((1, asker.1))),
            solicited,
            Question::None,
        ),
        ("for a group", ns(asker.0, group(owner.0), [0xff; 16], Some((1, asker.1))), None, Question::None),
        ("for a mapped address", ns(asker.0, group(mapped), mapped, Some((1, asker.1))), None, Question::None),
        ("advertisement", na(0x60, Some((2, owner.1))), advertised(false, true), Question::None),
        ("of a router", na(0xe0, Some((2, owner.1))), advertised(true, true), Question::None),
        ("of a proxy", na(0x40, Some((2, owner.1))), advertised(false, false), Question::None),
        ("without address", na(0xe0, None), advertised(true, false), Question::None),
        ("with the wrong option", na(0xe0, Some((1, owner.1))), advertised(true, false), Question::None),
    ] {
        assert_eq!(said, Said { claim, question }, "{name}");
    }
}

#[test]
fn options_that_are_not_read_unsettle() {
    for (kind, about) in [(NS, v6(1)), (NA, v6(2))] {
        let mut packet = nd_octets(kind, 0x60, [v6(1), group(v6(2)), v6(2)], Some((1, ASKER.0)));
        packet[5] += 8;
        let said = read_nd(&ethernet(BROADCAST, ASKER.0), &packet);
        assert_eq!(said, Said { claim: None, question: Question::Owner(address6(about)) });
    }
}

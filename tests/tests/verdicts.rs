//! Every verdict is hit: by a frame here, or by the test that is named. A new one does not compile before it is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use l2mesh_common::verdict::{Fate, Verdict};
use l2mesh_tests::fates::{KNOWN, Mesh, STRANGER};
use l2mesh_tests::{Frame, MacAddr, Tap, wait_for};

const LIMIT: Duration = Duration::from_secs(5);

/// Where a verdict is hit.
#[derive(Clone, Copy)]
enum Hit {
    /// By this.
    Here(fn(&Mesh)),
    /// By a test: file and name. Its file speaks of the counter.
    In(&'static str, &'static str),
    /// By nothing that anybody knows, for this reason.
    Never(&'static str),
}

/// For every verdict there is.
#[expect(clippy::too_many_lines, reason = "a row for each")]
fn hit(verdict: Verdict) -> Hit {
    use Hit::{Here, In, Never};
    match verdict {
        Verdict::Sent => Here(|mesh| sent(mesh, &datagram(KNOWN, 8))),
        Verdict::Flooded | Verdict::FloodCopies => Here(|mesh| sent(mesh, &datagram(STRANGER, 8))),
        Verdict::Received => Here(|mesh| received(mesh, |_| ())),
        Verdict::HandedToHelper => Here(|mesh| received(mesh, |frame| frame[INNER + 23] = 6)),
        Verdict::NotVxlan => Never("it is not counted: the host's own traffic pays for nothing"),
        Verdict::OtherVni => Here(|mesh| received(mesh, |frame| frame[VNI] = 99)),
        Verdict::Fragment => Here(|mesh| received(mesh, |frame| frame[20] = 0x20)),
        Verdict::IpOptions => Here(|mesh| received(mesh, |frame| frame[14] = 0x46)),
        Verdict::NoMetadata => Here(|mesh| {
            let frame = mesh.wrap(&datagram(mesh.a().mac("l2m10"), 8));
            mesh.pinned.run_xdp_behind("underlay_xdp", &[0; 216], &frame);
        }),
        Verdict::Declined => Here(|mesh| {
            mesh.a().wait_transmit("egress shortcut");
            tap_sends(mesh, &datagram(KNOWN, 8).tagged(5));
        }),

        Verdict::Truncated => Here(|mesh| received(mesh, |frame| frame[17] += 1)),
        Verdict::BadIpHeader => Here(|mesh| received(mesh, |frame| frame[14] = 0x55)),
        Verdict::NoVniFlag => Here(|mesh| received(mesh, |frame| frame[42] = 0)),
        Verdict::ReservedBits => Here(|mesh| received(mesh, |frame| frame[43] = 1)),
        Verdict::UnknownSource => Here(|mesh| received(mesh, |frame| frame[29] = 99)),
        Verdict::NotMember => Here(|mesh| received(mesh, |frame| frame[VNI] = 17)),
        Verdict::GroupSource => Here(|mesh| received(mesh, |frame| frame[INNER + 6] |= 1)),
        Verdict::OwnSource => Here(|mesh| {
            let own = mesh.a().mac("l2m10");
            received(mesh, |frame| frame[INNER + 6..INNER + 12].copy_from_slice(&own.0));
        }),
        Verdict::DecapFailed => {
            Never("in TC the kernel's own receive path takes such a frame, in XDP the check before has seen it")
        }
        Verdict::OverMtu => In("offload", "frames_above_the_mtu_are_delivered"),
        Verdict::SelfTest => Here(|mesh| {
            let inner = Frame::ethernet(mesh.a().mac("l2m10"), MacAddr::SELF_TEST, 0x88b6, &[0; 46]);
            mesh.pinned.run_tc("helper_tc", mesh.index("eth0"), inner.octets());
        }),
        Verdict::LinkLocalReceived => Here(|mesh| {
            received(mesh, |frame| frame[INNER..INNER + 6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0]));
        }),
        Verdict::NotOurVni => Here(|mesh| {
            let mut frame = mesh.wrap(&datagram(mesh.a().mac("l2m10"), 8));
            frame[VNI] = 99;
            from_the_wire(mesh, frame);
        }),
        // CE outside, not ECN-capable inside.
        Verdict::Unmarkable => Here(|mesh| received(mesh, |frame| frame[15] = 3)),

        Verdict::NoNetwork => Here(|mesh| {
            mesh.pinned.run_tc("overlay_tc", mesh.index("eth0"), datagram(KNOWN, 8).octets());
        }),
        Verdict::Runt => Never(
            "no interface with Ethernet headers lets so little in (`dev_validate_header`), nor does `BPF_PROG_TEST_RUN`",
        ),
        Verdict::SentGroupSource => Here(|mesh| {
            let mut frame = datagram(KNOWN, 8).octets().to_vec();
            frame[6] |= 1;
            sent(mesh, &Frame::raw(frame));
        }),
        Verdict::LinkLocal => Here(|mesh| sent(mesh, &Frame::lldp(STRANGER, b"x"))),
        Verdict::VlanDepth => Here(|mesh| tap_sends(mesh, &datagram(KNOWN, 8).tagged(5).tagged(6).tagged(7))),
        Verdict::TooBig => Here(|mesh| sent(mesh, &Frame::unknown(KNOWN, STRANGER, &[7; 1451]))),
        Verdict::NoNextHop => Here(|mesh| {
            let id = peer_id(mesh);
            let before =
                mesh.pinned.change_peer(id, |peer| peer.next_hop = [l2mesh_common::tables::NextHop::UNKNOWN; 2]);
            sent(mesh, &datagram(KNOWN, 8));
            mesh.pinned.change_peer(id, |peer| *peer = before);
        }),
        Verdict::NoPeers => Here(|mesh| {
            mesh.pinned.run_tc("overlay_tc", mesh.index("l2p13"), datagram(STRANGER, 8).octets());
        }),
        // Segments of something that is not IP: no card cuts those.
        Verdict::EncapFailed => Here(|mesh| {
            let frame = Frame::unknown(KNOWN, STRANGER, &[7; 3000]);
            mesh.pinned.run_tc_gso("overlay_tc", mesh.index("l2p10"), frame.octets(), 1000);
        }),
        // A copy out of an interface that is not there any more.
        Verdict::CopyFailed => Here(|mesh| {
            let id = peer_id(mesh);
            let before = mesh.pinned.change_peer(id, |peer| {
                peer.next_hop[0].ifindex = 9999;
                peer.next_hop[1].ifindex = 9999;
            });
            mesh.pinned.run_tc("overlay_tc", mesh.index("l2p12"), datagram(STRANGER, 8).octets());
            mesh.pinned.change_peer(id, |peer| *peer = before);
        }),
        Verdict::StoreFailed => Never("room that was just made is there"),

        Verdict::Learned => Here(|mesh| received(mesh, |frame| frame[INNER + 11] = 0x77)),
        Verdict::Moved => In("mesh", "a_mac_that_moves_is_followed_at_its_first_frame"),
        Verdict::FdbFull => In("moves", "a_full_table_is_one_line"),
        Verdict::StaticElsewhere => In("mesh", "a_static_mac_is_never_learned_over"),

        Verdict::TooBigTold => Here(|mesh| sent(mesh, &datagram(KNOWN, 1500))),
        Verdict::TooBigSilent => Here(|mesh| (0..30).for_each(|_| sent(mesh, &datagram(KNOWN, 1500)))),
        Verdict::Fragmented => Here(|mesh| sent(mesh, &datagram(KNOWN, 1500).without_df())),
        Verdict::CopyTooBig => Here(|mesh| sent(mesh, &datagram(MacAddr::BROADCAST, 1500))),
        Verdict::MssLowered => In("mss", "lowered_over_ipv4"),
        Verdict::PathMtuLowered => In("complaints", "believed_for_a_time_over_ipv4"),
        Verdict::PathMtuRefused => In("complaints", "forged_is_refused_over_ipv4"),

        Verdict::StormSentSource | Verdict::StormSent => In("storms", "shares_of_what_is_sent"),
        Verdict::StormReceivedSource | Verdict::StormReceivedPeer | Verdict::StormReceived => {
            In("storms", "shares_of_what_is_received")
        }
        Verdict::Frozen | Verdict::FrozenElsewhere => In("moves", "a_mac_that_moves_too_often_is_frozen_for_a_while"),
        Verdict::PeerFull => In("moves", "a_peer_has_so_many_macs_and_no_more"),

        Verdict::NeighbourAnswered => In("suppression", "the_second_question_stays_here"),
        Verdict::NeighbourMoved => In("suppression", "a_move_is_followed_at_once"),
        Verdict::NeighboursFull => In("suppression", "a_full_table_floods"),
        Verdict::NeighbourUnknown => In("suppression", "what_is_not_known_is_carried"),
        Verdict::AskerTold => In("suppression", "a_new_asker_is_heard_by_all"),
        Verdict::NeighbourLearned | Verdict::NeighbourUnsure | Verdict::NeighbourForgotten => {
            In("neighbour_counts", "what_is_known_and_why_it_is_not_used")
        }

        Verdict::ProbeReflected
        | Verdict::ProbeStranger
        | Verdict::ProbeUnknown
        | Verdict::ProbeFlood
        | Verdict::ProbeNoWay => In("forged", "requests_over_ipv4"),
        Verdict::ProbeAnswered | Verdict::ProbeForged | Verdict::ProbeLate | Verdict::ProbeFuture => {
            In("forged", "replies_over_ipv4")
        }
        Verdict::Relayed
        | Verdict::RelayStranger
        | Verdict::RelayUnknown
        | Verdict::RelaySelf
        | Verdict::RelayBack
        | Verdict::RelayNotMember
        | Verdict::RelayNoWay
        | Verdict::RelayTooBig => In("forged", "to_be_relayed_over_ipv4"),
        Verdict::RelayForbidden => In("forged", "at_a_host_that_does_not_relay"),
        Verdict::RelayFailed => Never("room for a longer outer header is made in memory, and a shorter one fits"),
        Verdict::RelayedStranger | Verdict::RelayedOrigin | Verdict::ReceivedRelayed => {
            In("forged", "relayed_over_ipv4")
        }
        Verdict::SentRelayed => In("ping", "through_a_relay_and_along_the_path_in_use"),
        Verdict::NoPathUp => In("partial", "all_paths_dead"),
    }
}

/// Where the inner frame and the last octet of the VNI stand in what comes from b.
const INNER: usize = 50;
const VNI: usize = 48;

/// A datagram from a station of our side in a packet of `octets` octets.
fn datagram(to: MacAddr, octets: usize) -> Frame {
    let [near, far] = ["10.8.0.1:1000", "10.8.0.2:2000"].map(|text| text.parse().expect("an address"));
    Frame::udp(to, STRANGER, near, far, &vec![7; octets.max(28) - 28])
}

/// Sent by a in network 16.
fn sent(mesh: &Mesh, frame: &Frame) {
    mesh.pinned.run_tc("overlay_tc", mesh.index("l2p10"), frame.octets());
}

/// The same through the interface.
fn tap_sends(mesh: &Mesh, frame: &Frame) {
    Tap::sender(mesh.a(), "l2m10").send(frame);
}

/// Received by a in mode tc from b in network 16, after something is changed in it.
fn received(mesh: &Mesh, change: impl Fn(&mut [u8])) {
    let mut frame = mesh.wrap(&datagram(mesh.a().mac("l2m10"), 60));
    change(&mut frame);
    mesh.pinned.run_tc("underlay_tc", mesh.index("eth0"), &frame);
}

/// The same through the wire.
fn from_the_wire(mesh: &Mesh, frame: Vec<u8>) {
    Tap::sender(&mesh.hosts[1], "eth0").send(&Frame::raw(frame));
}

/// The number of b.
fn peer_id(mesh: &Mesh) -> u32 {
    mesh.a().peer(&mesh.hosts[1])["id"].as_u64().and_then(|id| u32::try_from(id).ok()).expect("a number")
}

#[test]
fn every_verdict_is_hit() {
    let mesh = Mesh::new();
    let mut missing = Vec::new();
    for verdict in Verdict::ALL {
        let label = verdict.label();
        match hit(*verdict) {
            Hit::Here(provoke) => {
                let before = mesh.pinned.counters()[label];
                provoke(&mesh);
                wait_for(&format!("{label} is counted"), LIMIT, || match mesh.pinned.counters()[label] {
                    now if now > before => Ok(()),
                    now => Err(format!("{now}; {:?}", mesh.pinned.counters())),
                });
            }
            Hit::In(file, test) => {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{file}.rs"));
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let is_there = text.contains(&format!("#[test]\nfn {test}("));
                let speaks = [format!("\"{label}\""), format!("Verdict::{verdict:?}")];
                if !is_there || !speaks.iter().any(|it| text.contains(it)) {
                    missing.push(format!("{label}: no test {test} that speaks of it in {}", path.display()));
                }
            }
            Hit::Never(reason) => {
                let is_right = !verdict.is_counted() || verdict.fate() == Fate::Dropped;
                assert!(is_right && mesh.pinned.counters()[label] == 0, "{label}: {reason}");
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

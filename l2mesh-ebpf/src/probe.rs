//! Probes: those of others sent back, answers to ours noted (design.md 4 and 5). No process is involved.

use l2mesh_common::{
    bucket::Rate,
    path::{self, Answered, NoAnswer},
    relay,
    tables::{BucketKey, PeerId, Settings},
    verdict::Verdict,
    wire::{Fingerprint, Mark, OuterV4, OuterV6, PerFrame, Probe, ProbeKind, Reachability},
};

use crate::{
    decap::Arrived,
    packet::{Family, Underlay, exact_now_ns, now_ns},
    relay::{Marked, known, known_at},
    tables,
};

/// Probes of one peer that are sent back: four paths at 10 ms are 400 a second.
const REFLECTED: Rate = Rate::per_second(2_000);

#[inline(always)]
pub(crate) fn take(
    packet: &mut impl Underlay,
    settings: &Settings,
    arrived: &Arrived,
    mark: Mark,
) -> Result<Marked, Verdict> {
    let at = known_at(&arrived.source);
    let (peer, via) = if mark.has(Mark::RELAYED) {
        let via = relay::comes_from_relay(at).map_err(|_| Verdict::ProbeStranger)?;
        let peer = relay::origin(via, known(mark.node), None).map_err(|_| Verdict::ProbeStranger)?;
        (peer, via)
    } else {
        let at = at.filter(|at| at.peer.is_node()).ok_or(Verdict::ProbeStranger)?;
        (at.id, at.id)
    };
    let probe = match arrived.family {
        Family::V4 => packet.header::<Probe>(OuterV4::LEN),
        Family::V6 => packet.header::<Probe>(OuterV6::LEN),
    };
    let probe = *probe.ok_or(Verdict::ProbeUnknown)?;
    match probe.kind().ok_or(Verdict::ProbeUnknown)? {
        ProbeKind::Request => reflect(packet, settings, arrived, peer, via).map(Marked::Sent),
        ProbeKind::Reply => {
            let fingerprint = match arrived.family {
                Family::V4 => packet.header::<Fingerprint>(OuterV4::LEN + Probe::LEN),
                Family::V6 => packet.header::<Fingerprint>(OuterV6::LEN + Probe::LEN),
            };
            note(&probe, peer, via, fingerprint.map_or(0, |it| it.to_bits()))?;
            if let Some(at) = room_for_reachability(arrived.family, packet.frame_len())
                && let Some(noted) = tables::reported(peer)
            {
                packet.hear(at, noted);
            }
            tables::count(Verdict::ProbeAnswered, packet.frame_len());
            Ok(Marked::Heard)
        }
    }
}

/// Sends a probe back the way it came: to where our own table has its sender, or the relay, not to where it says.
#[inline(always)]
fn reflect(
    packet: &mut impl Underlay,
    settings: &Settings,
    arrived: &Arrived,
    peer: PeerId,
    via: PeerId,
) -> Result<u32, Verdict> {
    let next_hop = tables::peer(via).ok_or(Verdict::ProbeNoWay)?.current();
    if !next_hop.is_known() || Family::of(next_hop) != Some(arrived.family) {
        return Err(Verdict::ProbeNoWay);
    }
    if !packet.can_leave_by(settings, next_hop.ifindex) {
        return Err(Verdict::NotVxlan);
    }
    if let Some(bucket) = tables::bucket(&BucketKey::probes_of(peer, via != peer)) {
        let (now, full_at) = (now_ns(), bucket.full_at_ns.get());
        if !REFLECTED.admits(full_at, now) {
            return Err(Verdict::ProbeFlood);
        }
        bucket.full_at_ns.set(REFLECTED.after(full_at, now, 1));
    }
    let mark = if via == peer {
        Mark { flags: Mark::PROBE, node: 0 }
    } else {
        let node = tables::peer(peer).map_or(0, |peer| peer.node_id);
        Mark { flags: Mark::PROBE | Mark::RELAY, node }
    };
    let frame = PerFrame::forwarded(&arrived.udp, 0, arrived.tos, arrived.inner, mark);
    let len = packet.frame_len();
    packet.replace(arrived.family.outer() + Probe::KIND as u32, &Probe::REPLY)?;
    let room = arrived.family.outer() + Probe::LEN as u32;
    // A node of an earlier version leaves none.
    if len >= room + Fingerprint::LEN as u32 {
        packet.replace(room, &settings.fingerprint)?;
    }
    if let Some(at) = room_for_reachability(arrived.family, len)
        && let Some(own) = tables::own_reachability()
    {
        packet.say(at, own)?;
    }
    packet.rewrite(arrived.family, arrived.family, &next_hop.template, &frame)?;
    tables::count(Verdict::ProbeReflected, len);
    Ok(next_hop.ifindex)
}

/// Where it stands what the reflecting node says of others: long probes have room for it.
#[inline(always)]
fn room_for_reachability(family: Family, len: u32) -> Option<u32> {
    let at = family.outer() + (Probe::LEN + Fingerprint::LEN) as u32;
    (len >= at + Reachability::LEN as u32).then_some(at)
}

/// Notes an answer, if it is one to a probe that we sent this way and that waits for it.
#[inline(always)]
fn note(probe: &Probe, peer: PeerId, via: PeerId, fingerprint: u64) -> Result<(), Verdict> {
    const TRIES: usize = 3;
    let place = probe.path();
    let slot = path::slot(peer, place);
    let (Some(tx), Some(rx)) = (tables::path_tx(slot), tables::path_rx(slot)) else { return Err(Verdict::ProbeForged) };
    if tx.nonce == 0 || probe.nonce() != tx.nonce || !path::comes_its_way(tx, place, peer, via) {
        return Err(Verdict::ProbeForged);
    }
    let sequence = probe.sequence();
    if place.is_search() {
        path::searched(tx, rx.search(), sequence).map_err(refused)?;
        rx.set_search(sequence);
        return Ok(());
    }
    for _ in 0..TRIES {
        let before = rx.answered.get();
        let after = path::answer(tx, Answered::from_bits(before), sequence).map_err(refused)?;
        // Another CPU may be at it with another answer.
        if rx.answered.exchange(before, after.to_bits()) {
            rx.rtt_ns.set(exact_now_ns().saturating_sub(probe.sent_ns()));
            rx.answers.add(1);
            if let Some(noted) = tables::fingerprint(slot) {
                noted.set(fingerprint);
            }
            if probe.is_padded() {
                rx.set_padded(sequence);
            }
            return Ok(());
        }
    }
    Err(Verdict::ProbeLate)
}

#[inline(always)]
fn refused(reason: NoAnswer) -> Verdict {
    match reason {
        NoAnswer::Late => Verdict::ProbeLate,
        NoAnswer::Future => Verdict::ProbeFuture,
    }
}

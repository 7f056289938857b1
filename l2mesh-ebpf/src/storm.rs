//! Storm control: how much goes to everybody (`l2mesh_common::bucket`).
//!
//! Sent and received have buckets of their own: a storm from outside must not keep this host's own requests from being sent.
//! A frame takes from all its buckets or from none, so that a storm which the bucket of its source ends leaves the others
//! full. The widest is looked at first: once it is empty, frames from ever new addresses make no new buckets.

use l2mesh_common::{
    bucket::{Rate, is_over, share_of_peer, share_of_source},
    tables::{BucketKey, FdbKey, Network, PeerId},
    verdict::Verdict,
};

use crate::{
    apart,
    learn::tell,
    packet::now_ns,
    tables::{self, SharedBucket},
};

/// [`send`], in a room of its own.
#[inline(always)]
pub(crate) fn send_apart(limit: u32, network: u16, source: &FdbKey, frames: u32) -> Result<(), Verdict> {
    if limit == 0 { Ok(()) } else { apart::from_bits(apart::storm_send(limit, network, source, frames)) }
}

/// [`receive`], in a room of its own.
#[inline(always)]
pub(crate) fn receive_apart(network: &Network, source: &FdbKey, peer: PeerId, frames: u32) -> Result<(), Verdict> {
    match network.storm_limit {
        0 => Ok(()),
        limit => apart::from_bits(apart::storm_receive(limit, network.number, source, peer, frames)),
    }
}

/// Takes a frame that this host is to flood from the buckets of its network and its source. `frames` are those on the wire.
#[inline(always)]
pub(crate) fn send(limit: u32, network: u16, source: &FdbKey, frames: u32) -> Result<(), Verdict> {
    take_sent(limit, source, frames).inspect_err(|_| tables::count_storm_sent(network, frames))
}

/// Takes a received frame for a group from the buckets of its network, its peer and its source.
#[inline(always)]
pub(crate) fn receive(limit: u32, network: u16, source: &FdbKey, peer: PeerId, frames: u32) -> Result<(), Verdict> {
    take_received(limit, source, peer, frames).inspect_err(|_| tables::count_storm_received(network, frames))
}

#[inline(always)]
fn take_sent(limit: u32, source: &FdbKey, frames: u32) -> Result<(), Verdict> {
    let taking = Taking { source, peer: 0, frames, now: now_ns() };
    let all = taking.limit(&BucketKey::sent(source.vni), limit, Verdict::StormSent)?;
    let key = BucketKey::sent_by(source.vni, source.mac);
    let own = taking.limit(&key, share_of_source(limit), Verdict::StormSentSource)?;
    taking.take(&all);
    taking.take(&own);
    Ok(())
}

#[inline(always)]
fn take_received(limit: u32, source: &FdbKey, peer: PeerId, frames: u32) -> Result<(), Verdict> {
    let taking = Taking { source, peer, frames, now: now_ns() };
    let all = taking.limit(&BucketKey::received(source.vni), limit, Verdict::StormReceived)?;
    let key = BucketKey::received_from(source.vni, peer);
    let its = taking.limit(&key, share_of_peer(limit), Verdict::StormReceivedPeer)?;
    let key = BucketKey::received_of(source.vni, source.mac);
    let own = taking.limit(&key, share_of_source(limit), Verdict::StormReceivedSource)?;
    taking.take(&all);
    taking.take(&its);
    taking.take(&own);
    Ok(())
}

/// A frame on its way past its limits.
struct Taking<'a> {
    source: &'a FdbKey,
    peer: PeerId,
    frames: u32,
    now: u64,
}

/// One of them. Without a bucket, which the kernel makes as long as it has memory, there is no limit.
struct Limit {
    bucket: Option<&'static SharedBucket>,
    rate: Rate,
}

impl Taking<'_> {
    /// A limit that lets the frame through.
    #[inline(always)]
    fn limit(&self, key: &BucketKey, frames_per_second: u32, verdict: Verdict) -> Result<Limit, Verdict> {
        let limit = Limit { bucket: tables::bucket(key), rate: Rate::per_second(frames_per_second) };
        match limit.bucket {
            Some(bucket) if !limit.rate.admits(bucket.full_at_ns.get(), self.now) => {
                self.refuse(bucket, verdict);
                Err(verdict)
            }
            _ => Ok(limit),
        }
    }

    /// Several CPUs that see the same last token all take it, but each pays.
    #[inline(always)]
    fn take(&self, limit: &Limit) {
        let Some(SharedBucket { full_at_ns, .. }) = limit.bucket else { return };
        let cost = limit.rate.cost_ns(self.frames);
        if full_at_ns.get() < self.now {
            // Of those that find it full at the same moment, one may pay for all.
            full_at_ns.set(self.now + cost);
        } else {
            full_at_ns.add(cost);
        }
    }

    /// Counts what is refused, and tells the agent now and then: an event may get lost.
    #[inline(always)]
    fn refuse(&self, bucket: &SharedBucket, verdict: Verdict) {
        let SharedBucket { dropped_at_ns, told_at_ns, dropped, .. } = bucket;
        let dropped_at = dropped_at_ns.get();
        if is_over(dropped_at, self.now) {
            dropped.set(self.frames.into());
        } else {
            dropped.add(self.frames.into());
        }
        // Once a tick, not once a frame.
        if dropped_at != self.now {
            dropped_at_ns.set(self.now);
        }
        if is_over(told_at_ns.get(), self.now) {
            told_at_ns.set(self.now);
            tell(verdict, self.source, self.peer, self.peer);
        }
    }
}

//! One TC program on many devices: a block of filters that their ingress qdiscs share.
//!
//! A program on tcx (`BPF_LINK_CREATE`) makes the kernel wait for its readers, 8 to 16 ms with everybody else's changes held
//! up (`tcx_entry_sync` in kernel/bpf/tcx.c), once a device. A qdisc that joins a block waits for nothing (measured: 4,094
//! in 0.15 s), but its filter costs each frame some 50 ns more.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcHandle, TcHeader, TcMessage},
    },
};

use super::{Error, Netlink};

// linux/rtnetlink.h, linux/pkt_cls.h.
const TCA_OPTIONS: u16 = 2;
const TCA_INGRESS_BLOCK: u16 = 13;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
/// Every protocol; libc has it as a number that fits no field.
const ETH_P_ALL: u16 = 3;
/// `TC_H_MAJ(TC_H_INGRESS)`, the handle of an ingress qdisc.
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// Any: ours is the only filter of the block.
const PRIORITY: u32 = 1;
const FILTER_HANDLE: u32 = 1;

impl Netlink {
    /// Gives devices an ingress qdisc that uses a block. One that is there already stays.
    ///
    /// Do this while a device is down: the kernel lets go of what it sends just then.
    ///
    /// # Errors
    /// When the kernel refuses, as one without ingress qdiscs does.
    pub(crate) async fn share_ingress(&self, devices: &[u32], block: u32) -> Result<(), Error> {
        let doing = "make ingress qdiscs";
        let requests = devices.iter().map(|&device| {
            let mut message = TcMessage::default();
            message.header.index = device.cast_signed();
            message.header.parent = TcHandle::INGRESS;
            message.header.handle = INGRESS_HANDLE.into();
            message.attributes.push(TcAttribute::Kind("ingress".into()));
            let block = DefaultNla::new(TCA_INGRESS_BLOCK, block.to_ne_bytes().to_vec());
            message.attributes.push(TcAttribute::Other(block));
            (RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL)
        });
        match self.changes(doing, requests).await?.into_iter().find_map(Result::err) {
            None | Some(Errno::EEXIST) => Ok(()),
            Some(errno) => Err(Error::new(doing, errno)),
        }
    }

    /// Makes a program the filter of a block, in place of the one that is there: no frame passes in between.
    ///
    /// # Errors
    /// When the kernel refuses, as one without `cls_bpf` does, or no device uses the block.
    pub(crate) async fn set_block_program(&self, block: u32, name: &str, program: BorrowedFd<'_>) -> Result<(), Error> {
        let doing = format!("attach {name} to a block");
        let options = [
            attribute(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes()),
            attribute(TCA_BPF_NAME, &[name.as_bytes(), &[0]].concat()),
            attribute(TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes()),
        ];
        let mut message = filter(block);
        message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options.concat())));
        let result = self.change(&doing, RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE).await?;
        result.map_err(|errno| Error::new(doing, errno))
    }

    /// Removes the filter of a block; that there is none, or no block, is success.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(crate) async fn clear_block(&self, block: u32) -> Result<(), Error> {
        let doing = "empty a block";
        match self.change(doing, RouteNetlinkMessage::DelTrafficFilter(filter(block)), 0).await? {
            Ok(()) | Err(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(Error::new(doing, errno)),
        }
    }
}

/// The one filter of a block: `tcm_parent` holds the block's number.
fn filter(block: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = TcHeader::TCM_IFINDEX_MAGIC_BLOCK.cast_signed();
    message.header.parent = block.into();
    message.header.handle = FILTER_HANDLE.into();
    message.header.info = PRIORITY << 16 | u32::from(ETH_P_ALL.to_be());
    message.attributes.push(TcAttribute::Kind("bpf".into()));
    message
}

/// Length with header and type (u16 both), the value, padding to four octets.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut octets = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    octets.extend(value);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::{
        super::testing::{Namespace, index},
        *,
    };

    #[test]
    fn qdiscs_that_share_a_block() {
        let host = Namespace::new();
        for (one, other) in [("va", "vb"), ("vc", "vd")] {
            host.ip(&format!("link add {one} type veth peer name {other}"));
        }
        let devices = ["vb", "vd"].map(|name| index(&host, name));
        host.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            netlink.clear_block(77).await.expect("there is none");
            for _ in 0..2 {
                netlink.share_ingress(&devices, 77).await.expect("qdiscs");
            }
            netlink.clear_block(77).await.expect("it is empty");
            // A program is for the tests with frames; what is none is refused.
            let none = std::fs::File::open("/dev/null").expect("a file");
            let error = netlink.set_block_program(77, "none", none.as_fd()).await.expect_err("no program");
            assert!(error.to_string().starts_with("cannot attach none to a block: "), "{error}");
            let error = netlink.share_ingress(&[77_777], 77).await.expect_err("no device");
            assert_eq!(error.to_string(), "cannot make ingress qdiscs: no such device (see `ip link`)");
        });
        let shown = host.command("tc", "qdisc show");
        let lines =
            shown.lines().filter(|line| line.starts_with("qdisc ingress ffff: dev v") && line.contains("block 77"));
        assert_eq!(lines.count(), 2, "{shown}");
    }
}

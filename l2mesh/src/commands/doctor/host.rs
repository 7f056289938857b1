//! Checks of kernel, pins and agent.

use l2mesh_common::wire::Difference;

use super::{facts::Facts, finding::Finding};

pub(super) fn kernel(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "kernel";
    vec![match &facts.host.no_tcx {
        None => Finding::ok(CHECK, "takes programs at tcx"),
        Some(reason) => {
            Finding::fault(CHECK, format!("takes no programs at tcx: {reason}"), "Linux 6.6 or newer is needed")
        }
    }]
}

pub(super) fn jit(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "jit";
    vec![match facts.host.jit {
        Some(true) => Finding::ok(CHECK, "programs are compiled"),
        Some(false) => Finding::fault(
            CHECK,
            "programs are interpreted: every frame takes many times as long",
            "sysctl -w net.core.bpf_jit_enable=1, then attach again",
        ),
        None => Finding::ok(CHECK, "not to be seen from this network namespace before attach"),
    }]
}

pub(super) fn pins(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "bpffs";
    let host = &facts.host;
    vec![if host.is_bpffs {
        Finding::ok(CHECK, format!("{} is on a BPF file system", host.pins))
    } else if host.mounts_bpffs {
        Finding::ok(CHECK, format!("{} is not mounted yet: attach does that", host.pins))
    } else {
        Finding::fault(
            CHECK,
            format!("{} is not on a BPF file system", host.pins),
            "mount -t bpf bpf /sys/fs/bpf, or name another directory with --pin-dir",
        )
    }]
}

pub(super) fn agent(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "agent";
    let name = &facts.card.name;
    if !facts.host.is_attached {
        return vec![Finding::ok(CHECK, format!("nothing is attached to {name} yet"))];
    }
    vec![match facts.host.agent {
        Some(pid) if facts.host.is_stopped => Finding::fault(
            CHECK,
            format!("process {pid} is stopped: it sends no probes, and no path or next hop that changes is followed"),
            format!("kill -CONT {pid}"),
        ),
        Some(pid) => Finding::ok(CHECK, format!("process {pid} runs")),
        None => Finding::warning(
            CHECK,
            "does not run: frames go on as they went, but no path or next hop that changes is followed",
            format!("l2mesh attach --iface {name}, with what it had: it takes over what is there"),
        ),
    }]
}

/// The file that was named, against what is attached.
pub(super) fn file(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "file";
    let finding = facts.host.file.map(|difference| {
        let what = match difference {
            Difference::Mesh => "what is attached is not what the file says",
            Difference::Mtu => "the underlay's MTU is another one than at attach, and with it those of the networks",
        };
        let advice = "`l2mesh reload` if it is the agent's file, else end the agent and attach with this one: what is right already \
                      stays as it is";
        Finding::warning(CHECK, what, advice)
    });
    finding.into_iter().collect()
}

//! What a configuration means and whether it can: the same for files and flags.

use std::{collections::HashMap, fmt::Display, net::IpAddr, time::Duration};

use l2mesh_common::freeze::MOVE_LIMIT_MAX;

use super::{
    Mesh, Node, Probe, TxHook, Underlay,
    error::{ConfigErrors, Origin, Report, Source},
    families,
    file::{At, RawMesh, RawProbe, RawUnderlay, Scalar},
    network, node, text,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// The mesh that `raw` describes.
///
/// # Errors
/// Everything wrong with it, in the order of the lines.
pub(super) fn mesh(raw: &RawMesh, source: Source<'_>) -> Result<Mesh, ConfigErrors> {
    let mut report = Report::new(source);
    let underlay = underlay(&mut report, &raw.underlay);
    let (nodes, names) = node::nodes(&mut report, &raw.node);
    let default = Probe::of_mesh(nodes.len());
    let probe = raw.probe.as_ref().map_or_else(|| default.clone(), |raw| probe(&mut report, raw, &default));
    let networks = network::networks(&mut report, &raw.network, &names);
    if matches!(source, Source::File { .. }) {
        for clash in families::clashes(&nodes, &networks) {
            let node = &raw.node[clash.node()];
            let origin = node.value.address.as_ref().map_or(node.origin, |address| address.origin);
            report.error(origin, clash.text(&nodes));
        }
    }
    overlay_is_not_underlay(&mut report, raw, &nodes);
    checksums_want_the_port(&mut report, raw, &underlay, &nodes);
    // Where an error was found, a placeholder stands: it ends here.
    report.finish(Mesh { underlay, probe, nodes, networks, own: None })
}

/// An address that a node has in the underlay would, in a network, draw the way to that node into the mesh itself.
fn overlay_is_not_underlay(report: &mut Report<'_>, raw: &RawMesh, nodes: &[Node]) {
    let owners: HashMap<IpAddr, &str> =
        nodes.iter().flat_map(|node| node.addresses().map(|address| (address, node.name.as_str()))).collect();
    for (index, At { value: network, .. }) in raw.network.iter().enumerate() {
        for (name, At { value: texts, origin }) in &network.addresses {
            for address in texts.as_slice().iter().filter_map(|text| Some(text.parse::<text::Cidr>().ok()?.address)) {
                if let Some(owner) = owners.get(&address) {
                    let label = network::label(index, network);
                    let text = format!(
                        "{label}: addresses: {name:?}: {address} is the underlay address of node {owner:?}: give the network \
                         addresses of another range"
                    );
                    report.error(*origin, text);
                }
            }
        }
    }
}

/// The helper device sends what is to have a UDP checksum, to the port that it holds: a tunnel key cannot say one.
fn checksums_want_the_port(report: &mut Report<'_>, raw: &RawMesh, underlay: &Underlay, nodes: &[Node]) {
    if !underlay.private_port {
        return;
    }
    for (raw, node) in raw.node.iter().zip(nodes).filter(|(_, node)| node.udp_checksum) {
        let text = format!(
            "node {:?}: udp-checksum: the helper device gives checksums, and it sends to the UDP port that it holds, which \
             private-port leaves to others: remove one of the two",
            node.name
        );
        report.error(raw.origin, text);
    }
}

fn underlay(report: &mut Report<'_>, raw: &RawUnderlay) -> Underlay {
    const TABLE: &str = "[underlay]";
    let default = Underlay::default();
    let tx_hook = raw.tx_hook.as_ref().and_then(|hook| match hook.value.as_str() {
        "auto" => Some(TxHook::Auto),
        "port" => Some(TxHook::Port),
        other => {
            report.error(hook.origin, format!("{TABLE} tx-hook {other:?}: write \"auto\" or \"port\""));
            None
        }
    });
    Underlay {
        port: integer(report, TABLE, "port", raw.port.as_ref(), (1, u16::MAX)).unwrap_or(default.port),
        tx_hook: tx_hook.unwrap_or(default.tx_hook),
        private_port: raw.private_port.unwrap_or(default.private_port),
        fdb_size: integer(report, TABLE, "fdb-size", raw.fdb_size.as_ref(), (1, 1 << 24)).unwrap_or(default.fdb_size),
        fdb_age: duration(report, TABLE, "fdb-age", raw.fdb_age.as_ref(), (SECOND, 30 * DAY))
            .unwrap_or(default.fdb_age),
        move_limit: integer(report, TABLE, "move-limit", raw.move_limit.as_ref(), (0, MOVE_LIMIT_MAX))
            .unwrap_or(default.move_limit),
        move_freeze: duration(report, TABLE, "move-freeze", raw.move_freeze.as_ref(), (SECOND, DAY))
            .unwrap_or(default.move_freeze),
    }
}

fn probe(report: &mut Report<'_>, raw: &RawProbe, default: &Probe) -> Probe {
    const TABLE: &str = "[probe]";
    const MS: Duration = Duration::from_millis(1);
    let interval = duration(report, TABLE, "interval", raw.interval.as_ref(), (MS, MINUTE));
    let relay_interval = duration(report, TABLE, "relay-interval", raw.relay_interval.as_ref(), (MS, 60 * MINUTE));
    Probe {
        interval: interval.unwrap_or(default.interval),
        misses: integer(report, TABLE, "misses", raw.misses.as_ref(), (1, 1000)).unwrap_or(default.misses),
        recover: integer(report, TABLE, "recover", raw.recover.as_ref(), (1, 10_000)).unwrap_or(default.recover),
        relay_interval: relay_interval.unwrap_or(default.relay_interval),
        loss_limit: percent(report, TABLE, "loss-limit", raw.loss_limit.as_ref()).unwrap_or(default.loss_limit),
    }
}

/// The integer of `key`, `None` if absent or refused; `owner` says whose it is.
pub(super) fn integer<T>(
    report: &mut Report<'_>,
    owner: &str,
    key: &str,
    raw: Option<&At<Scalar>>,
    (least, greatest): (T, T),
) -> Option<T>
where
    T: TryFrom<i64> + PartialOrd + Display + Copy,
{
    let raw = raw?;
    let hint = match &raw.value {
        Scalar::Integer(number) => match T::try_from(*number) {
            Ok(number) if (least..=greatest).contains(&number) => return Some(number),
            _ => "",
        },
        Scalar::Text(_) => ", without quotes",
    };
    report.error(raw.origin, format!("{owner} {key} {}: write a number from {least} to {greatest}{hint}", raw.value));
    None
}

/// The duration of `key`, `None` if absent or refused.
fn duration(
    report: &mut Report<'_>,
    owner: &str,
    key: &str,
    raw: Option<&At<Scalar>>,
    (least, greatest): (Duration, Duration),
) -> Option<Duration> {
    let raw = raw?;
    let parsed = match &raw.value {
        Scalar::Text(text) => text::duration(text),
        Scalar::Integer(_) => None,
    };
    let advice = match parsed {
        Some(duration) if (least..=greatest).contains(&duration) => return Some(duration),
        Some(_) => format!("write {} to {}", text::show_duration(least), text::show_duration(greatest)),
        None => "write a whole number and ms, s, min, h or d in quotes, as in \"100ms\"".into(),
    };
    report.error(raw.origin, format!("{owner} {key} {}: {advice}", raw.value));
    None
}

/// The percentage of `key`, `None` if absent or refused.
fn percent(report: &mut Report<'_>, owner: &str, key: &str, raw: Option<&At<Scalar>>) -> Option<u8> {
    let raw = raw?;
    let number = match &raw.value {
        Scalar::Text(text) => text.strip_suffix('%').and_then(|number| number.trim_ascii().parse().ok()),
        Scalar::Integer(_) => None,
    };
    let number = number.filter(|number| (1..=100).contains(number));
    if number.is_none() {
        report.error(raw.origin, format!("{owner} {key} {}: write \"1%\" to \"100%\"", raw.value));
    }
    number
}

/// Where a table that lacks `key` begins, as an error; the same words for all of them.
pub(super) fn missing(report: &mut Report<'_>, origin: Origin, owner: &str, key: &str, example: &str) {
    report.error(origin, format!("{owner} {key} is missing: add {key} = {example}"));
}

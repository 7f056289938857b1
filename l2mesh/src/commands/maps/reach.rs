//! `l2mesh maps reach`: which nodes reach which, as far as they have said. This host's own row is what a frame would find now; the
//! others tell theirs once a second, in answers to probes.

use l2mesh_common::{
    path::{Paths as _, choose},
    tables::{Fact, LabelKey, OWN_REACHABILITY, PeerId},
    wire::Reached,
};
use serde::Serialize;

use super::{
    super::output::table,
    paths::{Snapshot, is_probed},
};
use crate::dataplane::{reachability::reached, tables::Tables};

/// Who reaches whom.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Matrix {
    /// Names, in their order.
    pub(crate) nodes: Vec<String>,
    /// A row for each node, and in it a place for each.
    pub(crate) rows: Vec<Vec<Reached>>,
}

/// How one node reaches another.
#[derive(Debug, Serialize)]
pub(crate) struct ReachRow {
    pub(crate) from: String,
    pub(crate) to: String,
    /// direct, relay, down or unknown.
    pub(crate) how: &'static str,
}

/// A node of the matrix: the peer, or `None` for this host.
struct Node {
    rank: usize,
    peer: Option<PeerId>,
    name: String,
}

impl Matrix {
    /// As the tables have it. What a peer said counts as long as it is reached, and is of the same mesh.
    pub(crate) fn of(tables: &Tables, snapshot: &Snapshot) -> anyhow::Result<Self> {
        let rank = |place: u32| tables.reachability.get(place).rank as usize;
        let mut nodes = vec![Node { rank: rank(OWN_REACHABILITY), peer: None, name: tables.fact(Fact::Node) }];
        for id in tables.vteps.iter().filter_map(|it| Some(it.ok()?.1)) {
            nodes.push(Node { rank: rank(id), peer: Some(id), name: tables.label(LabelKey::peer(id)) });
        }
        nodes.sort_by_key(|node| (node.rank, node.peer));
        nodes.dedup_by_key(|node| node.peer);
        let own = tables.settings.get(&0, 0)?.fingerprint;
        let row = |from: &Node| {
            let said = from.peer.map(|peer| tables.reachability.get(peer).said).filter(|it| it.is_of(own));
            let said = said.filter(|_| from.peer.is_some_and(|peer| choose(snapshot, peer).is_up));
            let place = |to: &Node| match (from.peer, to.peer) {
                (from, to) if from == to => Reached::Unknown,
                (None, Some(to)) if snapshot.tx(to, 0).is_some_and(is_probed) => reached(choose(snapshot, to)),
                (None, _) => Reached::Unknown,
                _ => said.map_or(Reached::Unknown, |said| said.get(to.rank)),
            };
            nodes.iter().map(place).collect()
        };
        Ok(Self { rows: nodes.iter().map(row).collect(), nodes: nodes.into_iter().map(|node| node.name).collect() })
    }

    /// The letter of a place: a node does not reach itself.
    pub(crate) fn letter(&self, from: usize, to: usize) -> char {
        match self.rows.get(from).and_then(|row| row.get(to)).copied().unwrap_or_default() {
            _ if from == to => '.',
            Reached::Directly => 'D',
            Reached::ByRelay => 'R',
            Reached::Not => 'X',
            Reached::Unknown => '?',
        }
    }

    /// Each pair by itself.
    pub(crate) fn pairs(&self) -> Vec<ReachRow> {
        let mut pairs = Vec::new();
        for (from, row) in self.nodes.iter().zip(&self.rows) {
            for (to, reached) in self.nodes.iter().zip(row).filter(|(to, _)| *to != from) {
                pairs.push(ReachRow { from: from.clone(), to: to.clone(), how: reached.text() });
            }
        }
        pairs
    }
}

/// So many columns fit a terminal.
const COLUMNS: usize = 40;

/// The matrix for people: who is in a row reaches who is in a column. Of more nodes than fit, the pairs that are not direct.
pub(super) fn reach_table(matrix: &Matrix) -> String {
    let count = matrix.nodes.len();
    if count > COLUMNS {
        let cells = matrix.pairs().into_iter().filter(|row| row.how != Reached::Directly.text());
        let cells: Vec<_> = cells.map(|row| vec![row.from, row.to, row.how.to_owned()]).collect();
        return table("reach (pairs that are not direct)", &["from", "to", "how"], &cells, &[]);
    }
    let cells = matrix.nodes.iter().enumerate().map(|(from, name)| {
        let letters = (0..count).map(|to| matrix.letter(from, to).to_string());
        [(from + 1).to_string(), name.clone()].into_iter().chain(letters).collect()
    });
    let numbers: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
    let header: Vec<&str> = ["", "from"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
    let right: Vec<usize> = [0].into_iter().chain(2..count + 2).collect();
    table("reach (D direct, R through a relay, X down, ? not said)", &header, &cells.collect::<Vec<_>>(), &right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_people_and_programs() {
        let (direct, relay, down, unknown) = (Reached::Directly, Reached::ByRelay, Reached::Not, Reached::Unknown);
        let matrix = Matrix {
            nodes: ["enovance", "hetzner", "ovh"].map(str::to_owned).to_vec(),
            rows: vec![vec![unknown, direct, relay], vec![direct, unknown, down], vec![unknown; 3]],
        };
        let expected = "\
reach (D direct, R through a relay, X down, ? not said)
     from      1  2  3
  1  enovance  .  D  R
  2  hetzner   D  .  X
  3  ovh       ?  ?  .
";
        assert_eq!(reach_table(&matrix), expected);
        let pairs: Vec<_> =
            matrix.pairs().into_iter().map(|row| format!("{} {} {}", row.from, row.to, row.how)).collect();
        assert_eq!(
            pairs[..4],
            ["enovance hetzner direct", "enovance ovh relay", "hetzner enovance direct", "hetzner ovh down"]
        );
        assert_eq!(pairs[4..], ["ovh enovance unknown", "ovh hetzner unknown"]);
    }
}

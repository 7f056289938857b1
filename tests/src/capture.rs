//! What really was on a wire: tcpdump to record, tshark to read.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::frames::Frame;
use crate::host::Host;
use crate::process::Process;
use crate::wait::wait_for;

/// How long tcpdump may take to start, and to write what it has.
const LIMIT: Duration = Duration::from_secs(10);

/// The longest frame of a jumbo wire, octets.
const JUMBO: &str = "9216";

/// The longest frame that GRO makes by default, with room for headers, octets.
const AGGREGATE: &str = "66000";

/// Reports in a row without a new frame after which tcpdump has written what it has.
const QUIET: u32 = 3;

/// Which frames of an interface are recorded.
///
/// What an interface sends is recorded as it leaves, cut up and with checksums; on plain veth, of
/// frames over 9216 octets the rest is missing. What it receives is recorded after GRO: TCP segments
/// may be merged, and their checksum is then not filled in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Received.
    In,
    /// Sent.
    Out,
    /// Both.
    Both,
}

/// A running capture. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    path: PathBuf,
}

/// A finished capture. The file goes with the lab.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pcap {
    path: PathBuf,
}

impl Capture {
    /// Starts to record the frames on an interface that match a filter in the language of pcap-filter(7)
    /// (empty: all). When this returns, frames are recorded.
    #[must_use]
    #[track_caller]
    pub fn start(host: &Host, interface: &str, direction: Direction, filter: &str) -> Self {
        let path = host.site().file(&format!("{}-{interface}", host.name()), "pcap");
        let file = path.display().to_string();
        // In immediate mode each frame takes the room of the longest. -B is in KiB. -Z keeps root: the
        // directory is ours. Not "outbound" in the filter: libpcap tries the first frame after it has set
        // the filter by itself, and loses it there.
        let (which, longest) = match direction {
            Direction::In => ("in", AGGREGATE),
            Direction::Out => ("out", JUMBO),
            Direction::Both => ("inout", AGGREGATE),
        };
        let args = ["-i", interface, "-n", "--immediate-mode", "-B", "131072", "-s", longest, "-Z", "root"];
        let args = [&args[..], &["-Q", which, "-w", &file, filter]].concat();
        let mut process = host.spawn("tcpdump", &args);
        // It says so after the socket is bound and the filter set.
        process.wait_log_line("listening on", LIMIT);
        Self { process, path }
    }

    /// Ends it after everything that has passed the interface so far is in the file. Panics if the
    /// kernel had to drop frames.
    #[must_use]
    #[track_caller]
    pub fn stop(mut self) -> Pcap {
        let (mut before, mut quiet) = (None, 0);
        // What the kernel has received counts the other direction too: that tcpdump has written as many
        // says nothing, that it finds no more does.
        for reports in 0.. {
            let report = self.report(reports);
            let [captured, _, dropped] = counts(&report);
            assert_eq!(dropped, 0, "tcpdump lost frames: {report}");
            quiet = if before == Some(captured) { quiet + 1 } else { 0 };
            if quiet == QUIET {
                break;
            }
            before = Some(captured);
        }
        self.process.signal(Signal::SIGTERM);
        self.process.wait_exit(LIMIT);
        Pcap { path: self.path.clone() }
    }

    /// On SIGUSR1 tcpdump reports what it has written.
    #[track_caller]
    fn report(&mut self, earlier: usize) -> String {
        self.process.signal(Signal::SIGUSR1);
        wait_for("a report of tcpdump", LIMIT, || {
            let text = self.process.stderr();
            let mut reports = text.split_inclusive('\n').filter(|line| is_report(line));
            reports.nth(earlier).map(str::to_owned).ok_or_else(|| text.clone())
        })
    }
}

impl Pcap {
    /// A file that somebody else wrote.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// The frames as they are, in order, without their times. Panics on one that was not recorded whole.
    #[must_use]
    #[track_caller]
    pub fn frames(&self) -> Vec<Frame> {
        let octets = fs::read(&self.path).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        // pcap-savefile(5), in this machine's order: 24 octets, then for each frame seconds, microseconds, octets
        // recorded, octets there were.
        let number = |at: usize| u32::from_ne_bytes(octets[at..at + 4].try_into().expect("four octets")) as usize;
        let mut at = 24;
        let mut frames = Vec::new();
        while at < octets.len() {
            let (recorded, length) = (number(at + 8), number(at + 12));
            assert_eq!(recorded, length, "{}: frame {} is cut", self.path.display(), frames.len());
            at += 16;
            frames.push(Frame::raw(&octets[at..at + length]));
            at += length;
        }
        frames
    }

    /// How many frames match a display filter (wireshark-filter(4); empty: all).
    #[must_use]
    #[track_caller]
    pub fn count(&self, filter: &str) -> usize {
        self.fields(filter, &["frame.number"]).len()
    }

    /// Fields of the frames that match a display filter, a row for each frame. A field that occurs more
    /// than once, as in outer and inner header, has its values separated by commas, outermost first.
    #[must_use]
    #[track_caller]
    pub fn fields(&self, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
        let mut args = vec!["-T", "fields"];
        args.extend(fields.iter().flat_map(|field| ["-e", field]));
        let text = self.tshark(filter, &args);
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// The frames that match a display filter, in full.
    #[must_use]
    #[track_caller]
    pub fn json(&self, filter: &str) -> Vec<Value> {
        let text = self.tshark(filter, &["-T", "json", "--no-duplicate-keys"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: tshark: {error}", self.path.display()))
    }

    /// Frames with a wrong checksum in any header, outer or inner, as one line each that says which.
    #[must_use]
    #[track_caller]
    pub fn bad_checksums(&self) -> Vec<String> {
        let protocols = ["ip", "tcp", "udp", "icmp", "icmpv6"];
        // Where a TCP checksum comes out as 0, Linux writes 0xffff, the other zero of one's complement
        // (CSUM_MANGLED_0 in skb_checksum_help): every receiver takes it, tshark does not.
        let bad = |protocol| match protocol {
            "tcp" => "(tcp.checksum.status == 0 and not (tcp.checksum == 0xffff and tcp.checksum_calculated == 0))"
                .to_owned(),
            _ => format!("{protocol}.checksum.status == 0"),
        };
        let filter = protocols.map(bad).join(" or ");
        let statuses = protocols.map(|protocol| format!("{protocol}.checksum.status"));
        let mut fields = vec!["frame.number", "frame.protocols"];
        fields.extend(statuses.iter().map(String::as_str));
        let name = |(name, value)| format!("{name}={value}");
        let describe = |row: Vec<String>| fields.iter().zip(row).map(name).collect::<Vec<_>>().join(" ");
        self.fields(&filter, &fields).into_iter().map(describe).collect()
    }

    #[track_caller]
    fn tshark(&self, filter: &str, args: &[&str]) -> String {
        let mut command = Command::new("tshark");
        command.arg("-n").arg("-r").arg(&self.path).args(args);
        // The mesh, and the kernel's own default for what a test nests in it.
        for port in [4789, 8472] {
            command.args(["-d", &format!("udp.port=={port},vxlan")]);
        }
        for protocol in ["ip", "tcp", "udp"] {
            command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
        }
        if !filter.is_empty() {
            command.args(["-Y", filter]);
        }
        let output = command.output().unwrap_or_else(|error| panic!("tshark: {error}"));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tshark -Y {filter:?} {}: {complaint}", self.path.display());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// `3 packets captured, 3 packets received by filter, 0 packets dropped by kernel`.
fn is_report(line: &str) -> bool {
    line.contains("dropped by kernel") && line.ends_with('\n')
}

#[track_caller]
fn counts(report: &str) -> [u64; 3] {
    let numbers: Vec<u64> = report.split([' ', '\n']).filter_map(|word| word.parse().ok()).collect();
    numbers.get(..3).and_then(|three| three.try_into().ok()).unwrap_or_else(|| panic!("tcpdump: {report:?}"))
}

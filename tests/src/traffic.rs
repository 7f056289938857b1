//! Traffic made by the usual programs: ping, arping, iperf3.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::Value;

use crate::host::Host;
use crate::process::Process;

/// Octets of data in a ping unless said otherwise.
const PING_DATA: usize = 56;

/// What `ping` counted.
#[derive(Clone, PartialEq, Debug)]
pub struct PingReport {
    /// Requests.
    pub sent: u32,
    /// Answers, each request counted once.
    pub received: u32,
    /// Answers beyond the first to the same request.
    pub duplicates: u32,
    /// Mean time to the answer, milliseconds; `None` without answers.
    pub average: Option<f64>,
}

impl PingReport {
    /// Requests without an answer.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.sent - self.received
    }
}

/// Sends `count` pings, 20 ms apart. An answer may take 1 s.
#[track_caller]
pub fn ping(from: &Host, to: impl Into<IpAddr>, count: u32) -> PingReport {
    ping_sized(from, to, count, PING_DATA)
}

/// [`ping`] with this many octets of data, not to be fragmented: 28 less than the MTU fill a packet
/// (IPv6: 48).
#[track_caller]
pub fn ping_sized(from: &Host, to: impl Into<IpAddr>, count: u32, data: usize) -> PingReport {
    let (to, count, data) = (to.into().to_string(), count.to_string(), data.to_string());
    let args = ["-n", "-q", "-M", "do", "-i", "0.02", "-W", "1", "-c", &count, "-s", &data, &to];
    let output = from.try_exec("ping", &args);
    parse_ping(&output.stdout).unwrap_or_else(|| panic!("{}: ping {args:?}: {output:?}", from.name()))
}

/// The times to the answers of `count` pings 10 ms apart, milliseconds, ascending. One without an answer within 1 s is not
/// among them.
#[track_caller]
pub fn ping_times(from: &Host, to: impl Into<IpAddr>, count: u32) -> Vec<f64> {
    let (to, count) = (to.into().to_string(), count.to_string());
    let output = from.try_exec("ping", &["-n", "-i", "0.01", "-W", "1", "-c", &count, &to]);
    let mut times: Vec<f64> = output.stdout.lines().filter_map(answer_time).collect();
    times.sort_unstable_by(f64::total_cmp);
    times
}

/// Reads `64 bytes from 10.8.0.2: icmp_seq=1 ttl=64 time=0.061 ms`; a second answer does not count.
fn answer_time(line: &str) -> Option<f64> {
    let (_, time) = line.split_once(" time=")?;
    time.strip_suffix(" ms")?.parse().ok()
}

/// Reads `3 packets transmitted, 3 received, +1 duplicates, 0% packet loss, time 41ms` and the line
/// `rtt min/avg/max/mdev = 0.030/0.043/0.056/0.010 ms`.
fn parse_ping(text: &str) -> Option<PingReport> {
    let summary = text.lines().find(|line| line.contains("packets transmitted"))?;
    let number = |unit: &str| {
        let part = summary.split(", ").find(|part| part.ends_with(unit))?;
        part.split_whitespace().next()?.trim_start_matches('+').parse().ok()
    };
    let average = text.lines().find_map(|line| line.strip_prefix("rtt ")?.split('/').nth(4)?.parse().ok());
    Some(PingReport {
        sent: number("packets transmitted")?,
        received: number("received")?,
        duplicates: number("duplicates").unwrap_or(0),
        average,
    })
}

/// Asks `count` times who has `address`, on an interface; returns how many answers came. Two answers
/// to one question show a duplicated frame.
#[track_caller]
pub fn arping(from: &Host, interface: &str, address: Ipv4Addr, count: u32) -> u32 {
    let args = ["-I", interface, "-c", &count.to_string(), "-i", "0.1", "-w", "5", &address.to_string()];
    // -i is not in every version; without it the questions are a second apart.
    let mut output = from.try_exec("arping", &args);
    if output.stdout.is_empty() {
        output = from.try_exec("arping", &[&args[..4], &args[6..]].concat());
    }
    let line = output.stdout.lines().find_map(|line| line.strip_prefix("Received ")?.split(' ').next()?.parse().ok());
    line.unwrap_or_else(|| panic!("{}: arping {args:?}: {output:?}", from.name()))
}

/// An iperf3 server, used by one client at a time. Dropping it ends it.
#[derive(Debug)]
pub struct Iperf {
    process: Process,
    address: IpAddr,
}

/// One iperf3 run over TCP.
#[derive(Clone, PartialEq, Debug)]
pub struct TcpReport {
    /// What the receiver got, bits per second.
    pub bits_per_second: f64,
    /// Segments the sender sent again.
    pub retransmits: u64,
    /// Processor time of the client, percent of one processor.
    pub client_cpu: f64,
    /// Processor time of the server, percent of one processor.
    pub server_cpu: f64,
    /// All that iperf3 said.
    pub json: Value,
}

/// One iperf3 run over UDP.
#[derive(Clone, PartialEq, Debug)]
pub struct UdpReport {
    /// What the receiver got, bits per second.
    pub bits_per_second: f64,
    /// Datagrams sent.
    pub packets: u64,
    /// Datagrams that did not arrive.
    pub lost: u64,
    /// Datagrams that arrived after a later one.
    pub out_of_order: u64,
    /// All that iperf3 said.
    pub json: Value,
}

impl Iperf {
    /// Starts a server at this address of the host and waits until it listens.
    #[must_use]
    #[track_caller]
    pub fn serve(host: &Host, address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        let mut process = host.spawn("iperf3", &["-s", "--forceflush", "-B", &address.to_string()]);
        process.wait_log_line("Server listening", Duration::from_secs(5));
        Self { process, address }
    }

    /// Sends TCP for a time over this many connections.
    #[track_caller]
    pub fn tcp(&mut self, client: &Host, time: Duration, flows: u32) -> TcpReport {
        let json = self.run(client, time, &["-P", &flows.to_string()]);
        let end = &json["end"];
        TcpReport {
            bits_per_second: float(&end["sum_received"]["bits_per_second"]),
            retransmits: integer(&end["sum_sent"]["retransmits"]),
            client_cpu: float(&end["cpu_utilization_percent"]["host_total"]),
            server_cpu: float(&end["cpu_utilization_percent"]["remote_total"]),
            json,
        }
    }

    /// Sends UDP for a time: datagrams of `length` octets of data, `rate` bits per second (0: as many
    /// as possible).
    #[track_caller]
    pub fn udp(&mut self, client: &Host, time: Duration, length: usize, rate: u64) -> UdpReport {
        let json = self.run(client, time, &["-u", "-l", &length.to_string(), "-b", &rate.to_string()]);
        let end = &json["end"];
        let streams = end["streams"].as_array().map_or(&[][..], Vec::as_slice);
        let (sum, packets) = (&end["sum"], integer(&end["sum"]["packets"]));
        let lost = integer(&sum["lost_packets"]);
        #[expect(clippy::cast_precision_loss, reason = "a share of packets needs no 52 bits")]
        let arrived = if packets == 0 { 0.0 } else { (packets - lost.min(packets)) as f64 / packets as f64 };
        UdpReport {
            bits_per_second: float(&sum["bits_per_second"]) * arrived,
            packets,
            lost,
            out_of_order: streams.iter().map(|stream| integer(&stream["udp"]["out_of_order"])).sum(),
            json,
        }
    }

    #[track_caller]
    fn run(&mut self, client: &Host, time: Duration, args: &[&str]) -> Value {
        assert!(self.process.is_running(), "the iperf3 server ended{}", self.process.last_words());
        let (address, time) = (self.address.to_string(), time.as_secs_f64().ceil().to_string());
        let all = [&["-c", &address, "-t", &time, "-J", "--connect-timeout", "3000"], args].concat();
        let output = client.try_exec("iperf3", &all);
        let json: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let error = json["error"].as_str();
        assert!(output.success() && error.is_none(), "{}: iperf3 {all:?}: {error:?} {}", client.name(), output.stderr);
        json
    }
}

#[track_caller]
fn float(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("iperf3: not a number: {value}"))
}

#[track_caller]
fn integer(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("iperf3: not a count: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_with_duplicates() {
        let text = "3 packets transmitted, 2 received, +4 duplicates, 33.3333% packet loss, time 41ms\n\
                    rtt min/avg/max/mdev = 0.030/0.043/0.056/0.010 ms\n";
        let report = parse_ping(text).expect("a summary");
        assert_eq!((report.lost(), report.duplicates, report.average), (1, 4, Some(0.043)));
    }

    #[test]
    fn times_of_answers() {
        assert_eq!(answer_time("64 bytes from 10.8.0.2: icmp_seq=1 ttl=64 time=0.061 ms"), Some(0.061));
        assert_eq!(answer_time("64 bytes from 10.8.0.2: icmp_seq=1 ttl=64 time=0.061 ms (DUP!)"), None);
        assert_eq!(answer_time("rtt min/avg/max/mdev = 0.030/0.043/0.056/0.010 ms"), None);
    }

    #[test]
    fn ping_without_answer() {
        let report = parse_ping("1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms\n");
        assert_eq!(report, Some(PingReport { sent: 1, received: 0, duplicates: 0, average: None }));
    }
}

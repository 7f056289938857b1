//! `attach --metrics`: what a real Prometheus scrapes is what `l2mesh maps` shows.

#![expect(clippy::float_cmp, reason = "small whole numbers")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aya::sys::{Stats, enable_stats};
use l2mesh_tests::flow::Flow;
use l2mesh_tests::scrape::{Prometheus, exchange, get, samples};
use l2mesh_tests::{Agent, Host, Lab, Leg, Segment, Wiring, wait_for};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
const OPEN: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

fn metrics() -> SocketAddr {
    "127.0.0.1:9472".parse().expect("an address")
}

/// Three hosts, of which enovance relays; hetzner is asked for metrics.
struct Mesh {
    hosts: [Host; 3],
    _agents: [Agent; 3],
    lab: Lab,
}

impl Mesh {
    fn up(title: &str) -> Self {
        let lab = Lab::new(title);
        let hosts = lab.routed(["hetzner", "enovance", "ovh"], &Wiring::default());
        let node = |host: &Host| {
            let relay = host.name() == "enovance";
            format!("[[node]]\nname = \"{}\"\naddress = \"{}\"\nrelay = {relay}\n", host.name(), host.vtep())
        };
        let text = format!(
            "{}[probe]\ninterval = \"50ms\"\n\
             [[network]]\nname = \"lan\"\nvni = {}\ninterface = \"l2m0\"\n\
             [[network]]\nname = \"quiet\"\nvni = 77\n",
            hosts.each_ref().map(node).concat(),
            Segment::VNI
        );
        let path = lab.directory().join("mesh.toml");
        fs::write(&path, text).expect("a file of the lab");
        let path = path.display().to_string();
        let agents = hosts.each_ref().map(|host| {
            host.run("sysctl -qw net.ipv6.conf.default.addr_gen_mode=1");
            host.attach(&["--config", &path, "--metrics", "127.0.0.1:9472"])
        });
        for (place, host) in hosts.iter().enumerate() {
            Segment::address(host, "l2m0", place);
        }
        Self { hosts, _agents: agents, lab }
    }
}

fn scrape(host: &Host) -> BTreeMap<String, f64> {
    samples(&get(host, metrics(), "/metrics", OPEN).1)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// Everything that `maps` and the metrics both say, at a moment when nothing changes it.
#[track_caller]
fn assert_as_maps(host: &Host, found: &BTreeMap<String, f64>) -> Result<(), String> {
    let maps = host.l2mesh(&["maps", "--json"]);
    let rows = |table: &str| maps[table].as_array().unwrap_or_else(|| panic!("no {table}: {maps}")).clone();
    let mut compared = 0;
    let mut compare = |name: String, expected: f64| {
        compared += 1;
        match found.get(&name) {
            Some(value) if (value - expected).abs() < 1e-9 => Ok(()),
            value => Err(format!("{name}: {value:?}, maps says {expected}")),
        }
    };
    for row in rows("counters") {
        let verdict = row["verdict"].as_str().expect("a name");
        // Probes never rest.
        if verdict.starts_with("probe") {
            continue;
        }
        let fate = row["fate"].as_str().expect("a fate").replace(' ', "-");
        let labels = format!("{{verdict=\"{verdict}\",fate=\"{fate}\"}}");
        compare(format!("l2mesh_verdict_frames_total{labels}"), number(&row["frames"]))?;
        compare(format!("l2mesh_verdict_bytes_total{labels}"), number(&row["octets"]))?;
    }
    for row in rows("peers") {
        let labels = format!("{{peer=\"{}\"}}", row["name"].as_str().expect("a name"));
        for (name, key) in [
            ("sent_frames_total", "sent_frames"),
            ("sent_bytes_total", "sent_octets"),
            ("received_frames_total", "received_frames"),
            ("received_bytes_total", "received_octets"),
            ("mtu_bytes", "mtu"),
        ] {
            compare(format!("l2mesh_peer_{name}{labels}"), number(&row[key]))?;
        }
    }
    for row in rows("networks") {
        let labels = format!("{{network=\"{}\",vni=\"{}\"}}", row["name"].as_str().expect("a name"), row["vni"]);
        for (name, key) in [
            ("sent_frames_total", "sent_frames"),
            ("sent_bytes_total", "sent_octets"),
            ("received_frames_total", "received_frames"),
            ("received_bytes_total", "received_octets"),
            ("macs", "macs"),
            ("mtu_bytes", "mtu"),
            ("storm_limit_frames", "storm_limit"),
        ] {
            compare(format!("l2mesh_network_{name}{labels}"), number(&row[key]))?;
        }
        for direction in ["sent", "received"] {
            let labels = format!("{},direction=\"{direction}\"}}", labels.trim_end_matches('}'));
            compare(
                format!("l2mesh_network_storm_drops_total{labels}"),
                number(&row[format!("storm_{direction}").as_str()]),
            )?;
        }
    }
    for row in rows("paths") {
        let text = |key: &str| row[key].as_str().expect("a text").to_owned();
        let labels = format!("{{peer=\"{}\",path=\"{}\"}}", text("peer"), text("path"));
        for (name, key) in [("up", "up"), ("in_use", "in_use")] {
            let expected = u8::from(row[key].as_bool().expect("true or false"));
            compare(format!("l2mesh_path_{name}{labels}"), expected.into())?;
        }
        compare(format!("l2mesh_path_mtu_bytes{labels}"), number(&row["mtu"]))?;
    }
    assert!(compared > 150, "only {compared} are compared");
    Ok(())
}

/// What `promtool check metrics` says of a text.
fn promtool(text: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of Debian's package prometheus");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "promtool: {said}");
}

/// The queries of the dashboard with what Grafana would put in the place of its variables.
fn dashboard_queries() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/grafana/l2mesh.json");
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let board: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut panels: Vec<Value> = Vec::new();
    let mut waiting = vec![board["panels"].clone()];
    while let Some(some) = waiting.pop() {
        for panel in some.as_array().into_iter().flatten() {
            waiting.push(panel["panels"].clone());
            panels.push(panel.clone());
        }
    }
    let mut queries = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().expect("a title");
        let targets = panel["targets"].as_array().unwrap_or_else(|| panic!("{title} asks nothing"));
        assert!(!targets.is_empty(), "{title} asks nothing");
        for target in targets {
            queries.push((title.to_owned(), target["expr"].as_str().expect("a query").to_owned()));
        }
    }
    for variable in board["templating"]["list"].as_array().into_iter().flatten() {
        if let Some(query) = variable["query"]["query"].as_str().or(variable["query"].as_str())
            && let Some(inner) = query.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(',')?.0.into())
        {
            queries.push((format!("variable {}", variable["name"]), inner.to_owned()));
        }
    }
    let replace = |query: &str| {
        let mut query = query.replace("$__rate_interval", "5s").replace("$__range", "30s");
        for variable in ["$node", "$peer", "$network"] {
            query = query.replace(variable, ".*");
        }
        assert!(!query.contains('$'), "an unknown variable in {query}");
        query
    };
    queries.into_iter().map(|(title, query)| (title, replace(&query))).collect()
}

/// Traffic, a failover and back; then all that is scraped is compared, and every query of the dashboard has an answer.
#[test]
fn prometheus_scrapes_a_failover() {
    // As `sysctl kernel.bpf_stats_enabled=1`, as long as this is held.
    let _stats = enable_stats(Stats::RunTime).expect("Linux 5.8");
    let mesh = Mesh::up("metrics");
    let [a, b, c] = &mesh.hosts;
    let prometheus = Prometheus::start(&mesh.lab, a, &[metrics()]);
    prometheus.wait("up", LIMIT, |up| up == 1.0);
    let series = |peer: &str, path: &str| format!("{{peer=\"{peer}\",path=\"{path}\"}}");
    prometheus.wait(&format!("l2mesh_path_up{}", series("ovh", "via enovance")), LIMIT, |up| up == 1.0);
    let turns = |to: &str| format!("l2mesh_peer_path_changes_total{{peer=\"ovh\",to=\"{to}\"}}");
    let before = ["relay", "direct"].map(|to| scrape(a)[&turns(to)]);
    let flow = Flow::start(a, c, Segment::v4(2), 500);
    flow.wait_more(200);
    let mut legs: [Leg; 2] = mesh.lab.legs(a, c);
    legs.iter_mut().for_each(Leg::cut);
    prometheus.wait(&format!("l2mesh_path_in_use{}", series("ovh", "via enovance")), LIMIT, |used| used == 1.0);
    prometheus.wait(&format!("l2mesh_path_up{}", series("ovh", "direct")), LIMIT, |up| up == 0.0);
    prometheus.wait(&format!("l2mesh_path_loss_ratio{}", series("ovh", "direct")), LIMIT, |loss| loss == 1.0);
    flow.wait_more(200);
    legs.iter_mut().for_each(Leg::heal);
    prometheus.wait(&format!("l2mesh_path_in_use{}", series("ovh", "direct")), LIMIT, |used| used == 1.0);
    for (to, before) in ["relay", "direct"].into_iter().zip(before) {
        // A machine that is busy may make it more.
        prometheus.wait(&turns(to), LIMIT, |times| times > before && times < before + 5.0);
    }

    // Rates, while it runs: 500 a second.
    flow.wait_more(2000);
    let rate = "rate(l2mesh_network_sent_frames_total{network=\"lan\"}[5s])";
    prometheus.wait(rate, LIMIT, |rate| (400.0..600.0).contains(&rate));
    prometheus.wait("rate(l2mesh_network_sent_frames_total{network=\"quiet\"}[5s])", LIMIT, |rate| rate == 0.0);
    let median = "histogram_quantile(0.5, rate(l2mesh_path_rtt_seconds_bucket{path=\"direct\"}[5s]))";
    let found = prometheus.wait(median, LIMIT, |rtt| rtt > 0.0 && rtt < 0.1);
    assert_eq!(found.len(), 2, "both peers: {found:?}");
    for (title, query) in dashboard_queries() {
        wait_for(&format!("panel {title:?} has data: {query}"), LIMIT, || match prometheus.try_query(&query) {
            Ok(found) if found.is_empty() => Err("nothing".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => panic!("panel {title:?}: {query}: {error}"),
        });
    }
    let report = flow.stop();
    // Nothing moves but probes: the same is said everywhere.
    wait_for("the metrics say what maps says", LIMIT, || assert_as_maps(a, &scrape(a)));
    wait_for("Prometheus has what maps says", LIMIT, || {
        let key = |labels: &BTreeMap<String, String>| {
            let shown = |name: &str| labels.get(name).map(|value| format!("{name}=\"{value}\""));
            let names = ["verdict", "network", "peer", "fate", "vni", "path", "direction"];
            format!("{}{{{}}}", labels["__name__"], names.into_iter().filter_map(shown).collect::<Vec<_>>().join(","))
        };
        let all =
            prometheus.query("{__name__=~\"l2mesh_(verdict|peer|network|path)_.*\",to=\"\",le=\"\",address=\"\"}");
        assert_as_maps(a, &all.iter().map(|(labels, value)| (key(labels), *value)).collect())
    });
    let sent = scrape(a)[&format!("l2mesh_network_sent_frames_total{{network=\"lan\",vni=\"{}\"}}", Segment::VNI)];
    assert!(sent >= f64::from(u32::try_from(report.sent).expect("few")), "{sent} of {report:?}");
    let received =
        scrape(c)[&format!("l2mesh_network_received_frames_total{{network=\"lan\",vni=\"{}\"}}", Segment::VNI)];
    assert!(received <= sent && received + 500.0 > sent, "{received} of {sent}");

    let (head, text) = get(a, metrics(), "/metrics", "*/*");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    promtool(&text);
    let (head, text) = get(a, metrics(), "/metrics", OPEN);
    assert!(head.contains("application/openmetrics-text; version=1.0.0") && text.ends_with("\n# EOF\n"), "{head}");
    for host in [a, b, c] {
        let found = scrape(host);
        let parts: Vec<_> = found.iter().filter(|(name, _)| name.starts_with("l2mesh_scrape_success")).collect();
        assert!(parts.len() == 6 && parts.iter().all(|(_, ok)| **ok == 1.0), "{parts:?}");
    }
}

/// Strangers get an answer, those who say nothing keep nobody waiting.
#[test]
fn bad_requests_and_slow_clients() {
    let mesh = Mesh::up("metrics, bad clients");
    let a = &mesh.hosts[0];
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
        ("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
        ("GET /other HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "405"),
        ("\x16\x03\x01 what is this\r\n\r\n", "400"),
        (&format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000)), "431"),
    ] {
        // One that is answered before it has said all may be reset.
        let head = exchange(a, metrics(), request).map_or_else(|error| error.to_string(), |(head, _)| head);
        let shown: String = request.chars().take(40).collect();
        let is_reset = head.contains("reset") || head.contains("Broken pipe");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")) || (status == "431" && is_reset), "{shown:?}: {head}");
    }
    // All places are taken by those who say nothing; after some seconds they are hung up on, and others have their turn.
    let silent: Vec<TcpStream> =
        a.in_namespace(|| (0..40).map(|_| TcpStream::connect(metrics()).expect("it listens")).collect());
    let start = Instant::now();
    let (head, _) = get(a, metrics(), "/metrics", OPEN);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(start.elapsed() < Duration::from_secs(19), "{:?}", start.elapsed());
    drop(silent);
    // Many at once.
    thread::scope(|scope| {
        for thread in (0..64).map(|_| scope.spawn(|| get(a, metrics(), "/metrics", OPEN).0)).collect::<Vec<_>>() {
            let head = thread.join().expect("no panic");
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
    });
    // Frames and probes go on meanwhile.
    let late = l2mesh_tests::Paths::of(a).late();
    println!("probes over 10 ms late: {late}");
}

/// Refused before anything is touched, or said that it is open to the network.
#[test]
fn addresses() {
    let lab = Lab::new("metrics, addresses");
    let [a, b] = lab.switch(["hetzner", "ovh"], &Wiring::default());
    let peer = b.vtep().to_string();
    let attach = |metrics: &str| {
        ["attach", "--iface", "eth0", "--vni", "16", "--peer", &peer, "--metrics", metrics].map(str::to_owned)
    };
    let refused = |metrics: &str| {
        let before = a.state();
        let sentence = a.l2mesh_refuses(&attach(metrics).each_ref().map(String::as_str));
        a.assert_state(&before);
        sentence
    };
    let taken = a.in_namespace(|| TcpListener::bind(metrics()).expect("a free port"));
    let sentence_of = refused("127.0.0.1:9472");
    assert!(sentence_of.starts_with("--metrics 127.0.0.1:9472: another program listens there"), "{sentence_of}");
    drop(taken);
    let sentence_of = refused("192.0.2.99:9472");
    assert!(sentence_of.starts_with("--metrics 192.0.2.99:9472: no interface of this"), "{sentence_of}");
    let output = a.try_l2mesh(&attach("9472").each_ref().map(String::as_str));
    assert_eq!(output.code, Some(2), "{output:?}");

    let open = format!("{}:9472", a.vtep());
    let mut agent = a.attach(&["--vni", "16", "--peer", &peer, "--metrics", &open]);
    agent.process().wait_log_line("are not for this host alone", LIMIT);
    let (head, _) = get(&b, open.parse().expect("an address"), "/metrics", OPEN);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    agent.stop();
    let agent = a.attach(&["--vni", "16", "--peer", &peer]);
    let closed = exchange(&a, metrics(), "");
    assert!(closed.is_err(), "off unless asked for");
    agent.stop();
}

/// 256 peers with four paths each and 64 networks: an answer takes milliseconds (much less without debug assertions), whoever asks.
#[test]
fn a_large_mesh() {
    let lab = Lab::new("metrics, large");
    let [a] = lab.switch(["n0"], &Wiring::default());
    let mut text = format!("[[node]]\nname = \"n0\"\naddress = \"{}\"\n", a.vtep());
    for node in 1..=256 {
        let (relay, high, low) = (node <= 3, node / 250 + 1, node % 250 + 1);
        text += &format!("[[node]]\nname = \"n{node}\"\naddress = \"198.18.{high}.{low}\"\nrelay = {relay}\n");
    }
    for network in 1..=64 {
        text += &format!("[[network]]\nname = \"net{network}\"\nvni = {network}\n");
    }
    let path = lab.directory().join("mesh.toml");
    fs::write(&path, text).expect("a file of the lab");
    a.run("ip route add 198.18.0.0/16 dev eth0");
    let _agent = a.attach(&["--config", &path.display().to_string(), "--metrics", "127.0.0.1:9472"]);
    let mut times: Vec<f64> = (0..20)
        .map(|_| {
            let found = scrape(&a);
            // Who asks sooner gets the same text again.
            thread::sleep(Duration::from_millis(110));
            assert!(found.len() > 256 * (6 + 3 + 4 * 3) + 64 * 7, "{} samples", found.len());
            found["l2mesh_scrape_duration_seconds"]
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("gathering 256 peers and 64 networks: median {:.1} ms, worst {:.1} ms", times[10] * 1e3, times[19] * 1e3);
    assert!(times[10] < 0.25, "{times:?}");
}

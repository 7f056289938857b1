//! Prometheus on a host of the lab: a process of its own with its own configuration and data, not the service.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::host::Host;
use crate::lab::Lab;
use crate::process::Process;
use crate::wait::wait_for;

/// How long it may take to start, and to know what was just scraped.
const LIMIT: Duration = Duration::from_secs(20);
/// Where it listens, in the host's namespace.
const ADDRESS: &str = "127.0.0.1:9090";

/// The labels of a series and its value now.
pub type Series = (BTreeMap<String, String>, f64);

/// A running Prometheus. Dropping it ends it.
#[derive(Debug)]
pub struct Prometheus {
    host: Host,
    process: Process,
}

impl Prometheus {
    /// Starts one that scrapes these addresses every second, from a host that reaches them.
    #[must_use = "dropping it ends it"]
    #[track_caller]
    pub fn start(lab: &Lab, host: &Host, targets: &[SocketAddr]) -> Self {
        let directory = lab.directory().join("prometheus");
        fs::create_dir_all(&directory).expect("a directory of the lab");
        let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let text = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
             scrape_configs:\n- job_name: l2mesh\n  static_configs:\n  - targets: [{}]\n",
            targets.join(", ")
        );
        let file = directory.join("prometheus.yml");
        fs::write(&file, text).expect("a file of the lab");
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", directory.join("data").display()),
            format!("--web.listen-address={ADDRESS}"),
        ];
        let mut process = host.spawn("prometheus", &args);
        process.wait_log_line("Server is ready", LIMIT);
        Self { host: host.clone(), process }
    }

    /// What a query gives: of each series its labels and its value.
    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<Series> {
        self.try_query(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The same.
    ///
    /// # Errors
    /// What Prometheus says against it.
    #[track_caller]
    pub fn try_query(&self, query: &str) -> Result<Vec<Series>, String> {
        let encoded = query.bytes().fold(String::new(), |all, byte| all + &format!("%{byte:02X}"));
        let address = ADDRESS.parse().expect("an address");
        let (_, body) = get(&self.host, address, &format!("/api/v1/query?query={encoded}"), "*/*");
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if answer["status"] != "success" {
            return Err(format!("{}{}", answer["error"], self.process.last_words()));
        }
        let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let one = |series: &Value| {
            let labels = series["metric"].as_object().cloned().unwrap_or_default();
            let labels = labels.into_iter().map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned()));
            let value = series["value"][1].as_str().and_then(|value| value.parse().ok()).unwrap_or(f64::NAN);
            (labels.collect(), value)
        };
        Ok(series.iter().map(one).collect())
    }

    /// Waits until a query gives at least one series and each value satisfies `is`. Returns them.
    #[track_caller]
    pub fn wait(&self, query: &str, limit: Duration, is: impl Fn(f64) -> bool) -> Vec<Series> {
        wait_for(query, limit, || {
            let found = self.query(query);
            if !found.is_empty() && found.iter().all(|(_, value)| is(*value)) {
                Ok(found)
            } else {
                Err(format!("{found:?}"))
            }
        })
    }
}

/// One request to a server on a host, which hangs up after it: the head of the answer and the body.
#[track_caller]
pub fn get(host: &Host, address: SocketAddr, path: &str, accept: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    exchange(host, address, &request).unwrap_or_else(|error| panic!("{}: {address}{path}: {error}", host.name()))
}

/// Says something to a server on a host, and reads until it hangs up.
///
/// # Errors
/// What the sockets say.
pub fn exchange(host: &Host, address: SocketAddr, request: &str) -> std::io::Result<(String, String)> {
    host.in_namespace(|| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        // Prometheus answers in chunks unless the whole is short.
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            unchunk(body)
        } else {
            body.to_owned()
        };
        Ok((head.to_owned(), body))
    })
}

fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size).filter(|chunk| !chunk.is_empty()) else { break };
        text.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    text
}

/// The samples of a text in the exposition format, by name with labels as they stand there.
#[must_use]
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
        (name.to_owned(), value.parse().unwrap_or_else(|error| panic!("{line:?}: {error}")))
    };
    let mut found = BTreeMap::new();
    for (name, value) in lines.map(sample) {
        assert!(found.insert(name.clone(), value).is_none(), "{name} stands there twice");
    }
    found
}

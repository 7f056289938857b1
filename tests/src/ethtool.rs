//! What drivers count, and which offloads they do.

use std::collections::BTreeMap;

use crate::host::Host;

impl Host {
    /// The driver's own counters: `ethtool -S`.
    #[must_use]
    #[track_caller]
    pub fn ethtool_stats(&self, interface: &str) -> BTreeMap<String, u64> {
        let text = self.exec("ethtool", &["-S", interface]).stdout;
        let pair = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().to_owned(), value.trim().parse().ok()?))
        };
        text.lines().filter_map(pair).collect()
    }

    /// Panics if a veth lost a frame that XDP sent through it: names of counters that are not zero.
    #[track_caller]
    pub fn assert_no_xdp_errors(&self, interface: &str) {
        let mut errors = self.ethtool_stats(interface);
        // rx_queue_N_xdp_tx_errors: XDP_TX found no room; tx_queue_N_xdp_xmit_errors: a redirect did not.
        errors.retain(|name, count| name.contains("xdp") && name.ends_with("errors") && *count != 0);
        assert!(errors.is_empty(), "{} {interface}: {errors:?}", self.name());
    }

    /// `ethtool -K`: offloads on or off, as in `&["tso", "off"]`.
    #[track_caller]
    pub fn offload(&self, interface: &str, settings: &[&str]) {
        let args: Vec<&str> = ["-K", interface].iter().chain(settings).copied().collect();
        self.exec("ethtool", &args);
    }
}

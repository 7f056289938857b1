//! What is measured, and what of many samples counts.

/// One line of the result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Metric {
    Tcp1,
    Tcp1Cpu,
    Tcp4,
    Tcp4Cpu,
    Transmit,
    TransmitWork,
    Receive,
    RoundTrip,
    RoundTrip99,
    Copies2,
    Copies32,
    Copies128,
    Reordered,
    V6Tcp1,
    V6Tcp1Cpu,
    V6Transmit,
    V6TransmitWork,
    V6Receive,
    TaggedTcp1,
    TaggedTcp1Cpu,
}

/// What is told of a metric.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// Digits after the point.
    pub(crate) digits: usize,
    /// More is better.
    pub(crate) more: bool,
}

impl Metric {
    #[rustfmt::skip]
    pub(crate) const fn about(self) -> About {
        let (key, title, unit, digits, more) = match self {
            Self::Tcp1 => ("tcp-1", "TCP, 1 flow", "Gb/s", 2, true),
            Self::Tcp1Cpu => ("tcp-1-cpu", "  its processor time", "s/GB", 2, false),
            Self::Tcp4 => ("tcp-4", "TCP, 4 flows", "Gb/s", 2, true),
            Self::Tcp4Cpu => ("tcp-4-cpu", "  its processor time", "s/GB", 2, false),
            Self::Transmit => ("transmit", "small frame sent, best round", "ns", 0, false),
            Self::TransmitWork => ("transmit-work", "  work over bare", "ns", 0, false),
            Self::Receive => ("receive", "small frames received", "k/s", 0, true),
            Self::RoundTrip => ("round-trip", "round trip, median", "us", 1, false),
            Self::RoundTrip99 => ("round-trip-99", "  99th percentile", "us", 1, false),
            Self::Copies2 => ("copies-2", "broadcast copies, 2 peers", "k/s", 0, true),
            Self::Copies32 => ("copies-32", "  32 peers", "k/s", 0, true),
            Self::Copies128 => ("copies-128", "  128 peers", "k/s", 0, true),
            Self::Reordered => ("reordered", "reordered frames", "ppm", 0, false),
            Self::V6Tcp1 => ("ipv6-tcp-1", "IPv6: TCP, 1 flow", "Gb/s", 2, true),
            Self::V6Tcp1Cpu => ("ipv6-tcp-1-cpu", "  its processor time", "s/GB", 2, false),
            Self::V6Transmit => ("ipv6-transmit", "IPv6: small frame sent", "ns", 0, false),
            Self::V6TransmitWork => ("ipv6-transmit-work", "  work over bare", "ns", 0, false),
            Self::V6Receive => ("ipv6-receive", "IPv6: small frames received", "k/s", 0, true),
            Self::TaggedTcp1 => ("tagged-tcp-1", "802.1Q: TCP, 1 flow", "Gb/s", 2, true),
            Self::TaggedTcp1Cpu => ("tagged-tcp-1-cpu", "  its processor time", "s/GB", 2, false),
        };
        About { key, title, unit, digits, more }
    }

    /// One number for many samples: the median; of the time for one thing on a processor the minimum, for all that
    /// others do on the machine can only add to it.
    pub(crate) fn value(self, samples: &[f64]) -> Option<f64> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        match self {
            Self::Transmit | Self::V6Transmit => sorted.first().copied(),
            _ => median(&sorted),
        }
    }

    /// Of what this is the part above the bare underlay's.
    pub(crate) const fn over_bare(self) -> Option<Self> {
        match self {
            Self::TransmitWork => Some(Self::Transmit),
            Self::V6TransmitWork => Some(Self::V6Transmit),
            _ => None,
        }
    }
}

/// Of sorted samples.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Metric::Tcp1.value(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(Metric::Tcp1.value(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(Metric::Transmit.value(&[3.0, 1.0, 2.0]), Some(1.0));
        assert_eq!(Metric::Tcp1.value(&[]), None);
    }
}

//! tinc-up: what a shell script does to the interface, as far as it is the usual commands.

use std::net::Ipv4Addr;

use crate::config::Cidr;

/// What the script sets up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Up {
    pub(super) addresses: Vec<Cidr>,
    pub(super) mtu: Option<u32>,
    pub(super) bridge: Option<String>,
    /// Lines with something else in them, with their numbers.
    pub(super) others: Vec<(usize, String)>,
}

/// Reads the script; `interface` is what `$INTERFACE` stands for.
pub(super) fn read(text: &str, interface: &str) -> Up {
    let mut up = Up::default();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line == "exit 0" || line.starts_with("set -") {
            continue;
        }
        // What is understood is taken from a line of several commands; all of the others are shown.
        for command in line.split("&&").flat_map(|part| part.split(';')) {
            let words: Vec<&str> = command.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
            if !words.is_empty() && up.command(&words, interface).is_none() {
                up.others.push((number, command.trim().to_owned()));
            }
        }
    }
    up
}

impl Up {
    /// None leaves everything as it was: it is not understood.
    fn command(&mut self, words: &[&str], interface: &str) -> Option<()> {
        let words = if let ["sudo", rest @ ..] = words { rest } else { words };
        let (program, rest) = words.split_first()?;
        match program.rsplit('/').next()? {
            "ip" => self.ip(rest, interface),
            "ifconfig" => self.ifconfig(rest, interface),
            "brctl" => match rest {
                ["addif", bridge, port] if is_interface(port, interface) => {
                    self.bridge = Some(unquoted(bridge)?.to_owned());
                    Some(())
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn ip(&mut self, words: &[&str], interface: &str) -> Option<()> {
        let words = if let ["-4" | "-6", rest @ ..] = words { rest } else { words };
        let (object, rest) = words.split_first()?;
        match (*object, rest) {
            ("addr" | "address" | "a", ["add" | "a" | "replace", rest @ ..]) => self.ip_address(rest, interface),
            ("link" | "l", ["set" | "s", rest @ ..]) => self.ip_link(rest, interface),
            _ => None,
        }
    }

    fn ip_address(&mut self, words: &[&str], interface: &str) -> Option<()> {
        let (mut address, mut device) = (None, None);
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            match word {
                "dev" => device = Some(*words.next()?),
                "brd" | "broadcast" => drop(words.next()?),
                "local" => address = Some(*words.next()?),
                _ if address.is_none() => address = Some(word),
                _ => return None,
            }
        }
        is_interface(device?, interface).then_some(())?;
        let text = unquoted(address?)?;
        let cidr = text.parse().or_else(|_| format!("{text}/{}", if text.contains(':') { 128 } else { 32 }).parse());
        self.add(cidr.ok()?);
        Some(())
    }

    fn ip_link(&mut self, words: &[&str], interface: &str) -> Option<()> {
        let words = if let ["dev", rest @ ..] = words { rest } else { words };
        let (device, rest) = words.split_first()?;
        is_interface(device, interface).then_some(())?;
        let (mut mtu, mut bridge) = (None, None);
        let mut rest = rest.iter();
        while let Some(&word) = rest.next() {
            match word {
                "up" => {}
                "mtu" => mtu = Some(rest.next()?.parse().ok()?),
                "master" => bridge = Some(unquoted(rest.next()?)?.to_owned()),
                _ => return None,
            }
        }
        self.mtu = mtu.or(self.mtu);
        self.bridge = bridge.or(self.bridge.take());
        Some(())
    }

    /// `ifconfig $INTERFACE 192.168.1.1 netmask 255.255.0.0 mtu 1400 up`.
    fn ifconfig(&mut self, words: &[&str], interface: &str) -> Option<()> {
        let (device, rest) = words.split_first()?;
        is_interface(device, interface).then_some(())?;
        let (mut address, mut prefix, mut mtu) = (None, None, None);
        let mut rest = rest.iter().copied();
        while let Some(word) = rest.next() {
            match word {
                "up" | "inet" | "inet6" | "add" => {}
                "broadcast" => drop(rest.next()?),
                "netmask" => prefix = Some(prefix_length(rest.next()?.parse().ok()?)?),
                "mtu" => mtu = Some(rest.next()?.parse().ok()?),
                _ if address.is_none() => address = Some(word),
                _ => return None,
            }
        }
        let cidr = match (address, prefix) {
            (Some(address), Some(prefix)) => Some(format!("{address}/{prefix}").parse().ok()?),
            // Without a netmask it would be that of the class.
            (Some(address), None) => Some(address.parse().ok()?),
            (None, _) => None,
        };
        cidr.into_iter().for_each(|cidr| self.add(cidr));
        self.mtu = mtu.or(self.mtu);
        Some(())
    }

    fn add(&mut self, cidr: Cidr) {
        if !self.addresses.iter().any(|other| other.address == cidr.address) {
            self.addresses.push(cidr);
        }
    }
}

fn is_interface(word: &str, interface: &str) -> bool {
    let word = word.trim_matches(['"', '\'']);
    ["$INTERFACE", "${INTERFACE}", "$NETNAME", "${NETNAME}"].contains(&word) || word == interface
}

/// A word without anything for the shell to do.
fn unquoted(word: &str) -> Option<&str> {
    let word = word.trim_matches(['"', '\'']);
    (!word.contains(['$', '`', '*', '"', '\''])).then_some(word)
}

/// A netmask's ones, if they come first.
fn prefix_length(mask: Ipv4Addr) -> Option<u32> {
    let bits = mask.to_bits();
    (bits.leading_ones() == bits.count_ones()).then(|| bits.count_ones())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_commands() {
        let text = "#!/bin/sh\nset -e\n# comment\n\n\
                    ip addr add 10.8.0.1/24 dev $INTERFACE\n\
                    /sbin/ip -6 address add dev \"$INTERFACE\" fd00::1/64\n\
                    ip a add 10.9.0.1 brd + dev ${INTERFACE}   # a comment\n\
                    ip link set dev $INTERFACE mtu 1400 up\n\
                    ip link set lan up && brctl addif br0 $INTERFACE; echo hello\n\
                    exit 0\n";
        let up = read(text, "lan");
        let texts: Vec<_> = up.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.8.0.1/24", "fd00::1/64", "10.9.0.1/32"]);
        assert_eq!((up.mtu, up.bridge.as_deref()), (Some(1400), Some("br0")));
        assert_eq!(up.others, [(9, "echo hello".to_owned())]);
    }

    #[test]
    fn ifconfig() {
        for (line, addresses, mtu) in [
            ("ifconfig $INTERFACE 192.168.1.1 netmask 255.255.0.0", vec!["192.168.1.1/16"], None),
            ("/sbin/ifconfig $INTERFACE 10.8.0.1/24 mtu 1300 up", vec!["10.8.0.1/24"], Some(1300)),
            ("ifconfig $INTERFACE inet6 add fd00::1/64", vec!["fd00::1/64"], None),
            ("ifconfig $INTERFACE up", vec![], None),
        ] {
            let up = read(line, "lan");
            let texts: Vec<_> = up.addresses.iter().map(ToString::to_string).collect();
            assert_eq!((texts.iter().map(String::as_str).collect::<Vec<_>>(), up.mtu), (addresses, mtu), "{line}");
            assert_eq!(up.others, [], "{line}");
        }
    }

    #[test]
    fn left_to_the_user() {
        for line in [
            "ifconfig $INTERFACE 192.168.1.1",
            "ifconfig eth0 192.168.1.1 netmask 255.255.0.0",
            "ifconfig $INTERFACE 192.168.1.1 netmask 255.0.255.0",
            "ip addr add 10.8.0.1/24 dev eth0",
            "ip addr add 10.8.0.1/24",
            "ip addr add $ADDRESS dev $INTERFACE",
            "ip addr add 10.8.0.1 peer 10.8.0.2 dev $INTERFACE",
            "ip link set $INTERFACE master $BRIDGE",
            "ip link set $INTERFACE mtu big",
            "ip link set $INTERFACE mtu 1400 txqueuelen 5",
            "ip route add 10.0.0.0/8 dev $INTERFACE",
            "if true",
            "ip",
        ] {
            let up = read(line, "lan");
            assert_eq!(up, Up { others: vec![(1, line.to_owned())], ..Up::default() }, "{line}");
        }
    }
}

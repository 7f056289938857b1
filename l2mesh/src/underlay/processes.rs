//! Processes, as far as they matter to the mesh: who holds a UDP port, and whether one is stopped.

use std::{fs, path::Path};

/// A process that holds a UDP port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    /// Its id.
    pub pid: i32,
    /// What it is called.
    pub name: String,
}

/// The process that has a socket on a UDP port, in the network namespace of this process. `None` if nobody has, or if it is
/// the kernel itself, as with a vxlan device.
pub(crate) fn udp_holder(port: u16) -> Option<Holder> {
    let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let links: Vec<String> =
        tables.iter().flat_map(|table| inodes(table, port)).map(|inode| format!("socket:[{inode}]")).collect();
    if links.is_empty() {
        return None;
    }
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids {
        // Processes come and go.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let holds = |entry: fs::DirEntry| {
            fs::read_link(entry.path()).is_ok_and(|link| links.iter().any(|wanted| Path::new(wanted) == link))
        };
        if descriptors.flatten().any(holds) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
            return Some(Holder { pid, name });
        }
    }
    None
}

/// The inodes of the sockets on a port, of a table as `/proc/net/udp`: the second column is address and port, the tenth the
/// inode.
fn inodes(table: &str, port: u16) -> impl Iterator<Item = u64> {
    table.lines().skip(1).filter_map(move |line| {
        let mut columns = line.split_whitespace();
        let (_, held) = columns.nth(1)?.rsplit_once(':')?;
        let inode = columns.nth(7)?.parse().ok()?;
        (u16::from_str_radix(held, 16) == Ok(port)).then_some(inode)
    })
}

/// True for a process that was sent SIGSTOP, or is held by a debugger: it does nothing, and nobody sees that.
pub(crate) fn is_stopped(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| state(&stat).is_some_and(|it| "Tt".contains(it)))
}

/// The third field of `/proc/PID/stat`; the second is a name in parentheses that may hold anything.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, process::Command, time::Duration};

    use super::*;

    #[test]
    fn tables_of_the_kernel() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                     1234: 0100007F:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0\n\
                     1235: 00000000:12B6 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0\n";
        assert_eq!(inodes(table, 4789).collect::<Vec<_>>(), [4711]);
        assert_eq!(inodes(table, 53).count(), 0);
        for (stat, expected) in [("7 (a) b (c) T 1", Some('T')), ("7 (x) S 1", Some('S')), ("", None)] {
            assert_eq!(state(stat), expected, "{stat}");
        }
    }

    #[test]
    fn this_process_and_one_that_is_stopped() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let port = socket.local_addr().expect("an address").port();
        assert_eq!(udp_holder(port).map(|holder| holder.pid), i32::try_from(std::process::id()).ok());
        let mut child = Command::new("sleep").arg("60").spawn().expect("a process");
        let pid = i32::try_from(child.id()).expect("a pid");
        assert!(!is_stopped(pid));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGSTOP).expect("stopped");
        let stopped = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            is_stopped(pid)
        });
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(stopped && !is_stopped(pid));
    }
}

use clap::{CommandFactory, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Cli, ErrorKind> {
    Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.kind())
}

fn attach(line: &str) -> Result<AttachArgs, ErrorKind> {
    match parse(&format!("l2mesh attach --iface eth0 {line}"))?.command {
        Command::Attach(args) => Ok(*args),
        other => panic!("{other:?}"),
    }
}

#[test]
fn clap_finds_nothing_wrong() {
    Cli::command().debug_assert();
}

#[test]
fn attach_by_flags() {
    let line = "--vni 0xff01 --peer 192.0.2.2 --plain-peer 192.0.2.3 --relay 192.0.2.4 --peer 2001:db8::5 \
                --allow-relay --overlay lan0 --address 10.8.0.1/24 --address fd00::1/64 --port 8472 --private-port --storm-limit 5000 \
                --node 192.0.2.1 --local 10.0.0.1 --mode tc --tx-hook port --persist";
    let args = attach(line).expect("a valid command line");
    assert_eq!(args.mesh.vni.map(Vni::get), Some(0xff01));
    assert_eq!(args.mesh.peer.len(), 2);
    assert_eq!(args.mesh.address.len(), 2);
    assert_eq!((args.mode, args.tx_hook), (Mode::Tc, Some(TxHook::Port)));
    assert!(args.persist && args.config.is_none());
}

#[test]
fn attach_by_file() {
    let args = attach("--config mesh.toml --node ovh --local 10.0.0.1 --mode xdp").expect("a valid command line");
    assert_eq!(args.config, Some("mesh.toml".into()));
    assert_eq!(args.mesh, MeshFlags::default());
}

#[test]
fn attach_refused() {
    use ErrorKind::{ArgumentConflict, InvalidValue, MissingRequiredArgument, ValueValidation};
    for (line, kind) in [
        ("", MissingRequiredArgument),
        ("--vni 16", MissingRequiredArgument),
        ("--peer 192.0.2.2", MissingRequiredArgument),
        ("--config mesh.toml --vni 16 --peer 192.0.2.2", ArgumentConflict),
        ("--config mesh.toml --peer 192.0.2.2", ArgumentConflict),
        ("--config mesh.toml --allow-relay", ArgumentConflict),
        ("--config mesh.toml --port 4789", ArgumentConflict),
        ("--config mesh.toml --private-port", ArgumentConflict),
        ("--config mesh.toml --storm-limit 9", ArgumentConflict),
        ("--config mesh.toml --overlay lan0", ArgumentConflict),
        ("--config mesh.toml --plain-peer 192.0.2.2", ArgumentConflict),
        ("--config mesh.toml --relay 192.0.2.2", ArgumentConflict),
        ("--config mesh.toml --vni 16", ArgumentConflict),
        ("--config mesh.toml --address 10.8.0.1/24", ArgumentConflict),
        ("--config mesh.toml --mode fast", InvalidValue),
        ("--vni 0 --peer 192.0.2.2", ValueValidation),
        ("--vni 16777216 --peer 192.0.2.2", ValueValidation),
        ("--vni 16 --peer host.example", ValueValidation),
        ("--vni 16 --peer 192.0.2.2 --address 10.8.0.1", ValueValidation),
        ("--vni 16 --peer 192.0.2.2 --port 0", ValueValidation),
    ] {
        assert_eq!(attach(line).map(|_| ()), Err(kind), "{line}");
    }
}

#[test]
fn the_other_verbs() {
    assert!(parse("l2mesh detach --iface eth0").is_ok());
    assert!(parse("l2mesh detach --stale --pin-dir /tmp/pins").is_ok());
    assert_eq!(parse("l2mesh detach").map(|_| ()), Err(ErrorKind::MissingRequiredArgument));
    assert_eq!(parse("l2mesh detach --iface eth0 --stale").map(|_| ()), Err(ErrorKind::ArgumentConflict));
    for table in ["networks", "peers", "paths", "macs", "neighbours", "counters"] {
        assert!(parse(&format!("l2mesh maps {table} --json --vni 16")).is_ok(), "{table}");
    }
    assert!(parse("l2mesh maps --watch").is_ok());
    assert_eq!(attach("--vni 16 --peer 192.0.2.2 --watch").map(|_| ()), Err(ErrorKind::ArgumentConflict));
    for line in [
        "reload --iface eth0",
        "peer add ovh --address 192.0.2.10 --relay --plain --id 7 --network lan --save --iface eth0",
        "peer del ovh --save",
        "network add dmz --vni 0x11 --interface d0 --bridge br0 --member a --member b --address a=10.9.0.1/24",
        "network del dmz",
        "mac add 52:54:00:12:34:56 --vni 16 --peer ovh --save",
        "mac del 52:54:00:12:34:56 --vni 16",
        "mac flush",
        "mac --iface eth0 flush --vni 16 --peer ovh --mac 52:54:00:12:34:56",
    ] {
        assert!(parse(&format!("l2mesh {line}")).is_ok(), "{line}");
    }
    assert!(parse("l2mesh status --json").is_ok());
    assert!(parse("l2mesh events --follow --json").is_ok());
    assert!(parse("l2mesh top --interval 500ms").is_ok());
    assert_eq!(parse("l2mesh top --interval 50ms").map(|_| ()), Err(ErrorKind::ValueValidation));
    assert!(parse("l2mesh check --config mesh.toml").is_ok());
    assert!(parse("l2mesh ping ovh --via hetzner --count 9 --interval 10ms --timeout 2s --size 1450 --json").is_ok());
    assert_eq!(parse("l2mesh ping").map(|_| ()), Err(ErrorKind::MissingRequiredArgument));
    for line in ["--count 0", "--interval 1", "--interval 9ms", "--timeout 0s", "--size 23", "--size 9001"] {
        assert_eq!(parse(&format!("l2mesh ping ovh {line}")).map(|_| ()), Err(ErrorKind::ValueValidation), "{line}");
    }
    assert_eq!(parse("l2mesh check").map(|_| ()), Err(ErrorKind::MissingRequiredArgument));
    for line in
        ["", "vxlan0 vxlan1 --local 192.0.2.1 --peer 192.0.2.2", "--netplan a b --peer ::1", "--tinc /etc/tinc/x"]
    {
        assert!(parse(&format!("l2mesh import {line}")).is_ok(), "{line}");
    }
    for line in ["vxlan0 --netplan a", "vxlan0 --tinc d", "--netplan a --tinc d", "--tinc d --peer 192.0.2.2"] {
        assert_eq!(parse(&format!("l2mesh import {line}")).map(|_| ()), Err(ErrorKind::ArgumentConflict), "{line}");
    }
}

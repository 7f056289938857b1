//! The Debian package, on machines of their own: installed, used, upgraded under a stream, removed, purged; by hand, by Ansible and by
//! Puppet. `cargo xtask dist --test` builds it and runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use l2mesh_tests::flow::Flow;
use l2mesh_tests::{Agent, Host, Lab, Machine, Wiring, traffic, wait_for};

const UNIT: &str = "l2mesh@eth0.service";
const LIMIT: Duration = Duration::from_secs(30);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Where cargo and xtask put what they make.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// What `cargo xtask dist` has built.
#[track_caller]
fn package() -> PathBuf {
    let built = fs::read_dir(target().join("dist")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut packages = built.filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
    packages.next().expect("no package in target/dist: cargo xtask dist")
}

/// Host `a` is a bare machine, `b` a host of the mesh with 10.8.0.2. Their addresses are those of the examples.
struct Two {
    machine: Machine,
    a: Host,
    b: Host,
    file: String,
    _agent: Agent,
    _lab: Lab,
}

impl Two {
    fn new(title: &str) -> Self {
        let lab = Lab::new(title);
        let [a, b] = lab.pair(["a", "b"], &Wiring::default());
        assert_eq!((a.address().to_string(), b.address().to_string()), ("192.0.2.10".into(), "192.0.2.11".into()));
        let machine = Machine::boot(&lab, &a);
        let rest = "[[network]]\nname = \"lan\"\nvni = 16\naddresses = { a = \"10.8.0.1/24\", b = \"10.8.0.2/24\" }\n";
        let file = l2mesh_tests::mesh_file(&lab, &[a.clone(), b.clone()], rest);
        let agent = b.attach(&["--config", &file]);
        machine.copy(&package(), "/root/l2mesh.deb");
        Self { machine, a, b, file, _agent: agent, _lab: lab }
    }

    #[track_caller]
    fn assert_works(&self) {
        assert_eq!(traffic::ping(&self.a, [10, 8, 0, 2], 3).lost(), 0);
    }

    #[track_caller]
    fn pid(&self) -> String {
        self.machine.run(&format!("systemctl show --value --property=MainPID {UNIT}")).trim().to_owned()
    }

    /// Removes and purges; nothing may be left.
    #[track_caller]
    fn purge(&self, before: &str) {
        self.machine.run("dpkg --remove l2mesh");
        let left = self.a.state();
        assert!(left.lines("l2m").is_empty(), "{left:?}");
        // As Debian has it, configuration stays until it is purged.
        self.machine.run("test -f /etc/l2mesh/mesh.toml && test -f /etc/default/l2mesh && ! test -e /usr/sbin/l2mesh");
        self.machine.run("dpkg --purge l2mesh");
        assert_eq!(files(&self.machine), before);
        self.machine.run("! getent group l2mesh && ! dpkg --status l2mesh 2>/dev/null");
        assert_eq!(self.machine.run("find /sys/fs/bpf -name 'l2mesh*' -type d -mindepth 2"), "");
    }
}

/// All files that could be ours.
fn files(machine: &Machine) -> String {
    machine.run("find / -xdev -path /work -prune -o -name '*l2mesh*' -not -path '/root/*' -not -path '/tmp/*' -not -path '/var/log/*' -not -path '/target/*' -print | sort")
}

#[test]
#[ignore = "needs the package: cargo xtask dist --test"]
fn installed_used_upgraded_and_purged() {
    let two = Two::new("package");
    let machine = &two.machine;
    let before = files(machine);
    machine.run("dpkg --install /root/l2mesh.deb");
    machine.run("dpkg --verify l2mesh");
    let octets: u64 = machine.run("stat -c %s /usr/sbin/l2mesh").trim().parse().expect("a number");
    assert!(octets < 30_000_000, "{octets} octets: with what a debugger needs?");
    machine.run("l2mesh check --config /etc/l2mesh/mesh.toml.example");
    machine.write("/etc/l2mesh/mesh.toml", fs::read(&two.file).expect("the file"));
    machine.run(&format!("systemctl enable --now {UNIT}"));
    two.assert_works();
    assert!(machine.run("l2mesh status").contains("mode"));

    // The package has made a group for those who may ask the agent.
    let asks = |group: &str| {
        machine.try_run("setpriv", &["--reuid", "65534", "--regid", group, "--clear-groups", "l2mesh", "reload"])
    };
    let member = asks("l2mesh");
    assert!(member.success() && member.stdout.contains("nothing changed"), "{member:?}");
    let stranger = asks("nogroup");
    assert!(!stranger.success() && stranger.stderr.contains("members of the group l2mesh"), "{stranger:?}");

    // The same version once more is an upgrade as any: another agent, and nobody notices.
    let flow = Flow::start(&two.a, &two.b, [10, 8, 0, 2], 10_000);
    let pid = two.pid();
    machine.run("dpkg --install /root/l2mesh.deb");
    wait_for("another agent", LIMIT, || if two.pid() == pid { Err(pid.clone()) } else { Ok(()) });
    flow.wait_more(1_000);
    flow.stop().assert_whole();

    two.purge(&before);
}

/// Man pages have no mistakes, and completions complete.
#[test]
#[ignore = "needs the package: cargo xtask dist --test"]
fn man_pages_and_completions() {
    let two = Two::new("pages");
    let machine = &two.machine;
    // Containers leave these out.
    machine.run("rm -f /etc/dpkg/dpkg.cfg.d/*; dpkg --install /root/l2mesh.deb");
    for page in machine.run("ls /usr/share/man/man1/ | grep '^l2mesh'").lines() {
        let said = machine.try_run("sh", &["-c", &format!("zcat -f /usr/share/man/man1/{page} | groff -man -Tutf8 -wall -Wbreak -z 2>&1; MANROFFSEQ= MANWIDTH=100 man --warnings -l /usr/share/man/man1/{page} 2>&1 >/dev/null")]);
        assert!(said.success() && said.stdout.is_empty(), "{page}: {said:?}");
    }
    assert!(machine.run("MANWIDTH=100 man l2mesh-attach").contains("--persist"));
    // What README and docs link to is there too.
    machine.run(
        r"cd /usr/share/doc/l2mesh; for page in README.md docs/*.md; do for link in $(grep -oE '\]\([^):#]+' $page | cut -c3-); do test -e $(dirname $page)/$link || { echo $page: $link >&2; exit 1; }; done; done; test -e docs/install.md",
    );
    let bash = "source /usr/share/bash-completion/completions/l2mesh; COMP_WORDS=(l2mesh att); COMP_CWORD=1; _l2mesh l2mesh att l2mesh; echo ${COMPREPLY[@]}";
    assert_eq!(machine.run(&format!("bash -c '{bash}'")).trim(), "attach");
    assert!(machine.run("fish -c \"complete -C 'l2mesh att'\"").starts_with("attach"));
    machine.run("zsh -fc 'fpath=(/usr/share/zsh/vendor-completions $fpath); autoload -U compinit; compinit -u -d /tmp/z; [[ $_comps[l2mesh] == _l2mesh ]] && autoload -U +X _l2mesh'");
}

#[test]
#[ignore = "needs the package: cargo xtask dist --test"]
fn by_ansible() {
    let two = Two::new("ansible");
    let machine = &two.machine;
    let before = files(machine);
    machine.copy(&root().join("packaging/ansible"), "/root/ansible");
    let play = "cd /root/ansible && ansible-playbook --connection=local --inventory hosts --limit a example.yml \
                -e ansible_python_interpreter=/usr/bin/python3 -e l2mesh_package=/root/l2mesh.deb";
    let first = machine.run(play);
    assert!(first.contains("failed=0") && !first.contains("changed=0"), "{first}");
    two.assert_works();
    let pid = two.pid();
    let second = machine.run(play);
    assert!(second.contains("changed=0 ") && second.contains("failed=0"), "{second}");
    assert_eq!(two.pid(), pid, "nothing was restarted");
    // A file that is no mesh never gets there.
    let bad = machine.try_run("sh", &["-c", &format!("sed -i s/vni/nvi/ /root/ansible/example.yml; {play}")]);
    assert!(!bad.success() && bad.stdout.contains("nvi"), "{bad:?}");
    two.assert_works();
    machine.run("rm -r /root/ansible");
    two.purge(&before);
}

#[test]
#[ignore = "needs the package: cargo xtask dist --test"]
fn by_puppet() {
    let two = Two::new("puppet");
    let machine = &two.machine;
    let before = files(machine);
    machine.copy(&root().join("packaging/puppet"), "/root/puppet");
    let apply = |machine: &Machine| {
        machine.try_run(
            "puppet",
            &["apply", "--detailed-exitcodes", "--modulepath=/root/puppet", "/root/puppet/l2mesh/examples/init.pp"],
        )
    };
    // 2: something was changed, and nothing failed.
    let first = apply(machine);
    assert_eq!(first.code, Some(2), "{first:?}");
    two.assert_works();
    let pid = two.pid();
    let second = apply(machine);
    assert_eq!(second.code, Some(0), "{second:?}");
    assert_eq!(two.pid(), pid, "nothing was restarted");
    machine.run("sed -i s/vni/nvi/ /root/puppet/l2mesh/templates/mesh.toml.epp");
    let bad = apply(machine);
    assert_eq!(bad.code, Some(4), "{bad:?}");
    two.assert_works();
    machine.run("rm -r /root/puppet");
    two.purge(&before);
}

/// The dashboard is one for Grafana's own models of it: nothing is lost or changed on the way through them.
#[test]
#[ignore = "needs Grafana's models: cargo xtask dist --test"]
fn dashboard_loads() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dashboard.py");
    let mut load = std::process::Command::new("python3");
    load.arg(script).arg(root().join("packaging/grafana/l2mesh.json"));
    let output = load.env("PYTHONPATH", target().join("grafana-models")).output().expect("python3");
    let (said, panels) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "{said}{panels}");
    assert!(panels.ends_with(" panels\n"), "{panels}");
}

/// What needs neither package nor machine, where the programs are there.
#[test]
fn syntax() {
    let packaging = root().join("packaging");
    let checks = [
        ("ansible-playbook", &["--syntax-check", "--inventory", "ansible/hosts", "ansible/example.yml"][..]),
        ("puppet", &["parser", "validate", "puppet/l2mesh/manifests/init.pp", "puppet/l2mesh/examples/init.pp"]),
        ("sh", &["-n", "debian/postinst"]),
        ("sh", &["-n", "debian/prerm"]),
        ("sh", &["-n", "debian/postrm"]),
    ];
    for (program, args) in checks {
        match std::process::Command::new(program).args(args).current_dir(&packaging).env("LANG", "C.UTF-8").output() {
            Ok(output) => assert!(output.status.success(), "{program} {args:?}: {output:?}"),
            Err(error) => println!("{program}: not checked: {error}"),
        }
    }
}

//! Builds the kernel programs and leaves the object in `OUT_DIR`, where `dataplane` embeds it.

use aya_build::{Package, Toolchain};

fn main() -> anyhow::Result<()> {
    let features: &[&str] =
        if std::env::var_os("CARGO_FEATURE_OTHER_LAYOUT").is_some() { &["other-layout"] } else { &[] };
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../l2mesh-ebpf");
    aya_build::build_ebpf(
        [Package { name: "l2mesh-ebpf", root_dir: root, features, ..Package::default() }],
        // The same compiler as everything else: rust-toolchain.toml.
        Toolchain::Custom("1.95.0"),
    )
}

//! `cargo xtask`: everything a developer runs.

mod setup;

fn main() -> anyhow::Result<()> {
    setup::run(&[setup::Need::Build, setup::Need::Lab])
}

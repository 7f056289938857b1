//! Tells the linker how to copy.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // By default bpf-linker has LLVM copy in order, and with that LLVM writes out no memset and no memmove: even 16 octets
    // become a call of a loop that goes octet by octet.
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        println!("cargo::rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    }
}

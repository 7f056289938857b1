//! Empty: it only lets `l2mesh/build.rs` name this crate as a build dependency.
#![no_std]

//! A clock that is set: for one process, since the machine's belongs to everybody.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::lab::Lab;

/// Stands between the program and libc, and adds to the time of day what a file says. `cc` is there: rustc links with it.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long long *offset;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("L2MESH_LAB_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) offset = page;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && offset) time->tv_sec += *offset;
    return result;
}
"#;

/// The time of day of those that have [`Clock::environment`].
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// One that is right so far.
    #[must_use]
    #[track_caller]
    pub fn new(lab: &Lab) -> Self {
        let directory = lab.directory();
        let [source, library, offset] = ["clock.c", "clock.so", "clock"].map(|name| directory.join(name));
        fs::write(&source, SHIM).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
        let output = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output();
        let output = output.unwrap_or_else(|error| panic!("cc: {error}"));
        assert!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        let clock = Self { library, offset };
        clock.set(0);
        clock
    }

    /// What a process needs in its environment.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let text = |path: &PathBuf| path.display().to_string();
        [("LD_PRELOAD", text(&self.library)), ("L2MESH_LAB_CLOCK", text(&self.offset))]
    }

    /// So many seconds ahead of the right time, or behind it.
    #[track_caller]
    pub fn set(&self, seconds: i64) {
        // In place: those who look have it in their memory.
        let file = fs::File::options().write(true).create(true).truncate(false).open(&self.offset);
        let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, &seconds.to_ne_bytes()));
        written.unwrap_or_else(|error| panic!("{}: {error}", self.offset.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_of_day_is_set() {
        let lab = Lab::new("clock");
        let clock = Clock::new(&lab);
        let host = lab.host("a");
        let year = || {
            let environment = clock.environment();
            let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
            let mut process = host.spawn_with("date", &["+year %Y"], &environment);
            let line = process.wait_log_line("year ", std::time::Duration::from_secs(5));
            line.trim_start_matches("year ").parse::<i64>().expect("a year")
        };
        let now = year();
        clock.set(366 * 86_400 * 10);
        assert!((now + 10..=now + 11).contains(&year()));
        clock.set(0);
        assert!((now..=now + 1).contains(&year()));
    }
}

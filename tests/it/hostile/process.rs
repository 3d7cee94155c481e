//! What a process holds of the machine.

use std::{fmt::Debug, fs, path::PathBuf, time::Duration};

use crate::rig::PATIENCE;

/// Memory that allocators may keep, in KiB.
const SPARE_KIB: u64 = 48 << 10;
/// Maps that allocators and the pool's slots may add.
const SPARE_MAPS: u64 = 64;
/// Directories that the two pods of `kept` may hold open: each while it has an instance, which it
/// has not between a kill and the next request.
const SPARE_DESCRIPTORS: u64 = 2;

/// Memory, threads, maps and descriptors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Footprint {
    resident_kib: u64,
    threads: u64,
    maps: u64,
    descriptors: u64,
}

impl Footprint {
    pub(super) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.expect("Linux says so")
        };
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
        Self {
            resident_kib: field("VmRSS:"),
            threads: field("Threads:"),
            maps: maps.lines().count() as u64,
            descriptors: descriptors.count() as u64,
        }
    }

    /// Waits until the process holds no more than this again: idle threads take some seconds to end.
    pub(super) async fn returns(self, pid: u32) {
        let is_back = |now: Self| {
            now.resident_kib <= self.resident_kib + SPARE_KIB
                && now.threads <= self.threads
                && now.maps <= self.maps + SPARE_MAPS
                && now.descriptors <= self.descriptors + SPARE_DESCRIPTORS
        };
        let mut now = Self::of(pid);
        let wait = async {
            while !is_back(now) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                now = Self::of(pid);
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let open = open_files(pid);
            panic!("it had {self:?}, and has {now:?}: {open:#?}");
        }
    }
}

/// What its descriptors lead to.
fn open_files(pid: u32) -> Vec<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let paths = descriptors.map(|entry| fs::read_link(entry.expect("readable").path()));
    paths.filter_map(Result::ok).collect()
}

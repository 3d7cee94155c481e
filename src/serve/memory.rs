//! Memory of the machine, as far as this process may have it.

use std::fs;

/// Bytes in the unit of `/proc/meminfo`.
pub(super) const KIB: u64 = 1024;

/// Memory that this process may still take, and all that there is for it and others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) free: u64,
    pub(super) whole: u64,
}

impl Room {
    /// That of the machine, or of the control group that this process is in if that has less left.
    pub(super) fn now() -> Option<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
        let machine = Self::of_machine(&meminfo)?;
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = groups.lines().find_map(|it| it.strip_prefix("0::"));
        let group = group.and_then(|path| {
            // In a container the group is the root of what can be seen.
            let places = [format!("/sys/fs/cgroup{path}"), "/sys/fs/cgroup".to_owned()];
            places.iter().find_map(|place| {
                let read = |name| fs::read_to_string(format!("{place}/{name}")).ok();
                Self::of_group(&read("memory.max")?, &read("memory.current")?)
            })
        });
        Some(match group {
            Some(group) if group.free < machine.free => group,
            _ => machine,
        })
    }

    fn of_machine(meminfo: &str) -> Option<Self> {
        let bytes = |key| {
            let kib = after(meminfo, key)?.split(' ').next()?.parse::<u64>();
            Some(kib.ok()? * KIB)
        };
        Some(Self {
            free: bytes("MemAvailable")?,
            whole: bytes("MemTotal")?,
        })
    }

    /// `None` where there is no limit.
    fn of_group(most: &str, current: &str) -> Option<Self> {
        let whole: u64 = most.trim().parse().ok()?;
        let current: u64 = current.trim().parse().ok()?;
        Some(Self {
            free: whole.saturating_sub(current),
            whole,
        })
    }

    pub(super) fn used_part(self) -> f64 {
        1.0 - self.free as f64 / self.whole.max(1) as f64
    }
}

/// What stands in the line with this key, after the colon.
pub(super) fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(name, _)| name.trim() == key);
    found.map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_that_of_the_machine_or_of_the_group() {
        let machine = Room::of_machine("MemTotal:  1000 kB\nMemAvailable:  250 kB\n");
        let room = machine.expect("both");
        assert_eq!((room.free, room.whole), (250 << 10, 1000 << 10));
        assert_eq!(room.used_part(), 0.75);
        let group = Room::of_group("4096\n", "1024\n").expect("a limit");
        assert_eq!((group.free, group.whole), (3072, 4096));
        assert_eq!(Room::of_group("max\n", "1024\n"), None);
        assert!(Room::now().is_some_and(|it| it.free > 0));
    }
}

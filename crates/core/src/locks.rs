//! Which process holds the lock of a file, as Linux tells it in `/proc/locks`.

/// A file, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// The major and the minor number of its device.
    pub device: (u32, u32),
    /// Its inode.
    pub inode: u64,
}

/// The process that holds a lock of a file, by what `/proc/locks` says. None if no process does that
/// can be seen from here.
pub fn holder(locks: &str, file: FileId) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        // What waits for a lock is marked with an arrow.
        let kind = words.next().filter(|kind| *kind != "->")?;
        let pid = words.nth(2)?.parse().ok().filter(|pid| *pid > 0);
        let mut place = words.next()?.split(':');
        let mut hex = || u32::from_str_radix(place.next()?, 16).ok();
        let device = (hex()?, hex()?);
        let inode = place.next()?.parse().ok()?;
        let is_lock = ["FLOCK", "POSIX", "OFDLCK"].contains(&kind);
        pid.filter(|_| is_lock && file == FileId { device, inode })
    })
}

/// Who that is, for people.
pub fn told(holder: Option<u32>) -> String {
    match holder {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 1201 fd:01:4711 1073741824 1073741824\n\
                     1: -> POSIX  ADVISORY  WRITE 99 fd:01:4712 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 77 00:2a:4712 0 EOF\n\
                     3: LEASE  ACTIVE    READ  55 00:2a:9 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 0 00:2a:10 0 EOF\nnonsense\n";
        let found = |major, minor, inode| {
            let device = (major, minor);
            holder(locks, FileId { device, inode })
        };
        assert_eq!(found(0xfd, 1, 4711), Some(1201));
        assert_eq!(found(0xfd, 1, 4712), None);
        assert_eq!(found(0, 0x2a, 4712), Some(77));
        assert_eq!(found(0, 0x2a, 9), None);
        // One in another namespace.
        assert_eq!(found(0, 0x2a, 10), None);
        assert_eq!(told(found(0, 0x2a, 4712)), "process 77");
    }
}

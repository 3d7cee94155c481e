//! The guard pages of a pool's stacks, and how they come to need no memory maps.
//!
//! wasmtime protects the page below each stack, so that each stack is two memory maps: the page and
//! the stack. Linux 6.13 and later can mark a page as a guard in its page tables instead, where the
//! memory map stays one. That takes a page of page tables for each stack, which one that is in use
//! has anyway, so it is done when a pool turns out to be used by many.
//!
//! Stacks that were in use before then do not join into one map: the kernel keeps apart what was
//! written to while something lay between. Each of them is at most two maps, as before.

use std::{collections::HashSet, fs, io, ptr};

use parking_lot::{Mutex, MutexGuard};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use wasmtime::Engine;

/// Marks pages as guards (Linux 6.13): to touch one is a segmentation fault.
const MADV_GUARD_INSTALL: libc::c_int = 102;
/// Where a process reads its own memory maps.
const MAPS: &str = "/proc/self/maps";

/// Why a stack cannot be guarded without a map for the guard.
#[derive(Debug, thiserror::Error)]
#[error("the guard page of a stack cannot be marked: {0}")]
pub(crate) struct Unguarded(#[from] io::Error);

/// The stacks of one pool, in a row in memory: below each is its guard page.
#[derive(Debug)]
pub(super) struct Stacks {
    /// The guard page of the first.
    first: usize,
    /// From one guard page to the next.
    stride: usize,
    count: u32,
    /// Whether guards are marked, and have no maps.
    folded: bool,
    /// Whose pool it is, which is there as long as this.
    _engine: Engine,
}

/// Whether this kernel can mark guard pages.
pub(super) fn can_fold() -> bool {
    let page = rustix::param::page_size();
    let flags = (ProtFlags::empty(), MapFlags::PRIVATE);
    // SAFETY: it is a new map at an address that the kernel chooses, which nothing else knows.
    #[allow(unsafe_code)]
    let Ok(probe) = (unsafe { mmap_anonymous(ptr::null_mut(), page, flags.0, flags.1) }) else {
        return false;
    };
    let marked = mark(probe as usize, page).is_ok();
    // SAFETY: the map that was made above, of which no reference was made.
    #[allow(unsafe_code)]
    let unmapped = unsafe { munmap(probe, page) };
    marked && unmapped.is_ok()
}

/// The stacks of earlier pools, so that those of the next can be told from them. No other
/// thread makes a pool as long as this is there.
pub(super) struct Before {
    starts: HashSet<usize>,
    _alone: MutexGuard<'static, ()>,
}

impl Before {
    /// Looks at what there is before a pool is made.
    pub(super) fn look() -> io::Result<Self> {
        static MAKING: Mutex<()> = Mutex::new(());
        let alone = MAKING.lock();
        let maps = fs::read_to_string(MAPS)?;
        let stacks = maps.lines().filter_map(Map::parse).filter(|it| it.is_stack);
        Ok(Self {
            starts: stacks.map(|it| it.start).collect(),
            _alone: alone,
        })
    }

    /// The stacks of the pool of this engine, which was made since: `count` of `bytes` each, a size
    /// that no other stacks have. `None` if they are not where they are expected.
    pub(super) fn find(
        &self,
        engine: &Engine,
        count: u32,
        bytes: usize,
    ) -> io::Result<Option<Stacks>> {
        let page = rustix::param::page_size();
        let maps = fs::read_to_string(MAPS)?;
        let stride = bytes.next_multiple_of(page) + page;
        let first = row(&maps, page, stride, count, &self.starts);
        Ok(first.map(|first| Stacks {
            first,
            stride,
            count,
            folded: false,
            _engine: engine.clone(),
        }))
    }
}

impl Stacks {
    /// Whether guards have no maps.
    pub(super) fn are_folded(&self) -> bool {
        self.folded
    }

    /// Maps between the first guard and the last stack.
    #[cfg(test)]
    pub(super) fn maps(&self) -> usize {
        let maps = fs::read_to_string(MAPS).expect("maps");
        let end = self.first + self.count as usize * self.stride;
        let within = |it: &Map| it.start < end && it.end > self.first;
        maps.lines().filter_map(Map::parse).filter(within).count()
    }

    /// Gives up the maps of all guards.
    pub(super) fn fold(&mut self) -> Result<(), Unguarded> {
        let page = rustix::param::page_size();
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        // One after the other: then each joins what is before it.
        for index in 0..self.count as usize {
            let guard = self.first + index * self.stride;
            mark(guard, page)?;
            let guard = ptr::with_exposed_provenance_mut(guard);
            // SAFETY: the page is the guard of a stack of a pool, which is there as long as its
            // engine. No object is on it and no code may touch it: that it is marked keeps it so.
            #[allow(unsafe_code)]
            let opened = unsafe { mprotect(guard, page, access) };
            opened.map_err(io::Error::from)?;
        }
        self.folded = true;
        Ok(())
    }
}

/// Marks a page that is protected as a guard.
fn mark(address: usize, page: usize) -> io::Result<()> {
    let address = ptr::with_exposed_provenance_mut(address);
    // SAFETY: it throws away what is on the page, which is protected: nothing that is read again.
    #[allow(unsafe_code)]
    match unsafe { libc::madvise(address, page, MADV_GUARD_INSTALL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One line of the list of maps.
struct Map {
    start: usize,
    end: usize,
    /// It may not be touched, and is of no file.
    is_guard: bool,
    /// It may be read and written, and is of no file.
    is_stack: bool,
}

impl Map {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (access, inode) = (words.next()?, words.nth(2)?);
        Some(Self {
            start: usize::from_str_radix(start, 16).ok()?,
            end: usize::from_str_radix(end, 16).ok()?,
            is_guard: access == "---p" && inode == "0",
            is_stack: access == "rw-p" && inode == "0",
        })
    }
}

/// The address of the first guard of a row of `count` stacks in a list of maps. What comes before
/// the first guard and after the last stack may be of the same map as those. Stacks that start where
/// one did `before` are of others.
fn row(
    maps: &str,
    page: usize,
    stride: usize,
    count: u32,
    before: &HashSet<usize>,
) -> Option<usize> {
    let mut last: Option<Map> = None;
    // The first guard of the row so far, and its stacks.
    let mut so_far = (0, 0);
    for map in maps.lines().filter_map(Map::parse) {
        let guard = last.as_ref().filter(|it| it.is_guard).and_then(|it| {
            let is_long = map.end - map.start >= stride - page;
            let is_next = map.is_stack && map.start == it.end && is_long;
            (is_next && !before.contains(&map.start)).then(|| it.end - page)
        });
        if let Some(guard) = guard {
            let goes_on = so_far.1 > 0 && guard == so_far.0 + so_far.1 as usize * stride;
            so_far = if goes_on {
                (so_far.0, so_far.1 + 1)
            } else {
                (guard, 1)
            };
            if so_far.1 == count {
                return Some(so_far.0);
            }
        }
        last = Some(map);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    const PAGE: usize = 4096;
    const STACK: usize = 0x21_0000;

    /// A stack's maps: its guard, which may be the end of something, and the stack with what is
    /// behind it.
    fn stack(at: usize, before: usize, behind: usize) -> String {
        let (guard, stack) = (at - before, at + PAGE);
        let end = stack + STACK + behind;
        format!(
            "{guard:x}-{stack:x} ---p 00000000 00:00 0 \n{stack:x}-{end:x} rw-p 00000000 00:00 0 \n"
        )
    }

    #[test]
    fn a_row_of_stacks_is_found_among_other_maps() {
        let stride = STACK + PAGE;
        let first = 0x7f00_0000_0000;
        let at = |index: usize| first + index * stride;
        let other = "55cc373df000-55cc381f3000 r--p 00000000 fe:00 6277 /usr/bin/sampan\n";
        let before = stack(first - 0x1000_0000, 0, 0);
        let row_of_three = [
            stack(at(0), 0x1_0000_0000, 0),
            stack(at(1), 0, 0),
            stack(at(2), 0, 0x10_0000),
        ]
        .concat();
        let maps = format!("{other}{before}{row_of_three}{other}");
        let none = HashSet::new();
        assert_eq!(row(&maps, PAGE, stride, 3, &none), Some(first));
        assert_eq!(row(&maps, PAGE, stride, 4, &none), None);
        let torn = row_of_three.replacen("rw-p", "r--p", 1);
        assert_eq!(row(&torn, PAGE, stride, 3, &none), None);
        assert_eq!(row(&maps, PAGE, stride + PAGE, 3, &none), None);
        let earlier = HashSet::from([at(1) + PAGE]);
        assert_eq!(row(&maps, PAGE, stride, 3, &earlier), None);
    }

    /// Through `/proc/self/mem`, which reads even what is protected, but no guards.
    #[test]
    fn a_folded_guard_still_guards_and_takes_no_map() {
        if !can_fold() {
            return;
        }
        let bytes = 16 * PAGE;
        let stride = bytes + PAGE;
        let before = Before::look().expect("maps");
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new map, of which no reference is made.
        #[allow(unsafe_code)]
        let made = unsafe { mmap_anonymous(ptr::null_mut(), 8 * stride, access, flags) };
        let first = made.expect("a map").expose_provenance();
        let guards = (0..8).map(|index| first + index * stride);
        for guard in guards.clone() {
            let guard = ptr::with_exposed_provenance_mut(guard);
            // SAFETY: a page of that map.
            #[allow(unsafe_code)]
            unsafe { mprotect(guard, PAGE, MprotectFlags::empty()) }.expect("protected");
        }
        let found = before.find(&Engine::default(), 8, bytes).expect("maps");
        let mut stacks = found.expect("a row");
        assert_eq!((stacks.first, stacks.are_folded()), (first, false));
        let mut options = fs::File::options();
        let memory = options.read(true).write(true).open("/proc/self/mem");
        let memory = memory.expect("this process");
        let is_readable = |address: usize| memory.read_at(&mut [0], address as u64).is_ok();
        assert!(is_readable(first + stride) && stacks.maps() == 16);
        // Two are in use.
        for index in [2, 5] {
            let top = first + index * stride + bytes;
            memory.write_all_at(&[42], top as u64).expect("a stack");
        }
        stacks.fold().expect("guards");
        assert!(stacks.are_folded());
        assert!(stacks.maps() <= 2 * 2 + 1, "{} maps", stacks.maps());
        for guard in guards {
            assert!(!is_readable(guard) && !is_readable(guard + PAGE - 1));
            assert!(is_readable(guard + PAGE) && is_readable(guard + stride - 1));
        }
        let mut kept = [0];
        let top = first + 2 * stride + bytes;
        memory
            .read_exact_at(&mut kept, top as u64)
            .expect("a stack");
        assert_eq!(kept, [42]);
    }
}

//! Native code in an anonymous file whose content no process can change any more.
//!
//! Large code is backed by huge pages where the kernel has some. Initial memories of guests are
//! mapped from the same file, and each new instance of a Python component takes 300 page faults in
//! its own: they are cheaper if neighbouring pages are of one allocation (docs/adr/0051).

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::FileExt as _,
    ptr,
};

use parking_lot::{Mutex, MutexGuard};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap},
    thread::{disable_transparent_huge_pages, transparent_huge_pages_are_disabled},
};

const COPY_BYTES: usize = 256 << 10;
/// Of a huge page: that of x86-64, and of aarch64 with pages of 4 KiB. Where they have another
/// size the kernel refuses, and small pages do.
const HUGE_BYTES: usize = 2 << 20;

/// Copies code into a sealed file, from where another file stands, and feeds it to a hash.
pub(super) fn copy(from: &mut File, length: u64, hasher: &mut blake3::Hasher) -> io::Result<File> {
    let mut copy = File::from(memfd_create(
        "sampan-native-code",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?);
    copy.set_len(length)?;
    // Small pages do as well.
    let _ = reserve_huge(&copy, length);
    let mut buffer = vec![0; COPY_BYTES];
    let mut left = length;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(COPY_BYTES);
        let piece = &mut buffer[..piece];
        from.read_exact(piece)?;
        hasher.update(piece);
        copy.write_all(piece)?;
        left -= piece.len() as u64;
    }
    fcntl_add_seals(
        &copy,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(copy)
}

/// Code that was just compiled, sealed like code from the cache.
pub(crate) fn seal(code: &mut File) -> io::Result<File> {
    code.rewind()?;
    let length = code.metadata()?.len();
    copy(code, length, &mut blake3::Hasher::new())
}

/// Has the kernel back an empty file in memory with huge pages as far as they fit into its length.
///
/// Anonymous files get none of their own accord on most systems (`shmem_enabled`), whatever their
/// owner advises. `MADV_COLLAPSE`, since Linux 6.1, gives them regardless, but only in place of
/// pages that are there, so each begins with one. Filling them is faster afterwards than making
/// small ones. The first that cannot be had is the last that is tried.
fn reserve_huge(file: &File, length: u64) -> io::Result<()> {
    let length = usize::try_from(length).unwrap_or(usize::MAX) / HUGE_BYTES * HUGE_BYTES;
    if length == 0 {
        return Ok(());
    }
    for offset in (0..length).step_by(HUGE_BYTES) {
        file.write_all_at(&[0], offset as u64)?;
    }
    let window = Window::of(file, length)?;
    let _allowed = HugePages::allow();
    window.collapse()
}

/// A file mapped for reading at an address that fits huge pages.
struct Window {
    reserved: *mut std::ffi::c_void,
    length: usize,
}

impl Window {
    /// Maps so much of a file, which is a multiple of a huge page.
    #[allow(unsafe_code)]
    fn of(file: &File, length: usize) -> io::Result<Self> {
        let none = ProtFlags::empty();
        // SAFETY: the kernel picks the place of a new mapping, so it replaces nothing.
        let reserved = unsafe {
            let length = length + HUGE_BYTES;
            mmap_anonymous(ptr::null_mut(), length, none, MapFlags::PRIVATE)?
        };
        let this = Self { reserved, length };
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the aligned part lies within what was just reserved, which nothing else uses.
        unsafe { mmap(this.aligned(), length, ProtFlags::READ, flags, file, 0)? };
        Ok(this)
    }

    fn aligned(&self) -> *mut std::ffi::c_void {
        let offset = self.reserved.align_offset(HUGE_BYTES);
        self.reserved.wrapping_byte_add(offset)
    }

    #[allow(unsafe_code)]
    fn collapse(&self) -> io::Result<()> {
        // SAFETY: the range is this mapping, and collapsing changes no content.
        let result = unsafe { libc::madvise(self.aligned(), self.length, libc::MADV_COLLAPSE) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl Drop for Window {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the mappings of this window and nothing else, and it hands out no reference.
        let unmapped = unsafe { munmap(self.reserved, self.length + HUGE_BYTES) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Huge pages, which `sampan` turns off for itself as a whole, allowed until this is dropped.
///
/// What other threads touch meanwhile may get some. That is a few milliseconds for each component
/// that is loaded.
struct HugePages {
    were_disabled: bool,
    /// The setting is one of the process.
    _turn: MutexGuard<'static, ()>,
}

impl HugePages {
    fn allow() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock();
        let were_disabled = transparent_huge_pages_are_disabled().unwrap_or(false);
        if were_disabled {
            // Where it fails, collapsing does.
            let _ = disable_transparent_huge_pages(false);
        }
        Self {
            were_disabled,
            _turn: turn,
        }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if self.were_disabled {
            let disabled = disable_transparent_huge_pages(true);
            debug_assert!(disabled.is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::SeekFrom};

    use super::*;

    /// Bytes that differ from page to page.
    fn code(length: usize) -> Vec<u8> {
        (0..length as u32).map(|n| (n / 7) as u8).collect()
    }

    fn sealed(code: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(code).expect("written");
        seal(&mut file).expect("a sealed copy")
    }

    fn read(file: &mut File) -> Vec<u8> {
        let mut read = Vec::new();
        file.seek(SeekFrom::Start(0)).expect("a file");
        file.read_to_end(&mut read).expect("readable");
        read
    }

    #[test]
    fn a_copy_is_the_same_whatever_its_length_and_cannot_change() {
        for length in [
            0,
            1,
            HUGE_BYTES - 1,
            HUGE_BYTES,
            HUGE_BYTES + 1,
            3 * HUGE_BYTES + COPY_BYTES / 2,
        ] {
            let code = code(length);
            let mut copy = sealed(&code);
            assert!(read(&mut copy) == code, "{length}");
            assert!(copy.write_all_at(b"x", 0).is_err(), "{length}");
            assert!(copy.set_len(length as u64 + 1).is_err(), "{length}");
            assert!(
                length == 0 || copy.set_len(length as u64 - 1).is_err(),
                "{length}"
            );
            // Nor through another descriptor, which is how its pages could be mapped for writing.
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&copy));
            let again = fs::OpenOptions::new().read(true).write(true).open(path);
            let again = again.expect("the same file");
            assert!(again.write_all_at(b"x", 0).is_err(), "{length}");
        }
    }

    #[test]
    fn a_copy_that_is_cut_short_is_none() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&code(HUGE_BYTES)).expect("written");
        file.rewind().expect("a file");
        let longer = HUGE_BYTES as u64 + 1;
        let copied = copy(&mut file, longer, &mut blake3::Hasher::new());
        let error = copied.expect_err("one byte is missing");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    /// As much of the file as is in huge pages, mapped at an address that fits them.
    fn huge_bytes(file: &File, length: usize) -> usize {
        let window = Window::of(file, length).expect("a window");
        // Touches each, so that it is in the page tables.
        for offset in (0..length).step_by(4096) {
            let byte = window.aligned().wrapping_byte_add(offset).cast::<u8>();
            // SAFETY: it lies within the window.
            #[allow(unsafe_code)]
            let _ = unsafe { byte.read_volatile() };
        }
        let smaps = fs::read_to_string("/proc/self/smaps").expect("Linux says so");
        let start = format!("{:x}-", window.aligned() as usize);
        let of_window = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let mut lines = of_window.map(str::split_whitespace);
        let kilobytes = lines.find_map(|mut line| {
            (line.next() == Some("ShmemPmdMapped:")).then(|| line.next()?.parse::<usize>().ok())
        });
        kilobytes.flatten().expect("a number") << 10
    }

    /// The setting of the process, which one test at a time changes or needs as it is.
    static SETTING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

    #[test]
    fn large_code_is_in_huge_pages_if_the_kernel_has_them() {
        let _setting = SETTING.lock();
        let empty = File::from(memfd_create("probe", MemfdFlags::CLOEXEC).expect("a file"));
        empty.set_len(HUGE_BYTES as u64).expect("a length");
        let has_them = reserve_huge(&empty, HUGE_BYTES as u64).is_ok();
        drop(empty);
        let copy = sealed(&code(2 * HUGE_BYTES + 1));
        let huge = huge_bytes(&copy, 2 * HUGE_BYTES);
        if has_them {
            assert_ne!(huge, 0);
        }
        assert_eq!(huge_bytes(&sealed(&code(HUGE_BYTES - 1)), HUGE_BYTES), 0);
    }

    #[test]
    fn huge_pages_are_off_again_after_a_copy_if_they_were_off() {
        let _setting = SETTING.lock();
        // The setting is one of the process, and other tests copy, too.
        disable_transparent_huge_pages(true).expect("a setting");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| sealed(&code(HUGE_BYTES)));
            }
        });
        let allowed = HugePages::allow();
        assert!(allowed.were_disabled);
        drop(allowed);
        disable_transparent_huge_pages(false).expect("a setting");
    }
}

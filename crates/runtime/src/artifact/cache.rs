//! The cache of native code on disk.
//!
//! Cached code runs with the rights of this process, and a damaged file mostly loads and runs all
//! the same. So each entry carries a keyed MAC over all of it, its name and engine included. It is
//! checked while the code is copied into an anonymous file that is then sealed (`artifact::sealed`):
//! what was checked is what is mapped, and no process can change it afterwards. The key and the entries are readable by
//! their owner alone.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use sampan_core::digest::Digest;

use super::{compile::read_whole, sealed};
use crate::private;

const KEY_FILE: &str = "key";
const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;

/// Which code: of this component, for an engine with this fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    pub(crate) digest: Digest,
    pub(crate) fingerprint: String,
}

impl CacheKey {
    fn file_name(&self) -> String {
        format!("{}-{}.cwasm", self.digest.to_hex(), self.fingerprint)
    }
}

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The directory cannot be made or read.
    #[error("cannot use the compile cache at `{path}`")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The directory belongs to another user, who could put code into it.
    #[error("the compile cache at `{0}` belongs to another user")]
    Foreign(PathBuf),
    /// The key has the wrong length.
    #[error("the key `{0}` is damaged: remove it, and the cache is filled anew")]
    Key(PathBuf),
}

/// Why an entry was not used. None of these is an error: the component is compiled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// There is none.
    Absent,
    /// It is not what was once written.
    Damaged,
}

/// A directory of native code.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
    key: [u8; KEY_BYTES],
}

impl Cache {
    /// Opens the cache in this directory, which is made when it is not there.
    pub fn open(directory: &Path) -> Result<Self, CacheError> {
        let at = |source| CacheError::Io {
            path: directory.to_owned(),
            source,
        };
        if !private::open(directory).map_err(at)? {
            return Err(CacheError::Foreign(directory.to_owned()));
        }
        let key = load_key(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            key,
        })
    }

    /// The code of an entry as a sealed anonymous file, if there is an entry and it is whole.
    pub(crate) fn load(&self, key: &CacheKey) -> Result<File, Miss> {
        let mut entry =
            File::open(self.directory.join(key.file_name())).map_err(|_| Miss::Absent)?;
        let length = entry.metadata().map_err(|_| Miss::Absent)?.len();
        let code_length = length.checked_sub(MAC_BYTES as u64).ok_or(Miss::Damaged)?;
        let mut hasher = self.hasher(key, code_length);
        let code = sealed::copy(&mut entry, code_length, &mut hasher).map_err(|_| Miss::Damaged)?;
        let mut mac = [0; MAC_BYTES];
        entry.read_exact(&mut mac).map_err(|_| Miss::Damaged)?;
        // `Hash` compares in constant time.
        if hasher.finalize() == blake3::Hash::from_bytes(mac) {
            Ok(code)
        } else {
            Err(Miss::Damaged)
        }
    }

    /// Writes an entry: whole, or not at all.
    pub(crate) fn store(&self, key: &CacheKey, code: &[u8]) -> io::Result<()> {
        let mut hasher = self.hasher(key, code.len() as u64);
        hasher.update(code);
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(&self.directory)?;
        file.write_all(code)?;
        file.write_all(hasher.finalize().as_bytes())?;
        file.as_file().sync_data()?;
        file.persist(self.directory.join(key.file_name()))?;
        Ok(())
    }

    fn hasher(&self, key: &CacheKey, code_length: u64) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        // The name is of fixed length, so the parts cannot be mistaken for one another.
        hasher
            .update(key.file_name().as_bytes())
            .update(&code_length.to_le_bytes());
        hasher
    }
}

/// The cache as a runtime has it. It only saves time, so nothing that goes wrong with it is an error:
/// what is not there is compiled again.
#[derive(Debug)]
pub(crate) struct Kept {
    cache: Option<Cache>,
    /// Whether the last entry could not be written, which has been said.
    is_broken: AtomicBool,
}

impl Kept {
    pub(crate) fn new(cache: Option<Cache>) -> Self {
        Self {
            cache,
            is_broken: AtomicBool::new(false),
        }
    }

    pub(crate) fn load(&self, key: &CacheKey) -> Result<File, Miss> {
        let cache = self.cache.as_ref().ok_or(Miss::Absent)?;
        cache.load(key)
    }

    /// Keeps code if it can. The next start pays for a full disk, not this one.
    pub(crate) fn store(&self, key: &CacheKey, code: &mut File) {
        let Some(cache) = &self.cache else { return };
        match read_whole(code).and_then(|code| cache.store(key, &code)) {
            Ok(()) => self.is_broken.store(false, Relaxed),
            Err(error) if !self.is_broken.swap(true, Relaxed) => tracing::warn!(
                %error,
                "cannot keep compiled code in `{}`: until there is room, components are compiled \
                 again at each start",
                cache.directory.display()
            ),
            Err(_) => {}
        }
    }
}

/// Reads the key, or draws one. Of two processes that draw at once, one key wins for both.
fn load_key(directory: &Path) -> Result<[u8; KEY_BYTES], CacheError> {
    let path = directory.join(KEY_FILE);
    let at = |source| CacheError::Io {
        path: path.clone(),
        source,
    };
    if !path.exists() {
        let mut key = [0; KEY_BYTES];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut key))
            .map_err(at)?;
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(directory)
            .map_err(at)?;
        file.write_all(&key).map_err(at)?;
        match file.persist_noclobber(&path) {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at(error.error)),
        }
    }
    let mut bytes = Vec::new();
    OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(at)?;
    bytes.try_into().map_err(|_| CacheError::Key(path.clone()))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    };

    use super::*;
    use crate::artifact::compile::read_whole;

    fn key(text: &str) -> CacheKey {
        CacheKey {
            digest: Digest::of(text.as_bytes()),
            fingerprint: "engine".to_owned(),
        }
    }

    fn path_of(directory: &Path, key: &CacheKey) -> PathBuf {
        directory.join(key.file_name())
    }

    #[test]
    fn what_was_stored_is_loaded_and_cannot_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let code: Vec<u8> = (0..700_000_u32).map(|n| n as u8).collect();
        Cache::open(directory.path())
            .expect("a cache")
            .store(&key("a"), &code)
            .expect("stored");
        // Another process opens it again and finds the same key.
        let cache = Cache::open(directory.path()).expect("a cache");
        let mut loaded = cache.load(&key("a")).expect("a hit");
        assert_eq!(read_whole(&mut loaded).expect("readable"), code);
        assert!(loaded.write_all(b"x").is_err());
        assert!(loaded.set_len(0).is_err());
        assert_eq!(cache.load(&key("b")).expect_err("a miss"), Miss::Absent);
    }

    #[test]
    fn one_flipped_bit_anywhere_is_noticed() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(directory.path()).expect("a cache");
        cache.store(&key("a"), &[7; 1000]).expect("stored");
        let path = path_of(directory.path(), &key("a"));
        let good = fs::read(&path).expect("readable");
        for place in (0..good.len()).step_by(13).chain([good.len() - 1]) {
            let mut bad = good.clone();
            bad[place] ^= 1 << (place % 8);
            fs::write(&path, &bad).expect("writable");
            assert_eq!(
                cache.load(&key("a")).expect_err("damaged"),
                Miss::Damaged,
                "{place}"
            );
        }
        for length in [0, 31, 32, 999] {
            fs::write(&path, &good[..length]).expect("writable");
            assert_eq!(
                cache.load(&key("a")).expect_err("cut"),
                Miss::Damaged,
                "{length}"
            );
        }
        fs::write(&path, &good).expect("writable");
        assert!(cache.load(&key("a")).is_ok());
    }

    #[test]
    fn an_entry_is_good_for_its_own_name_and_key_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(directory.path()).expect("a cache");
        cache.store(&key("a"), b"code of a").expect("stored");
        fs::copy(
            path_of(directory.path(), &key("a")),
            path_of(directory.path(), &key("b")),
        )
        .expect("copied");
        assert_eq!(cache.load(&key("b")).expect_err("foreign"), Miss::Damaged);
        fs::remove_file(directory.path().join(KEY_FILE)).expect("removed");
        let other = Cache::open(directory.path()).expect("a cache with a new key");
        assert_eq!(other.load(&key("a")).expect_err("foreign"), Miss::Damaged);
    }

    #[test]
    fn the_directory_is_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/cache");
        Cache::open(&path).expect("a cache");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("opened up");
        Cache::open(&path).expect("a cache");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o700);
        assert_eq!(
            fs::metadata(path.join(KEY_FILE)).expect("there").mode() & 0o077,
            0
        );
        fs::write(path.join(KEY_FILE), b"short").expect("writable");
        assert!(matches!(Cache::open(&path), Err(CacheError::Key(_))));
    }
}

//! Secrets as files, which are in memory alone.
//!
//! A file is an anonymous one that is sealed, so that it is on no disk and under no name: it goes
//! with the last pod that has it, however that ends. The directory is one that has been removed, in
//! which the system finds nothing and makes nothing, so all that is found in it is found here.

use std::{
    collections::BTreeMap,
    fs::File as OsFile,
    io::{self, Write as _},
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sampan_core::secret::SecretValue;
use wasmtime_wasi::{
    FsPerms, OpenMode,
    filesystem::{Descriptor, Dir, File},
    p2::bindings::filesystem::types::{DescriptorFlags, ErrorCode, OpenFlags},
};

/// A directory with secrets.
pub(crate) struct SecretDirectory {
    directory: Dir,
    files: BTreeMap<String, File>,
}

/// What a path in a directory of secrets leads to.
enum Found<'d> {
    Directory,
    File(&'d File),
}

impl SecretDirectory {
    /// A directory with these files.
    pub(crate) fn new(secrets: &[(String, &SecretValue)]) -> io::Result<Self> {
        let files = secrets.iter().map(|(name, value)| {
            let file = File::new(sealed(value)?, FsPerms::ReadOnly, OpenMode::READ, true);
            Ok((name.clone(), file))
        });
        Ok(Self {
            directory: Dir::new(removed()?, FsPerms::ReadOnly, OpenMode::READ, true),
            files: files.collect::<io::Result<_>>()?,
        })
    }

    /// The directory itself, for a guest.
    pub(super) fn itself(&self) -> Dir {
        self.directory.clone()
    }

    /// The names of its files.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.files.keys()
    }

    fn look(&self, path: &str) -> Result<Found<'_>, ErrorCode> {
        if path.is_empty() {
            return Err(ErrorCode::NoEntry);
        }
        if path.starts_with('/') {
            return Err(ErrorCode::NotPermitted);
        }
        let mut found = Found::Directory;
        for part in path.split('/') {
            found = match (found, part) {
                (Found::Directory, "" | ".") => Found::Directory,
                (Found::Directory, "..") => return Err(ErrorCode::NotPermitted),
                (Found::Directory, name) => match self.files.get(name) {
                    Some(file) => Found::File(file),
                    None => return Err(ErrorCode::NoEntry),
                },
                (Found::File(_), _) => return Err(ErrorCode::NotDirectory),
            };
        }
        Ok(found)
    }

    /// What is at a path.
    pub(super) fn find(&self, path: &str) -> Result<Descriptor, ErrorCode> {
        Ok(match self.look(path)? {
            Found::Directory => Descriptor::Dir(self.itself()),
            Found::File(file) => Descriptor::File(file.clone()),
        })
    }

    /// Opens what is at a path, to read it.
    pub(super) fn open(
        &self,
        path: &str,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> Result<Descriptor, ErrorCode> {
        let changes = how.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE)
            || flags.intersects(DescriptorFlags::WRITE | DescriptorFlags::MUTATE_DIRECTORY);
        if changes {
            return Err(ErrorCode::NotPermitted);
        }
        let found = self.find(path)?;
        match &found {
            Descriptor::File(_) if how.contains(OpenFlags::DIRECTORY) => {
                Err(ErrorCode::NotDirectory)
            }
            Descriptor::File(_) | Descriptor::Dir(_) => Ok(found),
        }
    }

    /// What reading a link says: there are none.
    pub(super) fn read_link(&self, path: &str) -> Result<String, ErrorCode> {
        self.look(path)?;
        Err(ErrorCode::Invalid)
    }
}

/// A file in memory that has these bytes and can be changed by no one.
fn sealed(value: &SecretValue) -> io::Result<OsFile> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = OsFile::from(memfd_create("sampan-secret", flags)?);
    file.write_all(value.bytes())?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// A directory that is nowhere any more.
fn removed() -> io::Result<OsFile> {
    let directory = tempfile::Builder::new().prefix("sampan-").tempdir()?;
    let opened = OsFile::open(directory.path())?;
    directory.close()?;
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn directory() -> SecretDirectory {
        let (db, key) = (
            SecretValue::new(b"hunter2\n".to_vec()),
            SecretValue::new(vec![0xff]),
        );
        let secrets = [("db".to_owned(), &db), ("tls.key".to_owned(), &key)];
        SecretDirectory::new(&secrets).expect("memory")
    }

    fn open(path: &str) -> Result<Descriptor, ErrorCode> {
        directory().open(path, OpenFlags::empty(), DescriptorFlags::READ)
    }

    #[test]
    fn a_secret_is_read_and_not_changed() {
        for path in ["db", "./db", ".//db"] {
            let Ok(Descriptor::File(file)) = open(path) else {
                panic!("{path} is a file");
            };
            let mut bytes = [0; 8];
            file.file.read_exact_at(&mut bytes, 0).expect("readable");
            assert_eq!(&bytes, b"hunter2\n");
            assert!(file.perms.write_not_permitted());
            assert!(file.file.write_at(b"x", 0).is_err(), "it is sealed");
            assert!(file.file.set_len(0).is_err(), "it is sealed");
        }
        let directory = directory();
        for (how, flags) in [
            (OpenFlags::CREATE, DescriptorFlags::READ),
            (OpenFlags::TRUNCATE, DescriptorFlags::READ),
            (OpenFlags::empty(), DescriptorFlags::WRITE),
            (OpenFlags::empty(), DescriptorFlags::MUTATE_DIRECTORY),
        ] {
            for path in ["db", "new"] {
                let refused = directory.open(path, how, flags).err();
                assert_eq!(refused, Some(ErrorCode::NotPermitted), "{path}");
            }
        }
    }

    #[test]
    fn nothing_else_is_in_the_directory_and_no_path_leads_out() {
        for (path, code) in [
            ("", ErrorCode::NoEntry),
            ("none", ErrorCode::NoEntry),
            ("..", ErrorCode::NotPermitted),
            ("../etc/passwd", ErrorCode::NotPermitted),
            ("db/..", ErrorCode::NotDirectory),
            ("db/", ErrorCode::NotDirectory),
            ("db/x", ErrorCode::NotDirectory),
            ("/db", ErrorCode::NotPermitted),
            ("/etc/passwd", ErrorCode::NotPermitted),
        ] {
            assert_eq!(open(path).err(), Some(code), "{path}");
        }
        assert!(matches!(open("."), Ok(Descriptor::Dir(_))));
        let directory = directory();
        let names: Vec<_> = directory.names().collect();
        assert_eq!(names, ["db", "tls.key"]);
        let opened = directory.open("db", OpenFlags::DIRECTORY, DescriptorFlags::READ);
        assert_eq!(opened.err(), Some(ErrorCode::NotDirectory));
        assert_eq!(directory.read_link("db"), Err(ErrorCode::Invalid));
        assert_eq!(directory.read_link("none"), Err(ErrorCode::NoEntry));
        // What wasmtime itself would find and make in it.
        let real = directory.itself().dir;
        assert!(rustix::fs::mkdirat(&*real, "x", rustix::fs::Mode::RWXU).is_err());
        let flags = rustix::fs::OFlags::RDONLY;
        assert!(rustix::fs::openat(&*real, "db", flags, rustix::fs::Mode::empty()).is_err());
    }
}

//! Files, by the functions of `wasi:filesystem` themselves: no library stands in between.

use request_target::Target;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags,
};

use super::{Told, lines, name};

/// The most that is read, in bytes.
const PIECE: u64 = 4096;

/// What came of the request, if it is one of those for files.
pub(crate) fn reach(target: &Target) -> Option<Told> {
    let directories = get_directories();
    if target.path == "/directories" {
        return Some(Ok(lines(directories.into_iter().map(|(_, path)| path))));
    }
    let Some((directory, _)) = directories.first() else {
        return Some(Err("no directory".to_owned()));
    };
    let into = target.number("into", 0).unwrap_or(0) as usize;
    let (into, _) = directories.get(into).unwrap_or(&directories[0]);
    let value = |name: &str| target.value(name).unwrap_or_default();
    let (path, to) = (value("path"), value("to"));
    let none = PathFlags::empty();
    let follow = PathFlags::SYMLINK_FOLLOW;
    let open = |open, flags| directory.open_at(follow, path, open, flags);
    let done = match target.path.as_str() {
        "/read" => open(OpenFlags::empty(), DescriptorFlags::READ).and_then(|file| read(&file)),
        "/write" => {
            let file = open(OpenFlags::empty(), DescriptorFlags::WRITE);
            file.and_then(|file| file.write(b"changed", 0)).map(drop_it)
        }
        "/create" => {
            let file = open(OpenFlags::CREATE, DescriptorFlags::WRITE);
            file.and_then(|file| file.write(b"made", 0)).map(drop_it)
        }
        "/truncate" => open(OpenFlags::TRUNCATE, DescriptorFlags::WRITE).map(drop_it),
        "/resize" => {
            // Opened to read only.
            let file = open(OpenFlags::empty(), DescriptorFlags::READ);
            file.and_then(|file| file.set_size(0)).map(drop_it)
        }
        "/list" => open(OpenFlags::DIRECTORY, DescriptorFlags::READ).and_then(|it| list(&it)),
        "/stat" => directory
            .stat_at(follow, path)
            .map(|it| it.size.to_string()),
        "/readlink" => directory.readlink_at(path),
        "/mkdir" => directory.create_directory_at(path).map(drop_it),
        "/rmdir" => directory.remove_directory_at(path).map(drop_it),
        "/unlink" => directory.unlink_file_at(path).map(drop_it),
        "/touch" => {
            let now = NewTimestamp::Now;
            directory.set_times_at(follow, path, now, now).map(drop_it)
        }
        "/symlink" => directory.symlink_at(to, path).map(drop_it),
        "/link" => directory.link_at(none, path, into, to).map(drop_it),
        "/rename" => directory.rename_at(path, into, to).map(drop_it),
        _ => return None,
    };
    Some(done.map_err(|error| name(error.name())))
}

fn drop_it<T>(_: T) -> String {
    "done".to_owned()
}

fn read(file: &Descriptor) -> Result<String, ErrorCode> {
    let (bytes, _) = file.read(PIECE, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn list(directory: &Descriptor) -> Result<String, ErrorCode> {
    let entries = directory.read_directory()?;
    let mut names = Vec::new();
    while let Some(entry) = entries.read_directory_entry()? {
        names.push(entry.name);
    }
    names.sort();
    Ok(names.join("\n"))
}

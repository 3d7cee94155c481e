//! Files, by the functions of `wasi:filesystem` themselves: no library stands in between.

use request_target::Target;
use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags,
};
use wasip3::wit_bindgen::rt::async_support::StreamResult;
use wasip3::wit_stream;

use super::{Told, all, lines, name};

/// What came of the request, if it is one of those for files.
pub(crate) async fn reach(target: &Target) -> Option<Told> {
    let directories = get_directories();
    if target.path == "/directories" {
        return Some(Ok(lines(directories.into_iter().map(|(_, path)| path))));
    }
    let Some((directory, _)) = directories.first() else {
        return Some(Err("no directory".to_owned()));
    };
    let into = target.number("into", 0).unwrap_or(0) as usize;
    let (into, _) = directories.get(into).unwrap_or(&directories[0]);
    let value = |name: &str| target.value(name).unwrap_or_default().to_owned();
    let (path, to) = (value("path"), value("to"));
    let none = PathFlags::empty();
    let follow = PathFlags::SYMLINK_FOLLOW;
    let open = |open, flags| directory.open_at(follow, path.clone(), open, flags);
    let reading = DescriptorFlags::READ;
    let done = match target.path.as_str() {
        "/read" => match open(OpenFlags::empty(), reading).await {
            Ok(file) => read(&file).await,
            Err(error) => Err(error),
        },
        "/write" => match open(OpenFlags::empty(), DescriptorFlags::WRITE).await {
            Ok(file) => write(&file, b"changed").await,
            Err(error) => Err(error),
        },
        "/create" => match open(OpenFlags::CREATE, DescriptorFlags::WRITE).await {
            Ok(file) => write(&file, b"made").await,
            Err(error) => Err(error),
        },
        "/truncate" => open(OpenFlags::TRUNCATE, DescriptorFlags::WRITE)
            .await
            .map(drop_it),
        // Opened to read only.
        "/resize" => match open(OpenFlags::empty(), reading).await {
            Ok(file) => write(&file, b"changed").await,
            Err(error) => Err(error),
        },
        "/list" => match open(OpenFlags::DIRECTORY, reading).await {
            Ok(it) => list(&it).await,
            Err(error) => Err(error),
        },
        "/stat" => directory
            .stat_at(follow, path)
            .await
            .map(|it| it.size.to_string()),
        "/readlink" => directory.readlink_at(path).await,
        "/mkdir" => directory.create_directory_at(path).await.map(drop_it),
        "/rmdir" => directory.remove_directory_at(path).await.map(drop_it),
        "/unlink" => directory.unlink_file_at(path).await.map(drop_it),
        "/touch" => {
            let now = NewTimestamp::Now;
            directory
                .set_times_at(follow, path, now, now)
                .await
                .map(drop_it)
        }
        "/symlink" => directory.symlink_at(to, path).await.map(drop_it),
        "/link" => directory.link_at(none, path, into, to).await.map(drop_it),
        "/rename" => directory.rename_at(path, into, to).await.map(drop_it),
        _ => return None,
    };
    Some(done.map_err(|error| name(&error)))
}

fn drop_it<T>(_: T) -> String {
    "done".to_owned()
}

async fn read(file: &Descriptor) -> Result<String, ErrorCode> {
    let (stream, ended) = file.read_via_stream(0);
    let bytes = all(stream).await;
    ended.await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn write(file: &Descriptor, bytes: &[u8]) -> Result<String, ErrorCode> {
    let (mut writer, reader) = wit_stream::new();
    let ended = file.write_via_stream(reader, 0);
    writer.write_all(bytes.to_vec()).await;
    drop(writer);
    ended.await.map(drop_it)
}

async fn list(directory: &Descriptor) -> Result<String, ErrorCode> {
    let (mut entries, ended) = directory.read_directory();
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(16);
    while let (StreamResult::Complete(_), mut read) = entries.read(buffer).await {
        names.extend(read.drain(..).map(|entry| entry.name));
        buffer = read;
    }
    ended.await?;
    names.sort();
    Ok(names.join("\n"))
}

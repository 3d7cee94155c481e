//! `wasi:filesystem` of WASI 0.3: wasmtime's own functions, on the threads for files.

use std::sync::Arc;

use tokio::sync::oneshot;
use wasmtime::component::{Access, Accessor, FutureReader, Resource, StreamReader};
use wasmtime_wasi::{
    filesystem::{Descriptor, File, WasiFilesystem, WasiFilesystemView as _},
    p2::bindings::filesystem::types as types_p2,
    p3::{
        bindings::filesystem::{
            preopens,
            types::{
                self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry,
                ErrorCode, Filesize, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
            },
        },
        filesystem::{FilesystemError, FilesystemResult},
    },
};

use super::{
    Files, GuestFiles, Lent, SecretDirectory,
    codes::{self, DEVICE, OTHER},
    denied::{self, Asked, Way},
    held::{self, Held},
    streams_p3::{Entries, Reading, Target, Writing},
};
use crate::host::state::State;

impl preopens::Host for Files<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        self.directories()
    }
}

impl types::Host for Files<'_> {
    fn convert_error_code(&mut self, error: FilesystemError) -> wasmtime::Result<ErrorCode> {
        types::Host::convert_error_code(&mut self.view, error)
    }
}

impl types::HostDescriptor for Files<'_> {
    fn drop(&mut self, file: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.handles.remove(&file.rep());
        types::HostDescriptor::drop(&mut self.view, file)
    }
}

/// How a stream or the writing of one has ended.
type Ended = FutureReader<Result<(), ErrorCode>>;

/// What is neither a file nor a directory nor a link to one.
fn other(kind: &DescriptorType) -> Option<&'static str> {
    match kind {
        DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink => {
            None
        }
        DescriptorType::BlockDevice | DescriptorType::CharacterDevice => Some(DEVICE),
        DescriptorType::Fifo | DescriptorType::Socket | DescriptorType::Other(_) => Some(OTHER),
    }
}

/// Does `work` on a thread for files. That it had to wait for that is a wait.
async fn on_thread<F: Future>(store: &Accessor<State, GuestFiles>, work: F) -> F::Output {
    let (lent, cell) = store.with(|mut store| {
        let state = store.data_mut();
        (Arc::clone(state.files().lent), Arc::clone(&state.cell))
    });
    let output = lent.threads.run(work).await;
    cell.end_wait();
    output
}

/// Functions that do what wasmtime's own do, on a thread for files.
macro_rules! on_threads {
    ($($name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {$(
        async fn $name(
            store: &Accessor<State, Self>,
            file: Resource<Descriptor>,
            $($argument: $type),*
        ) -> $output {
            let own = store.with_getter::<WasiFilesystem>(State::filesystem);
            on_thread(store, WasiFilesystem::$name(&own, file, $($argument),*)).await
        }
    )*};
}

/// What is behind a handle, if it is in a volume.
fn held(
    store: &Accessor<State, GuestFiles>,
    file: &Resource<Descriptor>,
) -> FilesystemResult<Option<Held>> {
    let held = store.with(|mut store| store.get().held(file));
    held.map_err(FilesystemError::trap)
}

/// The secrets that are in a directory, if it is one with secrets.
fn secrets(
    store: &Accessor<State, GuestFiles>,
    directory: &Resource<Descriptor>,
) -> Option<Arc<SecretDirectory>> {
    store.with(|mut store| store.get().secrets(directory))
}

/// Functions of a path that are those of what is at the path, where that is in a directory with
/// secrets.
macro_rules! in_secrets {
    ($($name:ident as $own:ident -> $output:ty;)*) => {$(
        async fn $name(
            store: &Accessor<State, Self>,
            directory: Resource<Descriptor>,
            flags: PathFlags,
            path: String,
        ) -> FilesystemResult<$output> {
            let own = store.with_getter::<WasiFilesystem>(State::filesystem);
            if let Some(secrets) = secrets(store, &directory) {
                let found = secrets.find(&path).map_err(codes::code)?;
                let found = own.with(|mut store| store.get().table.push(found))?;
                let same = Resource::new_borrow(found.rep());
                let told = WasiFilesystem::$own(&own, same).await;
                own.with(|mut store| store.get().table.delete(found))?;
                return told;
            }
            let asked = asked(store, Way::Reads, &directory, &[&path]);
            let done = on_thread(store, WasiFilesystem::$name(&own, directory, flags, path)).await;
            explained(store, asked, done).await
        }
    )*};
}

/// What two handles are in, if both are in one volume.
fn both(
    store: &Accessor<State, GuestFiles>,
    one: &Resource<Descriptor>,
    other: &Resource<Descriptor>,
) -> FilesystemResult<Option<(Held, Held)>> {
    let (one, other) = (held(store, one)?, held(store, other)?);
    held::beside(one.as_ref(), other.as_ref()).map_err(codes::code)?;
    Ok(one.zip(other))
}

/// Changes a volume on a thread for files. That it took its time is a wait.
async fn in_volume<R: Send + 'static>(
    store: &Accessor<State, GuestFiles>,
    work: impl FnOnce() -> Result<R, types_p2::ErrorCode> + Send + 'static,
) -> Result<R, ErrorCode> {
    let (lent, cell) = store.with(|mut store| {
        let state = store.data_mut();
        (Arc::clone(state.files().lent), Arc::clone(&state.cell))
    });
    let done = lent.threads.spawn(work).await;
    cell.end_wait();
    done.map_err(codes::code)
}

/// A guest asks something of what it has open, or of these paths in it.
fn asked(
    store: &Accessor<State, GuestFiles>,
    way: Way,
    file: &Resource<Descriptor>,
    paths: &[&str],
) -> Asked {
    store.with(|mut store| store.get().asked(way, file, paths))
}

/// A guest asks something of two paths.
fn asked_both(
    store: &Accessor<State, GuestFiles>,
    one: (&Resource<Descriptor>, &str),
    other: (&Resource<Descriptor>, &str),
) -> Asked {
    store.with(|mut store| {
        let files = store.get();
        let asked = files.asked(Way::Changes, one.0, &[one.1]);
        asked.and(&files, other.0, &[other.1])
    })
}

/// What has come of what a guest has asked, once the log says why it is not permitted.
async fn explained<T>(
    store: &Accessor<State, GuestFiles>,
    asked: Asked,
    done: FilesystemResult<T>,
) -> FilesystemResult<T> {
    let error = done.as_ref().err();
    let code = error.and_then(|error| error.downcast_ref());
    if matches!(code, Some(ErrorCode::NotPermitted)) {
        let lent = store.with(|mut store| Arc::clone(store.get().lent));
        lent.threads.spawn(move || asked.explain()).await;
    }
    done
}

/// The same for what goes by a path, so that it can be said why it is not permitted.
macro_rules! by_path {
    ($($way:ident [$path:ident] $name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {$(
        async fn $name(
            store: &Accessor<State, Self>,
            file: Resource<Descriptor>,
            $($argument: $type),*
        ) -> FilesystemResult<$output> {
            let asked = asked(store, Way::$way, &file, &[&$path]);
            let own = store.with_getter::<WasiFilesystem>(State::filesystem);
            let done = on_thread(store, WasiFilesystem::$name(&own, file, $($argument),*)).await;
            explained(store, asked, done).await
        }
    )*};
}

/// The same for what changes how much is in a volume.
macro_rules! on_volumes {
    ($([$($path:ident),*] $name:ident($($argument:ident: $type:ty),*);)*) => {$(
        async fn $name(
            store: &Accessor<State, Self>,
            file: Resource<Descriptor>,
            $($argument: $type),*
        ) -> FilesystemResult<()> {
            let asked = asked(store, Way::Changes, &file, &[$(&$path),*]);
            let done = if let Some(held) = held(store, &file)? {
                let done = in_volume(store, move || held.$name($($argument),*)).await;
                done.map_err(FilesystemError::from)
            } else {
                let own = store.with_getter::<WasiFilesystem>(State::filesystem);
                on_thread(store, WasiFilesystem::$name(&own, file, $($argument),*)).await
            };
            explained(store, asked, done).await
        }
    )*};
}

impl types::HostDescriptorWithStore<State> for GuestFiles {
    on_volumes! {
        [] set_size(size: Filesize);
        [path] create_directory_at(path: String);
        [path] remove_directory_at(path: String);
        [path, target] symlink_at(target: String, path: String);
        [path] unlink_file_at(path: String);
    }

    by_path! {
        Changes [path] set_times_at(
            flags: PathFlags, path: String, accessed: NewTimestamp, modified: NewTimestamp
        ) -> ();
    }

    on_threads! {
        advise(offset: Filesize, length: Filesize, advice: Advice) -> FilesystemResult<()>;
        sync_data() -> FilesystemResult<()>;
        get_type() -> FilesystemResult<DescriptorType>;
        set_times(accessed: NewTimestamp, modified: NewTimestamp) -> FilesystemResult<()>;
        sync() -> FilesystemResult<()>;
        stat() -> FilesystemResult<DescriptorStat>;
        is_same_object(other: Resource<Descriptor>) -> wasmtime::Result<bool>;
        metadata_hash() -> FilesystemResult<MetadataHashValue>;
    }

    in_secrets! {
        stat_at as stat -> DescriptorStat;
        metadata_hash_at as metadata_hash -> MetadataHashValue;
    }

    async fn readlink_at(
        store: &Accessor<State, Self>,
        directory: Resource<Descriptor>,
        path: String,
    ) -> FilesystemResult<String> {
        if let Some(secrets) = secrets(store, &directory) {
            return Ok(secrets.read_link(&path).map_err(codes::code)?);
        }
        let own = store.with_getter::<WasiFilesystem>(State::filesystem);
        let asked = asked(store, Way::Reads, &directory, &[&path]);
        let done = on_thread(store, WasiFilesystem::readlink_at(&own, directory, path)).await;
        explained(store, asked, done).await
    }

    async fn get_flags(
        store: &Accessor<State, Self>,
        file: Resource<Descriptor>,
    ) -> FilesystemResult<DescriptorFlags> {
        let own = store.with_getter::<WasiFilesystem>(State::filesystem);
        WasiFilesystem::get_flags(&own, file).await
    }

    async fn link_at(
        store: &Accessor<State, Self>,
        directory: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        to: Resource<Descriptor>,
        to_path: String,
    ) -> FilesystemResult<()> {
        let asked = asked_both(store, (&directory, &path), (&to, &to_path));
        let done = if let Some((from, into)) = both(store, &directory, &to)? {
            let flags = codes::path_flags(flags);
            let link = move || from.link_at(flags, path, &into, to_path);
            in_volume(store, link).await.map_err(FilesystemError::from)
        } else {
            let own = store.with_getter::<WasiFilesystem>(State::filesystem);
            let work = WasiFilesystem::link_at(&own, directory, flags, path, to, to_path);
            on_thread(store, work).await
        };
        explained(store, asked, done).await
    }

    async fn rename_at(
        store: &Accessor<State, Self>,
        directory: Resource<Descriptor>,
        path: String,
        to: Resource<Descriptor>,
        to_path: String,
    ) -> FilesystemResult<()> {
        let asked = asked_both(store, (&directory, &path), (&to, &to_path));
        let done = if let Some((from, into)) = both(store, &directory, &to)? {
            let rename = move || from.rename_at(path, &into, to_path);
            in_volume(store, rename)
                .await
                .map_err(FilesystemError::from)
        } else {
            let own = store.with_getter::<WasiFilesystem>(State::filesystem);
            let work = WasiFilesystem::rename_at(&own, directory, path, to, to_path);
            on_thread(store, work).await
        };
        explained(store, asked, done).await
    }

    /// Looks first, because opening a FIFO or a device may take for ever, and afterwards, because
    /// something else may have come into that place.
    async fn open_at(
        store: &Accessor<State, Self>,
        directory: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FilesystemResult<Resource<Descriptor>> {
        if store.with(|mut store| store.get().is_full()) {
            // WASI has no code of its own for that.
            return Err(ErrorCode::InsufficientMemory.into());
        }
        let way = denied::way(codes::open_flags(open_flags), codes::flags(flags));
        let asked = asked(store, way, &directory, &[&path]);
        if let Some(secrets) = secrets(store, &directory) {
            let (open_flags, flags) = (codes::open_flags(open_flags), codes::flags(flags));
            let opened = secrets.open(&path, open_flags, flags).map_err(codes::code);
            let opened = explained(store, asked, opened.map_err(FilesystemError::from)).await?;
            let given = store.with(|mut store| store.get().give(opened, &secrets));
            return given.map_err(FilesystemError::trap);
        }
        let name = path.clone();
        if let Some(held) = held(store, &directory)? {
            let within = held.clone();
            let path_flags = codes::path_flags(path_flags);
            let (open_flags, flags) = (codes::open_flags(open_flags), codes::flags(flags));
            let open = move || within.open_at(path_flags, path, open_flags, flags);
            let opened = in_volume(store, open).await;
            let opened = explained(store, asked, opened.map_err(Into::into)).await?;
            return store.with(|mut store| match opened {
                Ok(opened) => {
                    let file = store.get().hold(opened, &held);
                    file.map_err(FilesystemError::trap)
                }
                Err(what) => {
                    store.get().refuse(&name, what);
                    Err(ErrorCode::Unsupported.into())
                }
            });
        }
        let own = store.with_getter::<WasiFilesystem>(State::filesystem);
        let opened = on_thread(store, async move {
            let same = Resource::new_borrow(directory.rep());
            let found = WasiFilesystem::stat_at(&own, same, path_flags, path.clone());
            if let Ok(found) = found.await
                && let Some(what) = other(&found.type_)
            {
                return Ok(Err(what));
            }
            let opened =
                WasiFilesystem::open_at(&own, directory, path_flags, path, open_flags, flags);
            let file = opened.await?;
            let same = Resource::new_borrow(file.rep());
            match other(&WasiFilesystem::get_type(&own, same).await?) {
                None => Ok(Ok(file)),
                Some(what) => own.with(|mut store| {
                    store.get().table.delete(file)?;
                    FilesystemResult::Ok(Err(what))
                }),
            }
        });
        let opened = opened.await;
        match explained(store, asked, opened).await? {
            Ok(file) => Ok(file),
            Err(what) => {
                store.with(|mut store| store.get().refuse(&name, what));
                Err(ErrorCode::Unsupported.into())
            }
        }
    }

    fn read_via_stream(
        mut store: Access<'_, State, Self>,
        file: Resource<Descriptor>,
        offset: Filesize,
    ) -> wasmtime::Result<(StreamReader<u8>, Ended)> {
        let (told, ended) = oneshot::channel();
        let (file, lent) = find(&mut store, &file)?;
        let stream = match file {
            Descriptor::File(file) => {
                StreamReader::new(&mut store, Reading::new(&lent.threads, &file, offset, told))?
            }
            Descriptor::Dir(_) => {
                // The task that waits for it is told before it is dropped.
                let _ = told.send(Err(ErrorCode::IsDirectory));
                StreamReader::new(&mut store, std::iter::empty())?
            }
        };
        Ok((stream, FutureReader::new(&mut store, ended)?))
    }

    fn write_via_stream(
        store: Access<'_, State, Self>,
        file: Resource<Descriptor>,
        data: StreamReader<u8>,
        offset: Filesize,
    ) -> wasmtime::Result<Ended> {
        write(store, &file, data, Some(offset))
    }

    fn append_via_stream(
        store: Access<'_, State, Self>,
        file: Resource<Descriptor>,
        data: StreamReader<u8>,
    ) -> wasmtime::Result<Ended> {
        write(store, &file, data, None)
    }

    fn read_directory(
        mut store: Access<'_, State, Self>,
        directory: Resource<Descriptor>,
    ) -> wasmtime::Result<(StreamReader<DirectoryEntry>, Ended)> {
        let (told, ended) = oneshot::channel();
        if let Some(secrets) = store.get().secrets(&directory) {
            let names = secrets.names().cloned();
            let entry = |name| DirectoryEntry {
                type_: DescriptorType::RegularFile,
                name,
            };
            let entries: Vec<_> = names.map(entry).collect();
            // The task that waits for it is told before it is dropped.
            let _ = told.send(Ok(()));
            let stream = StreamReader::new(&mut store, entries)?;
            return Ok((stream, FutureReader::new(&mut store, ended)?));
        }
        let (directory, lent) = find(&mut store, &directory)?;
        let stream = match directory {
            Descriptor::Dir(it) => {
                StreamReader::new(&mut store, Entries::new(&lent.threads, it.dir, told))?
            }
            Descriptor::File(_) => {
                let _ = told.send(Err(ErrorCode::NotDirectory));
                StreamReader::new(&mut store, std::iter::empty())?
            }
        };
        Ok((stream, FutureReader::new(&mut store, ended)?))
    }
}

/// What is behind a handle.
fn find(
    store: &mut Access<'_, State, GuestFiles>,
    file: &Resource<Descriptor>,
) -> wasmtime::Result<(Descriptor, Arc<Lent>)> {
    let files = store.get();
    Ok((files.view.table.get(file)?.clone(), Arc::clone(files.lent)))
}

/// Writes a stream into a file, from `offset` on or to its end.
fn write(
    mut store: Access<'_, State, GuestFiles>,
    file: &Resource<Descriptor>,
    mut data: StreamReader<u8>,
    offset: Option<Filesize>,
) -> wasmtime::Result<Ended> {
    let (told, ended) = oneshot::channel();
    let asked = store.get().asked(Way::Changes, file, &[]);
    let held = store.get().held(file)?;
    let (file, lent) = find(&mut store, file)?;
    match writable(file) {
        Ok(file) => {
            let target = Target::new(&file, held);
            data.pipe(
                &mut store,
                Writing::new(&lent.threads, target, offset, told),
            )?;
        }
        Err(code) => {
            data.close(&mut store)?;
            if matches!(code, ErrorCode::NotPermitted) {
                asked.explain();
            }
            let _ = told.send(Err(code));
        }
    }
    FutureReader::new(&mut store, ended)
}

fn writable(file: Descriptor) -> Result<File, ErrorCode> {
    match file {
        Descriptor::Dir(_) => Err(ErrorCode::BadDescriptor),
        Descriptor::File(file) if file.perms.write_not_permitted() => Err(ErrorCode::NotPermitted),
        Descriptor::File(file) => Ok(file),
    }
}

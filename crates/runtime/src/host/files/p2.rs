//! `wasi:filesystem` of WASI 0.2: wasmtime's own functions, on the threads for files.

use wasmtime::component::Resource;
use wasmtime_wasi::{
    filesystem::Descriptor,
    p2::{
        DynInputStream, DynOutputStream, FsError, FsResult,
        bindings::filesystem::{
            preopens,
            types::{
                self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry,
                DirectoryEntryStream, ErrorCode, Filesize, MetadataHashValue, NewTimestamp,
                OpenFlags, PathFlags,
            },
        },
    },
};

use super::{
    Files, Lent,
    codes::other,
    denied::{self, Asked, Way},
    held::{self, Held},
    streams_p2::{OnThreads, VolumeOutput},
};

/// The files of a directory with secrets that have not been told of yet. wasmtime lets no one else make
/// a stream of its own sort.
struct Names(std::vec::IntoIter<String>);

impl preopens::Host for Files<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        self.directories()
    }
}

impl types::Host for Files<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        types::Host::convert_error_code(&mut self.view, error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.view.filesystem_error_code(error)
    }
}

/// Functions that do what wasmtime's own do, on a thread for files.
macro_rules! on_threads {
    ($($name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {$(
        async fn $name(
            &mut self,
            file: Resource<Descriptor>,
            $($argument: $type),*
        ) -> $output {
            let work = types::HostDescriptor::$name(&mut self.view, file, $($argument),*);
            self.lent.threads.run(work).await
        }
    )*};
}

/// The same for what goes by a path, so that it can be said why it is not permitted.
macro_rules! by_path {
    ($($way:ident [$path:ident] $name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {$(
        async fn $name(
            &mut self,
            file: Resource<Descriptor>,
            $($argument: $type),*
        ) -> FsResult<$output> {
            let asked = self.asked(Way::$way, &file, &[&$path]);
            let work = types::HostDescriptor::$name(&mut self.view, file, $($argument),*);
            let done = self.lent.threads.run(work).await;
            explained(self.lent, asked, done).await
        }
    )*};
}

/// The same for what changes how much is in a volume.
macro_rules! on_volumes {
    ($([$($path:ident),*] $name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {$(
        async fn $name(
            &mut self,
            file: Resource<Descriptor>,
            $($argument: $type),*
        ) -> FsResult<$output> {
            let asked = self.asked(Way::Changes, &file, &[$(&$path),*]);
            let done = if let Some(held) = self.held(&file).map_err(FsError::trap)? {
                let work = self.lent.threads.spawn(move || held.$name($($argument),*));
                work.await.map_err(FsError::from)
            } else {
                let work = types::HostDescriptor::$name(&mut self.view, file, $($argument),*);
                self.lent.threads.run(work).await
            };
            explained(self.lent, asked, done).await
        }
    )*};
}

/// Functions of a path that are those of what is at the path, where that is in a directory with
/// secrets.
macro_rules! in_secrets {
    ($($name:ident as $own:ident -> $output:ty;)*) => {$(
        async fn $name(
            &mut self,
            directory: Resource<Descriptor>,
            flags: PathFlags,
            path: String,
        ) -> FsResult<$output> {
            if let Some(secrets) = self.secrets(&directory) {
                let found = self.view.table.push(secrets.find(&path)?)?;
                let same = Resource::new_borrow(found.rep());
                let told = types::HostDescriptor::$own(&mut self.view, same).await;
                self.view.table.delete(found)?;
                return told;
            }
            let asked = self.asked(Way::Reads, &directory, &[&path]);
            let work = types::HostDescriptor::$name(&mut self.view, directory, flags, path);
            let done = self.lent.threads.run(work).await;
            explained(self.lent, asked, done).await
        }
    )*};
}

fn is_not_permitted<T>(done: &FsResult<T>) -> bool {
    let code = done.as_ref().err().and_then(FsError::downcast_ref);
    matches!(code, Some(ErrorCode::NotPermitted))
}

/// What has come of what a guest has asked, once the log says why it is not permitted.
async fn explained<T>(lent: &Lent, asked: Asked, done: FsResult<T>) -> FsResult<T> {
    if is_not_permitted(&done) {
        lent.threads.spawn(move || asked.explain()).await;
    }
    done
}

impl Files<'_> {
    /// What two handles are in, if both are in one volume.
    fn both(
        &self,
        one: &Resource<Descriptor>,
        other: &Resource<Descriptor>,
    ) -> FsResult<Option<(Held, Held)>> {
        let (one, other) = (self.held(one), self.held(other));
        let (one, other) = (one.map_err(FsError::trap)?, other.map_err(FsError::trap)?);
        held::beside(one.as_ref(), other.as_ref())?;
        Ok(one.zip(other))
    }

    /// A stream into a file: at an offset, or at its end.
    fn output(
        &mut self,
        file: Resource<Descriptor>,
        offset: Option<Filesize>,
    ) -> FsResult<Resource<DynOutputStream>> {
        let asked = self.asked(Way::Changes, &file, &[]);
        let made = self.open_output(file, offset);
        if is_not_permitted(&made) {
            asked.explain();
        }
        made
    }

    fn open_output(
        &mut self,
        file: Resource<Descriptor>,
        offset: Option<Filesize>,
    ) -> FsResult<Resource<DynOutputStream>> {
        let stream: DynOutputStream = match self.held(&file).map_err(FsError::trap)? {
            Some(held) => {
                held.writable()?;
                Box::new(VolumeOutput::new(held, offset))
            }
            None => {
                let view = &mut self.view;
                let stream = match offset {
                    Some(at) => types::HostDescriptor::write_via_stream(view, file, at)?,
                    None => types::HostDescriptor::append_via_stream(view, file)?,
                };
                self.view.table.delete(stream)?
            }
        };
        let stream: DynOutputStream = OnThreads::new(stream, &self.lent.threads);
        Ok(self.view.table.push(stream)?)
    }
}

impl types::HostDescriptor for Files<'_> {
    on_volumes! {
        [] set_size(size: Filesize) -> ();
        [] write(bytes: Vec<u8>, offset: Filesize) -> Filesize;
        [path] create_directory_at(path: String) -> ();
        [path] remove_directory_at(path: String) -> ();
        [path, target] symlink_at(target: String, path: String) -> ();
        [path] unlink_file_at(path: String) -> ();
    }

    by_path! {
        Changes [path] set_times_at(
            flags: PathFlags, path: String, accessed: NewTimestamp, modified: NewTimestamp
        ) -> ();
    }

    on_threads! {
        advise(offset: Filesize, length: Filesize, advice: Advice) -> FsResult<()>;
        sync_data() -> FsResult<()>;
        get_type() -> FsResult<DescriptorType>;
        set_times(accessed: NewTimestamp, modified: NewTimestamp) -> FsResult<()>;
        read(length: Filesize, offset: Filesize) -> FsResult<(Vec<u8>, bool)>;
        sync() -> FsResult<()>;
        stat() -> FsResult<DescriptorStat>;
        is_same_object(other: Resource<Descriptor>) -> wasmtime::Result<bool>;
        metadata_hash() -> FsResult<MetadataHashValue>;
    }

    in_secrets! {
        stat_at as stat -> DescriptorStat;
        metadata_hash_at as metadata_hash -> MetadataHashValue;
    }

    async fn readlink_at(
        &mut self,
        directory: Resource<Descriptor>,
        path: String,
    ) -> FsResult<String> {
        if let Some(secrets) = self.secrets(&directory) {
            return Ok(secrets.read_link(&path)?);
        }
        let asked = self.asked(Way::Reads, &directory, &[&path]);
        let work = types::HostDescriptor::readlink_at(&mut self.view, directory, path);
        let done = self.lent.threads.run(work).await;
        explained(self.lent, asked, done).await
    }

    async fn read_directory(
        &mut self,
        directory: Resource<Descriptor>,
    ) -> FsResult<Resource<DirectoryEntryStream>> {
        if let Some(secrets) = self.secrets(&directory) {
            let names: Vec<_> = secrets.names().cloned().collect();
            let names = self.view.table.push(Names(names.into_iter()))?;
            // To the guest it is a stream like others: which it is shows in the table.
            return Ok(Resource::new_own(names.rep()));
        }
        let work = types::HostDescriptor::read_directory(&mut self.view, directory);
        self.lent.threads.run(work).await
    }

    async fn get_flags(&mut self, file: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        self.view.get_flags(file).await
    }

    async fn link_at(
        &mut self,
        directory: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        to: Resource<Descriptor>,
        to_path: String,
    ) -> FsResult<()> {
        let asked = self.asked(Way::Changes, &directory, &[&path]);
        let asked = asked.and(self, &to, &[&to_path]);
        let threads = &self.lent.threads;
        let done = if let Some((from, into)) = self.both(&directory, &to)? {
            let work = threads.spawn(move || from.link_at(flags, path, &into, to_path));
            work.await.map_err(FsError::from)
        } else {
            let view = &mut self.view;
            let work = types::HostDescriptor::link_at(view, directory, flags, path, to, to_path);
            threads.run(work).await
        };
        explained(self.lent, asked, done).await
    }

    async fn rename_at(
        &mut self,
        directory: Resource<Descriptor>,
        path: String,
        to: Resource<Descriptor>,
        to_path: String,
    ) -> FsResult<()> {
        let asked = self.asked(Way::Changes, &directory, &[&path]);
        let asked = asked.and(self, &to, &[&to_path]);
        let threads = &self.lent.threads;
        let done = if let Some((from, into)) = self.both(&directory, &to)? {
            let work = threads.spawn(move || from.rename_at(path, &into, to_path));
            work.await.map_err(FsError::from)
        } else {
            let view = &mut self.view;
            let work = types::HostDescriptor::rename_at(view, directory, path, to, to_path);
            threads.run(work).await
        };
        explained(self.lent, asked, done).await
    }

    /// Looks first, because opening a FIFO or a device may take for ever, and afterwards, because
    /// something else may have come into that place.
    async fn open_at(
        &mut self,
        directory: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        if self.is_full() {
            // WASI has no code of its own for that.
            return Err(ErrorCode::InsufficientMemory.into());
        }
        let asked = self.asked(denied::way(open_flags, flags), &directory, &[&path]);
        if let Some(secrets) = self.secrets(&directory) {
            let opened = secrets.open(&path, open_flags, flags);
            let opened = explained(self.lent, asked, opened.map_err(FsError::from)).await?;
            return self.give(opened, &secrets).map_err(FsError::trap);
        }
        let name = path.clone();
        if let Some(held) = self.held(&directory).map_err(FsError::trap)? {
            let within = held.clone();
            let open = move || within.open_at(path_flags, path, open_flags, flags);
            let opened = self.lent.threads.spawn(open).await;
            let opened = opened.map_err(FsError::from);
            return match explained(self.lent, asked, opened).await? {
                Ok(opened) => self.hold(opened, &held).map_err(FsError::trap),
                Err(what) => {
                    self.refuse(&name, what);
                    Err(ErrorCode::Unsupported.into())
                }
            };
        }
        let view = &mut self.view;
        let opened = self.lent.threads.run(async move {
            let same = Resource::new_borrow(directory.rep());
            if let Ok(found) = view.stat_at(same, path_flags, path.clone()).await
                && let Some(what) = other(found.type_)
            {
                return Ok(Err(what));
            }
            let opened = view.open_at(directory, path_flags, path, open_flags, flags);
            let file = opened.await?;
            let same = Resource::new_borrow(file.rep());
            match other(types::HostDescriptor::get_type(view, same).await?) {
                None => Ok(Ok(file)),
                Some(what) => {
                    view.table.delete(file)?;
                    Ok(Err(what))
                }
            }
        });
        let opened = opened.await;
        match explained(self.lent, asked, opened).await? {
            Ok(file) => Ok(file),
            Err(what) => {
                self.refuse(&name, what);
                Err(ErrorCode::Unsupported.into())
            }
        }
    }

    fn read_via_stream(
        &mut self,
        file: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynInputStream>> {
        let stream = self.view.read_via_stream(file, offset)?;
        let stream = self.view.table.delete(stream)?;
        let stream: DynInputStream = OnThreads::new(stream, &self.lent.threads);
        Ok(self.view.table.push(stream)?)
    }

    fn write_via_stream(
        &mut self,
        file: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynOutputStream>> {
        self.output(file, Some(offset))
    }

    fn append_via_stream(
        &mut self,
        file: Resource<Descriptor>,
    ) -> FsResult<Resource<DynOutputStream>> {
        self.output(file, None)
    }

    fn drop(&mut self, file: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.handles.remove(&file.rep());
        types::HostDescriptor::drop(&mut self.view, file)
    }
}

impl types::HostDirectoryEntryStream for Files<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        let names = Resource::<Names>::new_borrow(stream.rep());
        if let Ok(Names(names)) = self.view.table.get_mut(&names) {
            let type_ = DescriptorType::RegularFile;
            return Ok(names.next().map(|name| DirectoryEntry { type_, name }));
        }
        self.view.read_directory_entry(stream).await
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        let names = Resource::<Names>::new_own(stream.rep());
        // To delete what is of another sort would delete it all the same.
        if self.view.table.get(&names).is_ok() {
            self.view.table.delete(names)?;
            return Ok(());
        }
        types::HostDirectoryEntryStream::drop(&mut self.view, stream)
    }
}

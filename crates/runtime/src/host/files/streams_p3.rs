//! Streams from and into files of WASI 0.3.
//!
//! wasmtime's own begin their work where the store is polled, and so on the threads of the runtime
//! that polls it. These do the same on the threads for files, and none of them keeps a thread while
//! the guest does not read.

use std::{
    fs::File as OsFile,
    io::{self, IoSlice},
    os::unix::fs::FileExt as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use rustix::{
    fs::{AtFlags, Dir, FileType},
    io::{ReadWriteFlags, pwritev2},
};
use tokio::sync::oneshot;
use wasmtime::{
    StoreContextMut,
    component::{Destination, Source, StreamConsumer, StreamProducer, StreamResult, VecBuffer},
};
use wasmtime_wasi::{
    filesystem::File,
    p3::bindings::filesystem::types::{DescriptorType, DirectoryEntry, ErrorCode},
};

use super::{
    held::Held,
    threads::{FileThreads, Job},
};
use crate::{host::state::State, volumes::uninterrupted};

/// Bytes that are read or written at once.
const PIECE: usize = 64 << 10;
/// Entries of a directory that are read at once.
const ENTRIES: usize = 256;

type Told = oneshot::Sender<Result<(), ErrorCode>>;

/// Tells a guest how its stream has ended, once.
struct Report(Option<Told>);

impl Report {
    fn tell(&mut self, result: Result<(), ErrorCode>) {
        if let Some(told) = self.0.take() {
            // A guest need not want to know.
            let _ = told.send(result);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.tell(Ok(()));
    }
}

/// A file that is read.
pub(super) struct Reading {
    threads: Arc<FileThreads>,
    file: Arc<OsFile>,
    offset: u64,
    report: Report,
    job: Option<Job<io::Result<BytesMut>>>,
}

impl Reading {
    pub(super) fn new(threads: &Arc<FileThreads>, file: &File, offset: u64, told: Told) -> Self {
        Self {
            threads: Arc::clone(threads),
            file: Arc::clone(&file.file),
            offset,
            report: Report(Some(told)),
            job: None,
        }
    }
}

impl StreamProducer<State> for Reading {
    type Item = u8;
    type Buffer = BytesMut;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'a, State>,
        mut to: Destination<'a, u8, BytesMut>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let this = &mut *self;
        let (file, offset) = (&this.file, this.offset);
        let job = this.job.get_or_insert_with(|| {
            let (file, mut buffer) = (Arc::clone(file), to.take_buffer());
            buffer.resize(PIECE, 0);
            this.threads.spawn(move || {
                let read = uninterrupted(|| file.read_at(&mut buffer, offset))?;
                buffer.truncate(read);
                Ok(buffer)
            })
        });
        let read = match job.as_mut().poll(cx) {
            // What it reads is for the next one who asks.
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            other => ready!(other),
        };
        this.job = None;
        store.data().cell.end_wait();
        let end = match read {
            Ok(bytes) if !bytes.is_empty() => {
                this.offset = this.offset.saturating_add(bytes.len() as u64);
                to.set_buffer(bytes);
                return Poll::Ready(Ok(StreamResult::Completed));
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        };
        this.report.tell(end);
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

/// What a stream is written into.
#[derive(Clone)]
pub(super) enum Target {
    File(Arc<OsFile>),
    Volume(Held),
}

impl Target {
    pub(super) fn new(file: &File, held: Option<Held>) -> Self {
        match held {
            None => Self::File(Arc::clone(&file.file)),
            Some(held) => Self::Volume(held),
        }
    }

    fn write(&self, bytes: &[u8], offset: Option<u64>) -> io::Result<usize> {
        match self {
            Self::File(file) => write(file, bytes, offset),
            Self::Volume(held) => held.put(bytes, offset),
        }
    }
}

/// A file that is written.
pub(super) struct Writing {
    threads: Arc<FileThreads>,
    file: Target,
    /// Where; without it, at the end.
    offset: Option<u64>,
    report: Report,
    job: Option<Job<io::Result<usize>>>,
}

impl Writing {
    pub(super) fn new(
        threads: &Arc<FileThreads>,
        file: Target,
        offset: Option<u64>,
        told: Told,
    ) -> Self {
        Self {
            threads: Arc::clone(threads),
            file,
            offset,
            report: Report(Some(told)),
            job: None,
        }
    }
}

fn write(file: &OsFile, bytes: &[u8], offset: Option<u64>) -> io::Result<usize> {
    uninterrupted(|| match offset {
        Some(offset) => file.write_at(bytes, offset),
        None => {
            let written = pwritev2(file, &[IoSlice::new(bytes)], 0, ReadWriteFlags::APPEND);
            Ok(written?)
        }
    })
}

impl StreamConsumer<State> for Writing {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, State>,
        from: Source<'_, u8>,
        // What is being written cannot be called back: it is not known how much it was.
        _finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let this = &mut *self;
        let cell = Arc::clone(&store.data().cell);
        let mut from = from.as_direct(store);
        let (file, offset) = (&this.file, this.offset);
        let job = this.job.get_or_insert_with(|| {
            let bytes = from.remaining();
            let bytes = bytes[..bytes.len().min(PIECE)].to_vec();
            let file = file.clone();
            this.threads.spawn(move || file.write(&bytes, offset))
        });
        let written = ready!(job.as_mut().poll(cx));
        this.job = None;
        let result = match written {
            Ok(written) => {
                from.mark_read(written);
                this.offset = offset.map(|offset| offset.saturating_add(written as u64));
                StreamResult::Completed
            }
            Err(error) => {
                this.report.tell(Err(error.into()));
                StreamResult::Dropped
            }
        };
        cell.end_wait();
        Poll::Ready(Ok(result))
    }
}

/// The entries of a directory.
pub(super) struct Entries {
    threads: Arc<FileThreads>,
    report: Report,
    /// What reads more of them. It begins when it is asked for the first time.
    job: Option<Job<Result<Batch, ErrorCode>>>,
}

/// Some entries, and the directory if there may be more.
type Batch = (Vec<DirectoryEntry>, Option<Dir>);

impl Entries {
    pub(super) fn new(threads: &Arc<FileThreads>, directory: Arc<OsFile>, told: Told) -> Self {
        let first = move || list(Dir::read_from(&directory).map_err(io::Error::from)?);
        Self {
            threads: Arc::clone(threads),
            report: Report(Some(told)),
            job: Some(threads.spawn(first)),
        }
    }
}

fn list(mut directory: Dir) -> Result<Batch, ErrorCode> {
    let mut entries = Vec::new();
    while entries.len() < ENTRIES {
        let Some(entry) = directory.read() else {
            return Ok((entries, None));
        };
        let entry = entry.map_err(io::Error::from)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let found = rustix::fs::statat(
                    directory.fd().map_err(io::Error::from)?,
                    name,
                    AtFlags::SYMLINK_NOFOLLOW,
                );
                FileType::from_raw_mode(found.map_err(io::Error::from)?.st_mode)
            }
            known => known,
        };
        let name = name.to_str().map_err(|_| ErrorCode::IllegalByteSequence)?;
        entries.push(DirectoryEntry {
            type_: descriptor_type(kind),
            name: name.to_owned(),
        });
    }
    Ok((entries, Some(directory)))
}

fn descriptor_type(kind: FileType) -> DescriptorType {
    match kind {
        FileType::RegularFile => DescriptorType::RegularFile,
        FileType::Directory => DescriptorType::Directory,
        FileType::Symlink => DescriptorType::SymbolicLink,
        FileType::Fifo => DescriptorType::Fifo,
        FileType::Socket => DescriptorType::Socket,
        FileType::CharacterDevice => DescriptorType::CharacterDevice,
        FileType::BlockDevice => DescriptorType::BlockDevice,
        FileType::Unknown => DescriptorType::Other(None),
    }
}

impl StreamProducer<State> for Entries {
    type Item = DirectoryEntry;
    type Buffer = VecBuffer<DirectoryEntry>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, State>,
        mut to: Destination<'a, DirectoryEntry, VecBuffer<DirectoryEntry>>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        // It only asks whether there is one.
        if to.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let this = &mut *self;
        while let Some(job) = &mut this.job {
            let read = match job.as_mut().poll(cx) {
                // What it reads is for the next one who asks.
                Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
                other => ready!(other),
            };
            this.job = None;
            match read {
                Ok((entries, rest)) => {
                    store.data().cell.end_wait();
                    this.job = rest.map(|rest| this.threads.spawn(move || list(rest)));
                    if !entries.is_empty() {
                        to.set_buffer(entries.into());
                        return Poll::Ready(Ok(StreamResult::Completed));
                    }
                }
                Err(code) => this.report.tell(Err(code)),
            }
        }
        this.report.tell(Ok(()));
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

//! Streams from and into files of WASI 0.2: wasmtime's own, on the threads for files.

use std::{io, mem, sync::Arc};

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};
use wasmtime_wasi::{
    async_trait,
    p2::{
        DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError,
        StreamResult,
    },
};

use super::{held::Held, threads::FileThreads};

/// A stream on the threads for files.
pub(super) struct OnThreads<S> {
    stream: S,
    threads: Arc<FileThreads>,
}

impl<S> OnThreads<S> {
    pub(super) fn new(stream: S, threads: &Arc<FileThreads>) -> Box<Self> {
        let threads = Arc::clone(threads);
        Box::new(Self { stream, threads })
    }
}

#[async_trait]
impl<S: Pollable + ?Sized> Pollable for OnThreads<Box<S>> {
    async fn ready(&mut self) {
        self.threads.run(self.stream.ready()).await;
    }
}

#[async_trait]
impl InputStream for OnThreads<DynInputStream> {
    /// Begins to read, and has nothing yet. Without a place for that the guest waits for one, as it
    /// would for data.
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let stream = &mut self.stream;
        let read = self.threads.begin(|| stream.read(size));
        read.unwrap_or(Ok(Bytes::new()))
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.threads.run(self.stream.blocking_read(size)).await
    }

    async fn cancel(&mut self) {
        self.threads.within(self.stream.cancel()).await;
    }
}

#[async_trait]
impl OutputStream for OnThreads<DynOutputStream> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let stream = &mut self.stream;
        self.threads.begin_anyway(|| stream.write(bytes))
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.stream.flush()
    }

    /// No room while there is no place for the thread that would write.
    fn check_write(&mut self) -> StreamResult<usize> {
        match self.stream.check_write()? {
            _ if !self.threads.are_free() => Ok(0),
            room => Ok(room),
        }
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        let work = self.stream.blocking_write_and_flush(bytes);
        self.threads.run(work).await
    }

    async fn cancel(&mut self) {
        self.threads.within(self.stream.cancel()).await;
    }
}

/// Bytes that are written at once.
const CAPACITY: usize = 64 << 10;

/// A file in a volume that is written, as wasmtime's own stream into a file does it.
pub(super) struct VolumeOutput {
    held: Held,
    /// Where; without it, at the end.
    offset: Option<u64>,
    state: Output,
}

enum Output {
    Ready,
    Writing(JoinHandle<io::Result<usize>>),
    Failed(io::Error),
    Closed,
}

impl VolumeOutput {
    pub(super) fn new(held: Held, offset: Option<u64>) -> Self {
        Self {
            held,
            offset,
            state: Output::Ready,
        }
    }

    /// Whether more can be written now. A failure is told once.
    fn check(&mut self) -> StreamResult<bool> {
        match mem::replace(&mut self.state, Output::Closed) {
            Output::Closed => Err(StreamError::Closed),
            Output::Failed(error) => Err(StreamError::LastOperationFailed(error.into())),
            state => {
                let is_ready = matches!(state, Output::Ready);
                self.state = state;
                Ok(is_ready)
            }
        }
    }
}

fn write_all(held: &Held, mut bytes: &[u8], mut offset: Option<u64>) -> io::Result<usize> {
    let all = bytes.len();
    while !bytes.is_empty() {
        let written = held.put(bytes, offset)?;
        bytes = &bytes[written..];
        offset = offset.map(|offset| offset.saturating_add(written as u64));
    }
    Ok(all)
}

#[async_trait]
impl Pollable for VolumeOutput {
    async fn ready(&mut self) {
        let Output::Writing(task) = &mut self.state else {
            return;
        };
        let written = task
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        self.state = match written {
            Ok(written) => {
                let offset = self.offset;
                self.offset = offset.map(|offset| offset.saturating_add(written as u64));
                Output::Ready
            }
            Err(error) => Output::Failed(error),
        };
    }
}

#[async_trait]
impl OutputStream for VolumeOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if !self.check()? {
            let text = "`write` without room that `check-write` has told of";
            return Err(StreamError::Trap(wasmtime::Error::msg(text)));
        }
        let (held, offset) = (self.held.clone(), self.offset);
        let work = move || write_all(&held, &bytes, offset);
        self.state = Output::Writing(spawn_blocking(work));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.check().map(drop)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if self.check()? { CAPACITY } else { 0 })
    }

    async fn cancel(&mut self) {
        self.ready().await;
        self.state = Output::Closed;
    }
}

//! Streams from and into files of WASI 0.2: wasmtime's own, on the threads for files.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime_wasi::{
    async_trait,
    p2::{DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamResult},
};

use super::threads::FileThreads;

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

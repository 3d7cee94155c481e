//! Bodies that tell the cell of an instance when it waits for them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use wasmtime_wasi_http::{Error, WasiBody};

use super::{
    cell::{Cell, WaitNote},
    source::{Reading, Source},
};

type Item = Option<Result<Frame<Bytes>, Error>>;

/// A body that a guest reads. While there is nothing to read, its writer could wake the guest.
struct Read {
    inner: WasiBody,
    cell: Arc<Cell>,
    writer: Source,
    note: Option<WaitNote>,
}

/// Has `cell` know when it waits for `body`, which `writer` writes.
pub(crate) fn read_by(cell: &Arc<Cell>, writer: Source, body: WasiBody) -> WasiBody {
    if body.is_end_stream() || !super::ON {
        return body;
    }
    let read = Read {
        inner: body,
        cell: Arc::clone(cell),
        writer,
        note: None,
    };
    read.boxed_unsync()
}

impl Body for Read {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Item> {
        let this = &mut *self;
        let frame = Pin::new(&mut this.inner).poll_frame(cx);
        if frame.is_ready() {
            if this.note.take().is_some() {
                this.cell.end_wait();
            }
        } else if this.note.is_none() {
            this.note = Some(this.cell.register("reading a body", this.writer.clone()));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A body that a guest writes and another pod or a client reads. While the reader does not wait for more,
/// it could make room for more, and so wake the guest.
struct Written {
    inner: WasiBody,
    reading: Arc<Reading>,
    waker: Waker,
    note: WaitNote,
    /// Whether the reader found nothing when it last looked.
    was_empty: bool,
}

/// Has `cell` know that it may wait for the `reader` of a body that it writes.
pub(crate) fn written_by(cell: &Arc<Cell>, reader: Source, body: WasiBody) -> WasiBody {
    if body.is_end_stream() || !super::ON {
        return body;
    }
    let reading = Arc::new(Reading::default());
    let source = Source::Reader(Arc::clone(&reading), Box::new(reader));
    let written = Written {
        inner: body,
        waker: Waker::from(Arc::clone(&reading)),
        reading,
        note: cell.register("writing a body", source),
        was_empty: false,
    };
    written.boxed_unsync()
}

impl Body for Written {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Item> {
        let this = &mut *self;
        this.reading.begin(cx.waker());
        let frame = Pin::new(&mut this.inner).poll_frame(&mut Context::from_waker(&this.waker));
        let was_empty = std::mem::replace(&mut this.was_empty, frame.is_pending());
        if frame.is_ready() {
            this.reading.end();
            if !was_empty {
                // It was there before its reader. Only so much fits in between, and then the writer
                // waits.
                this.note.cell.end_wait();
            }
        } else {
            // From now on the reader does nothing for the guest.
            this.note.cell.reconsider();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

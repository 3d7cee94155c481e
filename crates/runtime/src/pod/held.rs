//! The head of a WASI 0.3 response, held for the moment in which its guest writes a small body.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use wasmtime_wasi_http::{Error, WasiBody};

/// The largest body that is held whole.
const MAX_BYTES: usize = 16 << 10;

/// Polls of a store that keeps waking itself before other tasks get their turn.
const MAX_POLLS: usize = 64;

type Item = Result<Frame<Bytes>, Error>;

/// Tasks that wait for a store to have nothing to do.
#[derive(Default)]
pub(super) struct IdleGate(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    wakers: Vec<Waker>,
    /// How often the store had nothing to do while a task waited for that.
    count: u64,
}

impl IdleGate {
    /// Drives a store. Each time it has nothing more to do, those who wait for that are woken.
    pub(super) async fn watch<F: Future>(&self, store: F) -> F::Output {
        let mut store = pin!(store);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        poll_fn(|cx| {
            woken.task.register(cx.waker());
            for _ in 0..MAX_POLLS {
                woken.again.store(false, Ordering::Relaxed);
                let poll = store.as_mut().poll(&mut Context::from_waker(&waker));
                if poll.is_ready() {
                    return poll;
                }
                // A store that woke itself meanwhile has only let others go first.
                if woken.again.load(Ordering::Relaxed) {
                    continue;
                }
                let mut waiting = self.0.lock();
                let wakers = std::mem::take(&mut waiting.wakers);
                if wakers.is_empty() {
                    return Poll::Pending;
                }
                waiting.count += 1;
                drop(waiting);
                wakers.into_iter().for_each(Waker::wake);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// Asks to be woken when the store next has nothing to do. The number is another one after it.
    fn expect(&self, cx: &Context<'_>) -> u64 {
        let mut waiting = self.0.lock();
        waiting.wakers.push(cx.waker().clone());
        waiting.count
    }

    fn count(&self) -> u64 {
        self.0.lock().count
    }
}

/// The waker of a store, which remembers that it was used.
#[derive(Default)]
struct Woken {
    again: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.again.store(true, Ordering::Relaxed);
        self.task.wake();
    }
}

/// Gives the guest, which has just returned the head, the chance to write a body and to end it.
///
/// A guest of WASI 0.3 writes its body after its handler has returned. Sent on its own, the head of
/// a small response costs as much as all the rest of it: another wake-up, another system call. The
/// head waits only while the store has something to do: what waits for anything is sent as it
/// comes.
pub(super) async fn with_small_body(
    response: http::Response<WasiBody>,
    gate: &IdleGate,
) -> http::Response<WasiBody> {
    let (head, mut body) = response.into_parts();
    let mut begun = VecDeque::new();
    let mut bytes = 0;
    let mut expected = None;
    let ended = poll_fn(|cx| {
        loop {
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(true),
                Poll::Ready(Some(item)) => {
                    let length = item.as_ref().ok().and_then(Frame::data_ref).map(Bytes::len);
                    begun.push_back(item);
                    // An error or trailers: what follows is for their reader.
                    let Some(length) = length else {
                        return Poll::Ready(false);
                    };
                    bytes += length;
                    if bytes > MAX_BYTES {
                        return Poll::Ready(false);
                    }
                    expected = None;
                }
                Poll::Pending => match expected {
                    Some(count) if count == gate.count() => return Poll::Pending,
                    Some(_) => return Poll::Ready(false),
                    None => expected = Some(gate.expect(cx)),
                },
            }
        }
    })
    .await;
    let body = match ended {
        true => Full::new(join(begun))
            .map_err(|never| match never {})
            .boxed_unsync(),
        false => Begun { begun, rest: body }.boxed_unsync(),
    };
    http::Response::from_parts(head, body)
}

/// All data in one piece. There is nothing else in it when a body has ended well.
fn join(begun: VecDeque<Item>) -> Bytes {
    let mut pieces = begun
        .into_iter()
        .filter_map(|item| item.ok()?.into_data().ok());
    let first = pieces.next().unwrap_or_default();
    pieces.fold(first, |all, piece| [all, piece].concat().into())
}

/// A body of which some has been read.
struct Begun {
    begun: VecDeque<Item>,
    rest: WasiBody,
}

impl Body for Begun {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        match self.begun.pop_front() {
            Some(item) => Poll::Ready(Some(item)),
            None => pin!(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let data = |item: &Item| item.as_ref().ok().and_then(Frame::data_ref).map(Bytes::len);
        let begun: usize = self.begun.iter().filter_map(data).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(begun as u64));
        }
        hint.set_lower(rest.lower().saturating_add(begun as u64));
        hint
    }
}

//! The threads on which the guests of one template use files.
//!
//! A file may take for ever: that of a mount whose server is gone, one in `/proc` that waits for
//! news. A thread that does it cannot be called back. So each template has [`THREADS`] threads of
//! its own: a guest can keep those of its own template, and nothing else in this process.
//!
//! # Places
//!
//! There are as many places as threads, and an operation has one from before it begins until its
//! thread is free again. If all are taken it waits, and so does the guest, until its deadline.
//! Nothing queues up behind threads that never come back.
//!
//! A guest that goes away in the middle leaves its operation behind. Then its place goes into the
//! line of the threads as a job of its own ([`Place`]), and is free again when a thread gets to
//! that: at once while threads are free, and not before one is. So of places that were left behind
//! there may be one for each thread too many, and no more.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Threads on which the guests of one template use files.
pub(crate) const THREADS: usize = 8;

/// How long a thread stays when there is nothing to do.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Something that is done on a thread for files.
pub(super) type Job<R> = Pin<Box<dyn Future<Output = R> + Send>>;

/// The threads of a template.
pub(crate) struct FileThreads {
    /// Only for its threads that may block: it runs no task. Taken when this is dropped.
    runtime: Option<Runtime>,
    places: Arc<Semaphore>,
}

impl FileThreads {
    pub(crate) fn new() -> Arc<Self> {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(THREADS)
            .thread_keep_alive(KEEP_ALIVE)
            .thread_name("sampan-files")
            .build()
            .expect("a runtime without a driver opens nothing");
        Arc::new(Self {
            runtime: Some(runtime),
            places: Arc::new(Semaphore::new(THREADS)),
        })
    }

    fn handle(&self) -> &Handle {
        let runtime = self.runtime.as_ref();
        runtime.expect("taken only in drop").handle()
    }

    /// Whether an operation could begin now.
    pub(super) fn are_free(&self) -> bool {
        self.places.available_permits() > 0
    }

    async fn place(&self) -> Place {
        let permit = Arc::clone(&self.places).acquire_owned().await;
        self.with(permit.expect("the semaphore is never closed"))
    }

    fn with(&self, permit: OwnedSemaphorePermit) -> Place {
        let threads = self.handle().clone();
        let permit = Some(permit);
        Place { permit, threads }
    }

    /// Has `work` do what blocks on one of these threads, with a place for it.
    pub(super) async fn run<F: Future>(&self, work: F) -> F::Output {
        let place = self.place().await;
        let output = self.within(work).await;
        place.free();
        output
    }

    /// The same without a place: for what only waits for something that has one.
    pub(super) fn within<F: Future>(&self, work: F) -> Within<F> {
        Within {
            work,
            threads: self.handle().clone(),
        }
    }

    /// Begins something that goes on by itself on one of these threads, if there is a place.
    pub(super) fn begin<T>(&self, start: impl FnOnce() -> T) -> Option<T> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let _place = self.with(permit);
        Some(self.begin_anyway(start))
    }

    /// The same for what had a place a moment ago.
    pub(super) fn begin_anyway<T>(&self, start: impl FnOnce() -> T) -> T {
        let _within = self.handle().enter();
        start()
    }

    /// Does `work` on one of these threads.
    pub(super) fn spawn<R: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Job<R> {
        let threads = Arc::clone(self);
        Box::pin(async move {
            let place = threads.place().await;
            let done = threads.handle().spawn_blocking(work).await;
            place.free();
            done.expect("it does not panic, and its threads outlive it")
        })
    }
}

impl Drop for FileThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Threads that never come back are not waited for.
            runtime.shutdown_background();
        }
    }
}

/// One of the places. Dropped, it is free when a thread next is.
struct Place {
    permit: Option<OwnedSemaphorePermit>,
    threads: Handle,
}

impl Place {
    /// What was done in it is over.
    fn free(mut self) {
        self.permit = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            drop(self.threads.spawn_blocking(move || drop(permit)));
        }
    }
}

pin_project! {
    /// A future of which every part that blocks gets one of the threads.
    pub(super) struct Within<F> {
        #[pin]
        work: F,
        threads: Handle,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _within = this.threads.enter();
        this.work.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::FutureExt as _;

    use super::*;

    /// Operations that stay on their threads until the sender is dropped.
    fn stuck(threads: &Arc<FileThreads>) -> (mpsc::SyncSender<()>, Vec<Job<()>>) {
        let (stop, stopped) = mpsc::sync_channel::<()>(0);
        let stopped = Arc::new(std::sync::Mutex::new(stopped));
        let mut jobs: Vec<_> = (0..THREADS)
            .map(|_| {
                let stopped = Arc::clone(&stopped);
                threads.spawn(move || {
                    let _ = stopped.lock().map(|it| it.recv());
                })
            })
            .collect();
        for job in &mut jobs {
            assert!(job.now_or_never().is_none());
        }
        (stop, jobs)
    }

    #[tokio::test]
    async fn what_is_left_behind_keeps_its_place_until_a_thread_is_free() {
        let threads = FileThreads::new();
        let (stop, jobs) = stuck(&threads);
        assert!(!threads.are_free());
        assert!(threads.begin(|| ()).is_none());
        drop(jobs);
        assert!(!threads.are_free(), "nothing has ended yet");
        let mut late = threads.spawn(|| 7);
        assert!((&mut late).now_or_never().is_none());
        drop(stop);
        assert_eq!(late.await, 7);
        // All places come back, so nothing was lost.
        let all = threads.places.acquire_many(THREADS as u32).await;
        assert!(all.is_ok());
    }

    #[tokio::test]
    async fn what_uses_the_pool_of_the_runtime_uses_these_threads() {
        let threads = FileThreads::new();
        let name = || {
            let name = std::thread::current().name().map(str::to_owned);
            name.unwrap_or_default()
        };
        let here = async || tokio::task::spawn_blocking(name).await.expect("no panic");
        assert_eq!(threads.run(here()).await, "sampan-files");
        assert_ne!(here().await, "sampan-files");
        let begun = threads.begin(|| tokio::task::spawn_blocking(name));
        let begun = begun.expect("a place").await.expect("no panic");
        assert_eq!(begun, "sampan-files");
    }

    /// In an asynchronous test: dropping a runtime that waits for its threads would panic here.
    #[tokio::test]
    async fn threads_that_never_come_back_are_not_waited_for() {
        let threads = FileThreads::new();
        let (stop, jobs) = stuck(&threads);
        drop(jobs);
        drop(threads);
        drop(stop);
    }
}

//! The clock that interrupts guests: a thread that moves every engine's epoch, and lets those go on
//! who were held back until there was more of their pod's share.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use sampan_core::provoke;
use wasmtime::EngineWeak;

use crate::quota::Backlog;

/// Time between two epochs: how long a guest may run before the host looks at it.
pub(crate) const EPOCH_TICK: Duration = Duration::from_millis(5);

/// A thread of its own, not a task: when every worker thread is inside a guest, a task would not
/// run and no guest would be interrupted.
pub(crate) struct EpochTicker {
    engines: Arc<Mutex<Vec<EngineWeak>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl EpochTicker {
    pub(crate) fn start(backlog: &Arc<Backlog>) -> io::Result<Self> {
        let engines = Arc::new(Mutex::new(Vec::<EngineWeak>::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new()
            .name("sampan-epoch".to_owned())
            .spawn({
                let engines = Arc::clone(&engines);
                let stop = Arc::clone(&stop);
                let backlog = Arc::clone(backlog);
                move || {
                    while !stop.load(Ordering::Relaxed) {
                        thread::park_timeout(EPOCH_TICK);
                        provoke::panic_in(provoke::Task::Epoch);
                        for engine in engines.lock().iter() {
                            if let Some(engine) = engine.upgrade() {
                                engine.increment_epoch();
                            }
                        }
                        backlog.look();
                    }
                }
            })?;
        Ok(Self {
            engines,
            stop,
            thread: Some(thread),
        })
    }

    /// Ticks this engine too, as long as it lives.
    pub(crate) fn add(&self, engine: EngineWeak) {
        self.engines.lock().push(engine);
    }
}

impl Drop for EpochTicker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread only ever sleeps and adds: it cannot fail, and ends within a tick.
            let _ = thread.join();
        }
    }
}

//! The clock that interrupts guests: a thread that moves every engine's epoch, and lets those go on
//! who were held back until there was more of their pod's share.

use std::{io, sync::Arc, thread, time::Duration};

use parking_lot::Mutex;
use sampan_core::provoke;
use wasmtime::EngineWeak;

use crate::quota::Backlog;

/// Time between two epochs: how long a guest may run before the host looks at it.
pub(crate) const EPOCH_TICK: Duration = Duration::from_millis(5);

/// A thread of its own, not a task: when every worker thread is inside a guest, a task would not
/// run and no guest would be interrupted.
pub(crate) struct EpochTicker(Arc<Mutex<Vec<EngineWeak>>>);

impl EpochTicker {
    /// Starts the thread, which ends within a tick once this is dropped.
    pub(crate) fn start(backlog: &Arc<Backlog>) -> io::Result<Self> {
        let engines = Arc::<Mutex<Vec<EngineWeak>>>::default();
        let (ticked, backlog) = (Arc::downgrade(&engines), Arc::clone(backlog));
        let tick = move || {
            while let Some(engines) = ticked.upgrade() {
                provoke::panic_in(provoke::Task::Epoch);
                for engine in engines.lock().iter().filter_map(EngineWeak::upgrade) {
                    engine.increment_epoch();
                }
                drop(engines);
                backlog.look();
                thread::park_timeout(EPOCH_TICK);
            }
        };
        let thread = thread::Builder::new().name("sampan-epoch".to_owned());
        thread.spawn(tick)?;
        Ok(Self(engines))
    }

    /// Ticks this engine too, as long as it lives.
    pub(crate) fn add(&self, engine: EngineWeak) {
        self.0.lock().push(engine);
    }
}

//! Which of its tasks a guest of WASI 0.3 is at, for the day on which that ends its instance.
//!
//! wasmtime knows it while the guest runs, and its event loop does one thing at a time: before each
//! it polls the host's own future. So the host has it look at the guest as soon as that runs again,
//! by an epoch that is over already, and what the look finds holds until the host is polled next.

use std::{future::poll_fn, pin::pin};

use wasmtime::{
    AsContextMut, StoreContextMut,
    component::{Accessor, GuestTaskId},
};

/// The task that runs, as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn {
    /// Whether the next look at the guest is only to find out.
    armed: bool,
    task: Option<GuestTaskId>,
}

impl Turn {
    /// The task that the host called and that runs now, or ran when the instance ended. Nothing if
    /// the guest has not been looked at since the host was polled.
    pub(crate) fn task(self) -> Option<GuestTaskId> {
        self.task
    }

    /// Polls the host's part of an instance, between whose polls the guest runs.
    pub(crate) async fn between<T, F>(accessor: &Accessor<T>, host: F) -> F::Output
    where
        T: AsMut<Self> + 'static,
        F: Future,
    {
        let mut host = pin!(host);
        poll_fn(|cx| {
            // No guest runs.
            accessor
                .with(|mut store| *store.as_context_mut().data_mut().as_mut() = Self::default());
            let polled = host.as_mut().poll(cx);
            if polled.is_pending() {
                // The guest is looked at as soon as it runs.
                accessor.with(|mut store| {
                    let mut store = store.as_context_mut();
                    *store.data_mut().as_mut() = Self {
                        armed: true,
                        task: None,
                    };
                    store.set_epoch_deadline(0);
                });
            }
            polled
        })
        .await
    }

    /// Looks at a guest that runs. Whether it was looked at only for this.
    pub(crate) fn look<T: AsMut<Self> + 'static>(store: &mut StoreContextMut<'_, T>) -> bool {
        if !std::mem::take(&mut store.data_mut().as_mut().armed) {
            return false;
        }
        // The last one is what the host has called.
        let task = store.async_call_stack().ok().and_then(Iterator::last);
        store.data_mut().as_mut().task = task;
        true
    }
}

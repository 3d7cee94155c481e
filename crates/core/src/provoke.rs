//! Panics that tests ask for, one for each kind of task and thread: that one ends the process
//! cannot be seen otherwise, since no input makes anything panic.
//!
//! A build without debug assertions has none of it.

macro_rules! tasks {
    ($($(#[$what:meta])* $name:ident,)*) => {
        /// Kinds of tasks and threads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Task {
            $($(#[$what])* $name,)*
        }

        impl Task {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

tasks! {
    /// The thread that `main` runs on.
    Main,
    /// What accepts connections for the gateway.
    Listener,
    /// A connection of the gateway, which also runs requests of short guests.
    Connection,
    /// What accepts connections for the API.
    ApiListener,
    /// A request to the API.
    Api,
    /// Work that may block.
    Blocking,
    /// What keeps the objects of the store in memory.
    Mirror,
    /// The loop that starts and stops pods.
    Agent,
    /// The preparation of a pod.
    Preparation,
    /// The worker of a pod.
    Worker,
    /// The instance of a pod that has requests one by one.
    Kept,
    /// The instance of a pod that shares it among requests.
    Shared,
    /// The instance of a pod that runs a command.
    Command,
    /// An instance for one request.
    Fresh,
    /// A long guest, on the threads for those.
    SlowLane,
    /// An attempt of a job.
    Job,
    /// The controllers.
    Controllers,
    /// The writing of a reconcile.
    Reconcile,
    /// The publication of routes and endpoints.
    Edge,
    /// The measurement of what services do.
    Sampler,
    /// The writing of how pods are.
    Reports,
    /// The keeping of events.
    EventHistory,
    /// The keeping of what guests have printed.
    LineKeeper,
    /// The removal of components that nothing refers to.
    Sweeper,
    /// The printing of events.
    Events,
    /// The printing of what guests have printed.
    Logs,
    /// The thread that writes the store.
    Store,
    /// The thread that moves the epochs.
    Epoch,
    /// The thread that looks for deadlocks.
    Detector,
    /// The writing of a core dump, outside of the library that may panic.
    Coredump,
    /// That library: the one place whose panics are caught.
    DumpWriter,
}

#[cfg(debug_assertions)]
static ASKED: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Has every task of the kind that is called so panic from now on. Only the first call counts.
#[cfg(debug_assertions)]
pub fn ask(task: String) {
    // A second call changes nothing.
    let _ = ASKED.set(task);
}

/// Panics if that was asked for of this kind of task.
#[inline]
pub fn panic_in(task: Task) {
    #[cfg(debug_assertions)]
    if let Some(asked) = ASKED.get() {
        assert_ne!(*asked, format!("{task:?}"), "a panic was asked for");
    }
    #[cfg(not(debug_assertions))]
    let _ = task;
}

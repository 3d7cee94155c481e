//! A pod: one component with its capabilities and limits, answering HTTP requests or running a
//! command.
//!
//! How a request is run depends on the component's world and on what requests may share:
//!
//! | | `isolation = "request"` | `isolation = "pod"` |
//! |---|---|---|
//! | WASI 0.2 | `fresh`: an instance each, at most `concurrency` at once | `kept`: one instance, one request at a time |
//! | WASI 0.3 | `fresh` | `shared`: one instance, up to `concurrency` requests at once |
//!
//! A component that exports `wasi:cli/run` and no HTTP handler answers none: `command` runs it until
//! it ends.
//!
//! Every request has one deadline over making the instance, the call and the body, and it is kept
//! outside the store: a future inside the store does not run while the guest does.

mod autopsy;
mod body;
mod command;
mod completion;
mod coredump;
mod driver;
mod failure;
mod fresh;
mod held;
mod hosted;
mod inbox;
mod inner;
mod kept;
mod p3;
mod probe;
mod question;
mod reception;
mod request;
mod running;
mod sendable;
mod shared;
pub mod template;
mod watch;

pub use crate::report::{
    Coredump, Deadlock, Evidence, Frame, HostCall, Member, OpenWait, RequestReport, Sample,
    Termination,
};
pub use coredump::expects_panic;
pub use failure::Failure;
pub use probe::Probed;
pub use request::{CallError, Remains};
pub use running::Pod;
pub use watch::{PodWatch, Unwatched};

//! Sampan's pod runtime: everything that touches wasmtime.
//!
//! The way of a component: [`admission`] reads it once, finds its world and checks its imports;
//! [`artifact`] compiles it in a child process and keeps the native code in a verified cache;
//! [`pod`] runs instances of it under limits, and answers HTTP requests; [`command`] runs a
//! component to its end.

pub mod admission;
pub mod artifact;
pub mod command;
mod deadlock;
mod engine;
mod epoch;
mod exports;
mod host;
mod keyvalue;
mod lane;
mod limiter;
mod loaded;
pub mod logs;
mod meter;
mod neighbours;
mod observe;
pub mod pod;
mod private;
mod quota;
mod report;
mod run_state;
mod runtime;
mod sandbox;
mod symbols;
pub mod threads;
mod timings;
mod volumes;
mod watchdog;

pub use admission::LoadError;
pub use engine::{PoolBound, PoolSize, PoolUse};
pub use host::own::{protect, protect_name};
pub use keyvalue::{KeyValue, Keys, Told, Versioned};
pub use loaded::{Demands, Loaded, Origin};
pub use meter::Usage;
pub use neighbours::{Answer, Body, Neighbours};
pub use pod::expects_panic;
pub use report::ComponentFile;
pub use runtime::{Runtime, RuntimeConfig, StartError};
pub use sandbox::{MountError, Stdio};
pub use symbols::Symbols;
pub use threads::off_thread;
pub use timings::Timings;
pub use volumes::{ArchiveError, VolumeError, Volumes, VolumesConfig};

//! The program's own log: what it has to say about itself, apart from what guests print.

use std::io;

use tracing_subscriber::{
    filter::LevelFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// The variable that sets the level: `error`, `warn` (the default), `info`, `debug`, `trace`, `off`.
const LEVEL_VARIABLE: &str = "SAMPAN_LOG";

/// Sends the program's log to standard error, if nobody else has set up a log before.
pub(crate) fn start() {
    let level = std::env::var(LEVEL_VARIABLE)
        .ok()
        .and_then(|level| level.parse().ok());
    let layer = fmt::layer()
        .with_writer(io::stderr)
        .with_target(false)
        .without_time();
    // Only the first call of a process counts.
    let _ = tracing_subscriber::registry()
        .with(layer)
        .with(level.unwrap_or(LevelFilter::WARN))
        .try_init();
}

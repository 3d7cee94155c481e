//! `wasi:logging`: lines with a level and a context, beside what the guest prints.

use std::{io::Write as _, sync::Arc};

use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, Linker},
};

use super::state::State;
use crate::logs::{self, LineWriter, Stream};

/// How important a line is, as the guest says it.
#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "only the guest makes them")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

impl From<Level> for logs::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Trace => Self::Trace,
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
            Level::Critical => Self::Critical,
        }
    }
}

/// Links the interface. What is logged counts towards what the pod may print.
pub(super) fn add(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut logging = linker.instance("wasi:logging/logging@0.1.0-draft")?;
    type Said = (Level, String, String);
    logging.func_wrap(
        "log",
        |mut store: StoreContextMut<'_, State>, (level, context, message): Said| {
            let state = store.data_mut();
            state.recorder.note("logging.log");
            let message = message.strip_suffix('\n').unwrap_or(&message);
            let text = match context.as_str() {
                "" => format!("{message}\n"),
                context => format!("{context}: {message}\n"),
            };
            let level = logs::Level::from(level);
            if state.inherits {
                // As for a guest that prints there, what comes of it is the reader's business.
                let _ = write!(std::io::stderr(), "{level} {text}");
                return Ok(());
            }
            let (log, request) = (&state.hooks.log, &state.hooks.request);
            let stream = Stream::Logged(level);
            LineWriter::new(Arc::clone(log), stream, Arc::clone(request)).write(text.as_bytes());
            Ok(())
        },
    )
}

//! What all measurements share: their arguments, their end, and how they are shown.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;

use crate::{
    cli::{EXIT_FAILED, Stop, interrupts::Interrupts, output::time, process::runtime},
    file,
    serve::bench::{BenchError, Component},
};

/// The component in this file; without one, the small one that is built in.
pub(super) fn component_or_own(path: Option<&Path>) -> anyhow::Result<Component> {
    path.map_or_else(|| Ok(Component::own()), component)
}

/// The component in this file.
pub(super) fn component(path: &Path) -> anyhow::Result<Component> {
    let name = path.display().to_string();
    let bytes = file::component(path);
    let bytes = bytes.with_context(|| format!("cannot read the component `{name}`"))?;
    Ok(Component {
        name,
        bytes: Bytes::from(bytes),
    })
}

/// Measures until it is done, or a signal interrupts it. What was made for it is removed
/// either way.
pub(super) fn measured<T>(
    measuring: impl Future<Output = Result<T, BenchError>>,
) -> Result<T, Stop> {
    runtime()?.block_on(async {
        let mut interrupts = Interrupts::listen()?;
        tokio::select! {
            measured = measuring => Ok(measured?),
            _ = interrupts.next() => Err(Stop::Quiet(EXIT_FAILED)),
        }
    })
}

/// Milliseconds with three digits.
pub(super) fn millis(millis: f64) -> String {
    time(Duration::from_secs_f64(millis / 1e3))
}

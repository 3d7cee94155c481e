//! Compiles a guest and makes a component of it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::ComponentEncoder;

use crate::guest::{Base, Guest};
use crate::toolchain::Toolchain;

/// Compiles `guest` with `target` as the folder for what comes up on the way, and returns the bytes of
/// its component, validated.
pub(crate) fn make(
    toolchain: &Toolchain,
    guest: Guest,
    workspace: &Path,
    target: &Path,
) -> Result<Vec<u8>> {
    let mut command = toolchain.compile(guest, workspace, target)?;
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        status.success(),
        "`{}` does not compile: {status}",
        guest.name
    );

    // Cargo names the file of a library by its crate, in which a dash is not allowed.
    let file = match guest.base {
        Base::Command | Base::Program => guest.name.to_owned(),
        Base::Bare | Base::Reactor | Base::Library => guest.name.replace('-', "_"),
    };
    let path = target
        .join(guest.base.target())
        .join("release")
        .join(file)
        .with_extension("wasm");
    let module = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;

    let adapter = match guest.base {
        Base::Library | Base::Program => return Ok(module),
        Base::Bare => None,
        Base::Reactor => Some(WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER),
        Base::Command => Some(WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER),
    };
    let mut encoder = ComponentEncoder::default().validate(true).module(&module)?;
    if let Some(adapter) = adapter {
        encoder = encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?;
    }
    encoder
        .encode()
        .with_context(|| format!("cannot make a component of `{}`", guest.name))
}

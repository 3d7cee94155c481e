//! What wasmtime keeps for an instance: what its guest has, and what the host notes of it.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{
    WasiCtx, WasiCtxView, WasiView,
    filesystem::{WasiFilesystemCtx, WasiFilesystemCtxView},
};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::{
    files::{Files, Handles, Lent},
    outbound::Hooks,
    sockets::Sockets,
    waits::{answered::Answered, labels::Labels},
};
use crate::{
    keyvalue::Granted,
    lane::Pace,
    limiter::Limiter,
    observe::{
        cell::{Cell, WaitNote},
        recorder::Recorder,
        turn::Turn,
    },
    report::Sample,
};

/// What wasmtime keeps for an instance.
pub(crate) struct State {
    pub(crate) table: ResourceTable,
    pub(crate) wasi: WasiCtx,
    pub(crate) http: WasiHttpCtx,
    pub(crate) hooks: Hooks,
    pub(crate) config: Arc<WasiConfigVariables>,
    pub(crate) limiter: Limiter,
    pub(crate) cell: Arc<Cell>,
    pub(crate) labels: Labels,
    pub(crate) recorder: Recorder,
    pub(crate) turn: Turn,
    /// Where the guest was at some moments of a long run.
    pub(crate) samples: Vec<Sample>,
    /// Files wake a guest of WASI 0.3 by ways of their own.
    pub(crate) _files: Option<WaitNote>,
    pub(crate) files: WasiFilesystemCtx,
    pub(crate) lent: Arc<Lent>,
    /// Whether what it logs goes to this process's standard error.
    pub(crate) inherits: bool,
    pub(crate) keyvalue: Granted,
    /// What the instance has open in volumes.
    pub(crate) handles: Handles,
    pub(crate) pace: Arc<Pace>,
    pub(crate) tcp: Sockets,
    /// Responses that were there when their request had been sent.
    pub(crate) answered: Answered,
}

impl State {
    /// The files that are lent to the guest.
    pub(crate) fn files(&mut self) -> Files<'_> {
        Files {
            view: WasiFilesystemCtxView {
                ctx: &mut self.files,
                table: &mut self.table,
            },
            handles: &mut self.handles,
            lent: &self.lent,
            log: &self.hooks.log,
            request: &self.hooks.request,
        }
    }

    /// Whether the guest still holds a body it has neither finished nor dropped.
    pub(crate) fn holds_unfinished_body(&mut self) -> bool {
        self.table
            .iter_mut()
            .any(|entry| entry.is::<wasmtime_wasi_http::p2::body::HostOutgoingBody>())
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

impl AsMut<Turn> for State {
    fn as_mut(&mut self) -> &mut Turn {
        &mut self.turn
    }
}

//! The exports of a guest that answer questions about it: `sampan:pod/health` and
//! `sampan:pod/lifecycle`, as in `wit/sampan.wit`.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use sampan_core::plan::probe::ProbeKind;
use wasmtime::{
    AsContextMut,
    component::{Accessor, Component, ComponentExportIndex, Instance, TypedFunc},
};
use wasmtime_wasi_http::WasiBody;

use super::fate::Fate;
use crate::sandbox::State;

const HEALTH: &str = "sampan:pod/health@0.1.0";
const LIFECYCLE: &str = "sampan:pod/lifecycle@0.1.0";

/// What a guest is asked through an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Probe(ProbeKind),
    PreStop,
}

type Answer = (Result<(), String>,);

/// Where the exports are in a component, as far as it has them.
pub(crate) struct Exports {
    started: Option<ComponentExportIndex>,
    ready: Option<ComponentExportIndex>,
    live: Option<ComponentExportIndex>,
    pre_stop: Option<ComponentExportIndex>,
}

impl Exports {
    pub(crate) fn of(component: &Component) -> Self {
        let health = component.get_export_index(None, HEALTH);
        let lifecycle = component.get_export_index(None, LIFECYCLE);
        let find = |instance: &Option<ComponentExportIndex>, name: &str| {
            component.get_export_index(Some(instance.as_ref()?), name)
        };
        Self {
            started: find(&health, "started"),
            ready: find(&health, "ready"),
            live: find(&health, "live"),
            pre_stop: find(&lifecycle, "pre-stop"),
        }
    }

    pub(super) fn index(&self, question: Question) -> Option<&ComponentExportIndex> {
        match question {
            Question::Probe(ProbeKind::Startup) => self.started.as_ref(),
            Question::Probe(ProbeKind::Readiness) => self.ready.as_ref(),
            Question::Probe(ProbeKind::Liveness) => self.live.as_ref(),
            Question::PreStop => self.pre_stop.as_ref(),
        }
    }

    /// Whether the guest answers probes itself.
    pub(crate) fn has_health(&self) -> bool {
        self.started.is_some() && self.ready.is_some() && self.live.is_some()
    }

    fn find(
        &self,
        mut store: impl AsContextMut<Data = State>,
        instance: &Instance,
        question: Question,
    ) -> wasmtime::Result<TypedFunc<(), Answer>> {
        let function = self
            .index(question)
            .and_then(|index| instance.get_func(&mut store, index));
        let function =
            function.ok_or_else(|| wasmtime::format_err!("the guest does not export it"))?;
        function.typed(&store)
    }

    /// Asks a guest of an engine for WASI 0.2.
    pub(super) async fn ask(
        &self,
        mut store: impl AsContextMut<Data = State>,
        instance: &Instance,
        question: Question,
        fate: &Fate,
    ) -> wasmtime::Result<()> {
        let function = self.find(&mut store, instance, question)?;
        let (answer,) = function.call_async(&mut store, ()).await?;
        fate.answer(Ok(response(answer)));
        Ok(())
    }

    /// Asks a guest of an engine for WASI 0.3.
    pub(super) async fn ask_concurrently(
        &self,
        accessor: &Accessor<State>,
        instance: &Instance,
        question: Question,
        fate: &Arc<Fate>,
    ) -> wasmtime::Result<()> {
        let function = accessor.with(|store| self.find(store, instance, question))?;
        let call = accessor.with(|store| function.start_call_concurrent(store, ()))?;
        fate.runs_as(call.task());
        let (answer,) = function.finish_call_concurrent(accessor, call).await?;
        fate.answer(Ok(response(answer)));
        Ok(())
    }
}

/// The answer as the way back takes it: a status, and the reason as text.
fn response(answer: Result<(), String>) -> http::Response<WasiBody> {
    let (status, text) = match answer {
        Ok(()) => (http::StatusCode::OK, String::new()),
        Err(reason) => (http::StatusCode::SERVICE_UNAVAILABLE, reason),
    };
    let body = Full::new(text.into()).map_err(|never| match never {});
    let mut response = http::Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}

//! The exports of a guest that answer questions about it: `sampan:pod/health` and
//! `sampan:pod/lifecycle`, as in `wit/sampan.wit`.

use sampan_core::plan::probe::ProbeKind;
use wasmtime::{
    AsContextMut,
    component::{Component, ComponentExportIndex, Instance, TypedFunc},
};

const HEALTH: &str = "sampan:pod/health@0.1.0";
const LIFECYCLE: &str = "sampan:pod/lifecycle@0.1.0";

/// What a guest is asked through an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Probe(ProbeKind),
    PreStop,
}

/// Yes, or why not.
pub(crate) type Answer = (Result<(), String>,);

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

    pub(crate) fn index(&self, question: Question) -> Option<&ComponentExportIndex> {
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

    /// The function of an instance that answers a question.
    pub(crate) fn find(
        &self,
        mut store: impl AsContextMut,
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
}

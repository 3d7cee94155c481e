//! What an instance is busy with: the requests it answers, and the waits it is blocked on.

use std::{sync::Arc, time::Instant};

use super::source::{InboundRequest, Source};
use crate::report::OpenWait;

/// The requests that an instance answers, and what its guest waits for.
#[derive(Default)]
pub(crate) struct Waits {
    /// Requests that its guest is answering.
    pub(crate) requests: Vec<Arc<InboundRequest>>,
    /// The host function of WASI 0.2 in which it is blocked.
    pub(crate) call: Option<Wait>,
    /// What has registered itself.
    pub(crate) registered: Vec<RegisteredWait>,
    /// Whether what it waits for registers itself, as everything in WASI 0.3 does.
    pub(super) registers: bool,
    next: u64,
}

/// A wait in a host function that blocks the whole instance.
#[derive(Clone)]
pub(crate) struct Wait {
    pub(crate) function: &'static str,
    /// Any of these ends it.
    pub(crate) sources: Vec<Source>,
    pub(crate) since: Instant,
}

/// Something that will wake the instance.
#[derive(Clone)]
pub(crate) struct RegisteredWait {
    id: u64,
    pub(crate) function: &'static str,
    pub(crate) source: Source,
    pub(crate) since: Instant,
}

impl Waits {
    pub(super) fn new(registers: bool) -> Self {
        Self {
            registers,
            ..Self::default()
        }
    }

    /// Adds something that will wake the instance. The number takes it back.
    pub(super) fn register(&mut self, function: &'static str, source: Source) -> u64 {
        let id = self.next;
        self.next += 1;
        self.registered.push(RegisteredWait {
            id,
            function,
            source,
            since: Instant::now(),
        });
        id
    }

    pub(super) fn take_back(&mut self, id: u64) {
        self.registered.retain(|wait| wait.id != id);
    }

    /// Whether a request waits for the guest, and nothing that is certainly alive would end what
    /// the guest waits for. Most waits are for such a thing.
    pub(super) fn could_be_stuck(&self) -> bool {
        if self.requests.is_empty() {
            return false;
        }
        let (_, sources) = self.sources();
        !sources.iter().any(|source| source.is_alive())
    }

    /// In which function it waits, and what could end that.
    pub(crate) fn sources(&self) -> (&'static str, Vec<&Source>) {
        let registered = || self.registered.iter().map(|wait| &wait.source);
        let Some(call) = &self.call else {
            if !self.registers {
                // A host function without a label, for files for example.
                return ("a host function", vec![&Source::Unknown]);
            }
            let function = self
                .registered
                .first()
                .map_or("the guest's own code", |wait| wait.function);
            return (function, registered().collect());
        };
        let mut sources: Vec<_> = call.sources.iter().collect();
        if sources
            .iter()
            .any(|source| matches!(source, Source::Registered))
            && !self.registered.is_empty()
        {
            sources.retain(|source| !matches!(source, Source::Registered));
            sources.extend(registered());
        }
        (call.function, sources)
    }

    /// What an instance waits for as it is reported, to be asked while it still waits.
    pub(crate) fn open(&self) -> Vec<OpenWait> {
        let (function, sources) = self.sources();
        if let Some(call) = &self.call {
            let on = match &sources[..] {
                [] => "nothing".to_owned(),
                all => all
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" or "),
            };
            let since = call.since.elapsed();
            return vec![OpenWait {
                function,
                on,
                since,
            }];
        }
        let open = |wait: &RegisteredWait| OpenWait {
            function: wait.function,
            on: wait.source.to_string(),
            since: wait.since.elapsed(),
        };
        self.registered.iter().map(open).collect()
    }
}

//! Which source is behind a handle of WASI 0.2.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use wasmtime::component::Resource;

use crate::observe::source::{InboundRequest, Source};

/// What it is that a guest writes, and so who reads it.
#[derive(Clone)]
pub(crate) enum Target {
    /// That of a request; who reads it, once it has been sent.
    Request(Arc<OnceLock<Source>>),
    /// That of the response to this request.
    Response(Arc<InboundRequest>),
    /// What a server reads from a socket.
    Server(Source),
}

impl Target {
    /// Who could make room in the body.
    pub(crate) fn source(&self) -> Source {
        match self {
            Self::Server(server) => server.clone(),
            Self::Request(reader) => reader.get().cloned().unwrap_or(Source::Own(
                "a reader of the request body, but it has not sent the request",
            )),
            Self::Response(inbound) if inbound.is_answered() => Source::Caller(Arc::clone(inbound)),
            Self::Response(_) => Source::Own(
                "a reader of the response body, but it has not handed over the response",
            ),
        }
    }
}

/// What is behind a pollable.
pub(crate) enum Label {
    /// The same for as long as it lives.
    Source(Source),
    /// Room in a body: who reads it may become known after the pollable was made.
    Output(Option<Target>),
}

/// The sources behind the handles of one instance. A handle without a label may wait for anything.
///
/// Numbers of handles are used again. So the labels of pollables and streams, which are looked up
/// for any handle, go when the handle does; those of the rest are written whenever one is made.
#[derive(Default)]
pub(crate) struct Labels {
    pollables: BTreeMap<u32, Label>,
    inputs: BTreeMap<u32, Source>,
    outputs: BTreeMap<u32, Target>,
    bodies: BTreeMap<u32, Target>,
    requests: BTreeMap<u32, Arc<OnceLock<Source>>>,
    answers: BTreeMap<u32, Source>,
}

impl Labels {
    pub(crate) fn pollable<T: 'static>(&mut self, handle: &Resource<T>, label: Label) {
        self.pollables.insert(handle.rep(), label);
    }

    pub(crate) fn drop_pollable(&mut self, handle: u32) {
        self.pollables.remove(&handle);
    }

    pub(crate) fn of_pollable<T: 'static>(&self, handle: &Resource<T>) -> Source {
        match self.pollables.get(&handle.rep()) {
            Some(Label::Source(source)) => source.clone(),
            Some(Label::Output(Some(target))) => target.source(),
            Some(Label::Output(None)) | None => Source::Unknown,
        }
    }

    pub(crate) fn input<T: 'static>(&mut self, handle: &Resource<T>, source: Source) {
        self.inputs.insert(handle.rep(), source);
    }

    pub(crate) fn drop_input(&mut self, handle: u32) {
        self.inputs.remove(&handle);
    }

    pub(crate) fn of_input<T: 'static>(&self, handle: &Resource<T>) -> Source {
        found(&self.inputs, handle)
    }

    /// A stream into a body.
    pub(crate) fn output<T: 'static, B: 'static>(
        &mut self,
        handle: &Resource<T>,
        body: &Resource<B>,
    ) {
        if let Some(target) = self.bodies.get(&body.rep()) {
            self.outputs.insert(handle.rep(), target.clone());
        }
    }

    /// A stream to what is read by `target`.
    pub(crate) fn output_to<T: 'static>(&mut self, handle: &Resource<T>, target: Target) {
        self.outputs.insert(handle.rep(), target);
    }

    pub(crate) fn drop_output(&mut self, handle: u32) {
        self.outputs.remove(&handle);
    }

    pub(crate) fn of_output<T: 'static>(&self, handle: &Resource<T>) -> Option<Target> {
        self.outputs.get(&handle.rep()).cloned()
    }

    /// The body of a response that the guest makes.
    pub(crate) fn response_body<B: 'static>(
        &mut self,
        body: &Resource<B>,
        inbound: Arc<InboundRequest>,
    ) {
        self.bodies.insert(body.rep(), Target::Response(inbound));
    }

    /// The body of a request that the guest makes.
    pub(crate) fn request_body<B: 'static>(&mut self, request: u32, body: &Resource<B>) {
        let reader = Arc::<OnceLock<Source>>::default();
        self.requests.insert(request, Arc::clone(&reader));
        self.bodies.insert(body.rep(), Target::Request(reader));
    }

    /// The request `request` has been sent, and `answer` will be its answer.
    pub(crate) fn sent<A: 'static>(
        &mut self,
        request: u32,
        answer: Option<&Resource<A>>,
        source: Source,
    ) {
        if let Some(reader) = self.requests.remove(&request) {
            let reads = match &source {
                Source::Head(call) => Source::Body(Arc::clone(call)),
                other => other.clone(),
            };
            // A request is sent once.
            let _ = reader.set(reads);
        }
        if let Some(answer) = answer {
            self.answers.insert(answer.rep(), source);
        }
    }

    pub(crate) fn of_answer<A: 'static>(&self, handle: &Resource<A>) -> Source {
        found(&self.answers, handle)
    }
}

fn found<T: 'static>(labels: &BTreeMap<u32, Source>, handle: &Resource<T>) -> Source {
    let label = labels.get(&handle.rep());
    label.cloned().unwrap_or(Source::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(rep: u32) -> Resource<()> {
        Resource::new_own(rep)
    }

    /// A guest may make the pollable first and send the request then.
    #[test]
    fn a_pollable_follows_what_becomes_of_its_body() {
        let mut labels = Labels::default();
        labels.request_body(1, &handle(2));
        labels.output(&handle(3), &handle(2));
        let target = labels.of_output(&handle(3));
        labels.pollable(&handle(4), Label::Output(target));
        assert!(matches!(labels.of_pollable(&handle(4)), Source::Own(_)));
        labels.sent(1, Some(&handle(5)), Source::Outside("a server".into()));
        assert!(matches!(labels.of_pollable(&handle(4)), Source::Outside(_)));
    }

    /// The number of a handle that is gone says nothing about the next one with that number.
    #[test]
    fn a_label_goes_with_its_handle() {
        let mut labels = Labels::default();
        labels.pollable(&handle(1), Label::Source(Source::Own("itself")));
        labels.drop_pollable(1);
        assert!(matches!(labels.of_pollable(&handle(1)), Source::Unknown));
        labels.input(&handle(1), Source::Registered);
        labels.drop_input(1);
        assert!(matches!(labels.of_input(&handle(1)), Source::Unknown));
        labels.response_body(&handle(2), inbound());
        labels.output(&handle(3), &handle(2));
        labels.drop_output(3);
        assert!(labels.of_output(&handle(3)).is_none());
    }

    #[test]
    fn a_response_body_has_a_reader_once_the_response_is_handed_over() {
        let inbound = inbound();
        let target = Target::Response(Arc::clone(&inbound));
        assert!(matches!(target.source(), Source::Own(_)));
        inbound.settle();
        assert!(matches!(target.source(), Source::Caller(_)));
        assert!(target.source().is_alive(), "the client reads it");
    }

    fn inbound() -> Arc<InboundRequest> {
        InboundRequest::new(None, &http::Request::new(()), None)
    }
}

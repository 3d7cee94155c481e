//! `isolation = "request"`: a fresh instance for each request, dropped after it.

use std::sync::Arc;

use tokio::sync::watch;
use wasmtime::Store;
use wasmtime_wasi_http::{
    WasiBody, WasiHttpView as _,
    p2::bindings::{Proxy, ProxyPre, http::types::Scheme},
    p3::bindings::ServicePre,
};

use super::{
    Failure, Job, Shared,
    body::{Guard, RequestGuard},
    fate::{Fate, within},
    p3,
};
use crate::{admission::inspect::Wasi, meter::Metered, runtime::StartError, sandbox::State};

/// The tasks that run requests end when this is dropped.
pub(super) struct Running {
    stop: watch::Sender<()>,
}

impl Running {
    /// Makes an instance and drops it: a pod whose component cannot start is no pod.
    pub(super) async fn start(shared: &Arc<Shared>) -> Result<Self, StartError> {
        let _place = shared.pool_place().await;
        let try_instance = async {
            let mut store = shared.store()?;
            let cpu = Arc::clone(&store.data().cpu);
            let instantiate = shared.template.loaded.pre.instantiate_async(&mut store);
            match Metered::new(instantiate, cpu).await {
                Ok(_) => Ok(()),
                Err(error) => Err(Failure::of_error(&error, &shared.template)),
            }
        };
        match Shared::within_start(try_instance).await {
            Ok(()) => Ok(Self {
                stop: watch::Sender::new(()),
            }),
            Err(failure) => Err(StartError::Instance(failure.to_string())),
        }
    }

    /// Runs a request in a task of its own, which outlives the response if the guest does.
    pub(super) fn send(&self, shared: &Arc<Shared>, job: Job) -> RequestGuard {
        let fate = Arc::clone(job.ending.fate());
        let task = tokio::spawn(run(Arc::clone(shared), job, self.stop.subscribe()));
        RequestGuard::new(fate, Guard::Abort(task.abort_handle()))
    }
}

async fn run(shared: Arc<Shared>, job: Job, mut stop: watch::Receiver<()>) {
    // The instance counts as one of `concurrency` as long as it lives.
    let _slot = Arc::clone(&job.slot);
    let Ok(_place) = within(job.deadline, shared.pool_place()).await else {
        let full = Failure::Unavailable("the node's instances are all in use".to_owned());
        return job.ending.fail(full, |_| {});
    };
    let mut store = match shared.store() {
        Ok(store) => store,
        Err(failure) => return job.ending.fail(failure, |_| {}),
    };
    let Job {
        request,
        request_id,
        ending,
        deadline,
        ..
    } = job;
    let fate = Arc::clone(ending.fate());
    fate.runs_in(&store.data().called_out);
    store.data().request.set(request_id.clone());
    shared.context.meter.count_instance();
    let cpu = Arc::clone(&store.data().cpu);
    let work = async {
        match shared.template.wasi() {
            Wasi::P2 => p2(&shared, &mut store, request, &fate).await,
            Wasi::P3 => p3(&shared, &mut store, request, &fate).await,
        }
    };
    let result = tokio::select! {
        biased;
        result = within(deadline, Metered::new(work, cpu)) => result,
        // Without a sender, the next change is an error: the pod is gone, and `ending` says so.
        _ = stop.changed() => return,
    };
    let unfinished = store.data_mut().holds_unfinished_body();
    let failure = match result {
        Ok(Ok(())) if !fate.is_answered() => Failure::NoResponse,
        Ok(Ok(())) if unfinished => Failure::Unfinished,
        Ok(Ok(())) => return ending.well(),
        Ok(Err(error)) => Failure::of_error(&error, &shared.template),
        Err(_) => Failure::TimedOut(shared.template.request_timeout()),
    };
    let account = |failure: &Failure| shared.mourn(request_id, failure);
    if fate.is_answered() && !unfinished && shared.template.wasi() == Wasi::P2 {
        // A guest that died after finishing its response has answered all the same.
        ending.well();
        account(&failure);
    } else {
        ending.fail(failure, account);
    }
}

async fn p2(
    shared: &Shared,
    store: &mut Store<State>,
    request: http::Request<WasiBody>,
    fate: &Arc<Fate>,
) -> wasmtime::Result<()> {
    let pre = ProxyPre::new(shared.template.loaded.pre.clone())?;
    let proxy = pre.instantiate_async(&mut *store).await?;
    call_p2(&proxy, store, request, fate).await
}

/// Calls a WASI 0.2 handler. Returns when the guest does, which may be after its response.
pub(super) async fn call_p2(
    proxy: &Proxy,
    store: &mut Store<State>,
    request: http::Request<WasiBody>,
    fate: &Arc<Fate>,
) -> wasmtime::Result<()> {
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Http, request)?;
    let fate = Arc::clone(fate);
    let out = http.new_response_outparam_from_callback(move |response| {
        fate.answer(response.map_err(|code| format!("{code:?}")));
    })?;
    proxy
        .wasi_http_incoming_handler()
        .call_handle(store, request, out)
        .await
}

async fn p3(
    shared: &Shared,
    store: &mut Store<State>,
    request: http::Request<WasiBody>,
    fate: &Fate,
) -> wasmtime::Result<()> {
    let pre = ServicePre::new(shared.template.loaded.pre.clone())?;
    let service = pre.instantiate_async(&mut *store).await?;
    store
        .run_concurrent(async |accessor| {
            p3::answer(accessor, &service, request, fate).await?;
            // The body is written by tasks of the guest that outlive the call.
            std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            // What the guest has handed to the host, like trailers, is still on its way in the
            // store, and no task of the guest.
            fate.wait_for_reader().await;
            Ok(())
        })
        .await?
}

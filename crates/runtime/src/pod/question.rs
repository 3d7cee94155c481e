//! Questions to a guest, asked through its exports.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use wasmtime::{
    AsContextMut,
    component::{Accessor, Instance},
};
use wasmtime_wasi_http::WasiBody;

use super::completion::Completion;
use crate::{
    exports::{Exports, Question},
    host::state::State,
};

/// Asks a guest of an engine for WASI 0.2.
pub(super) async fn ask(
    exports: &Exports,
    mut store: impl AsContextMut<Data = State>,
    instance: &Instance,
    question: Question,
    completion: &Completion,
) -> wasmtime::Result<()> {
    let function = exports.find(&mut store, instance, question)?;
    let (answer,) = function.call_async(&mut store, ()).await?;
    completion.answer(Ok(response(answer)));
    Ok(())
}

/// Asks a guest of an engine for WASI 0.3.
pub(super) async fn ask_concurrently(
    exports: &Exports,
    accessor: &Accessor<State>,
    instance: &Instance,
    question: Question,
    completion: &Arc<Completion>,
) -> wasmtime::Result<()> {
    let function = accessor.with(|store| exports.find(store, instance, question))?;
    let call = accessor.with(|store| function.start_call_concurrent(store, ()))?;
    completion.runs_as(call.task());
    let (answer,) = function.finish_call_concurrent(accessor, call).await?;
    completion.answer(Ok(response(answer)));
    Ok(())
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

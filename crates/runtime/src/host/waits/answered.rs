//! Responses that were there when their request had been sent.

use std::collections::BTreeMap;

use wasmtime_wasi_http::WasiBody;

/// The calls of one instance that are run where they are made (`direct`).
#[derive(Default)]
pub(crate) struct Answered {
    /// Whether there are any: whether its pod answers no other request.
    pub(crate) is_on: bool,
    /// The responses, by the number of the handle that the guest asks for them with.
    pub(super) responses: BTreeMap<u32, http::Response<WasiBody>>,
}

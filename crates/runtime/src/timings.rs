//! How long components and instances take to be there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sampan_core::histogram::Histogram;

use crate::loaded::Origin;

/// Upper bounds, in seconds, of the time in which an instance is made.
const INSTANTIATION_BOUNDS: [f64; 13] = [
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01,
    0.1, 1.0, 10.0,
];
/// Upper bounds, in seconds, of the time in which a component is loaded.
const LOADING_BOUNDS: [f64; 15] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5,
    10.0, 60.0,
];

/// What a runtime has timed since it was made.
#[derive(Debug)]
pub struct Timings {
    /// The making of an instance.
    pub instantiation: Histogram,
    /// The loading of a component whose code was in the cache.
    pub cached: Histogram,
    /// The loading of a component that was compiled for it.
    pub compiled: Histogram,
}

impl Timings {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            instantiation: Histogram::new(&INSTANTIATION_BOUNDS),
            cached: Histogram::new(&LOADING_BOUNDS),
            compiled: Histogram::new(&LOADING_BOUNDS),
        })
    }

    /// Times the making of an instance, if one comes of it.
    pub(crate) async fn instantiation<T>(
        &self,
        making: impl Future<Output = wasmtime::Result<T>>,
    ) -> wasmtime::Result<T> {
        let start = Instant::now();
        let made = making.await?;
        self.instantiation.record(start.elapsed());
        Ok(made)
    }

    pub(crate) fn loaded(&self, origin: Origin, took: Duration) {
        match origin {
            Origin::Cache => self.cached.record(took),
            Origin::Compiled(_) => self.compiled.record(took),
        }
    }
}

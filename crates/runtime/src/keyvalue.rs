//! Key-value stores of an app, which the guests of all its pods share.

use std::sync::Arc;

use async_trait::async_trait;
use sampan_core::name::Name;

/// The value of a key, and which change has written it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Vec<u8>,
    /// The number of the change; never 0.
    pub version: u64,
}

/// Some keys, and what to ask for the next ones with, if there are more.
pub type Keys<N> = (Vec<String>, Option<N>);

/// What became of a request. The error is for the guest's developer.
pub type Told<T> = Result<T, String>;

/// The stores of one app, as a guest's `wasi:keyvalue` reaches them.
///
/// Whether a guest may open a store has been decided before. What has been acknowledged is durable,
/// and each change happens as a whole, before or after every other one.
#[async_trait]
pub trait KeyValue: Send + Sync + 'static {
    /// The values of keys, in the same order.
    async fn get(&self, store: &Name, keys: Vec<String>) -> Told<Vec<Option<Versioned>>>;

    /// Which change has written the value of a key; 0 if the key is not there.
    async fn version(&self, store: &Name, key: String) -> Told<u64>;

    /// Keys in the order in which they were first written.
    async fn keys(&self, store: &Name, after: Option<u64>) -> Told<Keys<u64>>;

    /// Keys in their own order.
    async fn sorted_keys(&self, store: &Name, after: Option<String>) -> Told<Keys<String>>;

    /// Sets keys to values, and deletes those without one: all, or none.
    async fn write(&self, store: &Name, writes: Vec<(String, Option<Vec<u8>>)>) -> Told<()>;

    /// Adds to the number at a key, and returns the sum.
    async fn add(&self, store: &Name, key: String, delta: i64) -> Told<i64>;

    /// Sets a key if its value is still that of this version. Says whether it was.
    async fn swap(&self, store: &Name, key: String, version: u64, value: Vec<u8>) -> Told<bool>;
}

/// The stores that a guest may open.
#[derive(Clone)]
pub(crate) struct Granted {
    pub(crate) names: Arc<[Name]>,
    pub(crate) stores: Option<Arc<dyn KeyValue>>,
}

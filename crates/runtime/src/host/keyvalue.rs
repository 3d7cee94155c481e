//! `wasi:keyvalue`: stores, atomics and batches, in both drafts that guests are built against.
//!
//! A guest may open the stores that `allow.keyvalue` names. Each function waits for the store as
//! for a server outside, so a wait for it is part of no deadlock.
//!
//! `0.2.0-draft` is what wasmtime has, `0.2.0-draft2` what Spin has: numbers with a sign, cursors
//! that are texts, and compare-and-swap.

use std::sync::Arc;

use futures::future::BoxFuture;
use sampan_core::name::Name;
use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType},
};

use super::state::State;
use crate::{
    keyvalue::{KeyValue, Told},
    logs::Note,
    observe::source::Source,
};

/// Why something was not done, as the guest is told.
#[derive(Clone, Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

/// Some keys, and how to go on.
#[derive(Clone, Debug, ComponentType, Lift, Lower)]
#[component(record)]
struct KeyResponse<N> {
    keys: Vec<String>,
    cursor: Option<N>,
}

/// Why a value was not swapped.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum CasError {
    #[component(name = "store-error")]
    Store(Error),
    #[component(name = "cas-failed")]
    Failed(Resource<Cas>),
}

/// An open store.
struct Bucket(Name);

/// A key with the version of the value that is to be replaced.
struct Cas {
    store: Name,
    key: String,
    version: u64,
}

type Context<'a> = StoreContextMut<'a, State>;
/// What goes on at the store.
type Work<T> = BoxFuture<'static, Told<T>>;

/// Links the interfaces.
pub(super) fn add(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    first_draft(linker)?;
    second_draft(linker)
}

/// Whether the guest may open a store.
fn open(state: &mut State, identifier: &str) -> wasmtime::Result<Result<Resource<Bucket>, Error>> {
    let name = Name::parse(identifier);
    let granted = name
        .as_ref()
        .is_ok_and(|name| state.keyvalue.names.contains(name));
    match name {
        Ok(name) if granted => Ok(Ok(state.table.push(Bucket(name))?)),
        Ok(name) => {
            deny(state, || {
                format!("key-value store `{name}`; `allow.keyvalue = [\"{name}\"]` would allow it")
            });
            Ok(Err(Error::AccessDenied))
        }
        Err(error) => {
            deny(state, || {
                format!("key-value store; {error}: `allow.keyvalue` names stores")
            });
            Ok(Err(Error::NoSuchStore))
        }
    }
}

fn deny(state: &State, what: impl FnOnce() -> String) {
    let request = state.hooks.request.get();
    let log = &state.hooks.log;
    log.note(Note::Denial, request, || format!("denied: {}", what()));
}

/// Has something done at a store, while the guest waits.
async fn ask<T>(
    mut context: Context<'_>,
    function: &'static str,
    bucket: &Resource<Bucket>,
    work: impl FnOnce(Arc<dyn KeyValue>, Name) -> Work<T>,
) -> wasmtime::Result<Result<T, Error>> {
    let state = context.data_mut();
    let store = state.table.get(bucket)?.0.clone();
    ask_at(state, function, store, work).await
}

async fn ask_at<T>(
    state: &mut State,
    function: &'static str,
    store: Name,
    work: impl FnOnce(Arc<dyn KeyValue>, Name) -> Work<T>,
) -> wasmtime::Result<Result<T, Error>> {
    let function = function.trim_start_matches("[method]");
    state.recorder.note(function);
    let Some(stores) = state.keyvalue.stores.clone() else {
        return Ok(Err(Error::Other("this host keeps no stores".to_owned())));
    };
    let source = Source::Outside(format!("the key-value store `{store}`").into());
    // What it has done there is done, so its request must not be tried again.
    state.cell.call_out();
    let cell = Arc::clone(&state.cell);
    let done = cell.block(function, || vec![source], work(stores, store));
    Ok(done.await?.map_err(Error::Other))
}

/// Wraps functions of an open store: their names, their arguments beside the store, and what is
/// done there.
macro_rules! at_bucket {
    ($instance:ident: $(
        $function:literal ($($argument:ident: $type:ty),*) -> $output:ty,
        |$stores:ident, $store:ident| $work:block
    )*) => {$(
        $instance.func_wrap_async(
            $function,
            |context: Context<'_>, (bucket, $($argument),*): (Resource<Bucket>, $($type),*)| {
                Box::new(async move {
                    let done = ask::<$output>(context, $function, &bucket, |$stores, $store| {
                        Box::pin(async move $work)
                    });
                    Ok((done.await?,))
                })
            },
        )?;
    )*};
}

type Pair = (String, Vec<u8>);

/// What both drafts have alike of `store`.
fn stores(instance: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    let ty = ResourceType::host::<Bucket>();
    instance.resource("bucket", ty, |mut context: Context<'_>, rep| {
        let table = &mut context.data_mut().table;
        table.delete(Resource::<Bucket>::new_own(rep))?;
        Ok(())
    })?;
    instance.func_wrap(
        "open",
        |mut context: Context<'_>, (identifier,): (String,)| {
            let state = context.data_mut();
            state.recorder.note("store.open");
            Ok((open(state, &identifier)?,))
        },
    )?;
    at_bucket! { instance:
        "[method]bucket.get"(key: String) -> Option<Vec<u8>>,
            |host, store| {
                let mut found = host.get(&store, vec![key]).await?;
                Ok(found.pop().flatten().map(|found| found.value))
            }
        "[method]bucket.set"(key: String, value: Vec<u8>) -> (),
            |host, store| {
                host.write(&store, vec![(key, Some(value))]).await
            }
        "[method]bucket.delete"(key: String) -> (),
            |host, store| { host.write(&store, vec![(key, None)]).await }
        "[method]bucket.exists"(key: String) -> bool,
            |host, store| { Ok(host.version(&store, key).await? != 0) }
    }
    Ok(())
}

/// What both drafts have alike of `batch`.
fn batches(instance: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    at_bucket! { instance:
        "set-many"(pairs: Vec<Pair>) -> (),
            |host, store| {
                let pairs = pairs.into_iter();
                let writes = pairs.map(|(key, value)| (key, Some(value)));
                host.write(&store, writes.collect()).await
            }
        "delete-many"(keys: Vec<String>) -> (),
            |host, store| {
                let writes = keys.into_iter().map(|key| (key, None));
                host.write(&store, writes.collect()).await
            }
    }
    Ok(())
}

/// What only the first draft has so.
fn first_draft(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let store = &mut linker.instance("wasi:keyvalue/store@0.2.0-draft")?;
    stores(store)?;
    at_bucket! { store:
        "[method]bucket.list-keys"(cursor: Option<u64>) -> KeyResponse<u64>,
            |host, store| {
                let (keys, cursor) = host.keys(&store, cursor).await?;
                Ok(KeyResponse { keys, cursor })
            }
    }
    let batch = &mut linker.instance("wasi:keyvalue/batch@0.2.0-draft")?;
    batches(batch)?;
    at_bucket! { batch:
        "get-many"(keys: Vec<String>) -> Vec<Option<Pair>>,
            |host, store| {
                let found = host.get(&store, keys.clone()).await?;
                let pairs = keys.into_iter().zip(found);
                let pairs = pairs.map(|(key, found)| found.map(|found| (key, found.value)));
                Ok(pairs.collect())
            }
    }
    let atomics = &mut linker.instance("wasi:keyvalue/atomics@0.2.0-draft")?;
    at_bucket! { atomics:
        "increment"(key: String, delta: u64) -> u64,
            |host, store| {
                let delta = i64::try_from(delta);
                let delta = delta.map_err(|_| format!("a step may be {} at most", i64::MAX))?;
                let sum = host.add(&store, key, delta).await?;
                u64::try_from(sum).map_err(|_| format!("the sum is `{sum}`, below zero"))
            }
    }
    Ok(())
}

/// What only the second draft has so.
fn second_draft(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let store = &mut linker.instance("wasi:keyvalue/store@0.2.0-draft2")?;
    stores(store)?;
    at_bucket! { store:
        "[method]bucket.list-keys"(cursor: Option<String>) -> KeyResponse<String>,
            |host, store| {
                let (keys, cursor) = host.sorted_keys(&store, cursor).await?;
                Ok(KeyResponse { keys, cursor })
            }
    }
    let batch = &mut linker.instance("wasi:keyvalue/batch@0.2.0-draft2")?;
    batches(batch)?;
    at_bucket! { batch:
        "get-many"(keys: Vec<String>) -> Vec<(String, Option<Vec<u8>>)>,
            |host, store| {
                let found = host.get(&store, keys.clone()).await?;
                let values = found.into_iter().map(|found| found.map(|found| found.value));
                Ok(keys.into_iter().zip(values).collect())
            }
    }
    let atomics = &mut linker.instance("wasi:keyvalue/atomics@0.2.0-draft2")?;
    at_bucket! { atomics:
        "increment"(key: String, delta: i64) -> i64,
            |host, store| { host.add(&store, key, delta).await }
    }
    compare_and_swap(atomics)
}

fn compare_and_swap(atomics: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    let ty = ResourceType::host::<Cas>();
    atomics.resource("cas", ty, |mut context: Context<'_>, rep| {
        let table = &mut context.data_mut().table;
        table.delete(Resource::<Cas>::new_own(rep))?;
        Ok(())
    })?;
    type New = (Resource<Bucket>, String);
    atomics.func_wrap_async(
        "[static]cas.new",
        |mut context: Context<'_>, (bucket, key): New| {
            Box::new(async move {
                let state = context.data_mut();
                let store = state.table.get(&bucket)?.0.clone();
                Ok((pin(state, "cas.new", store, key).await?,))
            })
        },
    )?;
    atomics.func_wrap_async(
        "[method]cas.current",
        |mut context: Context<'_>, (cas,): (Resource<Cas>,)| {
            Box::new(async move {
                let state = context.data_mut();
                let pinned = state.table.get(&cas)?;
                let (store, key) = (pinned.store.clone(), pinned.key.clone());
                let found = ask_at(state, "cas.current", store, |host, store| {
                    Box::pin(async move { host.get(&store, vec![key]).await })
                });
                let found = match found.await? {
                    Ok(mut found) => found.pop().flatten(),
                    Err(error) => return Ok((Err(error),)),
                };
                // What the guest sees now is what it will replace.
                let version = found.as_ref().map_or(0, |found| found.version);
                state.table.get_mut(&cas)?.version = version;
                Ok((Ok(found.map(|found| found.value)),))
            })
        },
    )?;
    atomics.func_wrap_async(
        "swap",
        |mut context: Context<'_>, (cas, value): (Resource<Cas>, Vec<u8>)| {
            Box::new(async move {
                let state = context.data_mut();
                let Cas {
                    store,
                    key,
                    version,
                } = state.table.delete(cas)?;
                let (again, name) = (key.clone(), store.clone());
                let swapped = ask_at(state, "atomics.swap", store, |host, store| {
                    Box::pin(async move { host.swap(&store, key, version, value).await })
                });
                let told = match swapped.await? {
                    Ok(true) => Ok(()),
                    Ok(false) => match pin(state, "atomics.swap", name, again).await? {
                        Ok(cas) => Err(CasError::Failed(cas)),
                        Err(error) => Err(CasError::Store(error)),
                    },
                    Err(error) => Err(CasError::Store(error)),
                };
                Ok((told,))
            })
        },
    )
}

/// A handle with the version that a key has now.
async fn pin(
    state: &mut State,
    function: &'static str,
    store: Name,
    key: String,
) -> wasmtime::Result<Result<Resource<Cas>, Error>> {
    let (of, again) = (store.clone(), key.clone());
    let version = ask_at(state, function, store, |host, store| {
        Box::pin(async move { host.version(&store, again).await })
    });
    let (store, version) = match version.await? {
        Ok(version) => (of, version),
        Err(error) => return Ok(Err(error)),
    };
    let cas = state.table.push(Cas {
        store,
        key,
        version,
    })?;
    Ok(Ok(cas))
}

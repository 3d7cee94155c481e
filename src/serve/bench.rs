//! Measurements that need no daemon: a node of their own, with an empty cache, in this process.

mod bare;
pub(crate) mod cold_start;
pub(crate) mod density;
pub(crate) mod detect;
mod load;
pub(crate) mod machine;
pub(crate) mod recorder;
pub(crate) mod report;
mod rig;
pub(crate) mod rollout;
pub(crate) mod scale;
pub(crate) mod statistics;
pub(crate) mod throughput;

use std::{collections::BTreeMap, io, path::PathBuf};

use bytes::Bytes;
use sampan_core::{
    name::Name,
    object::{Grants, Isolation},
    spec::{self, SpecText, node::Node as NodeLimits},
};
use sampan_runtime::{LoadError, StartError, threads::ThreadsError};
use sampan_store::StoreError;
use tempfile::TempDir;

use super::{AppSource, Node, single};

/// What is measured unless a component is named.
const HELLO: &[u8] = include_bytes!("../../workloads/dist/hello.wasm");
const HELLO_P3: &[u8] = include_bytes!("../../workloads/dist/hello-p3.wasm");
/// Guests with a part to play in one of the measurements.
const CALLER: &[u8] = include_bytes!("../../workloads/dist/caller.wasm");
const CHAIN: &[u8] = include_bytes!("../../workloads/dist/chain.wasm");
const DEADLOCK_SELF: &[u8] = include_bytes!("../../workloads/dist/deadlock-self.wasm");
const FLAKY_READY: &[u8] = include_bytes!("../../workloads/dist/flaky-ready.wasm");
const HOSTILE: &[u8] = include_bytes!("../../workloads/dist/hostile.wasm");
const SLOW_BUT_LIVE: &[u8] = include_bytes!("../../workloads/dist/slow-but-live.wasm");
/// The host that reaches the service of [`app`].
const HOST: &str = "bench.localhost";
/// The id of a custom section, in components as in modules.
const CUSTOM: u8 = 0;

/// A component to measure with.
#[derive(Clone)]
pub(crate) struct Component {
    /// What it is called in reports.
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
}

impl Component {
    /// The one that this program brings along.
    pub(crate) fn own() -> Self {
        Self::built_in("hello", HELLO)
    }

    fn built_in(name: &str, bytes: &'static [u8]) -> Self {
        Self {
            name: name.to_owned(),
            bytes: Bytes::from_static(bytes),
        }
    }

    /// The same for WASI 0.3.
    fn own_p3() -> Self {
        Self::built_in("hello-p3", HELLO_P3)
    }

    fn caller() -> Self {
        Self::built_in("caller", CALLER)
    }

    fn chain() -> Self {
        Self::built_in("chain", CHAIN)
    }

    fn deadlock_self() -> Self {
        Self::built_in("deadlock-self", DEADLOCK_SELF)
    }

    fn flaky_ready() -> Self {
        Self::built_in("flaky-ready", FLAKY_READY)
    }

    fn hostile() -> Self {
        Self::built_in("hostile", HOSTILE)
    }

    fn slow_but_live() -> Self {
        Self::built_in("slow-but-live", SLOW_BUT_LIVE)
    }

    /// The same component under another digest: a section without a meaning is appended.
    fn variant(&self, text: &str) -> Self {
        const NAME: &[u8] = b"bench";
        let text = text.as_bytes();
        let length = 1 + NAME.len() + text.len();
        assert!(length < 128, "the lengths fit in one byte each");
        let mut bytes = Vec::from(&self.bytes[..]);
        bytes.extend([CUSTOM, length as u8, NAME.len() as u8]);
        bytes.extend(NAME);
        bytes.extend(text);
        Self {
            name: self.name.clone(),
            bytes: bytes.into(),
        }
    }
}

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// There is no place for the cache or for sockets.
    #[error("no node can be made for it")]
    Io(#[from] io::Error),
    /// The system gives no threads.
    #[error("no node can be made for it")]
    Threads(#[from] ThreadsError),
    /// The store is closed, or cannot be read.
    #[error("the state of the node cannot be read")]
    Store(#[from] StoreError),
    /// The component was refused.
    #[error("the component `{name}` is refused")]
    Load {
        /// What it is called.
        name: String,
        /// Why it cannot be loaded.
        source: LoadError,
    },
    /// No pod can be made of it.
    #[error("the component `{name}` cannot be started")]
    Start {
        /// What it is called.
        name: String,
        /// Why no instance can be made.
        source: StartError,
    },
    /// The node did not do what was measured.
    #[error("{0}")]
    Failed(String),
}

/// A node of its own. Its cache goes when this is dropped.
struct Workbench {
    node: Node,
    directory: TempDir,
}

impl Workbench {
    fn new(source: &AppSource) -> Result<Self, BenchError> {
        Self::with_room(source.instances())
    }

    /// One on which so many instances can be alive at once, if they fit.
    fn with_room(instances: u32) -> Result<Self, BenchError> {
        let directory = tempfile::Builder::new().prefix("sampan-bench-").tempdir()?;
        let cache = directory.path().join("code");
        let node = Node::open(Some(cache), None, None, instances, NodeLimits::default())?;
        Ok(Self { node, directory })
    }
}

/// An app of one service that answers every request.
fn app(replicas: u32, isolation: Option<Isolation>) -> AppSource {
    let name = Name::parse("bench").expect("it is a name");
    let path = PathBuf::from("bench.wasm");
    single::service(name, &path, Grants::default(), &|service| {
        service.replicas = replicas;
        service.isolation = isolation;
        service.debug_headers = true;
    })
}

/// The app of a spec that is a constant, or made of constants and numbers.
fn app_of(text: &str) -> Result<AppSource, BenchError> {
    let app = spec::load(&spec::Input {
        path: "sampan bench",
        text,
        environment: &|_| None,
        read_file: &|_| Err("there are no files".to_owned()),
        profiles: &[],
    });
    let app = app.map_err(|problems| BenchError::Failed(problems.to_string()))?;
    Ok(AppSource {
        app,
        secrets: BTreeMap::new(),
        base: PathBuf::from("/"),
        spec: SpecText::default(),
    })
}

/// As a spec says it.
fn isolation_name(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Pod => "pod",
        Isolation::Request => "request",
    }
}

#[cfg(test)]
mod tests {
    use sampan_runtime::admission::inspect::Inspection;

    use super::*;

    #[test]
    fn a_variant_is_a_component_with_another_digest() {
        let inspect = |it: &Component| Inspection::of(&it.bytes).expect("a component");
        let own = Component::own();
        let (first, second) = (inspect(&own), inspect(&own.variant("2")));
        assert_ne!(first.digest, second.digest);
        assert_eq!(first.exports, second.exports);
    }
}

//! Components that can be instantiated, and what is asked of one before.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sampan_core::{
    name::Name,
    spec::{Found, node::GuestLimits},
};
use wasmtime::component::InstancePre;

use crate::{
    admission::inspect::Inspection,
    engine::{CodeMaps, MAX_MEMORY_BYTES, Memories, NoPlace, Place, Places},
    exports::Exports,
    host::state::State,
    report::ComponentFile,
    volumes::Volumes,
};

/// Where the code of a component came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the cache.
    Cache,
    /// Compiled now, in this time.
    Compiled(Duration),
}

/// A component that can be instantiated.
pub struct Loaded {
    /// What it says of itself.
    pub inspection: Inspection,
    /// Where its code came from.
    pub origin: Origin,
    pub(crate) pre: InstancePre<State>,
    pub(crate) exports: Exports,
    /// Whether anything of it is WASI 0.3.
    pub(crate) concurrent: bool,
    pub(crate) places: Arc<Places>,
    /// How many memories an instance may have.
    pub(crate) memories: Memories,
    pub(crate) limits: Arc<GuestLimits>,
    /// The volumes of the node, if there is a place for them.
    pub(crate) volumes: Option<Arc<Volumes>>,
    /// Where its bytes are.
    pub(crate) file: Option<Arc<ComponentFile>>,
    /// What its code has of the process's memory maps.
    pub(crate) _code: CodeMaps,
}

impl Loaded {
    /// What a service of it is.
    pub fn found(&self) -> Found {
        self.inspection.found()
    }

    /// A place for an instance in the engine's pool. There are fewer than a node may be asked for.
    pub(crate) async fn place(&self) -> Result<Place, NoPlace> {
        self.places.take(self.memories).await
    }

    /// Whether the guest exports `sampan:pod/health`, which probes with `export = true` ask.
    pub fn answers_probes(&self) -> bool {
        self.exports.has_health()
    }
}

/// What is asked of a component before it is compiled.
#[derive(Clone, Debug)]
pub struct Demands {
    /// Its code must count fuel.
    pub metered: bool,
    /// What its bytes must hash to, if that was said: SHA-256 in hexadecimal.
    pub digest: Option<String>,
    /// The most memory it may start with, in bytes.
    pub memory_bytes: u64,
    /// Its instances can leave core dumps, which costs something at every trap.
    pub coredump: bool,
    /// The file it was read from: what happens to its instances is explained with source lines as
    /// long as it is there.
    pub path: Option<PathBuf>,
    /// The app it is of. Apps share the places of compiling processes.
    pub app: Option<Name>,
}

impl Default for Demands {
    /// None but those that hold for every component.
    fn default() -> Self {
        Self {
            metered: false,
            digest: None,
            memory_bytes: MAX_MEMORY_BYTES as u64,
            coredump: false,
            path: None,
            app: None,
        }
    }
}

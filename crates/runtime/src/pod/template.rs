//! What all pods of one revision have in common.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sampan_core::{
    object::{Grants, Isolation, Limits, Renewal, ServiceKind},
    secret::SecretValues,
    spec::Found,
};
use tokio::time::Instant;

use crate::{
    admission::inspect::Wasi,
    exports::Question,
    keyvalue::KeyValue,
    lane::Pace,
    loaded::Loaded,
    neighbours::Neighbours,
    runtime::StartError,
    sandbox::{Sandbox, SandboxSpec, Stdio, unhurried},
};

/// Requests a pod takes at once unless its spec says otherwise.
pub const DEFAULT_CONCURRENCY: u32 = 64;

/// A component with everything a spec says about running it.
pub struct Template {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) sandbox: Sandbox,
    pub(super) wasi: Wasi,
    kind: ServiceKind,
    isolation: Isolation,
    concurrency: u32,
    /// When an instance that stays makes way for another one.
    pub(super) renewal: Renewal,
    pub(super) fuel: Option<u64>,
    pub(super) request_timeout: Duration,
    /// Whether its last request with an instance of its own was a long one: the next one probably
    /// is too.
    pub(super) pace: Pace,
    /// Where core dumps of its instances go.
    pub(super) coredumps: Option<PathBuf>,
}

/// What a spec says about a service's pods.
pub struct TemplateSpec<'a> {
    /// What the guest sees and may do.
    pub grants: &'a Grants,
    /// What it may use. A command answers no requests, so what is about those does not count.
    pub limits: &'a Limits,
    /// The arguments of the guest, the program's name first.
    pub args: &'a [String],
    /// What requests share; by default what the component's world suggests.
    pub isolation: Option<Isolation>,
    /// Requests at once in one pod; by default [`DEFAULT_CONCURRENCY`], or what the world allows.
    pub concurrency: Option<u32>,
    /// When an instance that stays makes way for another one.
    pub renewal: Renewal,
    /// The directory that relative mounts start from.
    pub base: &'a Path,
    /// The other services of the node.
    pub neighbours: Option<Arc<dyn Neighbours>>,
    /// The key-value stores of the app.
    pub keyvalue: Option<Arc<dyn KeyValue>>,
    /// The values of the secrets in the grants. Without them the template can only be checked.
    pub secrets: Option<&'a SecretValues>,
    /// The directory for core dumps, if they are wanted. There are some only of what was loaded
    /// with [`crate::Demands::coredump`].
    pub coredumps: Option<&'a Path>,
}

impl Template {
    /// Joins a component and what a spec says about it.
    pub fn new(loaded: Arc<Loaded>, spec: &TemplateSpec<'_>) -> Result<Self, StartError> {
        let inspection = &loaded.inspection;
        let found = inspection.found();
        let wasi = inspection.http.or(inspection.command);
        let wasi = wasi.ok_or(StartError::NoHandler)?;
        if !found.is_callable && loaded.exports.index(Question::PreStop).is_some() {
            return Err(StartError::Settings(
                "the component exports `sampan:pod/lifecycle`, and a command of WASI 0.2 cannot be \
                 called before its `run` has ended; leave the export out, or build it for WASI 0.3"
                    .to_owned(),
            ));
        }
        let isolation = match (found.kind, wasi) {
            (ServiceKind::Command, _) => Isolation::Pod,
            (ServiceKind::Http | ServiceKind::Static, Wasi::P2) => {
                spec.isolation.unwrap_or(Isolation::Request)
            }
            (ServiceKind::Http | ServiceKind::Static, Wasi::P3) => {
                spec.isolation.unwrap_or(Isolation::Pod)
            }
        };
        if isolation == Isolation::Request && !spec.renewal.is_never() {
            return Err(StartError::Settings(
                "`max_requests` and `max_age` renew an instance that stays, and with \
                 `isolation = \"request\"`, the default of WASI 0.2, none does; leave them out, or \
                 use `isolation = \"pod\"`"
                    .to_owned(),
            ));
        }
        let limits = match found.kind {
            ServiceKind::Http | ServiceKind::Static => spec.limits.clone(),
            ServiceKind::Command => unhurried(spec.limits),
        };
        let sandbox = Sandbox::open(SandboxSpec {
            grants: spec.grants,
            limits: &limits,
            args: spec.args,
            stdio: Stdio::Logs,
            base: spec.base,
            neighbours: spec.neighbours.clone(),
            keyvalue: spec.keyvalue.clone(),
            secrets: spec.secrets,
            node: &loaded.limits,
            volumes: loaded.volumes.as_ref(),
        })?;
        Ok(Self {
            sandbox,
            wasi,
            kind: found.kind,
            isolation,
            concurrency: match found.kind {
                ServiceKind::Http | ServiceKind::Static => {
                    concurrency(wasi, isolation, spec.concurrency)?
                }
                ServiceKind::Command => 1,
            },
            renewal: spec.renewal,
            fuel: spec.limits.fuel,
            request_timeout: spec.limits.request_timeout,
            pace: Pace::default(),
            coredumps: spec.coredumps.map(Path::to_owned),
            loaded,
        })
    }

    /// What its component was found to be.
    pub fn found(&self) -> Found {
        self.loaded.found()
    }

    /// What its pods do.
    pub fn kind(&self) -> ServiceKind {
        self.kind
    }

    /// What requests share.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Requests at once in one pod.
    pub fn concurrency(&self) -> u32 {
        self.concurrency
    }

    /// When a request that comes now must have been answered.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (!self.request_timeout.is_zero()).then(|| Instant::now() + self.request_timeout)
    }
}

fn concurrency(wasi: Wasi, isolation: Isolation, asked: Option<u32>) -> Result<u32, StartError> {
    match (wasi, isolation, asked) {
        // Nothing in WASI 0.2 lets a second request into an instance before the first has ended.
        (Wasi::P2, Isolation::Pod, None | Some(1)) => Ok(1),
        (Wasi::P2, Isolation::Pod, Some(asked)) => Err(StartError::Settings(format!(
            "`concurrency = {asked}`: a WASI 0.2 component with `isolation = \"pod\"` takes one \
             request at a time; leave `concurrency` out, or use `isolation = \"request\"`"
        ))),
        (_, _, asked) => Ok(asked.unwrap_or(DEFAULT_CONCURRENCY)),
    }
}

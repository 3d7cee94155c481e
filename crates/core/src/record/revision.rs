//! A revision of a service: what one pod of it is, unchanging.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    object::{Grants, Isolation, Limits, Probe, Renewal, Restart, Service, ServiceKind},
    quantity::duration_text,
    site::Pages,
};

/// The component of a revision or job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// SHA-256 of its bytes, as 64 lower-case hex digits.
    pub digest: String,
    /// What the spec calls it, for people.
    pub path: String,
}

/// Everything that affects a running pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// What it runs.
    pub component: Component,
    /// Set if it runs none: the digest is that of a manifest of files, which are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Pages>,
    /// What that does, as its admission has found.
    #[serde(default, skip_serializing_if = "ServiceKind::is_http")]
    pub kind: ServiceKind,
    /// Arguments after the program name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// What one request shares with the next; `None` follows the component's world.
    pub isolation: Option<Isolation>,
    /// Requests in flight; `None` follows the component's world and isolation.
    pub concurrency: Option<u32>,
    /// When an instance that is kept makes way for another one.
    #[serde(default, skip_serializing_if = "Renewal::is_never")]
    pub renewal: Renewal,
    /// Whether an instance that ends badly leaves a core dump.
    pub coredump: bool,
    /// What the guest sees and may do. Host directories are absolute.
    pub grants: Grants,
    /// What the guest may use.
    pub limits: Limits,
    /// Startup probe.
    pub startup: Option<Probe>,
    /// Readiness probe.
    pub readiness: Option<Probe>,
    /// Liveness probe.
    pub liveness: Option<Probe>,
    /// Restart policy.
    pub restart: Restart,
    /// Time in-flight requests have to end.
    #[serde(with = "duration_text")]
    pub drain: Duration,
    /// How often all pods were replaced by others just like them.
    pub restarted: u32,
}

impl Template {
    /// What `service` says about its pods, with this component.
    pub fn new(service: &Service, component: Component) -> Self {
        Self {
            component,
            site: service.site.clone(),
            kind: match service.site {
                Some(_) => ServiceKind::Static,
                None => ServiceKind::default(),
            },
            args: service.args.clone(),
            isolation: service.isolation,
            concurrency: service.concurrency,
            renewal: service.renewal,
            coredump: service.coredump,
            grants: service.grants.clone(),
            limits: service.limits.clone(),
            startup: service.startup.clone(),
            readiness: service.readiness.clone(),
            liveness: service.liveness.clone(),
            restart: service.restart.clone(),
            drain: service.rollout.drain,
            restarted: 0,
        }
    }

    /// Bytes that the guest of one pod may use: files need none.
    pub fn memory(&self) -> u64 {
        match self.site {
            Some(_) => 0,
            None => self.limits.memory.0,
        }
    }

    /// SHA-256 of all of it, as 64 lower-case hex digits. What the component's file is called does
    /// not count: the pods would be the same. Nor does its kind, which follows from its digest, and
    /// is not known before it is admitted.
    pub fn hash(&self) -> String {
        let mut named = self.clone();
        named.component.path.clear();
        named.kind = ServiceKind::default();
        Digest::of(&serde_json::to_vec(&named).expect("a template is plain data")).to_hex()
    }
}

/// An immutable, numbered template of a service's pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number: the first of a service is 1.
    pub number: u64,
    /// [`Template::hash`] of its template.
    pub hash: String,
    /// What each pod of it is.
    pub template: Template,
    /// When it was made, in milliseconds since the beginning of 1970.
    pub created_ms: u64,
    /// What made it, in a few words.
    pub cause: String,
}

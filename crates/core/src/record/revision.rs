//! A revision of a service: what one pod of it is, unchanging.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    name::Name,
    object::{
        Grants, Isolation, Limits, MountSource, Probe, Renewal, Restart, Service, ServiceKind,
    },
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

    /// What one pod needs of its node.
    pub fn needs(&self) -> Needs {
        Needs {
            memory: self.memory(),
            ..Needs::of(&self.limits, &self.grants)
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

/// What one pod of a revision, or an attempt of a job, needs of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Memory of one instance, in bytes.
    pub memory: u64,
    /// Thousandths of a core, if there is a limit.
    pub cpu_millis: u32,
    /// Volumes of its app that it mounts, and [`key_value_stores`] if it opens any of these.
    pub volumes: BTreeSet<Name>,
}

impl Needs {
    /// Those of one instance with these limits and grants.
    pub fn of(limits: &Limits, grants: &Grants) -> Self {
        let volumes = grants.files.iter();
        let volumes = volumes.filter_map(|mount| match &mount.source {
            MountSource::Volume(volume) => Some(volume.name.clone()),
            MountSource::Host(_) | MountSource::Secret(_) => None,
        });
        let stores = (!grants.keyvalue.is_empty()).then(key_value_stores);
        Self {
            memory: limits.memory.0,
            cpu_millis: limits.cpu.map_or(0, |cpu| cpu.millis),
            volumes: volumes.chain(stores).collect(),
        }
    }
}

/// What the key-value stores of an app are called among its volumes: they are in one database, which
/// is on one node. A volume of the same name is on that node too.
pub fn key_value_stores() -> Name {
    Name::parse("keyvalue").expect("a name")
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

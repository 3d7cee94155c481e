//! Checked objects: what a spec says once every value in it has been found good.
//!
//! [`crate::spec`] makes these; the runtime, the gateway and the command line use them. Defaults
//! are already filled in, `${…}` is already replaced, names are known to exist.
//!
//! Many of these types are parts of what the store holds, and so may only grow: a new field has
//! `#[serde(default, skip_serializing_if = …)]`. [`crate::record`] says why.

mod mount;
mod secret;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    name::Name,
    quantity::{Amount, ByteSize, Cpu, Percent, duration_text, optional_duration_text},
    site::Pages,
};

pub use mount::{Access, Mount, MountSource, VolumeUse};
pub use secret::{SecretSource, SecretUse};

/// One spec file: services and jobs under one name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// The app's name.
    pub name: Name,
    /// Long-running workloads by name.
    pub services: BTreeMap<Name, Service>,
    /// Components run to completion, by name.
    pub jobs: BTreeMap<Name, Job>,
    /// Directories that the node keeps for the app, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<Name, Volume>,
    /// How the components of services and jobs are made, by the names of these. It is for the
    /// command line alone, and no part of what a node stores.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub builds: BTreeMap<Name, Build>,
    /// Where its secrets come from, by name. Their values are never here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<Name, SecretSource>,
}

/// How a component is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The command, for `sh -c` in the spec file's directory.
    pub command: String,
    /// Files and directories whose change asks for it again, relative to that directory.
    pub watch: Vec<PathBuf>,
}

/// A directory that the node keeps for an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// How much may be in it.
    pub quota: ByteSize,
}

/// Where a component comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Path of the component, relative to the spec file's directory.
    pub path: PathBuf,
    /// Expected SHA-256 of its bytes, as 64 lower-case hex digits without the `sha256:` prefix.
    pub digest: Option<String>,
}

/// What the pods of a service do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceKind {
    /// They answer HTTP requests with their component.
    #[default]
    Http,
    /// Each runs `wasi:cli/run` of its component until that ends, and answers no requests.
    Command,
    /// They answer HTTP requests with files.
    Static,
}

impl ServiceKind {
    /// Whether it is the kind that there was before there were others.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
    pub(crate) fn is_http(&self) -> bool {
        *self == Self::Http
    }
}

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Command => "command",
            Self::Static => "static",
        })
    }
}

/// A long-running workload: N replicas of one component behind one name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The service's name.
    pub name: Name,
    /// The component each replica runs, or the directory of the files that it serves.
    pub component: Source,
    /// Set if those are files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Pages>,
    /// Arguments after the program name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// How many pods to run.
    pub replicas: u32,
    /// What one request shares with the next; `None` follows the component's world.
    pub isolation: Option<Isolation>,
    /// Requests in flight per pod; `None` follows the component's world and isolation.
    pub concurrency: Option<u32>,
    /// When a pod that keeps its instance makes another one.
    #[serde(default, skip_serializing_if = "Renewal::is_never")]
    pub renewal: Renewal,
    /// Which requests reach the service from outside.
    pub routes: Vec<Route>,
    /// What must have happened before the service starts.
    pub depends_on: BTreeMap<Name, Condition>,
    /// Profiles the service belongs to; empty means always on.
    pub profiles: Vec<Name>,
    /// Whether responses carry `Sampan-Revision` and `Sampan-Pod`.
    pub debug_headers: bool,
    /// Whether an instance that ends badly leaves a core dump.
    pub coredump: bool,
    /// What the guest sees and may do.
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
    /// How a new revision replaces the old.
    pub rollout: Rollout,
    /// Autoscaler, when the service has one.
    pub autoscale: Option<Autoscale>,
    /// On which nodes of a cluster its pods run.
    #[serde(default, skip_serializing_if = "Placement::is_anywhere")]
    pub placement: Placement,
}

/// On which nodes of a cluster the pods of a service run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Labels that a node must have, with their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, String>,
    /// Over what the pods are spread.
    #[serde(default)]
    pub spread: Spread,
    /// Memory that each pod reserves, if not that of one instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
}

impl Placement {
    /// Whether nothing is asked of the nodes.
    pub fn is_anywhere(&self) -> bool {
        *self == Self::default()
    }
}

/// Over what the pods of a service are spread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// Over nodes.
    #[default]
    Node,
    /// Over the values of this label, and then over nodes. Nodes without the label count as those
    /// of one more value.
    Label(String),
}

/// A component run to completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The job's name.
    pub name: Name,
    /// The component to run.
    pub component: Source,
    /// Arguments after the program name.
    pub args: Vec<String>,
    /// How often a failed run is tried again.
    pub retries: u32,
    /// When it runs by itself, if not once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// How long one attempt may take.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_duration_text"
    )]
    pub timeout: Option<Duration>,
    /// How many of its last runs are kept.
    #[serde(default = "usual_history", skip_serializing_if = "is_usual_history")]
    pub history: u32,
    /// What must have happened before the job starts.
    pub depends_on: BTreeMap<Name, Condition>,
    /// Profiles the job belongs to; empty means always on.
    pub profiles: Vec<Name>,
    /// What the guest sees and may do.
    pub grants: Grants,
    /// What the guest may use.
    pub limits: Limits,
}

/// How many of a job's last runs are kept, if the spec does not say.
pub const USUAL_HISTORY: u32 = 10;

pub(crate) fn usual_history() -> u32 {
    USUAL_HISTORY
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
pub(crate) fn is_usual_history(history: &u32) -> bool {
    *history == USUAL_HISTORY
}

/// When a job runs by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// A cron expression of five fields.
    pub expression: String,
    /// The name of the time zone that it is in.
    pub timezone: String,
    /// What becomes of a run that is due while another one is under way.
    pub overlap: Overlap,
}

/// What becomes of a run that is due while another one is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It is left out.
    Skip,
    /// It runs after the other one. At most one waits.
    Queue,
    /// The other one is ended, and it runs.
    Replace,
}

/// What one request shares with the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// The pod keeps one instance: memory persists between requests.
    Pod,
    /// Every request gets a fresh instance.
    Request,
}

/// When a pod that keeps its instance makes another one in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// After so many requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// When it is so old.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_duration_text"
    )]
    pub max_age: Option<Duration>,
}

impl Renewal {
    /// Whether it keeps its instance for ever.
    pub fn is_never(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an instance that has had so many requests and is so old is to take no more.
    pub fn is_due(&self, requests: u32, age: Duration) -> bool {
        self.max_requests.is_some_and(|max| requests >= max)
            || self.max_age.is_some_and(|max| age >= max)
    }
}

/// Which requests reach a service: a host and a path prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Host without a port, in its normal form (`uri::normal_host`); `None` means any host.
    pub host: Option<String>,
    /// Path prefix, starting with `/`, in its normal form (`uri::normal_path`). It matches whole
    /// segments: `/a` matches `/a` and `/a/b`, not `/ab`; `/a/` matches `/a/` and below.
    pub prefix: String,
}

/// As in a spec.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            self.host.as_deref().unwrap_or_default(),
            self.prefix
        )
    }
}

/// What must be true of a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Its pods have been started.
    Started,
    /// At least one pod is ready.
    Ready,
    /// The job ended well.
    Completed,
}

/// What a guest sees and may do. Everything else is denied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Grants {
    /// Environment variables, in the order of their names.
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are secrets, beside `env`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_env: BTreeMap<String, SecretUse>,
    /// Values the guest reads through `wasi:config`.
    pub config: BTreeMap<String, String>,
    /// Services of the same app it may call by name.
    pub services: Vec<Name>,
    /// Outside servers it may call.
    pub outbound: Vec<Outbound>,
    /// Directories it sees.
    pub files: Vec<Mount>,
    /// Key-value stores of the app that it may open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keyvalue: Vec<Name>,
}

/// A server outside the app that a guest may call: `scheme://host[:port]`, where `tcp` has a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Outbound {
    /// How it speaks to it.
    pub scheme: Scheme,
    /// Which hosts.
    pub host: HostPattern,
    /// Port; the scheme's own when the spec names none.
    pub port: u16,
}

impl fmt::Display for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Tcp => "tcp",
        };
        let port = self.port;
        match &self.host {
            HostPattern::Exact(name) => write!(f, "{scheme}://{name}:{port}"),
            HostPattern::Below(name) => write!(f, "{scheme}://*.{name}:{port}"),
            // An IPv6 address stands in brackets.
            HostPattern::Address(address) => {
                write!(f, "{scheme}://{}", SocketAddr::new(*address, port))
            }
        }
    }
}

/// The domain below which guests call the services of their app, as in `http://api.internal/`.
pub const INTERNAL_DOMAIN: &str = ".internal";

/// How a guest speaks to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// A TCP connection.
    Tcp,
}

/// Which hosts a rule covers. Names are lower case and have no trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPattern {
    /// This name. An address behind it must be a public one, unless the name is `localhost`.
    Exact(String),
    /// Any name below this one: `*.example.com` is `Below("example.com")`.
    Below(String),
    /// This address, which may be a private one: naming it is the grant.
    Address(std::net::IpAddr),
}

impl Grants {
    /// The secrets that the guest sees.
    pub fn secrets_mut(&mut self) -> impl Iterator<Item = &mut SecretUse> {
        let files = self
            .files
            .iter_mut()
            .filter_map(|mount| match &mut mount.source {
                MountSource::Secret(secret) => Some(secret),
                MountSource::Host(_) | MountSource::Volume(_) => None,
            });
        self.secret_env.values_mut().chain(files)
    }

    /// The same, to look at.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretUse> {
        let files = self.files.iter().filter_map(|mount| match &mount.source {
            MountSource::Secret(secret) => Some(secret),
            MountSource::Host(_) | MountSource::Volume(_) => None,
        });
        self.secret_env.values().chain(files)
    }
}

/// What a guest may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// All linear memories and tables of one instance together.
    pub memory: ByteSize,
    /// Share of a core; `None` means no cap.
    pub cpu: Option<Cpu>,
    /// Wall-clock time of one request, from its arrival at the pod to the last byte of its
    /// response; zero turns the limit off.
    #[serde(with = "duration_text")]
    pub request_timeout: Duration,
    /// Guest CPU time of one request without a wait; zero turns the limit off.
    #[serde(with = "duration_text")]
    pub request_cpu: Duration,
    /// Deterministic budget of one request, in wasmtime fuel; `None` means unmetered.
    pub fuel: Option<u64>,
    /// Requests that may wait for a pod.
    pub queue: u32,
    /// How long one of them may wait.
    #[serde(with = "duration_text")]
    pub queue_timeout: Duration,
    /// Largest request body.
    pub body: ByteSize,
}

/// A probe: a question the guest itself must answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// How it is asked.
    pub check: Check,
    /// Time between two tries.
    #[serde(with = "duration_text")]
    pub period: Duration,
    /// Time one try may take.
    #[serde(with = "duration_text")]
    pub timeout: Duration,
    /// Failures in a row that count as one failure of the pod.
    pub failures: u32,
    /// Successes in a row that count as success.
    pub successes: u32,
    /// Time before the first try.
    #[serde(with = "duration_text")]
    pub delay: Duration,
}

/// How a probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// `GET` this path; a status from 200 to 399 is success.
    Http(String),
    /// Call the guest's export of `sampan:pod/health`.
    Export,
}

/// When and how fast a failed pod is started again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// After which ends an instance is started again.
    pub policy: RestartPolicy,
    /// The first delay.
    #[serde(with = "duration_text")]
    pub initial: Duration,
    /// The longest delay.
    #[serde(with = "duration_text")]
    pub max: Duration,
    /// Health that resets the delay to `initial`.
    #[serde(with = "duration_text")]
    pub reset_after: Duration,
}

/// When a pod that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Whatever the reason.
    Always,
    /// When it failed.
    OnFailure,
    /// Not at all.
    Never,
}

/// How a new revision replaces the old.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Instance by instance, or all at once.
    pub strategy: Strategy,
    /// Pods above `replicas`; a percentage rounds up.
    pub max_surge: Amount,
    /// Pods below `replicas`; a percentage rounds down.
    pub max_unavailable: Amount,
    /// Readiness without a break before a pod counts as available.
    #[serde(with = "duration_text")]
    pub min_ready: Duration,
    /// Time without progress before the rollout has failed.
    #[serde(with = "duration_text")]
    pub progress_deadline: Duration,
    /// What then happens.
    pub on_failure: OnFailure,
    /// Old revisions kept.
    pub history: u32,
    /// Time in-flight requests have to end.
    #[serde(with = "duration_text")]
    pub drain: Duration,
}

/// Instance by instance, or all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Within `max_surge` and `max_unavailable`.
    Rolling,
    /// All old pods stop before a new one starts.
    Recreate,
}

/// What happens when a rollout has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Restore the last good revision.
    Rollback,
    /// Keep the pods as they are, until a user resumes or undoes the rollout.
    Pause,
}

/// Between which bounds, and towards what, the number of replicas moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Autoscale {
    /// The fewest pods; zero scales to zero.
    pub min: u32,
    /// The most pods.
    pub max: u32,
    /// Target guest CPU per pod, as a share of `limits.cpu`.
    pub cpu: Option<Percent>,
    /// Target requests in flight per pod.
    pub concurrency: Option<f64>,
    /// Target requests per second and pod.
    pub rps: Option<f64>,
    /// Window whose highest recommendation bounds scaling down.
    #[serde(with = "duration_text")]
    pub stabilization: Duration,
    /// Time without a request before the service scales to zero.
    #[serde(with = "duration_text")]
    pub idle: Duration,
}

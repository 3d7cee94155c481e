//! Objects as the API shows them: the JSON that programs read.
//!
//! Fields are added, never renamed or removed. Times are UTC in the manner of RFC 3339. Of
//! environment variables and configuration only the names are shown, but for what an apply changes;
//! of secrets nowhere more than which version it is.

mod change;
mod line;
mod progress;
mod request;
mod room;
mod show;
mod top;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use change::{Change, Field, Plan, Verb};
pub use line::LineKind;
pub use progress::{Verdict, job_verdict, rollout_verdict, run_verdict};
pub use request::{Apply, Scale, Secrets, Undo};
pub use room::{NodeChange, NodeRoom};
pub use top::{Advice, NodeTop, PodTop, Seen, ServiceTop, Suggestion, Top};

/// An app: the services and jobs of one spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct App {
    /// Its name.
    pub name: String,
    /// Raised by each change of what it consists of.
    pub generation: u64,
    /// Where relative paths of its spec start from.
    pub base: String,
    /// Names of its services.
    pub services: Vec<String>,
    /// Names of its jobs.
    pub jobs: Vec<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When a change of it was applied last.
    pub applied: String,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    /// The app it belongs to.
    pub app: String,
    /// Its name in the app.
    pub name: String,
    /// Raised by each change of what is wanted.
    pub generation: u64,
    /// The generation that the numbers and the phase are about.
    pub observed_generation: u64,
    /// What its pods do: `http` answers requests, `command` runs `wasi:cli/run`, `static`
    /// serves files.
    #[serde(default = "http")]
    pub kind: String,
    /// How far its rollout is.
    pub phase: Phase,
    /// Why it is in this phase, or what it waits for, if there is more to say.
    pub reason: Option<String>,
    /// The revision that its pods should run.
    pub revision: u64,
    /// The one they should run before.
    pub previous: Option<u64>,
    /// The last revision whose rollout was completed.
    pub last_good: Option<u64>,
    /// How many pods are wanted.
    pub replicas: u32,
    /// Between which bounds the number of pods moves, if it does.
    pub autoscale: Option<Bounds>,
    /// Pods, with those that drain.
    pub pods: u32,
    /// Pods of the wanted revision.
    pub updated: u32,
    /// Pods that get requests.
    pub ready: u32,
    /// Pods that have been ready for `min_ready`.
    pub available: u32,
    /// Those of them that are of the wanted revision.
    pub updated_available: u32,
    /// Whether its rollout is paused.
    pub paused: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Which requests reach it from outside: host and path prefix.
    pub routes: Vec<String>,
    /// What holds, and since when.
    pub conditions: Vec<Condition>,
    /// The last change that was refused before anything was touched, until another is accepted.
    pub refused: Option<Refusal>,
    /// How the autoscaler has changed the number of pods, the latest last; at most ten.
    #[serde(default)]
    pub scalings: Vec<Scaling>,
}

/// The kind of service that there was before there were others.
fn http() -> String {
    crate::object::ServiceKind::Http.to_string()
}

/// A decision of the autoscaler that changed the number of pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scaling {
    /// From how many to how many, and why: `2 → 5: cpu 168% of 70%`.
    pub message: String,
    /// The time, as in RFC 3339.
    pub time: String,
}

/// How far a service's rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Pods of the wanted revision take the place of others.
    Progressing,
    /// It waits for what the service depends on.
    Waiting,
    /// All pods are of the wanted revision.
    Complete,
    /// The rollout is over, and something keeps pods from serving that should; others serve.
    Degraded,
    /// The rollout is over, and something keeps all pods from serving.
    Unavailable,
    /// It is paused, by a user or because it has failed.
    Paused,
    /// It has failed, and the last good revision takes over again.
    RollingBack,
    /// It has failed, and the last good revision runs again; or it was refused before any pod was
    /// touched, and what ran before runs on.
    RolledBack,
    /// It has failed, and there is nothing to go back to.
    Failed,
    /// The service is being deleted.
    Deleting,
}

/// Between which bounds the number of pods moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bounds {
    /// The fewest.
    pub min: u32,
    /// The most.
    pub max: u32,
}

/// Something that holds of a service or does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Condition {
    /// `Available` or `Progressing`.
    pub kind: String,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// Since when.
    pub since: String,
}

/// A change that was refused before anything was touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// The reason, as a sentence for people.
    pub reason: String,
    /// The time, as in RFC 3339.
    pub time: String,
}

/// A revision of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Revision {
    /// The app of the service.
    pub app: String,
    /// The service.
    pub service: String,
    /// Its number.
    pub revision: u64,
    /// Whether it is the one that pods should run.
    pub current: bool,
    /// SHA-256 of everything that affects a pod of it.
    pub hash: String,
    /// Where its component came from, or its directory of static files.
    pub component: String,
    /// SHA-256 of the component, or of the list of static files.
    pub digest: String,
    /// How often all pods were replaced by others just like them.
    pub restarted: u32,
    /// Names of its environment variables.
    pub env: Vec<String>,
    /// When it was made.
    pub created: String,
    /// What made it.
    pub cause: String,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// The app it belongs to.
    pub app: String,
    /// Its name in the app.
    pub name: String,
    /// Raised by each change of what is wanted.
    pub generation: u64,
    /// The generation that the phase is about.
    pub observed_generation: u64,
    /// How far it is.
    pub phase: JobPhase,
    /// Why, if there is more to say.
    pub reason: Option<String>,
    /// Attempts so far.
    pub attempts: u32,
    /// How often a failed run is tried again.
    pub retries: u32,
    /// Where its component came from.
    pub component: String,
    /// SHA-256 of the component.
    pub digest: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When it runs by itself, if not once.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// When it is due next by its schedule.
    #[serde(default)]
    pub next: Option<String>,
    /// How long one attempt may take, as in a spec.
    #[serde(default)]
    pub timeout: Option<String>,
    /// Runs so far. One is an attempt with its retries.
    #[serde(default)]
    pub run_count: u64,
    /// The run that is under way, or waits for what the job depends on.
    #[serde(default)]
    pub run: Option<PresentRun>,
    /// The last runs that have ended, the latest last.
    #[serde(default)]
    pub runs: Vec<Run>,
}

/// When a job runs by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Schedule {
    /// A cron expression of five fields.
    pub expression: String,
    /// The name of the time zone that it is in.
    pub timezone: String,
    /// What becomes of a run that is due while another one is under way: `skip`, `queue` or
    /// `replace`.
    pub overlap: String,
}

/// A run of a job that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PresentRun {
    /// Its number: the first is 1.
    pub number: u64,
    /// What brought it about, as in `by schedule`.
    pub why: String,
    /// When its first attempt began, or it began to wait.
    pub started: String,
}

/// A run of a job that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// Its number: the first is 1.
    pub number: u64,
    /// What brought it about, as in `by schedule`.
    pub why: String,
    /// When its first attempt began.
    pub started: String,
    /// When its last attempt ended.
    pub ended: String,
    /// Milliseconds from one to the other.
    pub duration_ms: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether it failed.
    pub failed: bool,
    /// `exit code 0`, or why it failed.
    pub outcome: String,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JobPhase {
    /// It waits for what it depends on.
    Pending,
    /// It runs.
    Running,
    /// It failed and is tried again.
    BackOff,
    /// It ended well.
    Completed,
    /// It failed for good.
    Failed,
    /// It waits until it is due by its schedule.
    Scheduled,
    /// It is being deleted.
    Deleting,
}

/// A directory that the node keeps for an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Volume {
    /// Its app.
    pub app: String,
    /// Its name in the app.
    pub name: String,
    /// What is in it, counted as for its quota: 0 before its first use.
    pub used_bytes: u64,
    /// What may be in it. `null` if no app declares it any more.
    pub quota_bytes: Option<u64>,
    /// The services and jobs that it is mounted for.
    pub used_by: Vec<String>,
}

/// A secret of an app that something uses. Its value is in no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Secret {
    /// Its app.
    pub app: String,
    /// Its name in the app.
    pub name: String,
    /// Which of its values: the first digits of a digest that only the key of the node can make, so
    /// that one value can be told from another and no more.
    pub version: String,
    /// The services and jobs that see it.
    pub used_by: Vec<String>,
}

/// A node: a process that runs pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Sampan's version.
    pub version: String,
    /// When it started.
    pub started: String,
    /// Where its gateway answers.
    pub http: Option<String>,
    /// Pods that it has.
    pub pods: u64,
    /// Lines that guests have printed and that could not be kept on disk.
    #[serde(default)]
    pub log_lines_lost: u64,
    /// Its process.
    #[serde(default)]
    pub pid: u32,
    /// Whether `up -d` has started it, so that it ends with its last app.
    #[serde(default)]
    pub background: bool,
    /// How it is among the nodes of a cluster: `Ready`, `Cordoned`, `Draining`, `Drained`,
    /// `Unreachable` from the node that was asked, or `Down`.
    #[serde(default = "ready")]
    pub status: String,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it listens for the other nodes of its cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What it is called by beside its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether it plans for all nodes of its cluster.
    #[serde(default)]
    pub leads: bool,
    /// What it has room for, and what its pods reserve of that, if it is one of a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<NodeRoom>,
}

fn ready() -> String {
    "Ready".to_owned()
}

/// A token with which a node can join, once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Invitation {
    /// What `sampan cluster join` wants.
    pub token: String,
    /// When it ends.
    pub until: String,
}

/// A pod of which lines are kept, whether it is still there or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogPod {
    /// The app of the pod.
    pub app: String,
    /// The service or job of the pod.
    pub service: String,
    /// The pod.
    pub pod: String,
    /// When it printed its last line that is on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// What is kept of it on disk.
    pub bytes: u64,
}

/// The version of what answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// Sampan's version.
    pub sampan: String,
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Its number: each later one is one more.
    pub seq: u64,
    /// The time, as in RFC 3339.
    pub time: String,
    /// The app it is about.
    #[serde(default)]
    pub app: String,
    /// What it is about, with its kind: `pod/web-1-0`.
    pub object: String,
    /// What has happened, in one word.
    pub reason: String,
    /// The same in a sentence.
    pub message: String,
    /// The node of the cluster that has seen it, and counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A key-value store of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyValueStore {
    /// Its name.
    pub name: String,
    /// How many keys it has.
    pub keys: u64,
    /// Bytes of its keys and values together.
    pub bytes: u64,
}

/// Some keys of a store, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyValueKeys {
    /// The keys.
    pub keys: Vec<String>,
    /// The key after which there are more, if there are.
    pub next: Option<String>,
}

/// A line that a pod has printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// The time, as in RFC 3339.
    pub time: String,
    /// The app of the pod.
    pub app: String,
    /// The service or job of the pod.
    pub service: String,
    /// The pod.
    pub pod: String,
    /// `stdout`, `stderr`, `log` for what comes through `wasi:logging`, or `host` for what Sampan
    /// says about the guest.
    pub stream: String,
    /// The level of what comes through `wasi:logging`: `trace`, `debug`, `info`, `warn`, `error` or
    /// `critical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The request that was being answered, when that is certain.
    pub request: Option<String>,
    /// The text, as the guest printed it.
    pub text: String,
    /// Whether it is a part of a line that is too long: the pod's next one of this stream goes on
    /// with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// A line of a watch: an object as it is now, or that it is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Watched {
    /// A service is new or has changed.
    Service(Box<Service>),
    /// A job is new or has changed.
    Job(Box<Job>),
    /// All that is there has been sent, and what follows is new.
    Synced {
        /// The transaction up to which that is so.
        revision: u64,
    },
    /// A service is gone.
    ServiceGone {
        /// Its app.
        app: String,
        /// Its name.
        name: String,
    },
    /// A job is gone.
    JobGone {
        /// Its app.
        app: String,
        /// Its name.
        name: String,
    },
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// Its name, as in `web-1-0`.
    pub name: String,
    /// The app it belongs to.
    #[serde(default)]
    pub app: String,
    /// The service it belongs to.
    pub service: String,
    /// Where it is in its life: `Pending`, `Starting`, `Running`, `BackOff`, `CrashLoopBackOff`,
    /// `Draining` or `Stopped`.
    pub phase: String,
    /// Whether it gets requests.
    pub ready: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it is in this phase, if there is more to say.
    pub reason: Option<String>,
    /// Milliseconds until it is started again, if it waits for that.
    pub next_try_ms: Option<u64>,
    /// Probes that were missed because the pod got no CPU. They count for nothing.
    pub starved_probes: u64,
    /// What it has used.
    pub usage: Usage,
    /// How its last instances ended, the latest last; at most ten.
    pub terminations: Vec<Termination>,
    /// The node of the cluster that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// What a pod has used since it was made, over all its restarts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// CPU time of its guests, in milliseconds.
    pub cpu_ms: f64,
    /// Time during which at least one of its instances was held back by `limits.cpu`, in
    /// milliseconds.
    pub throttled_ms: f64,
    /// Bytes of memory its instances hold.
    pub memory_bytes: u64,
    /// The most they held at once.
    pub memory_peak_bytes: u64,
    /// Instances made.
    pub instances: u64,
    /// Instances that ended badly.
    pub failures: u64,
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Termination {
    /// The time, as in RFC 3339.
    pub time: String,
    /// What the host saw, in one word.
    pub verdict: String,
    /// The same in a sentence.
    pub reason: String,
    /// Everything that is known of it, in lines for people.
    pub explanation: String,
}

/// Why a request to the API has no other answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Error {
    /// In one word, for programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What the message is about, one by one: digests of missing components and files, refused services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// The request, as in the header `x-request-id` and in the node's log.
    #[serde(default)]
    pub request_id: String,
}

//! Objects as the API shows them: the JSON that programs read.
//!
//! Fields are added, never renamed or removed. Times are UTC in the manner of RFC 3339.

use serde::{Deserialize, Serialize};

/// A pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name, as in `web-1-0`.
    pub name: String,
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
}

/// What a pod has used since it was made, over all its restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of its guests, in milliseconds.
    pub cpu_ms: f64,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Termination {
    /// When.
    pub time: String,
    /// What the host saw, in one word.
    pub verdict: String,
    /// The same in a sentence.
    pub reason: String,
    /// Everything that is known of it, in lines for people.
    pub explanation: String,
}

/// Why a request to the API has no other answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// In one word, for programs.
    pub code: String,
    /// For people.
    pub message: String,
}

//! What a run of `sampan bench` has found: one shape for all of its measurements, with a JSON Schema.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of this shape. Every change of it, a new field too, is a new version.
pub(crate) const SCHEMA: u32 = 1;

/// The report of one run of `sampan bench`, as `--json` prints it and `--compare` reads it.
///
/// Times are milliseconds, unless the name of a field has another unit. What is measured again and
/// again is a sample each time, and the value of a measurement is the median of its samples.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    /// The version of this schema.
    pub(crate) schema: u32,
    /// When the run began, in UTC: `2026-01-02T03:04:05.678Z`.
    pub(crate) began: String,
    /// How long the run took, in seconds.
    pub(crate) took_s: f64,
    /// How the run ended. Only a `complete` one has everything.
    pub(crate) end: Ending,
    pub(crate) program: Program,
    pub(crate) machine: Machine,
    /// One for each thing that was measured, in the order in which that was.
    pub(crate) sections: Vec<Section>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// Everything was measured.
    Complete,
    /// A signal came, such as that of Ctrl-C.
    Interrupted,
    /// The time limit passed.
    TimeLimit,
    /// Something went wrong.
    Failed,
}

/// The program that measured, which is the one that was measured.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Program {
    /// The version of Sampan.
    pub(crate) sampan: String,
    /// wasmtime's line of long-term support.
    pub(crate) wasmtime: String,
    /// Processor architecture and system that it was built for.
    pub(crate) target: String,
    /// Whether it was built with optimisations: `release`, or `debug`, whose figures say little.
    pub(crate) build: String,
}

/// The machine that was measured on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    /// The model of its processor, as the system tells it.
    pub(crate) cpu: String,
    /// Processors that this program may use.
    pub(crate) processors: u64,
    pub(crate) memory_bytes: u64,
    /// Name and release of the system's kernel.
    pub(crate) kernel: String,
}

/// One thing that was measured, such as `cold-start`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    /// The subcommand that measures it.
    pub(crate) bench: String,
    pub(crate) title: String,
    /// How it was measured.
    pub(crate) method: String,
    /// The components that were measured.
    pub(crate) components: Vec<Subject>,
    /// How long it took, in seconds.
    pub(crate) took_s: f64,
    /// What else the processors did meanwhile, if the system tells it.
    pub(crate) noise: Option<Noise>,
    /// What a reader has to know besides.
    pub(crate) notes: Vec<String>,
    pub(crate) groups: Vec<Group>,
}

/// A component that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    /// Its file, or the name of one that is built in.
    pub(crate) name: String,
    /// SHA-256 of its bytes, in hex.
    pub(crate) digest: String,
    pub(crate) bytes: u64,
}

/// What other processes and other machines took of the processors, in parts of all their time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Noise {
    /// The part that other processes and the kernel's own work had.
    pub(crate) other: f64,
    /// The part that the hypervisor gave to other machines.
    pub(crate) stolen: f64,
    /// Whether both together are too much to believe the figures.
    pub(crate) busy: bool,
}

/// Measurements that are shown together, in one unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    /// What names it among the groups of its section, in every report.
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) unit: Unit,
    /// Which of two values is the better one.
    pub(crate) better: Better,
    /// What the `x` of its measurements means, where they have one.
    pub(crate) axis: Option<Axis>,
    pub(crate) measurements: Vec<Measurement>,
}

/// What the numbers of a group are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Milliseconds.
    Ms,
    /// Requests in a second.
    PerSecond,
    Bytes,
    /// A number of things, such as pods.
    Count,
}

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    Lower,
    Higher,
    /// It is a fact and not a merit.
    Neither,
}

/// What is drawn to the right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Axis {
    /// What it counts, with its unit.
    pub(crate) label: String,
    pub(crate) scale: Scale,
}

/// How the places on an axis are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scale {
    /// One step from each value to the next larger one.
    Steps,
    /// In proportion.
    Linear,
}

/// One number that was measured, again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measurement {
    /// What names it in its group, with `x` where there is one.
    pub(crate) name: String,
    /// Its place on the axis of its group.
    pub(crate) x: Option<f64>,
    /// The median of the samples.
    pub(crate) value: f64,
    /// What the median lies in with a confidence of 95 %, by a bootstrap of at least five samples.
    pub(crate) interval: Option<[f64; 2]>,
    /// How often it was measured, or requests that it comes from.
    pub(crate) count: u64,
    /// One for each time, or for each round of requests; of more than a thousand as many, evenly.
    pub(crate) samples: Vec<f64>,
    /// How all that was measured is spread, where that is enough to say so: the single requests,
    /// where the samples are rounds.
    pub(crate) percentiles: Option<Percentiles>,
}

/// How values are spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

impl Report {
    /// The JSON Schema of a report.
    pub(crate) fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}

impl Measurement {
    /// Whether its median is known worse than to about a seventh.
    pub(crate) fn is_unsteady(&self) -> bool {
        const TOLERANCE: f64 = 0.15;
        self.interval.is_some_and(|[low, high]| {
            self.value > 0.0 && (high - low) / 2.0 > TOLERANCE * self.value
        })
    }
}

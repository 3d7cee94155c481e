//! How precisely the gateway knows how long answers took.

use sampan_core::histogram::{Distribution, LogLinear};

/// Upper bounds of the buckets of [`RevisionStats::latency`](crate::RevisionStats::latency), in seconds: those that Prometheus'
/// client libraries have by default, and finer ones below them, where answers in one process are.
pub const LATENCY_BOUNDS: [f64; 15] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

/// The middle of a bucket is within 1/64, and the last one ends at 2³⁶ µs, which is 19 hours; what
/// is longer counts as that. It takes 8 KiB, however many answers there were.
pub(crate) type Histogram = LogLinear<5, 36>;

/// How long the answers of a service took: all up to one moment, or those between two.
pub type Latencies = Distribution<5, 36>;

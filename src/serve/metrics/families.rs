//! All metrics that there are. `docs/metrics.md` has the same table for people; a test compares them.

use super::exposition::{
    Family,
    Type::{Counter, Gauge, Histogram},
};

const NONE: &[&str] = &[];
const SERVICE: &[&str] = &["app", "service"];
const REVISION: &[&str] = &["app", "service", "revision"];

macro_rules! families {
    ($($name:ident = $text:literal, $kind:expr, $labels:expr, $help:literal;)*) => {
        $(pub(super) static $name: Family = Family {
            name: $text,
            kind: $kind,
            labels: $labels,
            help: $help,
        };)*

        /// All of them, in the order in which they are exported.
        #[cfg(test)]
        pub(super) const ALL: &[&Family] = &[$(&$name),*];
    };
}

families! {
    REQUESTS = "sampan_requests_total", Counter, &["app", "service", "revision", "code_class"],
        "Answers by the class of their status.";
    ERRORS = "sampan_request_errors_total", Counter, REVISION,
        "Answers of status 5xx, and answers that broke off after their head.";
    CANCELED = "sampan_requests_canceled_total", Counter, REVISION,
        "Requests whose client went away before the answer was complete.";
    DROPPED = "sampan_requests_dropped_total", Counter, REVISION,
        "Requests that were cut off when the server stopped.";
    DURATION = "sampan_request_duration_seconds", Histogram, REVISION,
        "Time from the arrival of a request to the last byte of its answer, but for those canceled \
         or dropped.";
    IN_FLIGHT = "sampan_requests_in_flight", Gauge, SERVICE,
        "Requests that are worked on or wait for a pod.";
    QUEUED = "sampan_requests_queued", Gauge, SERVICE,
        "Requests that wait for a pod.";
    RETRIES = "sampan_retries_total", Counter, SERVICE,
        "Second tries on another pod.";
    RETRIES_DENIED = "sampan_retries_denied_total", Counter, SERVICE,
        "Second tries that were not made because there were too many.";
    EJECTIONS = "sampan_ejections_total", Counter, SERVICE,
        "Times a pod that kept failing got no requests for a while.";
    UNROUTED = "sampan_unrouted_requests_total", Counter, NONE,
        "Requests that reached no service: malformed ones and those without a route.";
    REFUSED = "sampan_refused_connections_total", Counter, NONE,
        "Connections that were turned away because their client had too many.";
    PODS = "sampan_pods", Gauge, &["app", "service", "phase"],
        "Pods by where they are in their lives.";
    READY = "sampan_pods_ready", Gauge, SERVICE,
        "Pods that get requests.";
    RESTARTS = "sampan_restarts_total", Counter, SERVICE,
        "Times a pod was started again after its instance had ended.";
    KILLS = "sampan_kills_total", Counter, &["app", "service", "verdict"],
        "Instances that trapped or were ended, by verdict.";
    WANTED = "sampan_autoscaler_replicas", Gauge, SERVICE,
        "Pods that the autoscaler wants, of services that have one.";
    SILENT = "sampan_nodes_silent", Gauge, NONE,
        "Nodes that run and have not said for 3 s what they measured, at the node that leads: no pod is taken away of what may be there.";
    CPU = "sampan_guest_cpu_seconds_total", Counter, SERVICE,
        "CPU time of guests, with the host functions that they called.";
    THROTTLED = "sampan_guest_cpu_throttled_seconds_total", Counter, SERVICE,
        "Time in which `limits.cpu` held guests of a pod back, of all pods together.";
    REQUEST_CPU = "sampan_request_cpu_seconds", Histogram, SERVICE,
        "CPU time of guests for one request, of those whose own is known.";
    MEMORY = "sampan_guest_memory_bytes", Gauge, SERVICE,
        "Linear memory and tables that live instances hold.";
    MEMORY_PEAK = "sampan_guest_memory_peak_bytes", Gauge, SERVICE,
        "The most that the instances of one pod held at once.";
    INSTANCES = "sampan_instances_total", Counter, SERVICE,
        "Instances that were made.";
    LINES_DROPPED = "sampan_log_lines_dropped_total", Counter, SERVICE,
        "Lines that pods printed and that were dropped because there were too many.";
    LINES_LOST = "sampan_log_lines_lost_total", Counter, NONE,
        "Lines that pods printed and that could not be kept on disk.";
    INSTANTIATION = "sampan_instantiation_seconds", Histogram, NONE,
        "Time in which an instance was made.";
    COLD_START = "sampan_cold_start_seconds", Histogram, &["origin"],
        "Time in which a component was loaded, by where its code came from: cache or compiled.";
    ROLLOUTS = "sampan_rollouts_total", Counter, &["app", "service", "outcome"],
        "Rollouts that ended, by how.";
    ROLLOUT_DURATION = "sampan_rollout_duration_seconds", Histogram, SERVICE,
        "Time from a change of the wanted revision to the end of its rollout, however it ended.";
    BUILD = "sampan_build_info", Gauge, &["version"],
        "Always 1; its label says which Sampan this is.";
    START = "process_start_time_seconds", Gauge, NONE,
        "When the program was started, in seconds since the beginning of 1970.";
}

//! The text format of Prometheus, version 0.0.4.
//!
//! Written by hand: the client libraries keep the state of what they export, which here is counted
//! elsewhere already, and `prometheus-client` writes OpenMetrics, where a counter's family has
//! another name than its samples.

use std::{fmt, fmt::Write as _};

use sampan_core::histogram::Buckets;

/// What kind of metric a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Counter,
    Gauge,
    Histogram,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// A family of metrics.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Type,
    /// Of each of its samples, in this order.
    pub(super) labels: &'static [&'static str],
    /// In one line, without a backslash.
    pub(super) help: &'static str,
}

/// The text so far.
#[derive(Default)]
pub(super) struct Exposition(String);

/// Where samples of one family go.
pub(super) struct Samples<'a> {
    text: &'a mut String,
    family: &'static Family,
}

impl Exposition {
    /// Begins a family.
    pub(super) fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let text = &mut self.0;
        let Family {
            name, kind, help, ..
        } = family;
        // Writing to a string cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Samples { text, family }
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

impl Samples<'_> {
    /// Adds a sample with the values of the family's labels.
    pub(super) fn add(&mut self, labels: &[&dyn fmt::Display], value: impl fmt::Display) {
        self.line("", labels, None, value);
    }

    /// Adds the samples of a histogram.
    pub(super) fn histogram(&mut self, labels: &[&dyn fmt::Display], buckets: &Buckets) {
        for (bound, count) in &buckets.cumulative {
            self.line("_bucket", labels, Some(*bound), count);
        }
        self.line("_sum", labels, None, buckets.sum.as_secs_f64());
        let count = buckets.cumulative.last().map_or(0, |(_, count)| *count);
        self.line("_count", labels, None, count);
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[&dyn fmt::Display],
        bound: Option<f64>,
        value: impl fmt::Display,
    ) {
        debug_assert_eq!(labels.len(), self.family.labels.len());
        let text = &mut *self.text;
        text.push_str(self.family.name);
        text.push_str(suffix);
        let mut between = '{';
        for (name, value) in self.family.labels.iter().zip(labels) {
            text.push(between);
            between = ',';
            let _ = write!(text, "{name}=\"");
            escape(text, &value.to_string());
            text.push('"');
        }
        if let Some(bound) = bound {
            text.push(between);
            between = ',';
            let _ = match bound.is_finite() {
                true => write!(text, "le=\"{bound}\""),
                false => write!(text, "le=\"+Inf\""),
            };
        }
        if between == ',' {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

/// The value of a label may be anything; three characters have another spelling.
fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    static TOOK: Family = Family {
        name: "took_seconds",
        kind: Type::Histogram,
        labels: &["of"],
        help: "How long.",
    };
    static UP: Family = Family {
        name: "up",
        kind: Type::Gauge,
        labels: &[],
        help: "Whether.",
    };

    #[test]
    fn a_family_is_written_as_the_format_says() {
        let mut exposition = Exposition::default();
        let buckets = Buckets {
            cumulative: vec![(0.000_25, 1), (5.0, 2), (f64::INFINITY, 4)],
            sum: Duration::from_millis(1500),
        };
        exposition
            .family(&TOOK)
            .histogram(&[&"a\"b\\c\nd"], &buckets);
        exposition.family(&UP).add(&[], 1);
        let label = "of=\"a\\\"b\\\\c\\nd\"";
        let wanted = format!(
            "# HELP took_seconds How long.\n# TYPE took_seconds histogram\n\
             took_seconds_bucket{{{label},le=\"0.00025\"}} 1\n\
             took_seconds_bucket{{{label},le=\"5\"}} 2\n\
             took_seconds_bucket{{{label},le=\"+Inf\"}} 4\n\
             took_seconds_sum{{{label}}} 1.5\ntook_seconds_count{{{label}}} 4\n\
             # HELP up Whether.\n# TYPE up gauge\nup 1\n"
        );
        assert_eq!(exposition.finish(), wanted);
    }
}

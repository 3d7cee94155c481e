//! Limits that would fit, as a table and as lines for a spec.

use std::time::Duration;

use sampan_core::{
    quantity::format_duration,
    view::{Advice, Seen, Suggestion},
};

use super::grid::{Cell, Grid, Lines, Row};
use crate::cli::output::{count, one_line, size, time};

const HEADS: [&str; 5] = ["service", "limit", "current", "seen", "suggested"];

/// A limit: its key in the spec, what was seen of it, and what is suggested.
type Limit<'a> = (&'static str, Option<String>, &'a Suggestion);

fn limits(it: &Advice) -> [Limit<'_>; 3] {
    [
        ("memory", memory(&it.seen), &it.memory),
        ("cpu", cpu(&it.seen), &it.cpu),
        ("request_cpu", request_cpu(&it.seen), &it.request_cpu),
    ]
}

fn memory(seen: &Seen) -> Option<String> {
    match seen.memory_instance_bytes {
        0 => None,
        bytes => Some(format!("peak {}", size(bytes))),
    }
}

fn cpu(seen: &Seen) -> Option<String> {
    let millis = |cores: f64| format!("{:.0}m", cores * 1e3);
    let (p95, max) = (millis(seen.cpu_p95_cores), millis(seen.cpu_max_cores));
    (seen.samples > 0).then(|| format!("p95 {p95}, max {max}"))
}

fn request_cpu(seen: &Seen) -> Option<String> {
    let shown = |millis: f64| time(Duration::try_from_secs_f64(millis / 1e3).unwrap_or_default());
    let (p999, max) = (seen.request_cpu_p999_ms?, seen.request_cpu_max_ms?);
    Some(format!("p99.9 {}, max {}", shown(p999), shown(max)))
}

/// The table, and below it what can be put into the spec.
pub(super) fn text(advice: &[Advice], columns: usize) -> String {
    let mut lines = table(advice, columns);
    for it in advice {
        lines.push(String::new());
        lines.extend(toml(it).iter().map(|line| one_line(line)));
    }
    lines.join("\n") + "\n"
}

fn table(advice: &[Advice], columns: usize) -> Vec<String> {
    let several = advice.iter().any(|it| it.app != advice[0].app);
    let mut rows = Vec::new();
    for it in advice {
        let name = match several {
            true => format!("{}/{}", it.app, it.service),
            false => it.service.clone(),
        };
        let mut name = Some(name);
        for (key, seen, suggestion) in limits(it) {
            let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let cells = [
                name.take().unwrap_or_default(),
                key.to_owned(),
                or_none(&suggestion.current),
                or_none(&seen),
                or_none(&suggestion.suggested),
            ];
            rows.push(Row {
                cells: cells.iter().map(Cell::new).collect(),
                note: String::new(),
            });
        }
    }
    let grid = Grid {
        heads: HEADS.to_vec(),
        note: "",
        left: HEADS.len(),
        rows,
    };
    let Lines { head, rows } = grid.lines(columns, &mut Vec::new());
    head.into_iter().chain(rows.into_iter().flatten()).collect()
}

/// The limits of a service as in a spec, each with its reason.
fn toml(it: &Advice) -> Vec<String> {
    let Advice {
        app,
        service,
        revision,
        seen,
        ..
    } = it;
    let watched = Duration::from_secs(seen.watched_ms / 1000);
    let samples = usize::try_from(seen.samples).unwrap_or(usize::MAX);
    let mut lines = vec![format!(
        "# {app}/{service}, revision {revision}: watched for {}, {} of pods at work",
        format_duration(watched),
        count(samples, "second")
    )];
    let values = limits(it).map(|(key, _, suggestion)| {
        let value = suggestion.suggested.as_ref();
        value.map(|value| format!("{key:11} = \"{value}\""))
    });
    let widest = values.iter().flatten().map(String::len).max();
    if widest.is_some() {
        lines.push(format!("[service.{service}.limits]"));
    }
    for (value, (key, _, suggestion)) in values.into_iter().zip(limits(it)) {
        let why = one_line(&suggestion.why);
        let width = widest.unwrap_or_default();
        lines.push(match value {
            Some(value) => format!("{value:width$}  # {why}"),
            None => format!("# {key}: {why}"),
        });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggestion(current: Option<&str>, suggested: Option<&str>, why: &str) -> Suggestion {
        Suggestion {
            current: current.map(str::to_owned),
            suggested: suggested.map(str::to_owned),
            why: why.to_owned(),
        }
    }

    fn advice() -> Vec<Advice> {
        let web = Advice {
            app: "shop".to_owned(),
            service: "web".to_owned(),
            revision: 3,
            seen: Seen {
                watched_ms: 754_000,
                samples: 1432,
                cpu_p95_cores: 0.312,
                cpu_max_cores: 0.48,
                throttled: 0.0,
                memory_instance_bytes: 43_200_000,
                requests: 9000,
                request_cpu_p999_ms: Some(12.4),
                request_cpu_max_ms: Some(31.0),
            },
            memory: suggestion(
                Some("64MiB"),
                Some("48MiB"),
                "an instance held up to 41.2 MiB, plus 15%",
            ),
            cpu: suggestion(
                Some("500m"),
                Some("450m"),
                "a pod used 312m in 95 of 100 seconds, as 70% of it",
            ),
            request_cpu: suggestion(
                Some("1s"),
                Some("40ms"),
                "three times what 999 of 1000 requests used, 12.4 ms",
            ),
        };
        let missing = "not enough seen: 1 of 60 seconds with work";
        let api = Advice {
            service: "api".to_owned(),
            revision: 1,
            seen: Seen {
                watched_ms: 4000,
                samples: 1,
                cpu_p95_cores: 0.02,
                cpu_max_cores: 0.02,
                memory_instance_bytes: 1 << 20,
                ..Seen::default()
            },
            memory: suggestion(Some("128MiB"), None, missing),
            cpu: suggestion(None, None, missing),
            request_cpu: suggestion(
                Some("1s"),
                None,
                "the CPU of single requests was not measured",
            ),
            ..web.clone()
        };
        vec![api, web]
    }

    fn plain(advice: &[Advice], columns: usize) -> String {
        let text = text(advice, columns);
        let plain = anstream::adapter::strip_str(&text).to_string();
        let lines = plain.lines().map(str::trim_end);
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn advice_says_what_it_is_based_on() {
        insta::assert_snapshot!("advice_100", plain(&advice(), 100));
        insta::assert_snapshot!("advice_40", plain(&advice(), 40));
    }

    #[test]
    fn what_is_suggested_can_be_put_into_a_spec() {
        let toml = toml(&advice()[1]).join("\n");
        let parsed: toml::Table = toml.parse().expect("TOML");
        let limits = &parsed["service"]["web"]["limits"];
        assert_eq!(limits["memory"].as_str(), Some("48MiB"));
        assert_eq!(limits["request_cpu"].as_str(), Some("40ms"));
    }
}

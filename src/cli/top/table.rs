//! What services and pods are doing, as tables.

use std::{cmp::Ordering, collections::BTreeSet, time::Duration};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use sampan_core::view::{NodeTop, PodTop, ServiceTop, Top};

use super::{
    grid::{Cell, Grid, Row},
    screen::Section,
};
use crate::cli::{
    get::table::yes,
    output::{one_line, size, time},
};

/// For values that are worth a look. The cell says the same without it.
const NOTABLE: Style = AnsiColor::Yellow.on_default();
/// From this share of its limit on, CPU is notable.
const NEARLY_ALL: f64 = 0.9;
/// Fewer requests that wait are none.
const FEW_WAIT: f64 = 0.05;
/// What stands for a number that there is not.
const NONE: &str = "-";

/// A column behind that of the name.
type Column<T> = (&'static str, fn(&T) -> Cell);

const SERVICE: [Column<ServiceTop>; 9] = [
    ("ready", |it| {
        notable(it.ready < it.replicas, it.ready.to_string())
    }),
    ("replicas", |it| match it.wanted {
        Some(wanted) => Cell::new(format!("{}/{wanted}", it.replicas)),
        None => Cell::new(it.replicas.to_string()),
    }),
    ("cpu", |it| cpu(it.cpu_cores, it.cpu_of_limit)),
    ("throttled", |it| throttled(it.throttled)),
    ("memory", |it| Cell::new(bytes(it.memory_bytes))),
    ("rps", |it| Cell::new(number(it.rps))),
    ("in flight", |it| {
        notable(it.queued >= FEW_WAIT, number(it.in_flight))
    }),
    ("p50", |it| latency(it.p50_ms)),
    ("p99", |it| latency(it.p99_ms)),
];

const POD: [Column<PodTop>; 7] = [
    ("phase", |it| Cell::new(&it.phase)),
    ("ready", |it| notable(!it.ready, yes(it.ready))),
    ("cpu", |it| cpu(it.cpu_cores, it.cpu_of_limit)),
    ("throttled", |it| throttled(it.throttled)),
    ("memory", |it| {
        let limit = bytes(it.memory_limit_bytes);
        Cell::new(format!("{}/{limit}", bytes(it.memory_bytes)))
    }),
    ("rps", |it| Cell::new(number(it.rps))),
    ("in flight", |it| Cell::new(number(it.in_flight))),
];

/// Behind those of a pod, in a cluster.
const OF_POD: Column<PodTop> = ("node", |it| Cell::new(it.node.as_deref().unwrap_or(NONE)));

const NODE: [Column<NodeTop>; 6] = [
    ("pods", |it| known(it, it.pods.to_string())),
    ("ready", |it| known(it, it.ready.to_string())),
    ("cpu", |it| known(it, cores(it.cpu_cores))),
    ("memory", |it| known(it, bytes(it.memory_bytes))),
    ("rps", |it| known(it, number(it.rps))),
    ("in flight", |it| known(it, number(it.in_flight))),
];

/// A cell of a node, if that has answered.
fn known(it: &NodeTop, text: String) -> Cell {
    match it.unanswered {
        None => Cell::new(text),
        Some(_) => Cell::new(NONE),
    }
}

/// What is shown beside services.
#[derive(Clone, Copy)]
pub(super) struct Shown {
    pub(super) pods: bool,
    pub(super) nodes: bool,
    pub(super) sort: Sort,
}

/// By what rows are sorted: the most first, and names from `a` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    Cpu,
    Memory,
    Rps,
    Name,
}

/// How wide columns were the last time: none becomes narrower.
#[derive(Default)]
pub(super) struct Widths {
    services: Vec<usize>,
    pods: Vec<usize>,
    nodes: Vec<usize>,
}

/// The services, and what else is shown, in lines of at most so many columns. Nodes are shown, too,
/// when one of them has not answered.
pub(super) fn sections(
    top: &Top,
    Shown { pods, nodes, sort }: Shown,
    columns: usize,
    widths: &mut Widths,
) -> Vec<Section> {
    let apps: BTreeSet<_> = top.services.iter().map(|it| &it.app).collect();
    let name = |app: &str, name: &str| match apps.len() {
        0 | 1 => name.to_owned(),
        _ => format!("{app}/{name}"),
    };
    let mut services: Vec<_> = top.services.iter().collect();
    services.sort_by_key(|it| (&it.app, &it.service));
    services.sort_by(|a, b| {
        let used = |it: &ServiceTop| (it.cpu_cores, it.memory_bytes, it.rps);
        most_first(sort, used(a), used(b))
    });
    let rows = services.iter();
    let rows = rows.map(|it| row(name(&it.app, &it.service), &SERVICE, *it, why(it)));
    let services = Grid {
        heads: heads("service", &SERVICE),
        note: "why",
        left: 1,
        rows: rows.collect(),
    };
    let mut sections = vec![Section {
        thing: "service",
        lines: services.lines(columns, &mut widths.services),
    }];
    let is_silent = top.nodes.iter().any(|it| it.unanswered.is_some());
    if is_silent || (nodes && !top.nodes.is_empty()) {
        let lines = of_nodes(top, sort).lines(columns, &mut widths.nodes);
        let thing = "node";
        sections.push(Section { thing, lines });
    }
    if pods && !top.pods.is_empty() {
        let mut pods: Vec<_> = top.pods.iter().collect();
        pods.sort_by(|a, b| {
            let used = |it: &PodTop| (it.cpu_cores, it.memory_bytes, it.rps);
            most_first(sort, used(a), used(b))
        });
        let rows = pods.iter();
        let node = top
            .pods
            .iter()
            .any(|it| it.node.is_some())
            .then_some(OF_POD);
        let columns_of: Vec<_> = POD.into_iter().chain(node).collect();
        let rows = rows.map(|it| row(name(&it.app, &it.pod), &columns_of, *it, String::new()));
        let pods = Grid {
            heads: heads("pod", &columns_of),
            note: "",
            left: 2,
            rows: rows.collect(),
        };
        sections.push(Section {
            thing: "pod",
            lines: pods.lines(columns, &mut widths.pods),
        });
    }
    sections
}

/// The nodes: what their pods use, and what comes in at them.
fn of_nodes(top: &Top, sort: Sort) -> Grid {
    let mut nodes: Vec<_> = top.nodes.iter().collect();
    nodes.sort_by(|a, b| {
        let used = |it: &NodeTop| (it.cpu_cores, it.memory_bytes, it.rps);
        most_first(sort, used(a), used(b))
    });
    let why = |it: &NodeTop| one_line(it.unanswered.as_deref().unwrap_or_default());
    let rows = nodes.iter();
    let rows = rows.map(|it| row(it.node.clone(), &NODE, *it, why(it)));
    Grid {
        heads: heads("node", &NODE),
        note: "not answered",
        left: 1,
        rows: rows.collect(),
    }
}

/// The names of the columns, the first of which is that of the name.
fn heads<T>(name: &'static str, columns: &[Column<T>]) -> Vec<&'static str> {
    let others = columns.iter().map(|(head, _)| *head);
    [name].into_iter().chain(others).collect()
}

fn row<T>(name: String, columns: &[Column<T>], it: &T, note: String) -> Row {
    let others = columns.iter().map(|(_, cell)| cell(it));
    Row {
        cells: [Cell::new(name)].into_iter().chain(others).collect(),
        note,
    }
}

/// Why a service has so many pods.
fn why(it: &ServiceTop) -> String {
    let waits = it.queued >= FEW_WAIT;
    let queued = waits.then(|| format!("{} in the queue", number(it.queued)));
    let why: Vec<_> = queued.into_iter().chain(it.why.clone()).collect();
    one_line(&why.join("; "))
}

fn latency(millis: Option<f64>) -> Cell {
    Cell::new(match millis {
        Some(millis) => brief(&time(Duration::from_secs_f64(millis.max(0.0) / 1e3))),
        None => NONE.to_owned(),
    })
}

fn notable(is: bool, text: String) -> Cell {
    match is {
        true => Cell::styled(text, NOTABLE),
        false => Cell::new(text),
    }
}

/// `312m  62%`: thousandths of a core, and the share of the limit if there is one.
fn cpu(used: Option<f64>, of_limit: Option<f64>) -> Cell {
    let cores = cores(used);
    let share = of_limit.map(percent).unwrap_or_default();
    let is_notable = of_limit.is_some_and(|it| it >= NEARLY_ALL);
    notable(is_notable, format!("{cores} {share:>4}"))
}

/// Thousandths of a core.
fn cores(used: Option<f64>) -> String {
    used.map_or(NONE.to_owned(), |it| format!("{:.0}m", it * 1e3))
}

fn throttled(share: f64) -> Cell {
    // Less than a half of a percent is none.
    notable(share >= 0.005, percent(share))
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// With as many digits as say something.
fn number(number: f64) -> String {
    match number < 99.95 {
        true => format!("{number:.1}"),
        false => format!("{number:.0}"),
    }
}

fn bytes(bytes: u64) -> String {
    brief(&size(bytes)).replace(".0", "")
}

/// A number and its unit without the space.
fn brief(text: &str) -> String {
    text.replace(' ', "")
}

/// CPU in cores, memory in bytes, requests per second.
type Used = (Option<f64>, u64, f64);

/// Which of two rows stands first. Those of the same rank keep their order: that of names, and with
/// pods that of their numbers.
fn most_first(sort: Sort, a: Used, b: Used) -> Ordering {
    match sort {
        Sort::Cpu => b.0.unwrap_or(0.0).total_cmp(&a.0.unwrap_or(0.0)),
        Sort::Memory => b.1.cmp(&a.1),
        Sort::Rps => b.2.total_cmp(&a.2),
        Sort::Name => Ordering::Equal,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::screen::fit, *};

    /// Three services of an app, of which one scales, one sleeps, and one has no limits.
    pub(in super::super) fn shop() -> Top {
        Top {
            number: 7,
            period_ms: 1000,
            services: services(),
            pods: pods(),
            nodes: Vec::new(),
        }
    }

    fn services() -> Vec<ServiceTop> {
        let service = |name: &str| ServiceTop {
            app: "shop".to_owned(),
            service: name.to_owned(),
            ..ServiceTop::default()
        };
        let why = "cpu 93% of 70%; at most as many again or 4 more in 15s";
        vec![
            ServiceTop {
                pods: 3,
                ready: 3,
                replicas: 3,
                cpu_cores: Some(0.004_2),
                memory_bytes: 3_300_000,
                rps: 12.0,
                in_flight: 0.02,
                p50_ms: Some(0.412),
                p99_ms: Some(1.23),
                ..service("api")
            },
            ServiceTop {
                wanted: Some(0),
                why: Some("no requests".to_owned()),
                ..service("reports")
            },
            ServiceTop {
                pods: 3,
                ready: 2,
                replicas: 3,
                wanted: Some(5),
                why: Some(why.to_owned()),
                cpu_cores: Some(0.931),
                cpu_of_limit: Some(0.931),
                throttled: 0.12,
                memory_bytes: 36 << 20,
                rps: 1234.5,
                in_flight: 61.3,
                queued: 14.2,
                p50_ms: Some(12.3),
                p99_ms: Some(456.0),
                ..service("web")
            },
        ]
    }

    fn pods() -> Vec<PodTop> {
        let pod = |name: &str, slot: u32| PodTop {
            app: "shop".to_owned(),
            service: name.to_owned(),
            pod: format!("{name}-1-{slot}"),
            node: None,
            phase: "Running".to_owned(),
            ready: true,
            cpu_cores: Some(0.312),
            cpu_of_limit: Some(0.624),
            throttled: 0.12,
            memory_bytes: 12 << 20,
            memory_limit_bytes: 64 << 20,
            rps: 41.3,
            in_flight: 2.04,
        };
        vec![
            PodTop {
                cpu_of_limit: None,
                cpu_cores: Some(0.001_4),
                throttled: 0.0,
                memory_bytes: 1_100_000,
                rps: 4.0,
                ..pod("api", 0)
            },
            pod("web", 0),
            PodTop {
                cpu_cores: Some(0.497),
                cpu_of_limit: Some(0.994),
                ..pod("web", 1)
            },
            PodTop {
                phase: "CrashLoopBackOff".to_owned(),
                ready: false,
                memory_limit_bytes: 64 << 20,
                pod: "web-1-2".to_owned(),
                app: "shop".to_owned(),
                service: "web".to_owned(),
                ..PodTop::default()
            },
        ]
    }

    fn shown(pods: bool, sort: Sort) -> Shown {
        Shown {
            pods,
            nodes: false,
            sort,
        }
    }

    fn text(top: &Top, pods: bool, sort: Sort, columns: usize) -> String {
        let sections = sections(top, shown(pods, sort), columns, &mut Widths::default());
        let lines = fit(sections, usize::MAX).join("\n");
        let plain = anstream::adapter::strip_str(&lines).to_string();
        let lines = plain.lines().map(str::trim_end);
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn tables_fit_every_width() {
        for columns in [40, 60, 80, 100, 132, 1000] {
            let name = format!("top_{columns}");
            insta::assert_snapshot!(name, text(&shop(), true, Sort::Name, columns));
        }
    }

    #[test]
    fn nodes_of_a_cluster_are_shown() {
        let mut all = shop().on("a");
        let calm = Top {
            services: services(),
            pods: Vec::new(),
            ..Top::default()
        };
        all.add(calm.on("b"));
        let of = |top: &Top, pods, nodes| {
            let shown = Shown {
                pods,
                nodes,
                sort: Sort::Name,
            };
            let sections = sections(top, shown, 132, &mut Widths::default());
            let lines = fit(sections, usize::MAX).join("\n");
            let plain = anstream::adapter::strip_str(&lines).to_string();
            let lines = plain.lines().map(str::trim_end);
            lines.collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!("top_nodes", of(&all, true, true));
        assert!(!of(&all, false, false).contains("node"));
        // One that has not answered is shown, whether nodes are asked for or not.
        all.without("c", "no answer in 1 s");
        insta::assert_snapshot!("top_silent", of(&all, false, false));
    }

    #[test]
    fn several_apps_are_told_apart() {
        let mut top = shop();
        top.services.truncate(1);
        let mut other = top.services[0].clone();
        other.app = "blog".to_owned();
        top.services.push(other);
        let text = text(&top, false, Sort::Name, 100);
        insta::assert_snapshot!("top_apps", text);
    }

    #[test]
    fn the_most_comes_first() {
        let order = |sort| {
            let text = text(&shop(), true, sort, 1000);
            let firsts = text.lines().filter_map(|line| line.split(' ').next());
            let names = firsts.filter(|it| !["", "service", "pod"].contains(it));
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            order(Sort::Name),
            "api reports web api-1-0 web-1-0 web-1-1 web-1-2"
        );
        assert_eq!(
            order(Sort::Cpu),
            "web api reports web-1-1 web-1-0 api-1-0 web-1-2"
        );
        assert_eq!(
            order(Sort::Memory),
            "web api reports web-1-0 web-1-1 api-1-0 web-1-2"
        );
        assert_eq!(
            order(Sort::Rps),
            "web api reports web-1-0 web-1-1 api-1-0 web-1-2"
        );
    }

    #[test]
    fn colour_is_never_the_only_sign() {
        let mut widths = Widths::default();
        let sections = sections(&shop(), shown(true, Sort::Name), 1000, &mut widths);
        let coloured = fit(sections, usize::MAX).join("\n");
        let yellow = NOTABLE.render().to_string();
        // Of the service: too few ready, CPU, throttled, the queue; of pods: CPU, throttled, ready.
        assert_eq!(coloured.matches(&yellow).count(), 4 + 1 + 2 + 1);
        let plain = anstream::adapter::strip_str(&coloured).to_string();
        for sign in [
            "2       3/5",
            "93%",
            "12%",
            "14.2 in the queue",
            "99%",
            "no",
        ] {
            assert!(plain.contains(sign), "no {sign} in\n{plain}");
        }
    }
}

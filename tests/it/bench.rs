//! `sampan bench`, with the smallest counts: what its reports hold, and that nothing stays behind.

mod ends;
mod page;
mod schema;

use std::{fs, process::Output, time::Instant};

use serde_json::Value;

use crate::rig::{PATIENCE, done, err, guest, out, sampan};

/// The program with directories of its own, which are looked at when it has ended.
struct Bench {
    directory: tempfile::TempDir,
}

/// Directories that are empty when a measurement has ended.
const PLACES: [&str; 6] = ["tmp", "cache", "state", "runtime", "home", "here"];

impl Bench {
    fn new() -> Self {
        let directory = crate::rig::directory(&[]);
        for name in PLACES {
            fs::create_dir(directory.path().join(name)).expect("a directory");
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = sampan(&[&["bench"], arguments].concat());
        for (variable, name) in [
            ("TMPDIR", "tmp"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_RUNTIME_DIR", "runtime"),
            ("HOME", "home"),
        ] {
            command.env(variable, self.path(name));
        }
        command.current_dir(self.path("here"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().expect("it starts");
        self.leaves_nothing();
        output
    }

    /// A report that fits the schema.
    fn report(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        let report = serde_json::from_str(&out(&output)).expect("JSON");
        schema::check(&report);
        assert_eq!(report["end"], "complete");
        report
    }

    /// No file, no socket and no process is left of it.
    fn leaves_nothing(&self) {
        for name in PLACES {
            let files: Vec<_> = fs::read_dir(self.path(name))
                .expect("it is there")
                .map(|entry| entry.expect("readable").path())
                .collect();
            assert!(files.is_empty(), "left behind: {files:?}");
        }
        let here = self.path("tmp");
        let deadline = Instant::now() + PATIENCE;
        while let Some(process) = process_with(&here) {
            assert!(Instant::now() < deadline, "{process} is left behind");
        }
    }
}

/// A process that has this text in its environment.
fn process_with(text: &str) -> Option<String> {
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let found = processes.map(|it| it.path()).find(|path| {
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|it| it.ends_with(text.as_bytes()))
    });
    found.map(|it| it.display().to_string())
}

/// The section of a report, and in it the measurements of a group.
fn section<'a>(report: &'a Value, bench: &str) -> &'a Value {
    let sections = report["sections"].as_array().expect("sections");
    let found = sections.iter().find(|it| it["bench"] == bench);
    found.unwrap_or_else(|| panic!("no {bench} in {report:#}"))
}

fn group<'a>(section: &'a Value, id: &str) -> &'a [Value] {
    let groups = section["groups"].as_array().expect("groups");
    let found = groups.iter().find(|it| it["id"] == id);
    let found = found.unwrap_or_else(|| panic!("no {id} in {section:#}"));
    found["measurements"].as_array().expect("measurements")
}

/// The measurement with this name, at this place if there is an axis.
fn named<'a>(group: &'a [Value], name: &str, x: Option<f64>) -> &'a Value {
    let mut all = group.iter();
    let found = all.find(|it| it["name"] == name && it["x"].as_f64() == x);
    found.unwrap_or_else(|| panic!("no {name} at {x:?} in {group:#?}"))
}

fn value(measurement: &Value) -> f64 {
    measurement["value"].as_f64().expect("a number")
}

const COLD: [&str; 10] = [
    "cold-start",
    "--runs",
    "20",
    "--compile-runs",
    "2",
    "--at-once",
    "1,3",
    "--rounds",
    "1",
    "--isolation",
];

#[test]
fn a_cold_start_has_its_steps() {
    let bench = Bench::new();
    let p3 = guest("hello-p3");
    for (component, isolation) in [
        (None, "request"),
        (None, "pod"),
        (Some(p3.as_str()), "pod"),
        (Some(p3.as_str()), "request"),
    ] {
        let mut arguments = [&COLD[..], &[isolation]].concat();
        arguments.extend(component);
        let report = bench.report(&arguments);
        let section = section(&report, "cold-start");
        let note = format!("isolation = \"{isolation}\"");
        assert_eq!(section["notes"], serde_json::json!([note]));
        let steps = group(section, "steps");
        let names: Vec<_> = steps.iter().map(|it| &it["name"]).collect();
        assert_eq!(
            names,
            ["fetch", "compile", "load", "instantiate", "first_byte"]
        );
        for step in steps {
            let wanted = if step["name"] == "compile" { 2 } else { 20 };
            assert_eq!(step["count"], wanted, "{step}");
            assert!(value(step) > 0.0, "{step}");
            let parts = ["p50", "p90", "p99", "p99_9", "max"];
            let spread = &step["percentiles"];
            if wanted == 20 {
                let times = parts.map(|part| spread[part].as_f64().expect("a number"));
                assert!(times[0] > 0.0 && times.is_sorted(), "{step}");
            }
        }
        assert!(
            value(&steps[1]) > value(&steps[2]),
            "code is compiled only where that is measured"
        );
        let at_once = group(section, "at_once");
        for x in [1.0, 3.0] {
            let [cold, warm] = ["cold", "warm"].map(|it| named(at_once, it, Some(x)));
            // Four in a round of few at once, and five warm ones for each.
            assert_eq!((&cold["count"], &warm["count"]), (&4.into(), &20.into()));
            assert!(value(cold) > value(warm), "{cold} {warm}");
        }
    }
}

#[test]
fn no_request_fails_in_a_rollout() {
    let bench = Bench::new();
    let (hello, p3) = (guest("hello"), guest("hello-p3"));
    let counts = ["--replicas", "1,2", "--rollouts", "3", "--connections", "4"];
    for components in [&[][..], &[hello.as_str(), p3.as_str()]] {
        let more = ["--steady", "100ms", "--rate", "100"];
        let report = bench.report(&[&["rollout"], components, &counts, &more].concat());
        let section = section(&report, "rollout");
        assert_eq!(section["notes"], serde_json::json!([]), "no request failed");
        for x in [Some(1.0), Some(2.0)] {
            assert_eq!(named(group(section, "time"), "rollout", x)["count"], 3);
            assert_eq!(named(group(section, "memory"), "rollout", x)["count"], 3);
            let requests = group(section, "requests");
            assert_eq!(value(named(requests, "failed", x)), 0.0);
            let sent = value(named(requests, "sent", x));
            let phases = ["before", "during", "after"];
            let answers = phases.map(|it| {
                let mut all = group(section, "p99").iter();
                let found = all.find(|one| one["name"] == it && one["x"].as_f64() == x);
                found.map_or(0, |it| it["count"].as_u64().expect("a count"))
            });
            // Those of the warm-up are none of them.
            assert!(answers.iter().sum::<u64>() as f64 <= sent, "{answers:?}");
            assert!(answers[0] > 0 && answers[2] > 0, "{answers:?}");
        }
    }
}

/// With as little as possible of each: whether it works, leaves nothing and fits the schema.
#[test]
fn everything_is_in_one_report() {
    let bench = Bench::new();
    let begun = Instant::now();
    let page = bench.path("all.html");
    let report = bench.report(&["all", "--smoke", "--report", &page]);
    assert!(begun.elapsed() < std::time::Duration::from_secs(300));
    let sections = report["sections"].as_array().expect("sections");
    let names: Vec<_> = sections.iter().map(|it| &it["bench"]).collect();
    assert_eq!(
        names,
        [
            "cold-start",
            "rollout",
            "throughput",
            "detect",
            "scale",
            "density"
        ]
    );
    let in_group = |bench, id| group(section(&report, bench), id);
    for (bench, id, names) in MEASURED {
        let told: Vec<_> = in_group(bench, id).iter().map(|it| &it["name"]).collect();
        assert_eq!(told, names, "{bench} {id}");
    }
    for verdict in in_group("detect", "false") {
        assert_eq!(value(verdict), 0.0, "{verdict}");
    }
    let spin = named(
        in_group("detect", "verdict"),
        "spin, 100 ms of CPU allowed",
        None,
    );
    assert!(value(spin) >= 100.0, "{spin}");
    assert_eq!(
        value(named(in_group("density", "pods"), "pods", None)),
        10.0
    );
    for section in sections {
        let text = section["notes"].to_string();
        assert!(!text.to_lowercase().contains("failed"), "{text}");
    }
}

/// Sections, groups in them, and the names of their measurements.
const MEASURED: [(&str, &str, &[&str]); 15] = [
    ("throughput", "rate", &SUBJECTS),
    ("throughput", "cpu", &SUBJECTS),
    ("throughput", "p99", &SUBJECTS),
    (
        "throughput",
        "call_p50",
        &[
            "hello itself",
            "service → hello, in memory",
            "service → bare hyper, loopback",
        ],
    ),
    (
        "detect",
        "verdict",
        &[
            "trap",
            "spin, 100 ms of CPU allowed",
            "deadlock of one",
            "deadlock of two",
            "deadlock of three",
            "failed liveness, a probe each 100 ms",
        ],
    ),
    ("detect", "false", &["deadlock", "ended", "probe failed"]),
    ("scale", "time", &["up", "down"]),
    ("scale", "off", &["overshoot", "undershoot"]),
    ("scale", "zero", &["first answer"]),
    ("density", "memory", &["idle", "lightly loaded"]),
    ("density", "maps", &["idle", "lightly loaded"]),
    ("density", "descriptors", &["idle", "lightly loaded"]),
    ("density", "held_memory", &["idle", "lightly loaded"]),
    ("density", "held_maps", &["idle", "lightly loaded"]),
    (
        "density",
        "limits",
        &[
            "pods asked for",
            "places in the pool",
            "memory maps",
            "file descriptors",
            "memory",
        ],
    ),
];

const SUBJECTS: [&str; 5] = [
    "bare hyper",
    "WASI 0.2, request",
    "WASI 0.2, pod",
    "WASI 0.3, request",
    "WASI 0.3, pod",
];

#[test]
fn a_component_of_a_user_is_measured_instead() {
    let bench = Bench::new();
    let p3 = guest("hello-p3");
    let short = ["--connections", "2", "--rounds", "1", "--round", "50ms"];
    let report = bench.report(&[&["throughput", &p3, "--rate", "100"], &short[..]].concat());
    let section = section(&report, "throughput");
    assert_eq!(section["components"][0]["name"], p3);
    let names = group(section, "rate").iter().map(|it| &it["name"]);
    let names: Vec<_> = names.collect();
    assert_eq!(names, ["bare hyper", "request", "pod"]);
}

#[test]
fn a_time_limit_ends_a_measurement_with_what_it_has() {
    let bench = Bench::new();
    let begun = Instant::now();
    let limited = ["cold-start", "--rounds", "1000", "--time-limit", "1s"];
    let output = bench.run(&limited);
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(
        out(&output).starts_with("ended by its time limit"),
        "{}",
        out(&output)
    );
}

#[test]
fn a_report_is_compared_with_an_earlier_one() {
    let bench = Bench::new();
    let earlier = bench.path("earlier.json");
    let arguments = [&COLD[..], &["request"]].concat();
    let mut report = bench.report(&arguments);
    // As if every step had been a hundred times as quick.
    let steps = &mut report["sections"][0]["groups"][0]["measurements"];
    for step in steps.as_array_mut().expect("steps") {
        for sample in step["samples"].as_array_mut().expect("samples") {
            *sample = (sample.as_f64().expect("a number") / 100.0).into();
        }
    }
    fs::write(&earlier, report.to_string()).expect("a file");
    let output = bench.run(&[&arguments[..], &["--compare", &earlier]].concat());
    let text = out(&output);
    let line = text.lines().find(|it| it.contains("each step on its own"));
    let line = line.unwrap_or_else(|| panic!("{text}\n{}", err(&output)));
    assert!(line.contains(" × "), "{line}");
    let first = text.lines().find(|it| it.contains("fetch")).expect("a row");
    assert!(first.contains("–"), "an interval: {first}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let bench = Bench::new();
    let hello = guest("hello");
    let same = bench.run(&["rollout", &hello, &hello]);
    assert_eq!(same.status.code(), Some(1));
    assert!(err(&same).contains("nothing to roll out"), "{}", err(&same));
    let command = bench.run(&["cold-start", &guest("command")]);
    assert_eq!(command.status.code(), Some(1));
    assert!(
        err(&command).contains("cannot be started"),
        "{}",
        err(&command)
    );
    let file = bench.path("other.json");
    for (text, wanted) in [
        ("{\"schema\": 99}", "version 99 of the schema"),
        ("{}", "no report of `sampan bench"),
        ("[", "cannot compare with"),
    ] {
        fs::write(&file, text).expect("a file");
        let other = bench.run(&["cold-start", "--compare", &file]);
        assert_eq!(other.status.code(), Some(1));
        assert!(err(&other).contains(wanted), "{}", err(&other));
    }
    let nowhere = bench.run(&["cold-start", "--report", "/nowhere/page.html"]);
    assert!(err(&nowhere).contains("cannot write"), "{}", err(&nowhere));
}

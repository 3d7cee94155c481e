//! The planner of pods: every pair of state and event, Kubernetes' probes, and its laws.

use std::{fmt::Write as _, fs, path::Path};

use proptest::prelude::*;

use super::*;
use crate::{
    object::{Check, RestartPolicy, ServiceKind},
    plan::restart::{self, SAMPLE_PERIOD},
};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(ms: u64) -> Timestamp {
    Timestamp::after(millis(ms))
}

/// A probe every second.
fn probe(failures: u32, successes: u32) -> Option<Arc<Probe>> {
    Some(Arc::new(Probe {
        check: Check::Export,
        period: millis(1_000),
        timeout: millis(1_000),
        failures,
        successes,
        delay: millis(0),
    }))
}

/// A pod without probes, restarted always.
fn plain() -> PodSpec {
    PodSpec {
        kind: ServiceKind::Http,
        startup: None,
        readiness: None,
        liveness: None,
        restart: Restart {
            policy: RestartPolicy::Always,
            initial: millis(200),
            max: millis(1_000),
            reset_after: millis(60_000),
        },
        isolation: Isolation::Request,
        drain: millis(30_000),
        cpu: None,
        memory: ByteSize(64 << 20),
    }
}

/// A pod with all probes, each of which takes one answer.
fn probed() -> PodSpec {
    PodSpec {
        kind: ServiceKind::Http,
        startup: probe(1, 1),
        readiness: probe(1, 1),
        liveness: probe(1, 1),
        ..plain()
    }
}

fn failed() -> End {
    End::Failed("trapped".to_owned())
}

fn bad() -> Outcome {
    Outcome::Failure("status 500".to_owned())
}

/// A pod that has seen `events`, each a millisecond after the one before.
struct Run {
    spec: PodSpec,
    state: PodState,
    now: Timestamp,
    wake_at: Option<Timestamp>,
    actions: Vec<Action>,
}

impl Run {
    fn of(spec: PodSpec, events: impl IntoIterator<Item = Event>) -> Self {
        let mut run = Self {
            spec,
            state: PodState::Pending,
            now: Timestamp::ZERO,
            wake_at: None,
            actions: Vec::new(),
        };
        for event in events {
            run.after(1, event);
        }
        run
    }

    /// An event so many milliseconds later. Returns its actions as text.
    fn after(&mut self, ms: u64, event: Event) -> String {
        self.now = self.now + millis(ms);
        let step = step(self.state.clone(), event, &self.spec, self.now);
        (self.state, self.wake_at) = (step.state, step.wake_at);
        self.actions = step.actions;
        self.shown()
    }

    /// Lets time pass until something is due.
    fn wake(&mut self) -> String {
        let wake_at = self.wake_at.expect("something will be due");
        let wait = (wake_at - self.now).as_millis();
        self.after(u64::try_from(wait).expect("a short time"), Event::Tick)
    }

    /// The probe of this kind is tried when it is next due.
    fn probe(&mut self, kind: ProbeKind, outcome: Outcome) -> String {
        while !asked(&self.state).contains(&kind) {
            self.wake();
        }
        self.after(0, Event::ProbeDone(kind, outcome))
    }

    fn shown(&self) -> String {
        let shown: Vec<_> = self.actions.iter().map(show_action).collect();
        shown.join(", ")
    }
}

/// The probes under way.
fn asked(state: &PodState) -> Vec<ProbeKind> {
    let watches = match state {
        PodState::Starting {
            phase: Phase::ComingUp { startup, .. },
            ..
        } => vec![startup],
        PodState::Running(running) => running.probes().collect(),
        _ => Vec::new(),
    };
    let watches = watches.into_iter().filter(|watch| watch.due().is_none());
    watches.map(Watch::kind).collect()
}

fn show_action(action: &Action) -> String {
    match action {
        Action::StartInstance => "start".to_owned(),
        Action::SetReady(ready) => format!("ready={ready}"),
        Action::RunProbe { kind, .. } => format!("ask {kind:?}").to_lowercase(),
        Action::Sample => "sample".to_owned(),
        Action::Leave => "leave".to_owned(),
        Action::Drain => "drain".to_owned(),
        Action::Report(_) => "report".to_owned(),
        Action::DropInstance => "drop".to_owned(),
        Action::Announce(notice) => notice.reason.to_string(),
    }
}

fn show_state(state: &PodState) -> &'static str {
    match state {
        PodState::Pending => "Pending",
        PodState::Starting {
            phase: Phase::Making,
            ..
        } => "Starting (making)",
        PodState::Starting {
            phase: Phase::ComingUp { .. },
            ..
        } => "Starting (coming up)",
        PodState::Running(running) if running.ready => "Running (ready)",
        PodState::Running(_) => "Running (unready)",
        PodState::BackOff { .. } => "BackOff",
        PodState::Draining { .. } => "Draining",
        PodState::Stopped { .. } => "Stopped",
    }
}

fn success(kind: ProbeKind) -> Event {
    Event::ProbeDone(kind, Outcome::Success)
}

/// Every state, as a pod that is in it.
fn states(spec: &PodSpec) -> Vec<Run> {
    let up = [Event::Begin, Event::Started, success(ProbeKind::Startup)];
    let ready = [&up[..], &[success(ProbeKind::Readiness)]].concat();
    let stop = Event::Stop {
        in_flight: 1,
        drain: None,
    };
    let ways = [
        vec![],
        up[..1].to_vec(),
        up[..2].to_vec(),
        up.to_vec(),
        ready.clone(),
        [&up[..1], &[Event::StartFailed("no".to_owned())]].concat(),
        [&ready[..], std::slice::from_ref(&stop)].concat(),
        vec![stop],
    ];
    let mut states = ways.map(|way| Run::of(spec.clone(), way));
    // By the next period every probe has been asked again.
    states[4].wake();
    states.into()
}

fn events() -> Vec<(&'static str, Event)> {
    use ProbeKind::{Liveness, Readiness, Startup};
    let traps = |trapped| {
        Event::Sampled(Sample {
            requests: 20,
            trapped,
        })
    };
    vec![
        ("Begin", Event::Begin),
        ("Started", Event::Started),
        ("StartFailed", Event::StartFailed("no".to_owned())),
        ("Terminated well", Event::Terminated(End::Well)),
        ("Terminated badly", Event::Terminated(failed())),
        ("startup succeeds", success(Startup)),
        ("startup fails", Event::ProbeDone(Startup, bad())),
        (
            "startup starves",
            Event::ProbeDone(Startup, Outcome::Starved),
        ),
        ("readiness succeeds", success(Readiness)),
        ("readiness fails", Event::ProbeDone(Readiness, bad())),
        (
            "readiness starves",
            Event::ProbeDone(Readiness, Outcome::Starved),
        ),
        ("liveness succeeds", success(Liveness)),
        ("liveness fails", Event::ProbeDone(Liveness, bad())),
        (
            "liveness starves",
            Event::ProbeDone(Liveness, Outcome::Starved),
        ),
        ("few traps", traps(10)),
        ("many traps", traps(11)),
        ("Tick", Event::Tick),
        ("Tick, much later", Event::Tick),
        (
            "Stop",
            Event::Stop {
                in_flight: 1,
                drain: None,
            },
        ),
        ("Drained", Event::Drained),
    ]
}

/// What comes of every event in every state, a line each; what changes nothing is left out.
fn table(spec: &PodSpec) -> String {
    let mut table = String::new();
    for from in states(spec) {
        let mut ignored = Vec::new();
        for (name, event) in events() {
            let wait = match name {
                "Tick, much later" => 600_000,
                _ => 1,
            };
            let mut run = Run::of(spec.clone(), []);
            (run.state, run.now) = (from.state.clone(), from.now);
            let actions = run.after(wait, event);
            if run.state == from.state && actions.is_empty() {
                ignored.push(name);
                continue;
            }
            let (from, to) = (show_state(&from.state), show_state(&run.state));
            let line = format!("{from:20} | {name:18} | {to:20} | {actions}");
            writeln!(table, "{}", line.trim_end()).expect("a string takes any text");
        }
        let (from, ignored) = (show_state(&from.state), ignored.join(", "));
        writeln!(table, "{from:20} | changes nothing: {ignored}\n")
            .expect("a string takes any text");
    }
    table
}

#[test]
fn every_event_in_every_state_is_as_in_the_table() {
    let table = format!(
        "A pod with all probes, one answer of each being enough, and the restart policy `always`.\n\
         \n\
         state | event | next state | actions\n\n{}",
        table(&probed())
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/pod/transitions.txt");
    let table = table.trim_end().to_owned() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &table).expect("it can be written");
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == table,
        "the planner does not do what transitions.txt says: run with UPDATE=1 and look at the \
         difference\n{table}"
    );
}

#[test]
fn a_pod_without_probes_is_ready_once_it_has_started() {
    let mut pod = Run::of(plain(), [Event::Begin]);
    assert_eq!(pod.after(2, Event::Started), "ready=true, Ready");
    assert_eq!(pod.wake_at, None);
    let Some(Action::Announce(notice)) = pod.actions.last() else {
        panic!("{:?}", pod.actions)
    };
    assert_eq!(notice.text, "ready after 2.00 ms");
}

#[test]
fn startup_holds_the_other_probes_back_and_has_a_budget() {
    let spec = PodSpec {
        startup: probe(30, 1),
        ..probed()
    };
    let mut pod = Run::of(spec, [Event::Begin]);
    assert_eq!(pod.after(1, Event::Started), "Started, ask startup");
    for row in 1..30 {
        let said = pod.probe(ProbeKind::Startup, bad());
        assert_eq!(said, if row == 1 { "Unhealthy" } else { "" }, "{row}");
        assert_eq!(asked(&pod.state), []);
    }
    let mut late = Run::of(pod.spec.clone(), []);
    (late.state, late.now, late.wake_at) = (pod.state.clone(), pod.now, pod.wake_at);
    // The thirtieth decides, either way: 29 periods after the first.
    let dead = pod.probe(ProbeKind::Startup, bad());
    assert_eq!(dead, "report, drop, Killing, BackOff");
    assert_eq!(pod.now, at(2) + millis(29_000));
    let up = late.probe(ProbeKind::Startup, Outcome::Success);
    assert_eq!(up, "Started, ask readiness, ask liveness");
}

#[test]
fn liveness_restarts_after_exactly_so_many_failures_in_a_row() {
    for failures in 1..=5 {
        let spec = PodSpec {
            liveness: probe(failures, 1),
            ..plain()
        };
        let mut pod = Run::of(spec, [Event::Begin, Event::Started]);
        // A row that is broken off is none, and what starved is not in it.
        for _ in 1..failures {
            pod.probe(ProbeKind::Liveness, bad());
        }
        pod.probe(ProbeKind::Liveness, Outcome::Success);
        for _ in 1..failures {
            pod.probe(ProbeKind::Liveness, bad());
            pod.probe(ProbeKind::Liveness, Outcome::Starved);
            assert_eq!(show_state(&pod.state), "Running (ready)");
        }
        let killed = pod.probe(ProbeKind::Liveness, bad());
        assert_eq!(killed, "ready=false, report, drop, Killing, BackOff");
        let PodState::BackOff { end, .. } = &pod.state else {
            panic!("{:?}", pod.state)
        };
        let wanted = match failures {
            1 => "liveness probe failed: status 500".to_owned(),
            row => format!("liveness probe failed {row} times in a row: status 500"),
        };
        assert_eq!(*end, End::Failed(wanted));
    }
}

#[test]
fn readiness_takes_out_of_rotation_and_lets_back_in() {
    let spec = PodSpec {
        readiness: probe(3, 2),
        ..plain()
    };
    let mut pod = Run::of(spec, [Event::Begin, Event::Started]);
    assert_eq!(show_state(&pod.state), "Running (unready)");
    for (answer, said) in [
        ('s', ""),
        ('f', "Unhealthy"),
        ('s', ""),
        ('s', "ready=true, Ready"),
        ('s', ""),
        ('f', "Unhealthy"),
        ('f', ""),
        ('-', "Starved"),
        ('f', "ready=false, Unready"),
        ('f', ""),
        ('s', ""),
        ('s', "ready=true, Ready"),
    ] {
        let outcome = match answer {
            's' => Outcome::Success,
            'f' => bad(),
            _ => Outcome::Starved,
        };
        assert_eq!(pod.probe(ProbeKind::Readiness, outcome), said, "{answer}");
    }
}

#[test]
fn starved_probes_are_told_less_and_less_often() {
    let spec = PodSpec {
        liveness: probe(1, 1),
        ..plain()
    };
    let mut pod = Run::of(spec, [Event::Begin, Event::Started]);
    let told = (0..100).filter(|_| pod.probe(ProbeKind::Liveness, Outcome::Starved) == "Starved");
    assert_eq!(told.count(), 7);
    assert_eq!(show_state(&pod.state), "Running (ready)");
}

#[test]
fn the_delays_of_a_crash_loop_double_and_are_told() {
    let mut pod = Run::of(plain(), [Event::Begin]);
    let mut told = Vec::new();
    for _ in 0..5 {
        pod.after(1, Event::Started);
        pod.after(1, Event::Terminated(failed()));
        let Some(Action::Announce(notice)) = pod.actions.last() else {
            panic!("{:?}", pod.actions)
        };
        told.push(notice.text.clone());
        let before = pod.now;
        assert_eq!(pod.wake(), "Restarting, start");
        told.push((pod.now - before).as_millis().to_string());
    }
    assert_eq!(
        told,
        [
            "BackOff: next try in 200ms",
            "200",
            "CrashLoopBackOff: next try in 400ms, after 2 failures in a row",
            "400",
            "CrashLoopBackOff: next try in 800ms, after 3 failures in a row",
            "800",
            "CrashLoopBackOff: next try in 1s, after 4 failures in a row",
            "1000",
            "CrashLoopBackOff: next try in 1s, after 5 failures in a row",
            "1000",
        ]
    );
    // A minute of health ends the row, but is not forgotten.
    pod.after(1, Event::Started);
    pod.after(60_000, Event::Terminated(failed()));
    let record = Record {
        restarts: 5,
        streak: 1,
    };
    let PodState::BackOff { record: found, .. } = pod.state else {
        panic!("{:?}", pod.state)
    };
    assert_eq!(found, record);
}

#[test]
fn what_is_not_restarted_leaves_and_is_stopped() {
    let again = "drop, Failed, BackOff";
    let over = "drop, Failed, leave, Stopped";
    for (policy, end, wanted) in [
        (RestartPolicy::Always, failed(), again),
        (RestartPolicy::Always, End::Well, "drop, Completed, BackOff"),
        (RestartPolicy::OnFailure, failed(), again),
        (
            RestartPolicy::OnFailure,
            End::Well,
            "drop, Completed, leave, Stopped",
        ),
        (RestartPolicy::Never, failed(), over),
        (
            RestartPolicy::Never,
            End::Well,
            "drop, Completed, leave, Stopped",
        ),
    ] {
        let mut spec = plain();
        spec.restart.policy = policy;
        let mut pod = Run::of(spec, [Event::Begin, Event::Started]);
        let actions = pod.after(1, Event::Terminated(end.clone()));
        assert_eq!(actions, format!("ready=false, {wanted}"), "{policy:?}");
        if let PodState::Stopped { end: found, .. } = pod.state {
            assert_eq!(found, Some(end));
        }
    }
}

#[test]
fn draining_is_in_order_and_has_an_end() {
    let stop = Event::Stop {
        in_flight: 3,
        drain: None,
    };
    let mut pod = Run::of(plain(), [Event::Begin, Event::Started]);
    assert_eq!(pod.after(1, stop.clone()), "leave, Draining, drain");
    assert_eq!(pod.after(1, stop), "");
    assert_eq!(pod.wake_at, Some(at(3) + millis(30_000)));
    assert_eq!(pod.wake(), "drop, Stopped");
    assert_eq!((show_state(&pod.state), pod.wake_at), ("Stopped", None));
}

#[test]
fn samples_follow_a_trap_until_the_window_is_past() {
    let mut pod = Run::of(plain(), [Event::Begin, Event::Started]);
    let sample = Event::Sampled(Sample {
        requests: 30,
        trapped: 1,
    });
    assert_eq!(pod.after(1, sample.clone()), "");
    let mut samples = 0;
    while pod.wake_at == Some(pod.now + SAMPLE_PERIOD) {
        assert_eq!(pod.wake(), "sample");
        pod.after(0, sample.clone());
        samples += 1;
    }
    assert_eq!((samples, pod.wake_at), (11, None));
    let many = Event::Sampled(Sample {
        requests: 60,
        trapped: 31,
    });
    assert_eq!(
        pod.after(1, many),
        "ready=false, report, drop, Killing, BackOff"
    );
}

/// Ways a pod's life can go: what happens and how many milliseconds later.
fn lives() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let events: Vec<_> = events().into_iter().map(|(_, event)| event).collect();
    let event = prop_oneof![
        2 => Just(Event::Started),
        3 => Just(Event::Tick),
        6 => proptest::sample::select(events.clone()).prop_filter("it would be the end", |event| {
            !matches!(event, Event::Stop { .. })
        }),
        1 => proptest::sample::select(events),
    ];
    let wait = prop_oneof![Just(0), 1_u64..3, 1_u64..1_500, 1_u64..70_000];
    proptest::collection::vec((wait, event), 1..120)
}

fn specs() -> impl Strategy<Value = PodSpec> {
    let maybe = || {
        let numbers = (0_u32..4, 0_u32..4, 0_u64..2_000, 0_u64..3_000);
        proptest::option::of(numbers).prop_map(|it| {
            let (failures, successes, period, delay) = it?;
            let probe = probe(failures, successes)?;
            Some(Arc::new(Probe {
                period: millis(period),
                delay: millis(delay),
                ..(*probe).clone()
            }))
        })
    };
    let policy = proptest::sample::select(vec![
        RestartPolicy::Always,
        RestartPolicy::Always,
        RestartPolicy::OnFailure,
        RestartPolicy::Never,
    ]);
    let isolation = proptest::sample::select(vec![Isolation::Pod, Isolation::Request]);
    (maybe(), maybe(), maybe(), policy, isolation).prop_map(
        |(startup, readiness, liveness, policy, isolation)| PodSpec {
            kind: ServiceKind::Http,
            startup,
            readiness,
            liveness,
            isolation,
            restart: Restart {
                policy,
                ..plain().restart
            },
            ..plain()
        },
    )
}

fn record(state: &PodState) -> Record {
    match state {
        PodState::Pending => Record::default(),
        PodState::Running(running) => running.record,
        PodState::Starting { record, .. }
        | PodState::BackOff { record, .. }
        | PodState::Draining { record, .. }
        | PodState::Stopped { record, .. } => *record,
    }
}

/// The world as an executor leaves it: what is there after the actions so far.
#[derive(Default)]
struct World {
    instance: bool,
    ready: bool,
    gone: bool,
    /// Whether the instance that is there has passed its startup probe.
    startup_passed: bool,
}

impl World {
    fn act(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::StartInstance => {
                    assert!(!self.instance && !self.gone, "two instances");
                    self.instance = true;
                    self.startup_passed = false;
                }
                Action::SetReady(ready) => {
                    assert!(!ready || (self.instance && !self.gone), "ready without one");
                    self.ready = *ready;
                }
                Action::RunProbe { kind, .. } => {
                    assert!(self.instance, "a probe of nothing");
                    let first = *kind == ProbeKind::Startup;
                    assert!(first != self.startup_passed, "{kind} out of turn");
                }
                Action::Leave => {
                    assert!(!self.gone, "it leaves twice");
                    (self.gone, self.ready) = (true, false);
                }
                Action::Drain | Action::Sample | Action::Report(_) => assert!(self.instance),
                Action::DropInstance => {
                    assert!(self.instance, "there is none to drop");
                    assert!(!self.ready, "it still gets requests");
                    self.instance = false;
                }
                Action::Announce(_) => {}
            }
        }
    }
}

proptest! {
    #[test]
    fn laws(spec in specs(), life in lives()) {
        let mut pod = Run::of(spec.clone(), []);
        let mut world = World::default();
        for (wait, event) in life {
            let (before, was) = (pod.state.clone(), record(&pod.state));
            pod.after(wait, event.clone());
            let kind = match &event {
                Event::ProbeDone(kind, _) => Some(*kind),
                _ => None,
            };
            let up = matches!(pod.state, PodState::Running { .. });
            world.startup_passed |= up;
            // What could not be made is not there.
            let making = show_state(&before) == "Starting (making)";
            world.instance &= !(making && matches!(event, Event::StartFailed(_)));
            world.act(&pod.actions);
            let now = record(&pod.state);

            // Looking again is always later than now.
            prop_assert!(pod.wake_at.is_none_or(|wake_at| wake_at > pod.now));
            // What is told of the pod is what the gateway knows.
            let ready = pod.state.is_ready();
            prop_assert_eq!(ready, world.ready);
            // There is an instance in these states only.
            let present = match pod.state {
                PodState::Starting { .. } | PodState::Running { .. } | PodState::Draining { .. } => true,
                PodState::Pending | PodState::BackOff { .. } | PodState::Stopped { .. } => false,
            };
            prop_assert_eq!(present, world.instance);
            // Restarts only grow, one at a time.
            prop_assert!(now.restarts == was.restarts || now.restarts == was.restarts + 1);
            let alive = matches!(before, PodState::Starting { .. } | PodState::Running { .. });
            // Readiness never ends an instance, and starving never changes anything.
            if kind == Some(ProbeKind::Readiness) && alive {
                prop_assert!(!pod.actions.contains(&Action::DropInstance));
            }
            if let (Event::ProbeDone(_, Outcome::Starved), true) = (event.clone(), alive) {
                prop_assert_eq!(show_state(&before), show_state(&pod.state));
            }
            // An instance that has ended gets no request.
            if let Event::Terminated(_) = event {
                prop_assert!(!ready);
            }
            // The delay is the one of the row.
            if let (PodState::BackOff { until, record, .. }, false) = (&pod.state, before == pod.state) {
                prop_assert_eq!(*until - pod.now, restart::delay(&spec.restart, record.streak));
            }
            // The end is the end.
            if let PodState::Stopped { .. } = before {
                prop_assert_eq!(&before, &pod.state);
                prop_assert!(pod.actions.is_empty());
            }
        }
    }
}

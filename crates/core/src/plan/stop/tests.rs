//! What stops before what, and when: tables of apps at the points where they may fail.

use std::path::Path;

use super::*;
use crate::{
    object,
    plan::{
        apply::{self, Present, Wanted},
        prune,
    },
    record::{App, Key},
    spec,
};

mod conditions;
mod laws;
mod shapes;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn key(text: &str) -> ServiceKey {
    ServiceKey::new(&name("shop"), &name(text))
}

fn at(millis: u64) -> Timestamp {
    Timestamp::after(Duration::from_millis(millis))
}

/// An app as the store holds it, and how long what is there of it takes to end.
#[derive(Clone)]
struct World {
    app: App,
    services: BTreeMap<ServiceKey, Service>,
    jobs: BTreeMap<ServiceKey, Job>,
    pods: Vec<Pod>,
    /// For each workload how long its requests in flight take. One that is not here is idle.
    busy: BTreeMap<ServiceKey, Duration>,
}

/// What became of a workload: when it was told to stop, and when it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stopped {
    told: Timestamp,
    gone: Timestamp,
}

type Log = BTreeMap<ServiceKey, Stopped>;

impl World {
    /// What an apply of this spec, without its first line, writes. Nothing runs yet.
    fn of(text: &str) -> Self {
        let text = format!("app = 'shop'\n{text}");
        let input = spec::Input {
            path: "sampan.toml",
            text: &text,
            environment: &|_| None,
            read_file: &|_| Err("there is none".to_owned()),
            profiles: &[],
        };
        let app: object::App =
            spec::load(&input).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        let names = app.services.keys().chain(app.jobs.keys());
        let digests = names.map(|name| (name.clone(), "0".repeat(64))).collect();
        let wanted = Wanted {
            app: &app,
            base: Path::new("/srv/shop"),
            digests: &digests,
            cause: "test",
            wall_ms: 7,
        };
        let applied = apply::apply(&Present::default(), &wanted).expect("a good spec");
        let services = applied.services.into_iter();
        let jobs = applied.jobs.into_iter();
        Self {
            app: applied.app.expect("an app"),
            services: services.map(|it| (it.key.clone(), it)).collect(),
            jobs: jobs.map(|it| (it.key.clone(), it)).collect(),
            pods: Vec::new(),
            busy: BTreeMap::new(),
        }
    }

    /// There is a pod of the service, or the job runs.
    fn run(&mut self, text: &str) {
        let key = key(text);
        match self.jobs.get_mut(&key) {
            Some(job) => job.status.phase = JobPhase::Running,
            None => self.pods.push(Pod::new(&key, 1, 0)),
        }
    }

    fn contents(&self) -> Contents<'_> {
        Contents {
            services: self.services.values().collect(),
            jobs: self.jobs.values().collect(),
            pods: self.pods.iter().collect(),
        }
    }

    fn there(&self) -> BTreeSet<ServiceKey> {
        self.contents().there().into_iter().cloned().collect()
    }

    /// The app is deleted.
    fn delete(&mut self) {
        self.app.deleting = true;
        for service in self.services.values_mut() {
            service.spec.deleting = true;
        }
        self.jobs.values_mut().for_each(|job| job.deleting = true);
    }

    /// How long the workload takes if it is told to stop with so much time. A job is ended at once.
    fn ends_in(&self, key: &ServiceKey, drain: Duration) -> Duration {
        let Some(service) = self.services.get(key) else {
            return Duration::ZERO;
        };
        let busy = self.busy.get(key).copied().unwrap_or_default();
        busy.min(service.spec.rollout.drain).min(drain)
    }

    /// Nothing of the workload runs any more.
    fn ends(&mut self, key: &ServiceKey) {
        self.pods.retain(|pod| pod.service != *key);
        if let Some(job) = self.jobs.get_mut(key) {
            let reason = "it is being deleted".to_owned();
            job.status.phase = JobPhase::Failed { reason };
        }
    }

    /// Removes the records that nothing needs, as the controllers do.
    fn prune(&mut self) {
        let Contents {
            services,
            jobs,
            pods,
        } = self.contents();
        for key in prune::finished(&self.app, &services, &jobs, &pods) {
            match key {
                Key::Service(key) => drop(self.services.remove(&key)),
                Key::Job(key) => drop(self.jobs.remove(&key)),
                Key::App(_) => assert!(self.services.is_empty() && self.jobs.is_empty()),
                Key::Revision(..) | Key::Pod(_) | Key::Secret(..) => panic!("{key} is left alone"),
            }
        }
    }

    /// The app is deleted: what is told to stop when, in order.
    fn deleted(mut self) -> Log {
        self.delete();
        let mut deletions = Deletions::default();
        for key in self.services.keys().chain(self.jobs.keys()) {
            deletions.of(key, &self.contents(), Timestamp::ZERO);
        }
        self.play(|world, key, now| {
            let contents = world.contents();
            let deletion = deletions.of(key, &contents, now);
            contents.turn(key, deletion, now)
        })
    }

    /// The node that runs it stops: its records stay.
    fn stopped(self) -> Log {
        let members = self.services.values().map(Member::service);
        let stop = Stop {
            order: StopOrder::new(members.chain(self.jobs.values().map(Member::job))),
            begun: Timestamp::ZERO,
            limit: limit(self.services.values()),
        };
        self.play(|world, key, now| {
            let there = world.there();
            stop.turn(key, &|it| there.contains(it), now)
        })
    }

    /// Plays what follows of these turns to its end.
    fn play(mut self, mut turn: impl FnMut(&Self, &ServiceKey, Timestamp) -> Turn) -> Log {
        let (mut log, mut now) = (Log::new(), Timestamp::ZERO);
        loop {
            let ended = log.iter().filter(|(_, it)| it.gone <= now);
            for key in ended.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                self.ends(&key);
            }
            if self.app.deleting {
                self.prune();
            }
            let there = self.there();
            let mut next: Vec<_> = log.values().map(|it| it.gone).collect();
            let mut told = Vec::new();
            for key in there.iter().filter(|key| !log.contains_key(*key)) {
                match turn(&self, key, now) {
                    Turn::Now { drain } => {
                        let gone = now + self.ends_in(key, drain);
                        told.push((key.clone(), Stopped { told: now, gone }));
                    }
                    Turn::After { until, dependent } => {
                        assert!(until > now && there.contains(&dependent), "{dependent}");
                        next.push(until);
                    }
                }
            }
            // What ends at once is seen to have ended at once.
            if !told.is_empty() {
                log.extend(told);
                continue;
            }
            match next.into_iter().filter(|&it| it > now).min() {
                Some(at) => now = at,
                None => return log,
            }
        }
    }
}

/// The order of a log: names with a space between them stop one after the other, with a `+` at once.
/// Those that stop without taking time are told apart by the log's own times no more: so each has to
/// take some.
fn order(log: &Log) -> String {
    let mut by_time = BTreeMap::<Timestamp, Vec<&str>>::new();
    for (key, stopped) in log {
        by_time
            .entry(stopped.told)
            .or_default()
            .push(key.name.as_str());
    }
    let groups: Vec<_> = by_time.values().map(|names| names.join("+")).collect();
    groups.join(" ")
}

/// The same with times, in seconds: `web 0-5` is told to stop at once and takes 5 s.
fn times(log: &Log) -> String {
    let mut all: Vec<_> = log.iter().collect();
    all.sort_by_key(|(key, it)| (it.told, it.gone, (*key).clone()));
    let seconds = |at: Timestamp| at.since_zero().as_secs_f64();
    let one = |(key, it): (&ServiceKey, &Stopped)| {
        format!("{} {}-{}", key.name, seconds(it.told), seconds(it.gone))
    };
    all.into_iter().map(one).collect::<Vec<_>>().join(", ")
}

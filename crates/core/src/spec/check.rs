//! From the spec as written to checked objects: what one value alone cannot tell.

mod checker;
mod dependencies;
mod grants;
mod mounts;
mod names;
mod routes;
mod secrets;
mod statics;
mod tuning;

use std::collections::BTreeMap;

use crate::{
    name::Name,
    object::{App, Build, Job, Schedule, Service, Source, Volume},
    spec::{
        input::{Input, ReadSecret},
        raw::{self, At, Digest, HostPath, Text, decode::Decoder},
    },
};
use checker::{Checker, Volumes};
use names::{Names, values};
use secrets::Secrets;

/// Checks a spec. Problems are reported; `None` when there is no app to be had.
pub(crate) fn check(
    spec: &raw::App,
    input: &Input<'_>,
    read_secret: &ReadSecret<'_>,
    decoder: &mut Decoder<'_>,
) -> Option<App> {
    let names = Names::gather(spec, input.profiles, decoder);
    let secrets = Secrets::gather(spec, read_secret, decoder);
    let mut checker = Checker {
        input,
        decoder,
        names,
        volumes: volumes(spec),
        secrets,
        env_files: BTreeMap::new(),
    };
    let mut services = BTreeMap::new();
    for (name, service) in &spec.service.0 {
        let on = checker.names.is_on(&name.value);
        let checked = checker.service(&name.value, service, on);
        services.extend(
            checked
                .filter(|_| on)
                .map(|service| (name.value.clone(), service)),
        );
    }
    let mut jobs = BTreeMap::new();
    for (name, job) in &spec.job.0 {
        let on = checker.names.is_on(&name.value);
        let checked = checker.job(&name.value, job, on);
        jobs.extend(checked.filter(|_| on).map(|job| (name.value.clone(), job)));
    }
    let builds = checker.builds(spec);
    checker.routes(spec);
    checker.cycles(spec);
    checker.secrets.report_unused(checker.decoder);
    Some(App {
        name: spec.app.as_ref()?.value.clone(),
        services,
        jobs,
        volumes: checker.volumes.declared,
        builds,
        secrets: checker.secrets.sources(),
    })
}

fn volumes(spec: &raw::App) -> Volumes {
    let declared = spec.volume.0.iter();
    let declared = declared.map(|(name, volume)| {
        let quota = volume.quota.value.0;
        (name.value.clone(), Volume { quota })
    });
    Volumes {
        app: spec.app.as_ref().map(|app| app.value.clone()),
        declared: declared.collect(),
    }
}

impl Checker<'_, '_> {
    /// How the components of the services and jobs that are on are made.
    fn builds(&mut self, spec: &raw::App) -> BTreeMap<Name, Build> {
        let services = spec.service.0.iter();
        let services = services.map(|(name, it)| (name, &it.build, it.has("build"), &it.watch));
        let jobs = spec.job.0.iter();
        let jobs = jobs.map(|(name, it)| (name, &it.build, it.has("build"), &it.watch));
        let mut builds = BTreeMap::new();
        for (name, build, is_given, watch) in services.chain(jobs) {
            if let (false, Some(first)) = (is_given, watch.first()) {
                let hint = "add `build = \"…\"`, the command to run when one of them changes";
                self.conflict(&first.place, "`watch` needs a `build`", hint);
            }
            if let (Some(build), true) = (build, self.names.is_on(&name.value)) {
                let watch = watch.iter().map(|path| path.value.0.clone().into());
                let build = Build {
                    command: build.value.0.clone(),
                    watch: watch.collect(),
                };
                builds.insert(name.value.clone(), build);
            }
        }
        builds
    }

    /// Checks a service. One that is not `on` is checked too, but its env files are not read.
    fn service(&mut self, name: &Name, raw: &raw::Service, on: bool) -> Option<Service> {
        let site = self.statics(name, raw);
        let component = match site {
            Some(_) => source(raw.r#static.as_ref(), None),
            None => source(raw.component.as_ref(), raw.digest.as_ref()),
        };
        let depends_on = self.depends_on(name, on, &raw.depends_on);
        let variables = self.environment(&raw.env_file, &raw.env, on);
        let grants = self.grants(on, &raw.allow, &depends_on, variables, &raw.config);
        let limits = tuning::limits(&raw.limits);
        let startup = self.probe(raw.startup.as_ref(), true);
        let readiness = self.probe(raw.readiness.as_ref(), false);
        let liveness = self.probe(raw.liveness.as_ref(), true);
        let restart = self.restart(&raw.restart);
        let rollout = self.rollout(&raw.rollout);
        let autoscale = raw
            .autoscale
            .as_ref()
            .and_then(|raw_scale| self.autoscale(raw_scale, raw));
        Some(Service {
            name: name.clone(),
            component: component?,
            site,
            args: arguments(&raw.args),
            replicas: raw.replicas.value.0,
            isolation: raw.isolation.as_ref().map(|isolation| isolation.value),
            concurrency: raw
                .concurrency
                .as_ref()
                .map(|concurrency| concurrency.value.0),
            renewal: self.renewal(raw),
            routes: raw.route.iter().map(|route| route.value.clone()).collect(),
            depends_on,
            profiles: values(&raw.profiles),
            debug_headers: raw.debug_headers.value.0,
            coredump: raw.coredump.value.0,
            grants,
            limits,
            startup,
            readiness,
            liveness,
            restart,
            rollout,
            autoscale,
            placement: tuning::placement(&raw.placement),
        })
    }

    fn job(&mut self, name: &Name, raw: &raw::Job, on: bool) -> Option<Job> {
        let component = source(raw.component.as_ref(), raw.digest.as_ref());
        let depends_on = self.depends_on(name, on, &raw.depends_on);
        let variables = self.environment(&raw.env_file, &raw.env, on);
        let grants = self.grants(on, &raw.allow, &depends_on, variables, &raw.config);
        let schedule = self.schedule(raw);
        Some(Job {
            name: name.clone(),
            component: component?,
            args: arguments(&raw.args),
            retries: raw.retries.value.0,
            schedule,
            timeout: raw.timeout.as_ref().map(|timeout| timeout.value.0),
            history: raw.history.value.0,
            depends_on,
            profiles: values(&raw.profiles),
            grants,
            limits: tuning::limits(&raw.limits),
        })
    }

    /// When a job runs. What says more of that than when is nothing without it.
    fn schedule(&mut self, raw: &raw::Job) -> Option<Schedule> {
        let (timezone, overlap) = (&raw.timezone, &raw.overlap);
        if !raw.has("schedule") {
            let hint = "add `schedule = \"…\"`, or remove it: without a schedule the job runs once";
            for (key, place, is_given) in [
                ("timezone", &timezone.place, timezone.is_given()),
                ("overlap", &overlap.place, overlap.is_given()),
            ] {
                if is_given {
                    self.conflict(place, format!("`{key}` needs a `schedule`"), hint);
                }
            }
        }
        Some(Schedule {
            expression: raw.schedule.as_ref()?.value.0.clone(),
            timezone: timezone.value.0.clone(),
            overlap: overlap.value,
        })
    }
}

fn arguments(raw: &[At<Text>]) -> Vec<String> {
    raw.iter().map(|it| it.value.0.clone()).collect()
}

fn source(component: Option<&At<HostPath>>, digest: Option<&At<Digest>>) -> Option<Source> {
    let path = component?.value.0.clone().into();
    Some(Source {
        path,
        digest: digest.map(|digest| digest.value.0.clone()),
    })
}

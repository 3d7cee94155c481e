//! What the kind of a component rules out in the spec of its service: to be checked once the
//! component is known.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    MAX_SPEC_BYTES,
    problem::{Draft, Place, ProblemKind, Problems, Report},
};
use crate::{
    name::Name,
    object::{App, Check, Probe, Service, ServiceKind},
};

/// What a component was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What its pods do.
    pub kind: ServiceKind,
    /// Whether its exports can be called while it runs: not of a command of WASI 0.2, whose `run` has
    /// the instance to itself.
    pub is_callable: bool,
}

impl Found {
    /// A component that answers HTTP requests.
    pub const HTTP: Self = Self {
        kind: ServiceKind::Http,
        is_callable: true,
    };
}

/// The text of a spec, for the places of what is wrong in it. Without a text only keys are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecText {
    /// The file.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// A key that a service cannot have.
struct Misfit {
    /// Its path below the service.
    key: &'static str,
    message: String,
    hint: &'static str,
}

/// What a command does not need a probe for.
const READY: &str = "remove the probe: a command is ready once it has started";

/// Checks what services ask for against what their components are.
///
/// # Errors
///
/// All that does not fit.
pub fn check_kinds(
    app: &App,
    found: &BTreeMap<Name, Found>,
    spec: &SpecText,
) -> Result<(), Problems> {
    // Longer than this there is no spec.
    let is_short = spec.text.len() <= MAX_SPEC_BYTES;
    let text = if is_short { spec.text.as_str() } else { "" };
    let mut report = Report::new(&spec.path, text);
    let root = DeTable::parse(text).ok().map(Spanned::into_inner);
    for (name, service) in &app.services {
        let Some(found) = found.get(name) else {
            continue;
        };
        for Misfit { key, message, hint } in misfits(service, *found) {
            let keys = ["service", name.as_str()].into_iter().chain(key.split('.'));
            let place = locate(root.as_ref(), keys);
            report.add(Draft::new(&place, ProblemKind::Conflict, message, hint));
        }
    }
    report.finish(Some(()))
}

/// The place of a key of a service in this text.
pub(super) fn place(text: &str, service: &Name, key: &str) -> Place {
    let root = DeTable::parse(text).ok().map(Spanned::into_inner);
    let keys = ["service", service.as_str(), key];
    locate(root.as_ref(), keys.into_iter())
}

/// The place of a key, or of the last table on the way to it.
fn locate<'k>(root: Option<&DeTable<'_>>, keys: impl Iterator<Item = &'k str>) -> Place {
    let mut place = Place::root();
    let mut table = root;
    for key in keys {
        let value = table.and_then(|table| table.get(key));
        let span = value.map_or(place.span.clone(), Spanned::span);
        place = place.child(key, span);
        table = match value.map(Spanned::get_ref) {
            Some(DeValue::Table(table)) => Some(table),
            _ => None,
        };
    }
    place
}

fn misfits(service: &Service, found: Found) -> Vec<Misfit> {
    match found.kind {
        ServiceKind::Http | ServiceKind::Static => Vec::new(),
        ServiceKind::Command => of_command(service, found.is_callable),
    }
}

fn of_command(service: &Service, is_callable: bool) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    let renewal = &service.renewal;
    let scale = service.autoscale.as_ref();
    let needs_requests = [
        ("route", !service.routes.is_empty()),
        ("isolation", service.isolation.is_some()),
        ("concurrency", service.concurrency.is_some()),
        ("max_requests", renewal.max_requests.is_some()),
        ("max_age", renewal.max_age.is_some()),
        ("debug_headers", service.debug_headers),
    ];
    for (key, _) in needs_requests.iter().filter(|(_, is_given)| *is_given) {
        misfits.push(Misfit {
            key,
            message: format!(
                "`{key}` is about requests, and the component answers none: it exports \
                 `wasi:cli/run` and no HTTP handler"
            ),
            hint: "remove it, or build the component with an HTTP handler",
        });
    }
    for (key, is_given) in [
        (
            "autoscale.concurrency",
            scale.is_some_and(|it| it.concurrency.is_some()),
        ),
        ("autoscale.rps", scale.is_some_and(|it| it.rps.is_some())),
    ] {
        if is_given {
            misfits.push(Misfit {
                key,
                message: "a command answers no requests, by which its pods could be counted"
                    .to_owned(),
                hint: "use `cpu = \"70%\"`, a share of `limits.cpu`, or set `replicas`",
            });
        }
    }
    if scale.is_some_and(|it| it.min == 0) {
        misfits.push(Misfit {
            key: "autoscale.min",
            message: "a command without pods would never be started again, because no request \
                      comes to it"
                .to_owned(),
            hint: "keep a pod with `min = 1`",
        });
    }
    let probes = [
        ("startup", &service.startup),
        ("readiness", &service.readiness),
        ("liveness", &service.liveness),
    ];
    for (key, probe) in probes {
        misfits.extend(probe.as_ref().and_then(|it| of_probe(key, it, is_callable)));
    }
    misfits
}

fn of_probe(key: &'static str, probe: &Probe, is_callable: bool) -> Option<Misfit> {
    match (&probe.check, is_callable) {
        (Check::Http(_), true) => Some(Misfit {
            key,
            message: "`http` asks by a request, and a command answers none".to_owned(),
            hint: "write `export = true` and export `sampan:pod/health`, or remove the probe: a \
                   command is ready once it has started",
        }),
        (Check::Http(_), false) => Some(Misfit {
            key,
            message: "`http` asks by a request, and a command answers none".to_owned(),
            hint: READY,
        }),
        (Check::Export, false) => Some(Misfit {
            key,
            message: "`export` calls the guest while it runs, and a command of WASI 0.2 cannot be \
                      called before its `run` has ended"
                .to_owned(),
            hint: "remove the probe, as a command is ready once it has started, or build the \
                   component for WASI 0.3",
        }),
        (Check::Export, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Input, load};

    const SPEC: &str = r#"app = "shop"
[service.pick]
component = "pick.wasm"
args = ["--fast"]
route = ["/"]
isolation = "pod"
concurrency = 4
max_requests = 5
max_age = "1h"
debug_headers = true
limits.cpu = "1"
readiness = { http = "/ok" }
liveness = { export = true }

[service.pick.autoscale]
min = 0
max = 4
cpu = "70%"
concurrency = 4
rps = 10
"#;

    fn app(text: &str) -> App {
        let input = Input {
            path: "sampan.toml",
            text,
            environment: &|_| None,
            read_file: &|_| Err("none".to_owned()),
            profiles: &[],
        };
        load(&input).expect("a good spec")
    }

    fn found(is_callable: bool) -> BTreeMap<Name, Found> {
        let found = Found {
            kind: ServiceKind::Command,
            is_callable,
        };
        [(Name::parse("pick").expect("a name"), found)].into()
    }

    /// Line, column and key of each problem.
    fn places(text: &str, found: &BTreeMap<Name, Found>) -> Vec<(usize, usize, String)> {
        let spec = SpecText {
            path: "sampan.toml".to_owned(),
            text: text.to_owned(),
        };
        let checked = check_kinds(&app(text), found, &spec);
        let Err(problems) = checked else {
            return Vec::new();
        };
        let places = problems.iter();
        places
            .map(|it| (it.line, it.column, it.key.clone()))
            .collect()
    }

    #[test]
    fn what_is_about_requests_does_not_fit_a_command() {
        let callable = places(SPEC, &found(true));
        let wanted = [
            (5, 9, "route"),
            (6, 13, "isolation"),
            (7, 15, "concurrency"),
            (8, 16, "max_requests"),
            (9, 11, "max_age"),
            (10, 17, "debug_headers"),
            (12, 13, "readiness"),
            (16, 7, "autoscale.min"),
            (19, 15, "autoscale.concurrency"),
            (20, 7, "autoscale.rps"),
        ]
        .map(|(line, column, key)| (line, column, format!("service.pick.{key}")));
        assert_eq!(callable, wanted);
        // One that cannot be called while it runs answers no probe at all.
        let mut deaf = wanted.to_vec();
        deaf.insert(7, (13, 12, "service.pick.liveness".to_owned()));
        assert_eq!(places(SPEC, &found(false)), deaf);
    }

    #[test]
    fn what_answers_requests_and_what_is_not_known_may_have_all_of_it() {
        let http = [(Name::parse("pick").expect("a name"), Found::HTTP)].into();
        assert_eq!(places(SPEC, &http), []);
        assert_eq!(places(SPEC, &BTreeMap::new()), []);
    }

    #[test]
    fn without_a_text_the_key_is_named_all_the_same() {
        let problems = check_kinds(&app(SPEC), &found(true), &SpecText::default());
        let problems = problems.expect_err("it does not fit");
        assert_eq!(problems.count(), 10);
        assert!(problems.to_plain().contains("service.pick.route"));
    }
}

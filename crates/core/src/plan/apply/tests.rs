//! Tables of what an apply writes and of what the verbs do; laws for any two specs.

use proptest::prelude::*;

use super::*;
use crate::{
    record::{Counts, JobPhase, Phase},
    spec,
    view::{Change, Verb},
};

mod scaling;
mod secrets;

fn app(text: &str) -> object::App {
    let input = spec::Input {
        path: "sampan.toml",
        text,
        environment: &|_| None,
        read_file: &|_| Err("there is none".to_owned()),
        profiles: &[],
    };
    spec::load(&input).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// The digest of a component with this name.
fn digest(component: &Path) -> String {
    let sum = component
        .display()
        .to_string()
        .bytes()
        .map(u64::from)
        .sum::<u64>();
    format!("{sum:064x}")
}

fn try_apply(present: &Present, app: &object::App) -> Result<Applied, ApplyError> {
    let services = app.services.values().map(|it| (&it.name, &it.component));
    let jobs = app.jobs.values().map(|it| (&it.name, &it.component));
    let digests = services
        .chain(jobs)
        .map(|(name, source)| (name.clone(), digest(&source.path)))
        .collect();
    let wanted = Wanted {
        app,
        base: Path::new("/srv/shop"),
        digests: &digests,
        cause: "test",
        wall_ms: 7,
    };
    apply(present, &wanted)
}

/// Applies a spec, and writes it.
fn write(present: &mut Present, text: &str) -> Applied {
    let applied = try_apply(present, &app(text)).expect("a good spec");
    take(present, &applied);
    applied
}

fn take(present: &mut Present, applied: &Applied) {
    if let Some(app) = &applied.app {
        present.app = Some(app.clone());
    }
    for (service, revision) in &applied.revisions {
        let key = (service.name.clone(), revision.number);
        let before = present.revisions.insert(key, revision.clone());
        assert_eq!(before, None, "a revision is never written twice");
    }
    for service in &applied.services {
        let key = service.key.name.clone();
        present.services.insert(key, service.clone());
    }
    for job in &applied.jobs {
        present.jobs.insert(job.key.name.clone(), job.clone());
    }
}

fn change<'a>(applied: &'a Applied, name: &str) -> &'a Change {
    let mut changes = applied.plan.changes.iter();
    changes
        .find(|change| change.name == name)
        .expect("a change")
}

const SHOP: &str = "app = 'shop'\n[service.web]\ncomponent = 'web.wasm'\nreplicas = 4\n";

fn shop() -> Present {
    let mut present = Present::default();
    write(&mut present, SHOP);
    present
}

fn web(present: &Present) -> &Service {
    &present.services[&name("web")]
}

fn revisions(present: &Present) -> Vec<Revision> {
    present.revisions.values().cloned().collect()
}

#[test]
fn a_new_app_is_written_whole() {
    let mut present = Present::default();
    let text = format!("{SHOP}[job.migrate]\ncomponent = 'migrate.wasm'\n");
    let applied = write(&mut present, &text);
    assert_eq!(applied.revisions.len(), 1);
    assert_eq!(applied.admit.len(), 1);
    assert_eq!((applied.services.len(), applied.jobs.len()), (1, 1));
    let web = web(&present);
    assert_eq!(
        (web.generation, web.spec.revision, web.spec.latest),
        (1, 1, 1)
    );
    assert_eq!((web.spec.previous, web.spec.replicas), (None, 4));
    let app = applied.app.clone().expect("an app");
    assert_eq!((app.generation, app.applied_ms), (1, 7));
    assert_eq!(app.services, [name("web")].into());
    let web = change(&applied, "web");
    assert_eq!(
        (web.verb, web.pods.as_str()),
        (Verb::Added, "4 pods are made")
    );
    assert_eq!(change(&applied, "migrate").pods, "it runs once");
}

#[test]
fn the_same_content_writes_nothing() {
    let mut present = shop();
    let before = present.clone();
    // What the component's file is called does not count.
    let renamed = SHOP.replace("web.wasm", "bew.wasm");
    for text in [SHOP, &renamed] {
        let applied = write(&mut present, text);
        assert!(!applied.plan.changed);
        assert_eq!(applied.plan.changes[0].verb, Verb::Unchanged);
        assert_eq!(applied.plan.changes[0].pods, "nothing");
        assert!(applied.app.is_none() && applied.services.is_empty());
        assert_eq!(present, before);
    }
}

#[test]
fn what_changes_is_said() {
    let env = |text: &str| format!("{SHOP}{text}");
    for (text, revision, fields, pods) in [
        (
            SHOP.replace("4", "6"),
            1,
            vec!["replicas 4 6"],
            "2 pods are added",
        ),
        (
            SHOP.replace("4", "3"),
            1,
            vec!["replicas 4 3"],
            "1 pod is stopped",
        ),
        (
            env("env = { KEY = 'value' }"),
            2,
            vec!["env.KEY - value"],
            "4 pods of revision 2 take the place of 4 of revision 1, at most 1 more at a time",
        ),
        (
            env("[service.web.readiness]\nhttp = '/up'"),
            2,
            vec![
                "readiness.check.http - /up",
                "readiness.delay - 0s",
                "readiness.failures - 3",
                "readiness.period - 10s",
                "readiness.successes - 1",
                "readiness.timeout - 1s",
            ],
            "4 pods of revision 2 take the place of 4 of revision 1, at most 1 more at a time",
        ),
        (
            env("route = ['shop.localhost/']"),
            1,
            vec!["route - shop.localhost/"],
            "nothing",
        ),
    ] {
        let applied = write(&mut shop(), &text);
        let web = change(&applied, "web");
        assert_eq!(
            (web.verb, web.revision),
            (Verb::Changed, Some(revision)),
            "{text}"
        );
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let found = web
            .fields
            .iter()
            .map(|it| format!("{} {} {}", it.name, shown(&it.old), shown(&it.new)));
        assert_eq!(found.collect::<Vec<_>>(), fields, "{text}");
        assert_eq!(web.pods, pods, "{text}");
    }
}

#[test]
fn how_pods_are_replaced_is_said() {
    use crate::{
        object::{Rollout, Strategy},
        quantity::{Amount, Percent},
    };
    let said = |change: &dyn Fn(&mut Rollout)| {
        let mut wanted = app(&format!("{SHOP}env = {{ A = '1' }}"));
        let service = wanted.services.get_mut(&name("web")).expect("there");
        change(&mut service.rollout);
        let applied = try_apply(&shop(), &wanted).expect("good");
        change_of_web(&applied)
    };
    for (surge, unavailable, bounds) in [
        (Amount::Percent(Percent(30)), Amount::Count(0), "2 more"),
        (Amount::Count(0), Amount::Percent(Percent(50)), "2 fewer"),
        // As in Kubernetes, one pod may be missing where both come to nothing.
        (Amount::Count(0), Amount::Percent(Percent(10)), "1 fewer"),
        (Amount::Count(3), Amount::Count(1), "3 more or 1 fewer"),
    ] {
        let pods = said(&|rollout| {
            rollout.max_surge = surge;
            rollout.max_unavailable = unavailable;
        });
        let start = "4 pods of revision 2 take the place of 4 of revision 1, at most";
        assert_eq!(pods, format!("{start} {bounds} at a time"));
    }
    assert_eq!(
        said(&|rollout| rollout.strategy = Strategy::Recreate),
        "all pods of revision 1 are stopped, then 4 pods of revision 2 are made"
    );
}

fn change_of_web(applied: &Applied) -> String {
    change(applied, "web").pods.clone()
}

#[test]
fn an_old_template_is_an_old_revision() {
    let mut present = shop();
    let second = format!("{SHOP}env = {{ A = '1' }}");
    write(&mut present, &second);
    let applied = write(&mut present, SHOP);
    assert!(applied.revisions.is_empty());
    assert_eq!(applied.admit.len(), 1, "it may be long since it ran");
    let spec = &web(&present).spec;
    assert_eq!((spec.revision, spec.previous, spec.latest), (1, Some(2), 2));
    // Numbers are never used again.
    present.revisions.remove(&(name("web"), 2));
    write(&mut present, &second);
    assert_eq!(web(&present).spec.revision, 3);
}

#[test]
fn what_an_earlier_service_left_is_not_written_over() {
    let mut present = shop();
    present.services.clear();
    present.app = None;
    let other = format!("{SHOP}env = {{ A = '1' }}");
    write(&mut present, &other);
    let spec = &web(&present).spec;
    assert_eq!((spec.revision, spec.latest, spec.previous), (2, 2, None));
    present.services.clear();
    let applied = write(&mut present, SHOP);
    assert!(applied.revisions.is_empty());
    assert_eq!(
        (web(&present).spec.revision, web(&present).spec.latest),
        (1, 2)
    );
    assert_eq!(applied.admit.len(), 1);
}

#[test]
fn a_restart_outlives_an_apply() {
    let mut present = shop();
    let restarted = restart(web(&present), &revisions(&present), 9).expect("possible");
    assert_eq!(restarted.service.spec.revision, 2);
    assert_eq!(restarted.service.spec.previous, Some(1));
    present.services.insert(name("web"), restarted.service);
    let revision = restarted.revision.expect("new");
    assert_eq!(revision.template.restarted, 1);
    present.revisions.insert((name("web"), 2), revision);
    let before = present.clone();
    assert!(!write(&mut present, SHOP).plan.changed);
    assert_eq!(present, before);
}

#[test]
fn what_is_gone_from_the_spec_goes_and_can_come_back() {
    let mut present = Present::default();
    let both =
        format!("{SHOP}[service.api]\ncomponent = 'api.wasm'\n[job.once]\ncomponent = 'o.wasm'\n");
    write(&mut present, &both);
    let api = present.services.get_mut(&name("api")).expect("there");
    api.status.counts = Counts {
        alive: 1,
        ..Counts::default()
    };
    let applied = write(&mut present, SHOP);
    assert_eq!(change(&applied, "api").verb, Verb::Deleted);
    assert_eq!(change(&applied, "api").pods, "1 pod is drained and stopped");
    assert_eq!(change(&applied, "once").verb, Verb::Deleted);
    assert!(present.services[&name("api")].spec.deleting);
    assert!(present.jobs[&name("once")].deleting);
    let app = applied.app.expect("changed");
    assert_eq!((app.generation, app.services.len()), (2, 1));
    // Once more: it goes already.
    let again = write(&mut present, SHOP);
    assert!(!again.plan.changed);
    assert_eq!(change(&again, "api").pods, "it is being deleted already");
    let back = write(&mut present, &both);
    assert_eq!(change(&back, "api").verb, Verb::Added);
    let api = &present.services[&name("api")];
    assert_eq!(
        (api.spec.deleting, api.spec.revision, api.generation),
        (false, 1, 3)
    );
    assert_eq!(back.admit.len(), 1);
    assert!(!present.jobs[&name("once")].deleting);
}

#[test]
fn an_app_is_deleted_with_everything() {
    let mut present = shop();
    let app = present.app.clone().expect("an app");
    let applied = delete(&present, &app);
    assert!(applied.plan.changed);
    take(&mut present, &applied);
    let app = present.app.clone().expect("still there");
    assert!(app.deleting && web(&present).spec.deleting);
    assert_eq!(app.generation, 2);
    let again = delete(&present, &app);
    assert!(again.app.is_none() && !again.plan.changed);
    write(&mut present, SHOP);
    assert!(!present.app.clone().expect("an app").deleting);
    assert!(!web(&present).spec.deleting);
}

#[test]
fn directories_are_absolute() {
    let text = format!(
        "{SHOP}[service.web.allow]\nfiles = [{{ host = './data', guest = '/data', access = 'read-only' }}]\n"
    );
    let mut present = shop();
    let applied = write(&mut present, &text);
    let mounts = &applied.revisions[0].1.template.grants.files;
    let host = object::MountSource::Host("/srv/shop/data".into());
    assert_eq!(mounts[0].source, host);
    let files = &change(&applied, "web").fields[0];
    assert_eq!(files.name, "allow.files");
    assert_eq!(
        files.new.as_deref(),
        Some("/srv/shop/data at /data, read-only")
    );
}

#[test]
fn digests_are_checked() {
    let app = app(SHOP);
    let with = |app: &object::App, digests: &[(&str, &str)]| {
        let digests = digests
            .iter()
            .map(|(of, digest)| (name(of), (*digest).to_owned()))
            .collect();
        let wanted = Wanted {
            app,
            base: Path::new("/"),
            digests: &digests,
            cause: "",
            wall_ms: 0,
        };
        let error = apply(&Present::default(), &wanted).expect_err("a bad digest");
        error.to_string()
    };
    let good = "0".repeat(64);
    assert_eq!(with(&app, &[]), "no digest of the component of `web`");
    assert_eq!(
        with(&app, &[("web", "abc")]),
        "the digest `abc` of `web` is not 64 lower-case hex digits"
    );
    assert_eq!(
        with(&app, &[("web", &good), ("api", &good)]),
        "a component is given for `api`, which is not in the spec"
    );
    let mut pinned = app.clone();
    let source = &mut pinned
        .services
        .get_mut(&name("web"))
        .expect("there")
        .component;
    source.digest = Some("1".repeat(64));
    assert!(with(&pinned, &[("web", &good)]).contains("and the spec demands `1111"));
}

#[test]
fn what_the_verbs_refuse() {
    let present = shop();
    let service = web(&present);
    let kept = revisions(&present);
    let paused = pause(service).expect("possible");
    let mut deleting = service.clone();
    deleting.spec.deleting = true;
    let said = |error: Option<VerbError>| error.expect("refused").to_string();
    assert_eq!(
        said(undo(service, &kept, None).err()),
        "`web` has no earlier revision to go back to"
    );
    assert_eq!(
        said(undo(service, &kept, Some(1)).err()),
        "`web` is at revision `1` already"
    );
    assert_eq!(
        said(undo(service, &kept, Some(9)).err()),
        "`web` has no revision `9`; there are `1`"
    );
    let first = "`web` is paused: `sampan rollout resume web` first";
    assert_eq!(said(undo(&paused, &kept, Some(1)).err()), first);
    assert_eq!(said(restart(&paused, &kept, 0).err()), first);
    assert_eq!(said(pause(&paused).err()), "`web` is already paused");
    assert_eq!(said(resume(service).err()), "`web` is not paused");
    assert_eq!(
        said(scale(service, 1001).err()),
        "`1001` pods are too many: a service has at most `1000`"
    );
    let going = "`web` is being deleted";
    assert_eq!(said(scale(&deleting, 1).err()), going);
    assert_eq!(said(restart(&deleting, &kept, 0).err()), going);
    assert_eq!(said(undo(&deleting, &kept, None).err()), going);
    assert_eq!(said(pause(&deleting).err()), going);
    assert_eq!(said(resume(&deleting).err()), going);
    let mut job = chain_of_jobs().jobs[&name("s1")].clone();
    job.deleting = true;
    assert_eq!(said(again(&job).err()), "`s1` is being deleted");
}

#[test]
fn pods_of_the_revision_before_are_not_shown_as_new() {
    let mut present = shop();
    let before = present.services.get_mut(&name("web")).expect("there");
    before.status.target = 1;
    before.status.counts = Counts {
        alive: 4,
        updated: 4,
        ready: 4,
        available: 4,
        updated_available: 4,
    };
    let shown = |present: &Present| {
        let shown = view::Service::of(web(present));
        (shown.updated, shown.updated_available, shown.available)
    };
    assert_eq!(shown(&present), (4, 4, 4));
    write(&mut present, &format!("{SHOP}env = {{ A = '1' }}"));
    assert_eq!(shown(&present), (0, 0, 4));
}

const CHAIN: &str = "app = 'shop'\n[job.s1]\ncomponent = 's1.wasm'\n[job.s2]\ncomponent = 's2.wasm'\n\
     depends_on = ['s1']\n[job.s3]\ncomponent = 's3.wasm'\ndepends_on = ['s2']\n[service.web]\n\
     component = 'web.wasm'\ndepends_on = { s3 = 'completed' }\n[service.other]\n\
     component = 'other.wasm'\n";

/// The first of three jobs has failed, so that nothing that depends on it has begun.
fn chain_of_jobs() -> Present {
    let mut present = Present::default();
    write(&mut present, CHAIN);
    for (job, attempts) in [("s1", 1), ("s2", 0), ("s3", 0)] {
        let job = present.jobs.get_mut(&name(job)).expect("there");
        job.status = JobStatus {
            observed_generation: job.generation,
            attempts,
            phase: JobPhase::Failed {
                reason: "exit code 1".to_owned(),
            },
            ..JobStatus::default()
        };
    }
    for (service, phase) in [
        (
            "web",
            Phase::Waiting {
                on: "s3".to_owned(),
            },
        ),
        (
            "other",
            Phase::Failed {
                reason: "not ready in time".to_owned(),
            },
        ),
    ] {
        let service = present.services.get_mut(&name(service)).expect("there");
        service.status.observed_generation = service.generation;
        service.status.phase = phase;
    }
    present
}

/// What is awaited of a plan, and the jobs that are written.
fn awaited_and_written(applied: &Applied) -> [String; 2] {
    let changes = applied.plan.changes.iter();
    let awaited = changes.filter(|it| it.awaited).map(|it| it.name.clone());
    let written = applied.jobs.iter().map(|it| it.key.name.to_string());
    [awaited.collect::<Vec<_>>(), written.collect()].map(|names| names.join(" "))
}

#[test]
fn a_failure_of_the_time_before_is_waited_for_by_no_apply() {
    for (from, to, wanted) in [
        // The one that failed is mended: what waited for it begins anew.
        ("'s1.wasm'", "'mended.wasm'", ["web s1 s2 s3", "s1 s2 s3"]),
        // What failed has nothing to do with the change.
        ("'other.wasm'", "'mended.wasm'", ["other", ""]),
        // What is new has to do with it, and cannot come about.
        ("'web.wasm'", "'mended.wasm'", ["web s1 s2 s3", "s2 s3"]),
        // Nothing is changed: how is all of it?
        ("'web.wasm'", "'web.wasm'", ["other web s1 s2 s3", ""]),
        // What goes is not waited for.
        ("[service.other]\ncomponent = 'other.wasm'\n", "", ["", ""]),
    ] {
        let mut present = chain_of_jobs();
        let before = present.jobs.clone();
        let text = CHAIN.replace(from, to);
        let applied = write(&mut present, &text);
        assert_eq!(awaited_and_written(&applied), wanted, "{text}");
        assert_eq!(applied.plan.changed, from != to);
        for job in &applied.jobs {
            let said = change(&applied, job.key.name.as_str());
            assert_eq!(said.generation, before[&job.key.name].generation + 1);
            assert_eq!(said.generation, job.generation);
        }
        assert_eq!(applied.app.is_none(), from == to);
    }
}

#[test]
fn what_the_verbs_do() {
    let mut present = shop();
    write(&mut present, &format!("{SHOP}env = {{ A = '1' }}"));
    let service = web(&present);
    let kept = revisions(&present);
    assert_eq!(scale(service, 4).expect("possible"), None);
    let scaled = scale(service, 0).expect("possible").expect("another");
    assert_eq!((scaled.spec.replicas, scaled.generation), (0, 3));
    let undone = undo(service, &kept, None).expect("possible").service;
    assert_eq!(
        (
            undone.spec.revision,
            undone.spec.previous,
            undone.spec.latest
        ),
        (1, Some(2), 2)
    );
    let back = undo(&undone, &kept, None).expect("possible").service;
    assert_eq!(back.spec.revision, 2, "undoing twice is as before");
    let paused = pause(service).expect("possible");
    let resumed = resume(&paused).expect("possible");
    assert_eq!(
        (resumed.spec.clone(), resumed.generation),
        (service.spec.clone(), 4)
    );
    let job = &chain_of_jobs().jobs[&name("s1")];
    let once_more = again(job).expect("possible");
    assert_eq!(once_more.generation, job.generation + 1);
    assert_eq!(
        (&once_more.spec, &once_more.status),
        (&job.spec, &job.status)
    );
}

#[test]
fn a_failure_is_no_pause_of_what_comes_next() {
    let mut present = shop();
    write(&mut present, &format!("{SHOP}env = {{ A = '1' }}"));
    let service = present.services.get_mut(&name("web")).expect("there");
    service.spec.paused = true;
    let held = |failure: Option<&str>| Phase::Paused {
        failure: failure.map(str::to_owned),
    };
    service.status.phase = held(Some("not ready in time"));
    let third = format!("{SHOP}env = {{ A = '2' }}");
    let mut fixed = present.clone();
    write(&mut fixed, &third);
    assert!(!web(&fixed).spec.paused);
    let undone = undo(web(&present), &revisions(&present), None).expect("possible");
    assert!(!undone.service.spec.paused);
    // Who pauses it by hand resumes it by hand.
    let service = present.services.get_mut(&name("web")).expect("there");
    service.status.phase = held(None);
    let applied = write(&mut present, &third);
    assert!(web(&present).spec.paused);
    assert_eq!(
        change(&applied, "web").pods,
        "nothing until it is resumed, then revision 3 takes over"
    );
}

#[test]
fn an_accepted_change_ends_a_refusal() {
    let mut present = shop();
    let service = present.services.get_mut(&name("web")).expect("there");
    service.status.refused = Some(crate::record::Refusal {
        reason: "no such import".to_owned(),
        at_ms: 1,
    });
    let applied = write(&mut present, SHOP);
    assert!(!applied.plan.changed);
    assert!(applied.admit.is_empty());
    assert_eq!(web(&present).status.refused, None);
    assert_eq!(web(&present).generation, 1);
}

prop_compose! {
    /// A spec of up to three services, which may have anything of a few things.
    fn any_spec()(
        services in proptest::collection::btree_map("[a-c]", (0..3u32, 0..3u32, any::<bool>()), 0..4),
    ) -> String {
        let mut text = "app = 'shop'\n".to_owned();
        for (name, (replicas, env, routed)) in services {
            let route = if routed { format!("route = ['{name}.localhost/']\n") } else { String::new() };
            text += &format!(
                "[service.{name}]\ncomponent = 'x.wasm'\nreplicas = {replicas}\nenv = {{ A = '{env}' }}\n{route}"
            );
        }
        text
    }
}

proptest! {
    #[test]
    fn applying_again_writes_nothing(specs in proptest::collection::vec(any_spec(), 1..6)) {
        let mut present = Present::default();
        for text in &specs {
            let before = present.clone();
            write(&mut present, text);
            for (name, service) in &present.services {
                prop_assert!(service.spec.revision <= service.spec.latest);
                let target = &present.revisions[&(name.clone(), service.spec.revision)];
                prop_assert_eq!(&target.hash, &target.template.hash());
                let old = before.services.get(name);
                let changed = old.is_none_or(|old| old.spec != service.spec);
                let raised = old.is_none_or(|old| old.generation + 1 == service.generation);
                prop_assert_eq!(changed, raised);
            }
            let after = present.clone();
            let again = write(&mut present, text);
            prop_assert!(!again.plan.changed);
            prop_assert_eq!(&present, &after);
        }
        // Where one comes from makes no difference to what is wanted, but for numbers.
        let mut fresh = Present::default();
        let last = specs.last().expect("at least one");
        write(&mut fresh, last);
        for (name, service) in &fresh.services {
            let led = &present.services[name];
            prop_assert_eq!(led.spec.replicas, service.spec.replicas);
            prop_assert_eq!(&led.spec.routes, &service.spec.routes);
            let hash = |present: &Present, service: &Service| {
                present.revisions[&(name.clone(), service.spec.revision)].hash.clone()
            };
            prop_assert_eq!(hash(&present, led), hash(&fresh, service));
        }
    }
}

//! What is refused, and what is not.

use std::path::Path;

use super::*;
use crate::{
    plan::apply::{self, Wanted},
    spec,
};

const MIB: u64 = 1 << 20;

fn shop() -> Name {
    Name::parse("shop").expect("a name")
}

/// What an apply of this spec writes, with digests that are made up.
fn applied(present: &Present, text: &str) -> Applied {
    let app = spec::load(&spec::Input {
        path: "sampan.toml",
        text: &format!("app = 'shop'\n{text}"),
        environment: &|_| None,
        read_file: &|_| Err("there are no files".to_owned()),
        profiles: &[],
    });
    let app = app.unwrap_or_else(|problems| panic!("{}", problems.to_plain()));
    let names = app.services.keys().chain(app.jobs.keys());
    let digests = names.map(|name| (name.clone(), "a".repeat(64))).collect();
    let wanted = Wanted {
        app: &app,
        base: Path::new("/"),
        digests: &digests,
        cause: "",
        wall_ms: 0,
    };
    apply::apply(present, &wanted).expect("it fits")
}

/// What there is once that has been written.
fn written(mut present: Present, applied: Applied) -> Present {
    present.app = applied.app.or(present.app);
    let services = applied.services.into_iter();
    present
        .services
        .extend(services.map(|it| (it.key.name.clone(), it)));
    let jobs = applied.jobs.into_iter();
    present
        .jobs
        .extend(jobs.map(|it| (it.key.name.clone(), it)));
    let revisions = applied.revisions.into_iter();
    present
        .revisions
        .extend(revisions.map(|(key, it)| ((key.name, it.number), it)));
    present
}

fn ask(present: &Present, text: &str) -> Ask {
    Ask::of(&shop(), present, (&applied(present, text)).into())
}

fn service(name: &str, more: &str) -> String {
    format!("[service.{name}]\ncomponent = 'x.wasm'\n{more}\n")
}

fn job(name: &str, more: &str) -> String {
    format!("[job.{name}]\ncomponent = 'x.wasm'\n{more}\n")
}

/// A quota of this for an app, and no other.
fn only(app: Usage) -> Quota {
    let node = Usage {
        apps: u64::MAX,
        services: u64::MAX,
        jobs: u64::MAX,
        pods: u64::MAX,
        memory: u64::MAX,
    };
    Quota { node, app }
}

/// As much of everything as there is.
fn all(number: u64) -> Usage {
    Usage {
        apps: number,
        services: number,
        jobs: number,
        pods: number,
        memory: number << 40,
    }
}

#[test]
fn what_counts_is_what_an_app_may_come_to() {
    let limits = "limits = { memory = '64MiB' }";
    for (text, services, jobs, pods, memory) in [
        (service("a", limits), 1, 0, 2, 128 * MIB),
        // The surge of a rollout, rounded up.
        (
            service("a", &format!("replicas = 10\n{limits}")),
            1,
            0,
            13,
            13 * 64 * MIB,
        ),
        (
            service(
                "a",
                &format!(
                    "replicas = 10\nrollout = {{ max_surge = 0, max_unavailable = 1 }}\n{limits}"
                ),
            ),
            1,
            0,
            10,
            640 * MIB,
        ),
        (
            service(
                "a",
                &format!("replicas = 10\nrollout.strategy = 'recreate'\n{limits}"),
            ),
            1,
            0,
            10,
            640 * MIB,
        ),
        // What the autoscaler may ask for.
        (
            service(
                "a",
                &format!(
                    "rollout.max_surge = 1\n{limits}\n\
                     autoscale = {{ min = 0, max = 30, concurrency = 5 }}"
                ),
            ),
            1,
            0,
            31,
            31 * 64 * MIB,
        ),
        (service("a", &format!("replicas = 0\n{limits}")), 1, 0, 0, 0),
        (job("a", limits), 0, 1, 0, 64 * MIB),
        (service("a", limits) + &job("c", ""), 1, 1, 2, 256 * MIB),
    ] {
        let found = ask(&Present::default(), &text);
        let expected = Usage {
            apps: 1,
            services,
            jobs,
            pods,
            memory,
        };
        let both = (found.before, found.after);
        assert_eq!(both, (Usage::default(), expected), "{text}");
        assert!(found.is_for_more());
    }
}

#[test]
fn what_is_refused_names_the_value_the_limit_and_the_remedy() {
    let mut said = String::new();
    let many = (0..3).map(|it| service(&format!("s{it}"), "replicas = 1000"));
    let many: String = many.chain([job("j", ""), job("k", "")]).collect();
    let ask = ask(&Present::default(), &many);
    for quota in [
        only(Usage {
            services: 2,
            ..all(100_000)
        }),
        only(Usage {
            jobs: 1,
            ..all(100_000)
        }),
        only(Usage {
            pods: 3000,
            ..all(100_000)
        }),
        only(Usage {
            memory: 100 << 30,
            ..all(100_000)
        }),
    ] {
        let refused = quota.check_app(&ask).expect_err("too much");
        said += &format!("{refused}\n  {}\n", refused.hint());
    }
    let enough = all(100_000);
    for (node, others) in [
        (Usage { apps: 4, ..enough }, 4),
        (
            Usage {
                pods: 4000,
                ..enough
            },
            1000,
        ),
    ] {
        let quota = Quota { node, app: enough };
        let refused = quota.check_node(&ask, &all(others)).expect_err("too much");
        said += &format!("{refused}\n  {}\n", refused.hint());
    }
    let most = "the largest is `service.s0` with `1250` pods, the surge of a rollout included";
    let expected = format!(
        "the app `shop` comes to `3` services, and an app of this node may have at most `2` services
  leave services out, split the app, or raise `services` in `[quota.app]` of the node's configuration
the app `shop` comes to `2` jobs, and an app of this node may have at most `1` jobs
  leave jobs out, split the app, or raise `jobs` in `[quota.app]` of the node's configuration
the app `shop` comes to `3750` pods, and an app of this node may have at most `3000` pods; {most}
  lower `replicas`, `autoscale.max` or `rollout.max_surge`, split the app, or raise `pods` in \
         `[quota.app]` of the node's configuration
the app `shop` comes to `469GiB` of memory, and an app of this node may have at most `100GiB` of \
         memory; {most}
  lower `limits.memory`, `replicas`, `autoscale.max` or `rollout.max_surge`, split the app, or \
         raise `memory` in `[quota.app]` of the node's configuration
the app `shop` comes to `1` apps and the other apps to `4` apps, and this node may have at most `4` apps
  delete an app, or raise `apps` in `[quota]` of the node's configuration
the app `shop` comes to `3750` pods and the other apps to `1000` pods, and this node may have at \
         most `4000` pods; {most}
  lower `replicas`, `autoscale.max` or `rollout.max_surge`, delete another app, or raise `pods` in \
         `[quota]` of the node's configuration
"
    );
    assert_eq!(said, expected);
}

#[test]
fn only_more_than_there_is_is_refused() {
    let before = written(
        Present::default(),
        applied(&Present::default(), &service("a", "replicas = 10")),
    );
    // Lowered since.
    let quota = only(Usage {
        pods: 5,
        memory: MIB,
        ..all(10)
    });
    for (text, good) in [
        (service("a", "replicas = 10"), true),
        (service("a", "replicas = 9"), true),
        (
            service("a", "replicas = 9\nlimits = { memory = '1MiB' }"),
            true,
        ),
        (service("a", "replicas = 11"), false),
        (
            service("a", "replicas = 10\nlimits = { memory = '256MiB' }"),
            false,
        ),
        (service("a", "replicas = 10") + &service("b", ""), false),
        // Another one in its place, which is no larger.
        (service("b", "replicas = 10"), true),
        (
            String::new() + &job("j", "limits = { memory = '1MiB' }"),
            true,
        ),
    ] {
        let ask = ask(&before, &text);
        assert_eq!(quota.check_app(&ask).is_ok(), good, "{text}: {ask:?}");
    }
    let nothing = apply::delete(&before, before.app.as_ref().expect("it is there"));
    let ask = Ask::of(&shop(), &before, (&nothing).into());
    assert!(!ask.is_for_more());
    assert_eq!(quota.check_app(&ask), Ok(()));
}

#[test]
fn sums_do_not_overflow() {
    let huge = all(1).plus(Usage {
        pods: u64::MAX,
        memory: u64::MAX,
        ..all(1)
    });
    assert_eq!((huge.pods, huge.memory), (u64::MAX, u64::MAX));
    let ask = ask(&Present::default(), &service("a", ""));
    let quota = Quota {
        node: all(5),
        app: all(5),
    };
    let refused = quota.check_node(&ask, &huge).expect_err("too much");
    assert!(
        refused
            .to_string()
            .contains(&format!("`{}` pods", u64::MAX)),
        "{refused}"
    );
}

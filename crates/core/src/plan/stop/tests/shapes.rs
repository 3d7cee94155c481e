//! Apps of several workloads: what stops at once, what waits, and what the deadline cuts short.

use super::*;

/// The app, what runs with how many seconds its requests take, and what stops when.
type Row = (&'static str, &'static [(&'static str, u64)], &'static str);

/// An app: its spec in short, what of it runs, and how many seconds its requests in flight take;
/// then what stops when, in seconds. `web > api` depends on it, `web ~ api` may call it, a `!` makes a
/// job of what it follows.
const ROWS: [Row; 18] = [
    // One after the other, from the outside in.
    (
        "web > api, api > db",
        &[("web", 5), ("api", 2), ("db", 1)],
        "web 0-5, api 5-7, db 7-8",
    ),
    (
        "web > api, api > db",
        &[("web", 0), ("api", 0), ("db", 0)],
        "api 0-0, db 0-0, web 0-0",
    ),
    // What does not depend on another stops at once.
    (
        "web, api, db",
        &[("web", 3), ("api", 2), ("db", 1)],
        "db 0-1, api 0-2, web 0-3",
    ),
    (
        "a > db, b > db, c",
        &[("a", 4), ("b", 9), ("c", 1), ("db", 1)],
        "c 0-1, a 0-4, b 0-9, db 9-10",
    ),
    // A diamond: `db` stops after both sides.
    (
        "web > a, web > b, a > db, b > db",
        &[("web", 1), ("a", 2), ("b", 6), ("db", 1)],
        "web 0-1, a 1-3, b 1-7, db 7-8",
    ),
    // One that is not there is looked through.
    (
        "web > api, api > db",
        &[("web", 5), ("db", 1)],
        "web 0-5, db 5-6",
    ),
    (
        "web > api, api > db",
        &[("api", 2), ("db", 1)],
        "api 0-2, db 2-3",
    ),
    ("web > api, api > db", &[("db", 1)], "db 0-1"),
    // All have one deadline, however long the chain is: the longest `drain`, 30 s.
    (
        "web > api, api > db",
        &[("web", 99), ("api", 99), ("db", 99)],
        "web 0-30, api 30-30, db 30-30",
    ),
    (
        "web > api, api > db",
        &[("web", 20), ("api", 99), ("db", 99)],
        "web 0-20, api 20-30, db 30-30",
    ),
    (
        "web > api, other",
        &[("web", 10), ("api", 99), ("other", 99)],
        "web 0-10, other 0-30, api 10-30",
    ),
    // Who may call another stops before it too, also without waiting for it at its start.
    ("web ~ api", &[("web", 5), ("api", 1)], "web 0-5, api 5-6"),
    // In a circle of calls none waits for the next. What it depends on waits for all of it.
    (
        "a ~ b, b ~ a, a > db",
        &[("a", 3), ("b", 2), ("db", 1)],
        "b 0-2, a 0-3, db 3-4",
    ),
    (
        "a ~ b, b ~ a, b > db, web > a",
        &[("web", 1), ("a", 3), ("b", 2), ("db", 1)],
        "web 0-1, b 1-3, a 1-4, db 4-5",
    ),
    // A dependency counts, also if it is called back.
    (
        "web > api, api ~ web",
        &[("web", 5), ("api", 1)],
        "web 0-5, api 5-6",
    ),
    // Jobs too: one that runs is ended before what it uses, and after what waits for it.
    (
        "nightly! > api",
        &[("nightly", 9), ("api", 1)],
        "nightly 0-0, api 0-1",
    ),
    (
        "web > migrate!, migrate! > db",
        &[("web", 5), ("migrate", 9), ("db", 1)],
        "web 0-5, migrate 5-5, db 5-6",
    ),
    (
        "web > api, import! ~ api",
        &[("web", 2), ("import", 1), ("api", 1)],
        "import 0-0, web 0-2, api 2-3",
    ),
];

/// The spec that a row says in short.
fn spec_of(short: &str) -> String {
    let mut parts = BTreeMap::<&str, (bool, Vec<String>, Vec<String>)>::new();
    for part in short.split(", ") {
        let words: Vec<_> = part.split(' ').collect();
        for word in words.iter().step_by(2) {
            let is_job = word.ends_with('!');
            parts.entry(word.trim_end_matches('!')).or_default().0 |= is_job;
        }
        if let [from, how, to] = words[..] {
            let on = to.trim_end_matches('!');
            let from = parts
                .get_mut(from.trim_end_matches('!'))
                .expect("it is there");
            match how {
                ">" => from.1.push(format!("{on} = 'started'")),
                _ => from.2.push(format!("'{on}'")),
            }
        }
    }
    let text = parts.into_iter().map(|(name, (is_job, waits, calls))| {
        let kind = if is_job { "job" } else { "service" };
        format!(
            "[{kind}.{name}]\ncomponent = '{name}.wasm'\ndepends_on = {{ {} }}\n\
             allow.services = [{}]\n",
            waits.join(", "),
            calls.join(", ")
        )
    });
    text.collect()
}

#[test]
fn apps_stop_from_the_outside_in_within_one_deadline() {
    for (short, runs, expected) in ROWS {
        let mut world = World::of(&spec_of(short));
        for (name, seconds) in runs {
            world.run(name);
            world.busy.insert(key(name), Duration::from_secs(*seconds));
        }
        assert_eq!(
            times(&world.clone().stopped()),
            expected,
            "{short}: the node stops"
        );
        assert_eq!(
            times(&world.deleted()),
            expected,
            "{short}: the app is deleted"
        );
    }
}

/// A service's own `drain` still bounds it, and the longest is the deadline.
#[test]
fn each_has_its_own_drain_at_most() {
    let mut world = World::of(
        "[service.web]\ncomponent = 'a.wasm'\ndepends_on = ['api']\nrollout.drain = '2s'\n\
         [service.api]\ncomponent = 'b.wasm'\nrollout.drain = '10s'\n",
    );
    for name in ["web", "api"] {
        world.run(name);
        world.busy.insert(key(name), Duration::from_secs(99));
    }
    assert_eq!(times(&world.clone().stopped()), "web 0-2, api 2-10");
    assert_eq!(times(&world.deleted()), "web 0-2, api 2-10");
}

/// An app that stays, from whose spec `db` is removed while `web` has pods of these revisions; its
/// present one is 2.
fn without_db(revisions: &[u64]) -> World {
    let mut world =
        World::of("[service.web]\ncomponent = 'a.wasm'\n[service.db]\ncomponent = 'b.wasm'\n");
    world.run("db");
    let web = world.services.get_mut(&key("web")).expect("a service");
    web.spec.revision = 2;
    let pods = revisions.iter().zip(0..);
    let pods = pods.map(|(&revision, slot)| Pod::new(&key("web"), revision, slot));
    world.pods.extend(pods);
    let db = world.services.get_mut(&key("db")).expect("a service");
    db.spec.deleting = true;
    world
}

/// What is removed from a spec stops after the revisions that could still call it.
#[test]
fn what_is_removed_from_the_spec_stops_after_the_revisions_that_may_call_it() {
    let after = Turn::After {
        dependent: key("web"),
        until: at(30_000),
    };
    let now = |millis| Turn::Now {
        drain: Duration::from_millis(millis),
    };
    for (revisions, millis, expected) in [
        (&[][..], 0, &now(30_000)),
        (&[2], 0, &now(30_000)),
        (&[2, 2], 10_000, &now(20_000)),
        (&[1], 0, &after),
        (&[1, 2], 29_999, &after),
        // A rollout that does not come to its end holds it up no longer than that.
        (&[1, 2], 30_000, &now(0)),
    ] {
        let world = without_db(revisions);
        let turn = world.contents().turn(&key("db"), SINCE_ZERO, at(millis));
        assert_eq!(turn, *expected, "{revisions:?} after {millis} ms");
    }
    // What takes no requests is called by none.
    let mut world = without_db(&[1]);
    let db = world.services.get_mut(&key("db")).expect("a service");
    db.spec.kind = ServiceKind::Command;
    let turn = world.contents().turn(&key("db"), SINCE_ZERO, at(0));
    assert_eq!(turn, now(30_000));
}

/// A record stays as long as what depends on its service: else it would not be known that what the
/// service depends on has to wait too.
#[test]
fn a_service_without_pods_is_removed_after_what_depends_on_it() {
    let mut world = World::of(&spec_of("web > api, api > db"));
    world.run("web");
    world.delete();
    world.prune();
    assert_eq!(world.services.len(), 3);
    world.ends(&key("web"));
    world.prune();
    assert_eq!(world.services.len(), 0);
}

/// Deleting begins when it was asked for first, and anew where it was taken back in between. What goes
/// meanwhile shortens nothing.
#[test]
fn a_deletion_has_one_beginning() {
    let mut world = World::of(&spec_of("web > db"));
    let mut deletions = Deletions::default();
    let first = Deletion {
        begun: at(1),
        ..SINCE_ZERO
    };
    assert_eq!(deletions.of(&key("db"), &world.contents(), at(1)), first);
    world.services.clear();
    assert_eq!(deletions.of(&key("db"), &world.contents(), at(5)), first);
    deletions.forget(&key("db"));
    let again = deletions.of(&key("db"), &world.contents(), at(9));
    assert_eq!((again.begun, again.limit), (at(9), Duration::ZERO));
}

/// A deletion that began at zero, of an app with the usual `drain`.
const SINCE_ZERO: Deletion = Deletion {
    begun: Timestamp::ZERO,
    limit: Duration::from_secs(30),
};

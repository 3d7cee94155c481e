//! Services of static files: applied, changed, taken back, and called.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use serde_json::Value;

use super::Daemon;
use crate::rig::{err, get, guest};

/// The directory of a daemon's site, with two files in it.
fn public(daemon: &Daemon) -> PathBuf {
    let public = PathBuf::from(daemon.place("public"));
    fs::create_dir_all(public.join("docs")).expect("made");
    fs::write(public.join("index.html"), "one").expect("written");
    fs::write(public.join("docs/index.html"), "docs").expect("written");
    public
}

const SITE: &str = "[service.site]\nstatic = 'public'\nreplicas = 2\nroute = ['x/']\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_served_rolled_out_and_taken_back() {
    let mut daemon = Daemon::start();
    let mut at = daemon.running().address();
    let public = public(&daemon);
    daemon.apply(SITE);
    assert_eq!(get(at, "x", "/").await.body, "one");
    assert_eq!(get(at, "x", "/docs/").await.body, "docs");
    assert_eq!(get(at, "x", "/docs").await.status, 308);
    assert_eq!(get(at, "x", "/nothing").await.status, 404);
    let service = daemon.service("site");
    assert_eq!(
        (&service["kind"], &service["ready"]),
        (&"static".into(), &2.into())
    );
    assert!(
        daemon
            .must(&["describe", "service", "site"])
            .contains("kind        static")
    );
    assert!(daemon.must(&["top", "--once"]).contains("site"));

    // The same again is no change; another file is a revision, and the way back is one too.
    let path = daemon.spec(SITE);
    assert!(
        daemon
            .must(&["apply", "-f", &path])
            .contains("service/site unchanged")
    );
    fs::write(public.join("index.html"), "two").expect("written");
    fs::write(public.join("new.txt"), "new").expect("written");
    let plan = daemon.must(&["plan", "-f", &path]);
    assert!(plan.contains("component: sha256:"), "{plan}");
    daemon.apply(SITE);
    assert_eq!(get(at, "x", "/").await.body, "two");
    assert_eq!(get(at, "x", "/new.txt").await.body, "new");
    daemon.must(&["rollout", "undo", "site"]);
    daemon.must(&["rollout", "status", "site"]);
    assert_eq!(get(at, "x", "/").await.body, "one");
    assert_eq!(get(at, "x", "/new.txt").await.status, 404);

    // Nothing of it is needed but what the node keeps.
    fs::remove_dir_all(&public).expect("removed");
    daemon.running().signal(rustix::process::Signal::KILL);
    daemon.running.take();
    daemon.launch();
    at = daemon.running().address();
    daemon.must(&["rollout", "status", "site"]);
    assert_eq!(get(at, "x", "/docs/").await.body, "docs");
    daemon.must(&["scale", "site=1"]);
    daemon.must(&["restart", "site", "--wait"]);
    assert_eq!(get(at, "x", "/").await.body, "one");
    daemon.must(&["delete", "a", "--wait"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_reaches_files_that_it_may_call() {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    public(&daemon);
    let caller = guest("caller");
    let front = |more: &str| {
        format!("{SITE}[service.front]\ncomponent = '{caller}'\nroute = ['y/']\n{more}\n")
    };
    daemon.apply(&front("depends_on = ['site']"));
    let called = get(at, "y", "/call?url=http://site/").await;
    assert!(called.body.contains("one"), "{called:?}");
    daemon.apply(&front(""));
    let denied = get(at, "y", "/call?url=http://site/").await;
    assert_eq!(
        (denied.status, denied.body.trim()),
        (502, "HttpRequestDenied")
    );
}

#[test]
fn what_leads_out_of_the_directory_is_refused() {
    let mut daemon = Daemon::start();
    daemon.running().address();
    let public = public(&daemon);
    fs::write(daemon.place("secret.txt"), "secret").expect("written");
    let refused = |spec: &str| {
        let path = daemon.spec(spec);
        let output = daemon.ask(&["apply", "-f", &path]);
        assert_ne!(output.status.code(), Some(0));
        err(&output)
    };
    for target in ["../secret.txt", "/etc/passwd", ".."] {
        symlink(target, public.join("link")).expect("a link");
        let said = refused(SITE);
        assert!(
            said.contains("`link`") && said.contains("leads out of the directory"),
            "{said}"
        );
        fs::remove_file(public.join("link")).expect("removed");
    }
    let said = refused(&SITE.replace("'public'", "'gone'"));
    assert!(said.contains("cannot open the directory"), "{said}");
    let said = refused(&format!("{SITE}fallback = 'app.html'\n"));
    assert!(
        said.contains("there is no file `app.html` in `static`"),
        "{said}"
    );
    let said = refused(&format!("{SITE}isolation = 'pod'\n"));
    assert!(said.contains("`isolation` is about a component"), "{said}");
    assert_eq!(daemon.json(&["get", "services"]), Value::Array(Vec::new()));
}

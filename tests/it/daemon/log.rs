//! The program's own log: where it listens, what each reconcile planned and wrote, each request.

use super::Daemon;
use crate::rig::{get, guest};

#[tokio::test]
async fn its_log_names_addresses_plans_writes_and_requests() {
    let mut daemon = Daemon::new();
    daemon.variables.push(("SAMPAN_LOG", "debug".to_owned()));
    daemon.launch();
    let address = daemon.running().address();
    daemon.apply(&format!(
        "[service.web]\ncomponent = {:?}\nroute = ['/']\n",
        guest("hello")
    ));
    assert_eq!(get(address, "any.test", "/").await.status, 200);
    let running = daemon.running.take().expect("it has been started");
    let (_, log) = running.interrupt();
    let has = |parts: &[&str]| {
        log.lines()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    };
    let gateway = format!("address={address}");
    for parts in [
        &["INFO the gateway listens", &gateway][..],
        &["INFO the API listens", &daemon.api()],
        &[
            "DEBUG planned",
            "services/a/web",
            "pods/a/web",
            "PodCreated",
        ],
        &["DEBUG written", "services/a/web", "revision="],
        &["DEBUG request{service=a/web", "status=200", "end=Complete"],
    ] {
        assert!(has(parts), "{parts:?} is missing in {log}");
    }
}

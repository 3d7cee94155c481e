//! No request is lost to a rollout, a change of scale or a restart.

use super::{Daemon, load::Load, times, variant};

/// What is rolled out.
struct Case {
    name: &'static str,
    guest: &'static str,
    isolation: &'static str,
    path: &'static str,
}

fn spec(case: &Case, component: &str) -> String {
    let isolation = case.isolation;
    format!(
        "[service.web]\ncomponent = '{component}'\nreplicas = 4\nisolation = '{isolation}'\n\
         route = ['/']\ndebug_headers = true\n"
    )
}

async fn nothing_is_lost(case: &Case) {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    let versions: Vec<String> = (1..=2)
        .map(|number| variant(case.guest, number, daemon.directory.path()))
        .map(|path| path.display().to_string())
        .collect();
    daemon.apply(&spec(case, &versions[0]));
    let load = Load::start(at, case.path, times("SAMPAN_CLIENTS", 16));
    let rollouts = times("SAMPAN_ROLLOUTS", 2);
    for number in 1..=rollouts {
        tokio::task::block_in_place(|| daemon.apply(&spec(case, &versions[number % 2])));
    }
    tokio::task::block_in_place(|| {
        for replicas in [1, 8] {
            daemon.must(&["scale", &format!("web={replicas}")]);
            daemon.must(&["rollout", "status", "web"]);
        }
        daemon.must(&["restart", "web"]);
        daemon.must(&["rollout", "status", "web"]);
    });
    let answered = load.end(case.name).await;
    eprintln!(
        "{}: {answered} requests, {rollouts} rollouts, none lost",
        case.name
    );
    let (status, talk) = daemon.running.take().expect("it runs").interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}

macro_rules! nothing_is_lost {
    ($($test:ident: $name:literal, $guest:literal, $isolation:literal, $path:literal;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            nothing_is_lost(&Case {
                name: $name,
                guest: $guest,
                isolation: $isolation,
                path: $path,
            })
            .await;
        }
    )+};
}

nothing_is_lost! {
    none_is_lost_of_0_2_with_an_instance_a_request: "0.2, request", "hello", "request", "/";
    none_is_lost_of_0_2_with_an_instance_a_pod: "0.2, pod", "hello", "pod", "/";
    none_is_lost_of_0_3_with_an_instance_a_request: "0.3, request", "hello-p3", "request", "/";
    none_is_lost_of_0_3_with_an_instance_a_pod: "0.3, pod", "hello-p3", "pod", "/";
    none_is_lost_that_takes_200_ms: "200 ms", "slow", "request", "/?ms=200";
    none_is_lost_that_streams_for_2_s: "2 s", "slow", "request", "/stream?ms=2000";
}

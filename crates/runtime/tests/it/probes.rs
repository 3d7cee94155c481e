//! Probes and `pre-stop`: what a pod answers to the host.

use std::time::Duration;

use sampan_core::{
    object::{Check, Isolation},
    plan::probe::ProbeKind,
};
use sampan_runtime::pod::{Pod, Probed};

use super::rig::{SHORT, ask, get, in_time, plan, workload};

const KINDS: [ProbeKind; 3] = [
    ProbeKind::Startup,
    ProbeKind::Readiness,
    ProbeKind::Liveness,
];

async fn http(pod: &Pod, path: &str) -> Probed {
    let check = Check::Http(path.to_owned());
    in_time(pod.probe(&check, ProbeKind::Readiness, SHORT)).await
}

async fn switch(pod: &Pod, path: &str) {
    let mut request = get(path);
    *request.method_mut() = http::Method::POST;
    let response = in_time(pod.call(request, None)).await.expect("a switch");
    assert!(response.status().is_success(), "{path}");
}

#[tokio::test]
async fn a_status_from_200_to_399_is_success() {
    let pod = plan(workload("flaky-ready"))
        .isolation(Isolation::Pod)
        .start()
        .await;
    assert_eq!(http(&pod, "/ready").await, Probed::Success);
    switch(&pod, "/ready/off").await;
    let Probed::Failure(reason) = http(&pod, "/ready").await else {
        panic!("it is not ready");
    };
    assert!(reason.starts_with("status 503"), "{reason}");
    assert!(matches!(http(&pod, "/nowhere").await, Probed::Failure(_)));
    assert_eq!(http(&pod, "/healthz").await, Probed::Success);
}

#[tokio::test]
async fn the_exports_are_asked_in_the_very_instance() {
    for name in ["health", "health-p3"] {
        let pod = plan(workload(name)).isolation(Isolation::Pod).start().await;
        for kind in KINDS {
            let probe = pod.probe(&Check::Export, kind, SHORT);
            assert_eq!(in_time(probe).await, Probed::Success, "{name} {kind}");
        }
        switch(&pod, "/ready/off").await;
        let probe = pod.probe(&Check::Export, ProbeKind::Readiness, SHORT);
        let Probed::Failure(reason) = in_time(probe).await else {
            panic!("{name} is not ready");
        };
        assert!(reason.starts_with("status 503: "), "{reason}");
        let probe = pod.probe(&Check::Export, ProbeKind::Liveness, SHORT);
        assert_eq!(in_time(probe).await, Probed::Success, "{name}");
    }
    let fresh = plan(workload("health"))
        .isolation(Isolation::Request)
        .start()
        .await;
    let probe = fresh.probe(&Check::Export, ProbeKind::Liveness, SHORT);
    assert_eq!(in_time(probe).await, Probed::Success);
}

#[tokio::test]
async fn a_guest_without_the_exports_fails_probes_by_export() {
    let pod = plan(workload("hello")).start().await;
    let probe = pod.probe(&Check::Export, ProbeKind::Liveness, SHORT);
    let wanted = "the guest does not export `sampan:pod/health`".to_owned();
    assert_eq!(in_time(probe).await, Probed::Failure(wanted));
}

#[tokio::test]
async fn a_probe_goes_before_the_requests_that_wait() {
    let pod = plan(workload("slow"))
        .isolation(Isolation::Pod)
        .start()
        .await;
    let pod = std::sync::Arc::new(pod);
    let asks: Vec<_> = (0..20)
        .map(|_| {
            let pod = std::sync::Arc::clone(&pod);
            tokio::spawn(async move { ask(&pod, "/?ms=100").await })
        })
        .collect();
    // Polled once each, they hold the slot or wait for it.
    tokio::task::yield_now().await;
    let check = Check::Http("/?ms=1".to_owned());
    let probe = pod.probe(&check, ProbeKind::Liveness, Duration::from_secs(1));
    assert_eq!(in_time(probe).await, Probed::Success);
    assert!(asks.iter().filter(|ask| ask.is_finished()).count() < 10);
}

/// The instance waits, so a processor would not have helped: that is a failure, and it is said what
/// for.
#[tokio::test]
async fn a_probe_of_a_guest_that_hangs_says_what_it_waits_for() {
    for isolation in [Isolation::Request, Isolation::Pod] {
        let pod = plan(workload("slow")).isolation(isolation).start().await;
        let Probed::Failure(reason) = http(&pod, "/?ms=60000").await else {
            panic!("it hangs");
        };
        assert!(reason.starts_with("no answer within 200ms"), "{reason}");
        if isolation == Isolation::Pod {
            assert!(reason.contains("`pollable.block` for a timer"), "{reason}");
        }
    }
}

#[tokio::test]
async fn pre_stop_is_called_once_the_guest_has_it() {
    for name in ["health", "health-p3"] {
        let pod = plan(workload(name)).isolation(Isolation::Pod).start().await;
        assert_eq!(in_time(pod.pre_stop(SHORT)).await, Ok(()), "{name}");
        switch(&pod, "/pre-stop/off").await;
        let refused = in_time(pod.pre_stop(SHORT)).await;
        assert!(
            refused.is_err_and(|it| it.starts_with("status 503")),
            "{name}"
        );
        let calls = ask(&pod, "/calls").await.expect("an answer").1;
        assert!(calls.contains("pre-stop"), "{calls}");
    }
    let without = plan(workload("hello"))
        .isolation(Isolation::Pod)
        .start()
        .await;
    assert_eq!(in_time(without.pre_stop(SHORT)).await, Ok(()));
}

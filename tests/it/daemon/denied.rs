//! What another app has is out of reach.

use super::Daemon;
use crate::rig::{get, guest};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_of_another_app_is_not_called() {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    let other = format!(
        "app = 'b'\n[service.echo]\ncomponent = '{}'\nroute = ['echo.localhost/']\n",
        guest("echo")
    );
    let path = daemon.place("other.toml");
    std::fs::write(&path, other).expect("written");
    daemon.must(&["apply", "-f", &path, "--wait"]);
    daemon.apply(&format!(
        "[service.web]\ncomponent = '{}'\nroute = ['x/']\n",
        guest("caller")
    ));
    for (url, hint) in [
        (
            "http://echo.internal/",
            "if the app had a service of this name",
        ),
        ("http://echo/", r#"`allow.outbound = [\"http://echo\"]`"#),
        (
            "http://echo.b.internal/",
            r#"`allow.outbound = [\"http://echo.b.internal\"]`"#,
        ),
        ("http://b/echo/", r#"`allow.outbound = [\"http://b\"]`"#),
        // By its route: this node itself.
        (
            &format!("http://echo.localhost:{}/", at.port()),
            "an address of this node itself",
        ),
    ] {
        let answer = get(at, "x", &format!("/call?url={url}")).await;
        let told = (answer.status, answer.body.as_str());
        assert_eq!(told, (502, "HttpRequestDenied\n"), "{url}");
        let log = daemon.must(&["logs", "web", "--app", "a", "--json"]);
        let last = log.lines().rfind(|line| line.contains("denied: "));
        assert!(last.is_some_and(|line| line.contains(hint)), "{url}: {log}");
    }
    // The spec cannot name it either.
    let path = daemon.spec(&format!(
        "[service.web]\ncomponent = '{}'\nallow.services = ['echo']\n",
        guest("caller")
    ));
    let refused = daemon.ask(&["apply", "-f", &path]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("no service is named `echo`"), "{told}");
}

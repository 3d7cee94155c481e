//! No outage is silent: what keeps a stored app from serving is said everywhere, and told when it
//! is over.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::symlink, net::UnixStream},
    path::PathBuf,
    time::Instant,
};

use serde_json::Value;

use super::Daemon;
use crate::rig::{PATIENCE, guest, out};

fn spec(component: &str, more: &str) -> String {
    format!("[service.web]\ncomponent = '{component}'\nreplicas = 2\nroute = ['/']\n{more}\n")
}

/// A daemon whose app was complete, and which is down now.
fn complete_then_down(text: &str) -> Daemon {
    let mut daemon = Daemon::start();
    daemon.running().address();
    daemon.apply(text);
    assert_eq!(daemon.service("web")["phase"], "Complete");
    daemon.stop();
    daemon
}

impl Daemon {
    fn stop(&mut self) {
        let running = self.running.take().expect("it has been started");
        let (status, said) = running.interrupt();
        assert!(status.success(), "{said}");
    }

    /// Waits until what these arguments ask for is as wanted.
    fn until(&self, arguments: &[&str], is_wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.json(arguments);
            if is_wanted(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "still {found:#}");
        }
    }

    /// The file of its only component.
    fn artifact(&self) -> PathBuf {
        let files = fs::read_dir(self.place("data/artifacts/sha256")).expect("there");
        let mut files: Vec<_> = files.map(|it| it.expect("readable").path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }

    /// Starts it again, and checks that everything says that nothing serves, and because of what.
    fn outage(&mut self, because: &str) {
        self.launch();
        self.running().address();
        let pods = self.until(&["get", "pods"], |pods| {
            let pods = pods.as_array().expect("a list");
            pods.iter()
                .all(|pod| pod["reason"].to_string().contains(because))
        });
        let service = self.until(&["get", "services"], |services| {
            let web = &services[0];
            web["phase"] == "Unavailable" && web["reason"].to_string().contains(because)
        });
        let service = &service[0];
        let reason = service["reason"].as_str().expect("a reason");
        assert!(reason.contains("0 of 2 pods are ready"), "{reason}");
        let conditions = service["conditions"].as_array().expect("conditions");
        let available = conditions.iter().find(|it| it["kind"] == "Available");
        let available = available.expect("it is said");
        assert_eq!(available["holds"], false);
        assert!(available["message"].to_string().contains(because));
        let pods = pods.as_array().expect("a list");
        assert_eq!(pods.len(), 2, "{pods:#?}");
        for pod in pods {
            assert_eq!(pod["ready"], false);
            let phase = pod["phase"].as_str().expect("a phase");
            assert!(phase.ends_with("BackOff"), "{pod:#}");
        }
        for arguments in [
            &["get", "services"][..],
            &["get", "pods"],
            &["describe", "service", "web"],
            &["describe", "pod", "web-1-0"],
            &["describe", "app", "a"],
        ] {
            let text = self.must(arguments);
            assert!(text.contains(because), "{arguments:?}: {text}");
            let of_pods = arguments.iter().any(|it| it.starts_with("pod"));
            assert!(
                !of_pods || text.contains("BackOff"),
                "{arguments:?}: {text}"
            );
        }
        let status = self.ask(&["rollout", "status", "web", "--timeout", "2s"]);
        assert_eq!(status.status.code(), Some(1), "{}", out(&status));
        let said = crate::rig::err(&status);
        assert!(said.contains(because), "{said}");
        let events = self.events();
        let told = |object: &str, reason: &str, why: &str| {
            let is = |it: &&Value| it["object"] == object && it["reason"] == reason;
            let mut those = events.iter().filter(is);
            let found = those.any(|it| it["message"].to_string().contains(why));
            assert!(found, "no {reason} of {object} with {why} in {events:#?}");
        };
        // One that goes on under another reason is not told again.
        told("service/web", "Unavailable", "");
        told("pod/web-1-0", "Failed", because);
        told("pod/web-1-1", "Failed", because);
        self.running().line_with(because);
    }

    /// Waits until all serves again, which must be told.
    fn healed(&mut self) {
        self.until(&["get", "services"], |it| it[0]["phase"] == "Complete");
        let events = self.events();
        let told = |it: &Value| it["object"] == "service/web" && it["reason"] == "Available";
        assert!(events.iter().any(told), "{events:#?}");
    }

    fn metric(&self, start: &str) -> String {
        let mut api = UnixStream::connect(self.api()).expect("it listens");
        api.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .expect("written");
        let mut text = String::new();
        api.read_to_string(&mut text).expect("text");
        let line = text.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no `{start}` in {text}"))
            .to_owned()
    }
}

#[test]
fn a_missing_component_is_said_and_uploaded_by_the_next_apply() {
    let text = spec(&guest("hello"), "");
    let mut daemon = complete_then_down(&text);
    fs::remove_file(daemon.artifact()).expect("removed");
    daemon.outage("apply the spec again to upload it");
    let stuck = "sampan_pods{app=\"a\",service=\"web\",phase=\"BackOff\"}";
    assert_eq!(daemon.metric(stuck), format!("{stuck} 2"));
    // What the message says to do, with the same content.
    daemon.apply(&text);
    daemon.healed();
    assert_eq!(daemon.metric(stuck), format!("{stuck} 0"));
}

#[test]
fn a_damaged_component_is_said_and_uploaded_by_the_next_apply() {
    let text = spec(&guest("hello"), "");
    let mut daemon = complete_then_down(&text);
    let artifact = daemon.artifact();
    let mut bytes = fs::read(&artifact).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&artifact, bytes).expect("written");
    daemon.outage("is damaged");
    daemon.apply(&text);
    daemon.healed();
}

#[test]
fn a_component_that_is_empty_or_a_directory_is_said() {
    let text = spec(&guest("hello"), "");
    let mut daemon = complete_then_down(&text);
    let artifact = daemon.artifact();
    fs::write(&artifact, b"").expect("written");
    daemon.outage("damaged");
    daemon.stop();
    fs::create_dir(&artifact).expect("made");
    daemon.outage("make it readable, or remove it and apply");
    fs::remove_dir(&artifact).expect("removed");
    fs::copy(guest("hello"), &artifact).expect("copied");
    daemon.healed();
}

#[test]
fn a_lent_directory_that_is_gone_is_said_and_tried_again() {
    let lent = crate::rig::directory(&[("file", b"text")]);
    let path = lent.path().join("lent");
    fs::create_dir(&path).expect("made");
    let more = format!(
        "[[service.web.allow.files]]\nhost = '{}'\nguest = '/lent'\naccess = 'read-only'\n",
        path.display()
    );
    let mut daemon = Daemon::start_with(&format!(
        "[node]\nvolumes = ['{}']\n",
        lent.path().display()
    ));
    daemon.running().address();
    daemon.apply(&spec(&guest("hello"), &more));
    daemon.stop();
    fs::remove_dir(&path).expect("removed");
    daemon.outage(&path.display().to_string());
    // It comes back, as a mount does.
    symlink(lent.path(), lent.path().join("elsewhere")).expect("made");
    fs::create_dir(&path).expect("made");
    daemon.healed();
}

#[test]
fn too_little_address_space_is_said() {
    let mut daemon = complete_then_down(&spec(&guest("hello"), ""));
    daemon.address_space_mib = Some(4000);
    daemon.outage("`ulimit -v`");
    daemon.stop();
    daemon.address_space_mib = None;
    daemon.launch();
    daemon.running().address();
    daemon.healed();
}

#[test]
fn a_component_that_cannot_be_compiled_any_more_is_said() {
    let text = spec(&guest("hello"), "");
    let mut daemon = complete_then_down(&text);
    // The code is gone, and so is the time for making it.
    daemon.variables = vec![("XDG_CACHE_HOME", daemon.place("cache"))];
    let limits = daemon.place("node.toml");
    fs::write(&limits, "[compile]\ntime = '1ms'\n").expect("written");
    daemon.outage("`compile.time` of the node, 1ms");
    daemon.stop();
    fs::write(&limits, "").expect("written");
    daemon.launch();
    daemon.running().address();
    daemon.healed();
}

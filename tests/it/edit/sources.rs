//! `up --watch`: sources that are built, and a spec that changes.

use std::fs;

use super::{COUNTER, HELLO, place, up};
use crate::rig::{eventually, get, guest};

/// Makes the component that `src/which` names.
const BUILD: &str = "cp $$(cat src/which).wasm made && mv made web.wasm";

fn spec(build: &str) -> String {
    format!(
        "app = 'a'\n\
         [service.other]\n\
         component = 'counter.wasm'\n\
         isolation = 'pod'\n\
         route = ['other.test/']\n\
         [service.web]\n\
         component = 'web.wasm'\n\
         route = ['web.test/']\n\
         build = \"{build}\"\n\
         watch = ['src']\n"
    )
}

#[tokio::test]
async fn a_saved_source_is_built_and_served_and_a_bad_one_is_not() {
    let place = place(&spec(BUILD));
    let which = place.path().join("src/which");
    let mut running = up(place.path(), &["--build", "--watch"]);
    let address = running.address();
    assert_eq!(get(address, "web.test", "/").await.body, HELLO);
    assert_eq!(get(address, "other.test", "/").await.body, "1\n");

    fs::write(&which, "counter").expect("written");
    eventually(address, "web.test", "/", |it| it.body == COUNTER).await;
    running.line_with("revision 2 has taken over");

    fs::write(&which, "nothing").expect("written");
    let told = running.line_with("the build of web failed: ");
    assert!(told.starts_with("web   | "), "{told}");
    assert!(
        told.ends_with("ended with exit code 1; what runs goes on"),
        "{told}"
    );
    assert_eq!(get(address, "web.test", "/").await.body, COUNTER);

    // What the build makes is what ran before.
    fs::write(&which, "hello").expect("written");
    running.line_with("revision 1 has taken over");
    assert_eq!(get(address, "web.test", "/").await.body, HELLO);
    // The other service keeps its instance throughout.
    assert_eq!(get(address, "other.test", "/").await.body, "2\n");
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    assert_eq!(talk.matches("| building: ").count(), 4, "{talk}");
    assert_eq!(talk.matches("has taken over").count(), 2, "{talk}");
}

#[tokio::test]
async fn saves_during_a_build_are_one_more_build() {
    // A build that goes on until the test has saved: it reads what comes through a pipe.
    let build = "cat pipe; echo $$(cat src/which) >> log; cp hello.wasm web.wasm";
    let place = place(&spec(build));
    let at = |path: &str| place.path().join(path);
    let pipe = std::process::Command::new("mkfifo")
        .arg(at("pipe"))
        .status();
    assert!(pipe.expect("it starts").success());
    fs::copy(guest("hello"), at("web.wasm")).expect("copied");
    let mut running = up(place.path(), &["--watch"]);
    fs::write(at("src/which"), "first").expect("written");
    running.line_with("| building: ");
    for save in ["second", "third", "fourth"] {
        fs::write(at("src/which"), save).expect("written");
    }
    // Each opens once there is a reader.
    fs::write(at("pipe"), "go on\n").expect("written");
    running.line_with("| building: ");
    fs::write(at("pipe"), "go on\n").expect("written");
    running.line_with("| built in ");
    running.line_with("| built in ");
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    let log = fs::read_to_string(at("log")).expect("readable");
    assert_eq!(log, "fourth\nfourth\n", "{talk}");
    assert_eq!(talk.matches("| building: ").count(), 2, "{talk}");
}

#[tokio::test]
async fn a_build_that_writes_its_own_sources_comes_to_an_end() {
    let build = "date +%N > src/stamp; cp hello.wasm web.wasm";
    let place = place(&spec(build));
    let mut running = up(place.path(), &["--build", "--watch"]);
    let told = running.line_with("the build writes what it watches");
    assert!(told.contains("(src/stamp)"), "{told}");
    // From now on a save is one build.
    fs::write(place.path().join("src/which"), "saved").expect("written");
    running.line_with("| building: ");
    running.line_with("| built in ");
    let before = fs::read(place.path().join("src/stamp")).expect("readable");
    let address = running.address();
    for _ in 0..100 {
        get(address, "web.test", "/").await;
    }
    let after = fs::read(place.path().join("src/stamp")).expect("readable");
    assert_eq!(before, after);
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}

#[tokio::test]
async fn a_changed_spec_changes_what_it_says_and_nothing_else() {
    let first = spec("cp hello.wasm web.wasm");
    let place = place(&first);
    let save = |text: &str| {
        let (path, next) = ("sampan.toml", "sampan.toml.next");
        fs::write(place.path().join(next), text).expect("written");
        fs::rename(place.path().join(next), place.path().join(path)).expect("renamed");
    };
    let mut running = up(place.path(), &["--build", "--watch"]);
    let address = running.address();
    assert_eq!(get(address, "other.test", "/").await.body, "1\n");

    // A spec that is not good changes nothing.
    save("app = 'a'\n[service.other]\ncomponent = 7\n");
    running.line_with("the spec is not good: what runs goes on as before");
    save(&first.replace("app = 'a'", "app = 'b'"));
    running.line_with("the spec is of app `b` now, and `a` runs");
    assert_eq!(get(address, "other.test", "/").await.body, "2\n");

    // One service goes, one comes that has to be built, one is given another route.
    let second = "app = 'a'\n\
         [service.other]\n\
         component = 'counter.wasm'\n\
         isolation = 'pod'\n\
         route = ['else.test/']\n\
         [service.new]\n\
         component = 'new.wasm'\n\
         route = ['new.test/']\n\
         build = \"cp $$(cat src/which).wasm new.wasm\"\n\
         watch = ['src']\n";
    save(second);
    eventually(address, "new.test", "/", |it| it.body == HELLO).await;
    running.line_with("web   | deleted by the spec");
    running.line_with("new answers at http://new.test:");
    assert_eq!(get(address, "else.test", "/").await.body, "3\n");
    eventually(address, "web.test", "/", |it| it.status == 404).await;

    // What is new in the spec is watched as the rest is.
    fs::write(place.path().join("src/which"), "counter").expect("written");
    eventually(address, "new.test", "/", |it| it.body == COUNTER).await;

    // A spec that needs what is not there comes true when that comes.
    let third =
        format!("{second}[service.late]\ncomponent = 'late.wasm'\nroute = ['late.test/']\n");
    save(&third);
    running.line_with("nothing was changed; what runs goes on as before");
    fs::copy(guest("hello"), place.path().join("late.wasm")).expect("copied");
    eventually(address, "late.test", "/", |it| it.body == HELLO).await;
    assert_eq!(get(address, "else.test", "/").await.body, "4\n");
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}

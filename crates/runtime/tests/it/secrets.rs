//! Secrets as guests see them, and as nothing else does.

use std::{path::Path, sync::Arc};

use sampan_core::{
    name::Name,
    object::{Access, Grants, Mount, MountSource, SecretUse},
    secret::{SecretValue, SecretValues},
};
use sampan_runtime::{
    command::{self, CommandSpec, Exit},
    pod::Pod,
};

use super::files::FILES;
use super::rig::{
    Plan, Witness, ask, failure, in_time, limits, lines, load, plan, pod_name, runtime, workload,
};
use super::text::component;

const PASSWORD: &str = "correct-horse-battery";

fn secret(name: &str) -> SecretUse {
    SecretUse {
        name: Name::parse(name).expect("a name"),
        version: "0f".to_owned(),
    }
}

fn file(name: &str, guest: &str) -> Mount {
    Mount {
        source: MountSource::Secret(secret(name)),
        guest: guest.to_owned(),
        access: Access::ReadOnly,
    }
}

fn values() -> SecretValues {
    let value = |text: String| SecretValue::new(text.into_bytes());
    [
        (secret("db"), value(format!("{PASSWORD}\n"))),
        (secret("key"), value("key".repeat(50_000))),
    ]
    .into()
}

/// A guest that sees a secret as a variable and as a file, and another one in another place.
fn guest() -> Plan {
    let mut plan = plan(workload("env-and-files"));
    let grants = &mut plan.grants;
    grants
        .secret_env
        .insert("PASSWORD".to_owned(), secret("db"));
    grants.files = vec![
        file("db", "/run/secrets/db"),
        file("key", "/run/secrets/key"),
        file("db", "/etc/shop/password"),
    ];
    plan.secrets = values();
    plan
}

async fn told(pod: &Pod, path: &str) -> (u16, String) {
    in_time(ask(pod, path)).await.expect("an answer")
}

#[tokio::test]
async fn a_secret_is_a_variable_and_a_file() {
    let pod = guest().start().await;
    for (path, wanted) in [
        ("/env", format!("PASSWORD={PASSWORD}\n")),
        ("/do?op=read&path=/run/secrets/db", format!("{PASSWORD}\n")),
        (
            "/do?op=read&path=/etc/shop/password",
            format!("{PASSWORD}\n"),
        ),
        ("/do?op=read&path=/run/secrets/key", "key".repeat(50_000)),
        ("/do?op=list&path=/run/secrets", "db\nkey\n".to_owned()),
        ("/do?op=list&path=/etc/shop", "password\n".to_owned()),
        (
            "/do?op=stat&path=/run/secrets/key",
            "150000 bytes\n".to_owned(),
        ),
        (
            "/do?op=stat&path=/run/secrets/./db",
            "22 bytes\n".to_owned(),
        ),
    ] {
        assert_eq!(told(&pod, path).await, (200, wanted), "{path}");
    }
}

#[tokio::test]
async fn a_secret_is_not_changed_and_leads_nowhere_else() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("own"), "own").expect("written");
    let mut plan = guest();
    plan.grants.files.push(Mount {
        source: MountSource::Host(folder.path().to_owned()),
        guest: "/data".to_owned(),
        access: Access::ReadWrite,
    });
    let pod = plan.start().await;
    for what in [
        "op=unlink&path=/run/secrets/db",
        "op=mkdir&path=/run/secrets/new",
        "op=rename&path=/run/secrets/db&to=/run/secrets/other",
        "op=rename&path=/run/secrets/db&to=/data/out",
        "op=rename&path=/data/own&to=/run/secrets/db",
        "op=rename&path=/data/own&to=/run/secrets/new",
        "op=link&path=/run/secrets/db&to=/data/out",
        "op=link&path=/data/own&to=/run/secrets/new",
        "op=symlink&path=/etc/passwd&to=/run/secrets/new",
        "op=read&path=/run/secrets/../../etc/passwd",
        "op=read&path=/run/secrets/none",
        "op=read&path=/run/secrets/db/x",
        "op=stat&path=/run/secrets/..",
        "op=list&path=/run",
    ] {
        let (status, text) = told(&pod, &format!("/do?{what}")).await;
        assert!((400..=500).contains(&status), "{what}: {status} {text}");
        assert!(!text.contains(PASSWORD), "{what}: {text}");
    }
    let said = lines(runtime(), pod.name());
    let denied = "denied: a change of a secret, or of where secrets are; nothing allows it";
    let is_said = said.iter().any(|it| it.text.starts_with(denied));
    assert!(is_said, "{said:?}");
    // All is as it was.
    let names: Vec<_> = std::fs::read_dir(folder.path()).expect("there").collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let (_, text) = told(&pod, "/do?op=list&path=/run/secrets").await;
    assert_eq!(text, "db\nkey\n");
    let (_, text) = told(&pod, "/do?op=read&path=/run/secrets/db").await;
    assert_eq!(text.trim_end(), PASSWORD);
}

#[tokio::test]
async fn what_is_not_granted_is_not_there() {
    let mut plan = guest();
    plan.grants = Grants::default();
    let pod = plan.start().await;
    assert_eq!(told(&pod, "/env").await, (200, String::new()));
    for path in ["/run/secrets/db", "/etc/shop/password"] {
        let (status, text) = told(&pod, &format!("/do?op=read&path={path}")).await;
        assert!(status == 403 || status == 404, "{path}: {status} {text}");
    }
}

/// What a guest prints is shown to people: a secret is not.
#[tokio::test]
async fn a_secret_is_hidden_in_the_log_and_in_what_is_told_of_a_crash() {
    let witness = Arc::new(Witness::default());
    let pod = guest().watch(&witness).start().await;
    let (status, _) = told(&pod, &format!("/print?text=it+is+{PASSWORD}!")).await;
    assert_eq!(status, 204);
    let failed = failure(&pod, "/panic?env=PASSWORD").await;
    let explanation = witness.last().explain();
    let said = lines(runtime(), pod.name());
    let texts: Vec<_> = said.iter().map(|line| line.text.as_str()).collect();
    assert!(texts.contains(&"it is ***!"), "{texts:?}");
    assert!(texts.contains(&"the variable is ***"), "{texts:?}");
    let told = format!("{texts:?} {failed:?} {explanation}");
    assert!(!told.contains(PASSWORD), "{told}");
}

#[tokio::test]
async fn a_denial_shows_no_secret() {
    let mut plan = plan(workload("caller"));
    plan.grants
        .secret_env
        .insert("PASSWORD".to_owned(), secret("db"));
    plan.secrets = values();
    let pod = plan.start().await;
    let _ = ask(&pod, &format!("/call?url=http://{PASSWORD}.example/")).await;
    let said = lines(runtime(), pod.name());
    let denied = said.iter().find(|line| line.text.contains("***.example"));
    let denied = denied.unwrap_or_else(|| panic!("no denial in {said:?}"));
    assert!(!denied.text.contains(PASSWORD), "{denied:?}");
}

#[tokio::test]
async fn without_its_value_no_pod_starts() {
    let mut plan = guest();
    plan.secrets = SecretValues::new();
    let error = plan.try_start().await.err().expect("no start");
    let text = error.to_string();
    assert_eq!(text, "cannot lend the guest the secret `db`");
}

/// A command of WASI 0.3, whose functions are others: `in` is read and may not be written, `out` is not
/// there, and the directory has one entry.
fn reads_and_lists() -> String {
    const NOT_PERMITTED: u8 = 30;
    const NO_ENTRY: u8 = 19;
    let (before, rest) = FILES
        .split_once("(func (export \"run\") (result i32)")
        .expect("run");
    let (_, after) = rest
        .split_once("(core instance $main")
        .expect("an instance");
    let open = |at: u32, length: u32, flags: u32| {
        format!(
            "(call $open (local.get $dir) (i32.const 0) (i32.const {at}) (i32.const {length})
                (i32.const 0) (i32.const {flags}) (i32.const 8))"
        )
    };
    let refused = |code: u8| {
        format!(
            "(call $check (i32.eq (i32.load8_u (i32.const 8)) (i32.const 1)))
            (call $check (i32.eq (i32.load8_u (i32.const 12)) (i32.const {code})))"
        )
    };
    let run = format!(
        "(func (export \"run\") (result i32)
            (local $dir i32) (local $from i32) (local $end i32) (local $status i32)
            (call $directories (i32.const 0))
            (local.set $dir (i32.load (i32.load (i32.const 0))))
            {read}
            (call $check (i32.eqz (i32.load8_u (i32.const 8))))
            (call $read-via (i32.load (i32.const 12)) (i64.const 0) (i32.const 0))
            (local.set $from (i32.load (i32.const 0)))
            (local.set $end (i32.load (i32.const 4)))
            (local.set $status (call $done (local.get $from)
                (call $read (local.get $from) (i32.const 4096) (i32.const 100))))
            (call $check (i32.eq (i32.shr_u (local.get $status) (i32.const 4)) (i32.const 22)))
            (call $check (i32.eq (i32.load8_u (i32.const 4096)) (i32.const 99)))
            {write} {not_permitted}
            {other} {no_entry}
            (call $list-via (local.get $dir) (i32.const 0))
            (local.set $from (i32.load (i32.const 0)))
            (local.set $end (i32.load (i32.const 4)))
            (local.set $status (call $done (local.get $from)
                (call $list (local.get $from) (i32.const 4096) (i32.const 100))))
            (call $check (i32.eq (i32.shr_u (local.get $status) (i32.const 4)) (i32.const 1)))
            (call $ends (local.get $end))
            (i32.const 0)))
    (core instance $main",
        read = open(1024, 2, 1),
        write = open(1024, 2, 2),
        not_permitted = refused(NOT_PERMITTED),
        other = open(1026, 3, 1),
        no_entry = refused(NO_ENTRY),
    );
    format!("{before}{run}{after}")
}

#[tokio::test]
async fn a_guest_of_wasi_0_3_reads_and_lists_secrets() {
    let loaded = load(&component(&reads_and_lists())).await;
    let name = pod_name();
    let grants = Grants {
        files: vec![file("db", "/run/secrets/in")],
        ..Grants::default()
    };
    let spec = CommandSpec {
        name: name.clone(),
        args: &[],
        grants: &grants,
        limits: &limits(),
        base: Path::new("/"),
        stdio: sampan_runtime::Stdio::Logs,
        neighbours: None,
        keyvalue: None,
        secrets: &values(),
    };
    let ended = in_time(command::run(runtime(), &loaded, spec)).await;
    let ended = ended.expect("a start");
    assert_eq!(ended.exit, Exit::Code(0), "{:?}", lines(runtime(), &name));
}

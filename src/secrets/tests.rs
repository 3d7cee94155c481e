//! Tables of what is sealed and opened again, and of keys that are not what they were.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use sampan_core::spec;
use sampan_store::{Memory, Transaction};

use super::*;

const SPEC: &str = "app = 'shop'\n[secret.db]\nenv = 'DB'\n[service.web]\ncomponent = 'web.wasm'\n\
                    env = { PASSWORD = { secret = 'db' } }\nallow.files = [{ secret = 'db' }]\n";

fn text(record: &Secret) -> String {
    serde_json::to_string(record).expect("plain data")
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn app(text: &str) -> App {
    let input = spec::Input {
        path: "sampan.toml",
        text,
        environment: &|_| None,
        read_file: &|_| Err("there is none".to_owned()),
        profiles: &[],
    };
    spec::load_with_secrets(&input, &|_, _| Ok(SecretValue::new(vec![b'x']))).expect("a good spec")
}

fn values(value: &str) -> BTreeMap<Name, SecretValue> {
    [(name("db"), SecretValue::new(value.as_bytes().to_owned()))].into()
}

fn store() -> Arc<dyn Store> {
    Arc::new(Memory::new())
}

async fn write(store: &Arc<dyn Store>, sealed: &Sealed) {
    let put = |transaction: Transaction, (key, record): (&Key, &Secret)| {
        transaction.put(key.to_string(), text(record))
    };
    let all = sealed.iter().fold(Transaction::new(), put);
    let _ = store.commit(all).await.expect("memory does not fail");
}

/// Seals a value, writes it, and gives back what refers to it.
async fn kept(secrets: &Secrets, value: &str) -> Grants {
    let mut app = app(SPEC);
    let sealed = secrets.seal(&mut app, &values(value)).expect("sealed");
    assert_eq!(sealed.len(), 1, "two uses are one secret");
    for record in sealed.values() {
        assert!(!text(record).contains("hunter2"));
    }
    write(&secrets.store, &sealed).await;
    app.services[&name("web")].grants.clone()
}

async fn opened(secrets: &Secrets, grants: &Grants) -> Result<String, String> {
    let opened = secrets.open(&name("shop"), grants).await;
    let values = opened.map_err(|error| error.to_string())?;
    assert_eq!(values.len(), 1);
    let value = values.into_values().next().expect("one");
    Ok(value.text().expect("text").to_owned())
}

#[tokio::test]
async fn what_is_sealed_is_opened_again_and_named_by_its_value() {
    let secrets = Secrets::in_memory(store());
    let first = kept(&secrets, "hunter2").await;
    assert_eq!(opened(&secrets, &first).await, Ok("hunter2".to_owned()));
    let other = kept(&secrets, "hunter3").await;
    assert_ne!(first, other);
    assert_eq!(
        kept(&secrets, "hunter2").await,
        first,
        "the same value is no change"
    );
    assert_eq!(
        opened(&secrets, &first).await,
        Ok("hunter2".to_owned()),
        "the old one is kept"
    );
    // The version cannot be made without the key, and another key makes another.
    let elsewhere = Secrets::in_memory(store());
    assert_ne!(kept(&elsewhere, "hunter2").await, first);
    let SecretsError::Missing(missing) = secrets
        .seal(&mut app(SPEC), &BTreeMap::new())
        .expect_err("no value")
    else {
        panic!("the value is missing");
    };
    assert_eq!(missing, name("db"));
}

#[tokio::test]
async fn a_value_is_good_for_its_own_place_only() {
    let secrets = Secrets::in_memory(store());
    let grants = kept(&secrets, "hunter2").await;
    let other = kept(&secrets, "hunter3").await;
    let place = |grants: &Grants| {
        keys_of(&name("shop"), grants)
            .next()
            .expect("a secret")
            .to_string()
    };
    // The record of another version, and one that was changed.
    let record = secrets
        .store
        .get(&place(&other))
        .await
        .expect("memory")
        .expect("there");
    let moved = Transaction::new().put(place(&grants), record.value.clone());
    let _ = secrets
        .store
        .commit(moved)
        .await
        .expect("memory does not fail");
    let damaged = "the secret `db` in the store is damaged: apply the app again";
    assert_eq!(opened(&secrets, &grants).await, Err(damaged.to_owned()));
    let written = String::from_utf8(record.value.to_vec()).expect("text");
    for (what, bad) in [
        ("cut", written.replace("=\"", "\"").replace("==\"", "\"")),
        ("no record", "{}".to_owned()),
        (
            "short",
            written.replace("\"sealed\":\"", "\"sealed\":\"AAAA\",\"x\":\""),
        ),
    ] {
        let put = Transaction::new().put(place(&grants), bad);
        let _ = secrets
            .store
            .commit(put)
            .await
            .expect("memory does not fail");
        assert_eq!(
            opened(&secrets, &grants).await,
            Err(damaged.to_owned()),
            "{what}"
        );
    }
    let gone = Transaction::new().delete(place(&grants));
    let _ = secrets
        .store
        .commit(gone)
        .await
        .expect("memory does not fail");
    let error = opened(&secrets, &grants).await.expect_err("gone");
    assert!(error.contains("is gone from the store"), "{error}");
}

#[tokio::test]
async fn the_key_is_made_once_and_only_for_this_user() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("secrets.key");
    let store = store();
    let secrets = Secrets::at(store.clone(), path.clone());
    assert!(!path.exists(), "it is made when it is needed");
    let grants = kept(&secrets, "hunter2").await;
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(home.path()).expect("there").count(), 1);
    // Another process.
    let again = Secrets::at(store.clone(), path.clone());
    assert_eq!(opened(&again, &grants).await, Ok("hunter2".to_owned()));
    assert_eq!(kept(&again, "hunter2").await, grants);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    assert_eq!(limit.current, Some(0), "no core dump has it");
}

#[tokio::test]
async fn a_key_that_is_not_what_it_was_is_said_with_a_remedy() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("secrets.key");
    let store = store();
    let grants = kept(&Secrets::at(store.clone(), path.clone()), "hunter2").await;
    let again = || Secrets::at(store.clone(), path.clone());
    fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("ours");
    let error = opened(&again(), &grants).await.expect_err("exposed");
    assert!(error.contains("`chmod 600`"), "{error}");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
    for bad in ["", "short", &"z".repeat(64), &"0".repeat(66)] {
        fs::write(&path, bad).expect("writable");
        let error = opened(&again(), &grants).await.expect_err("no key");
        assert!(error.contains("is not a key of 64 hex digits"), "{error}");
    }
    fs::write(&path, "0".repeat(64)).expect("writable");
    let error = opened(&again(), &grants).await.expect_err("another key");
    assert!(error.contains("was sealed with another key"), "{error}");
    fs::remove_file(&path).expect("there");
    let error = opened(&again(), &grants).await.expect_err("no key");
    assert!(error.contains("put the file back"), "{error}");
    assert!(!path.exists(), "to open a secret makes no key");
    // To apply it again is a remedy.
    let secrets = again();
    let grants = kept(&secrets, "hunter2").await;
    assert_eq!(opened(&secrets, &grants).await, Ok("hunter2".to_owned()));
}

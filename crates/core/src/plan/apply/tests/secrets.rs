//! Tables of what an apply makes of secrets and shows of variables.

use super::*;
use crate::secret::SecretValue;

/// The app of a spec with a secret, as the node has it that knows this version of it.
fn with_secret(version: &str) -> object::App {
    let text = format!(
        "{SHOP}env = {{ PASSWORD = {{ secret = 'db' }} }}\nallow.files = [{{ secret = 'db' }}]\n\
         [secret.db]\nenv = 'DB'\n[job.migrate]\ncomponent = 'migrate.wasm'\n\
         env = {{ PASSWORD = {{ secret = 'db' }} }}\n"
    );
    let input = spec::Input {
        path: "sampan.toml",
        text: &text,
        environment: &|_| None,
        read_file: &|_| Err("there is none".to_owned()),
        profiles: &[],
    };
    let read = |_: &Name, _: &object::SecretSource| Ok(SecretValue::new(b"hunter2".to_vec()));
    let app = spec::load_with_secrets(&input, &read);
    let mut app = app.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    let services = app.services.values_mut().map(|it| &mut it.grants);
    let grants = services.chain(app.jobs.values_mut().map(|it| &mut it.grants));
    for secret in grants.flat_map(object::Grants::secrets_mut) {
        version.clone_into(&mut secret.version);
    }
    app
}

#[test]
fn another_value_of_a_secret_is_another_revision() {
    let mut present = Present::default();
    let mut write = |version| {
        let applied = try_apply(&present, &with_secret(version)).expect("a good spec");
        take(&mut present, &applied);
        applied
    };
    let new = write("0123456789abcdef");
    assert_eq!((new.revisions.len(), new.jobs.len()), (1, 1));
    let same = write("0123456789abcdef");
    assert!(!same.plan.changed && same.app.is_none());
    let changed = write("fedcba9876543210");
    assert_eq!((changed.revisions.len(), changed.jobs.len()), (1, 1));
    let fields = |name: &str| -> Vec<_> {
        let fields = change(&changed, name).fields.iter();
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let shown = fields.map(|it| (it.name.clone(), shown(&it.old), shown(&it.new)));
        shown.collect()
    };
    let variable = (
        "env.PASSWORD".to_owned(),
        "secret db (version 01234567)".to_owned(),
        "secret db (version fedcba98)".to_owned(),
    );
    let file = (
        "allow.files".to_owned(),
        "secret db (version 01234567) at /run/secrets/db, read-only".to_owned(),
        "secret db (version fedcba98) at /run/secrets/db, read-only".to_owned(),
    );
    assert_eq!(fields("web"), [file, variable.clone()]);
    assert_eq!(fields("migrate"), [variable]);
    // And back again is the revision that there was.
    let back = write("0123456789abcdef");
    assert!(back.revisions.is_empty());
    assert_eq!(change(&back, "web").revision, Some(1));
}

#[test]
fn a_long_variable_is_shown_by_its_beginning() {
    let mut present = shop();
    let text = |end: &str| format!("{SHOP}env = {{ KEY = '{}{end}' }}", "ä".repeat(300));
    write(&mut present, &text(""));
    let applied = write(&mut present, &text("x"));
    let field = &change(&applied, "web").fields[0];
    let start = "ä".repeat(200);
    assert_eq!(field.old, Some(format!("{start}… (600 bytes)")));
    assert_eq!(field.new, Some(format!("{start}… (601 bytes)")));
}

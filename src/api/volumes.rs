//! Which directories of this machine guests may be lent.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use sampan_core::object::{App, Grants, Mount};

use super::error::{ApiError, Code};

/// Makes the directories in `allow.files` absolute, with symlinks followed, and sees to it that
/// each lies below one that is allowed. It asks the disk.
pub(super) fn resolve(app: &mut App, base: &Path, roots: &[PathBuf]) -> Result<(), ApiError> {
    let roots: Vec<_> = roots
        .iter()
        .filter_map(|root| fs::canonicalize(root).ok())
        .collect();
    let mut refused = Vec::new();
    let services = app.services.values_mut();
    let services = services.map(|it| ("service", &it.name, &mut it.grants));
    let jobs = app.jobs.values_mut();
    let jobs = jobs.map(|it| ("job", &it.name, &mut it.grants));
    for (kind, name, grants) in services.chain(jobs) {
        // A grant that is new asks here whether it lends a path of the host.
        let Grants {
            files,
            env: _,
            secret_env: _,
            config: _,
            services: _,
            outbound: _,
            keyvalue: _,
        } = grants;
        for host in files.iter_mut().filter_map(Mount::host_mut) {
            if let Err(reason) = resolve_one(host, base, &roots) {
                refused.push(format!("{kind}.{name}.allow.files: {reason}"));
            }
        }
    }
    match refused.is_empty() {
        true => Ok(()),
        false => Err(ApiError::new(Code::ForbiddenVolume, refused.join("; "))
            .hint("`volumes` in `[node]` of the node's configuration lists what can be lent")
            .details(refused)),
    }
}

fn resolve_one(host: &mut PathBuf, base: &Path, roots: &[PathBuf]) -> Result<(), String> {
    let asked = base.join(&*host);
    let shown = asked.display();
    // What is not below an allowed directory by its name either is not looked for, so that no
    // client learns what there is elsewhere.
    let outside = || format!("`{shown}` is not in a directory that the node lends");
    let Ok(found) = fs::canonicalize(&asked) else {
        let up = asked.components().any(|part| part == Component::ParentDir);
        let below = !up && roots.iter().any(|root| asked.starts_with(root));
        return Err(match below {
            true => format!("there is no directory `{shown}`"),
            false => outside(),
        });
    };
    if !roots.iter().any(|root| found.starts_with(root)) {
        return Err(outside());
    }
    if !found.is_dir() {
        return Err(format!("`{shown}` is not a directory"));
    }
    *host = found;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_is_below_a_root_is_lent() {
        let home = tempfile::tempdir().expect("a directory");
        let home = fs::canonicalize(home.path()).expect("there");
        let root = home.join("lent");
        for directory in ["lent/data", "lent-not", "secret"] {
            fs::create_dir_all(home.join(directory)).expect("writable");
        }
        fs::write(root.join("file"), "").expect("writable");
        symlink(home.join("secret"), root.join("link")).expect("writable");
        symlink(root.join("data"), home.join("secret/in")).expect("writable");
        let roots = [root.clone()];
        let resolve = |host: &str| {
            let mut host = PathBuf::from(host);
            resolve_one(&mut host, &root, &roots).map(|()| host)
        };
        let data = Ok(root.join("data"));
        assert_eq!(resolve("data"), data);
        assert_eq!(resolve("."), Ok(root.clone()));
        assert_eq!(resolve("data/../data"), data);
        assert_eq!(resolve(&home.join("secret/in").display().to_string()), data);
        for bad in [
            "..",
            "../secret",
            "link",
            "/",
            "/etc",
            "../lent-not",
            "../none",
        ] {
            let reason = resolve(bad).expect_err(bad);
            assert!(
                reason.ends_with("is not in a directory that the node lends"),
                "{reason}"
            );
        }
        let absent = resolve("absent").expect_err("absent");
        assert!(absent.starts_with("there is no directory"), "{absent}");
        let file = resolve("file").expect_err("a file");
        assert!(file.ends_with("is not a directory"), "{file}");
    }
}

//! Files of nodes as data: `tests/ui/node/NAME.toml`, each with what is wrong with it in `NAME.err`.
//! `UPDATE=1` writes what comes out in place of what was expected.

use std::{collections::BTreeMap, fs, path::PathBuf};

use sampan_core::spec::{Problems, node};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/ui/node")
}

/// The problems of each file of the folder, by its name. All of them are bad.
pub(super) fn problems() -> BTreeMap<String, Problems> {
    let entries = fs::read_dir(folder()).expect("the folder of fixtures");
    let paths = entries.map(|entry| entry.expect("an entry of the folder").path());
    let files = paths.filter(|path| path.extension().is_some_and(|it| it == "toml"));
    let read = files.map(|path| {
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path).expect("a fixture in UTF-8");
        let loaded = node::load(&format!("{name}.toml"), &text, &|_| None);
        (name, loaded.expect_err("it is bad"))
    });
    read.collect()
}

#[test]
fn every_file_of_a_node_comes_out_as_expected() {
    for (name, problems) in problems() {
        let path = folder().join(format!("{name}.err"));
        let found = problems.to_plain();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &found).expect("a file of the folder can be written");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(expected, found, "{name}: UPDATE=1 writes what is found");
    }
}

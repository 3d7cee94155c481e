//! The reference for users and the example.

use std::{fs, path::Path};

use sampan_core::spec;

use super::fixtures;

#[test]
fn the_references_in_docs_are_those_generated() {
    for (file, generated) in [
        ("spec.md", spec::reference()),
        ("node.md", spec::node_reference()),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let path = path.join(file);
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("docs can be made");
            fs::write(&path, &generated).expect("it can be written");
        }
        let checked_in = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            checked_in == generated,
            "docs/{file} is out of date: run the tests with UPDATE=1"
        );
    }
}

#[test]
fn the_node_file_in_the_reference_is_good() {
    let reference = spec::node_reference();
    let file = reference.split("```toml\n").nth(1).expect("a file");
    let file = file.split("```").next().expect("a file");
    let node = spec::node::load("node.toml", file, &|_| None).expect("it loads");
    assert_eq!(node.gateway.connections, 20_000);
}

#[test]
fn the_example_is_a_good_spec() {
    let app = fixtures::load("sampan.toml", spec::example()).expect("the example loads");
    let (name, hello) = app.services.first_key_value().expect("a service");
    assert_eq!(
        (name.as_str(), app.services.len(), app.jobs.len()),
        ("hello", 1, 0)
    );
    assert_eq!(hello.component.path, Path::new("hello.wasm"));
}

#[test]
fn the_specs_in_the_reference_are_good() {
    let reference = spec::reference();
    let specs: Vec<&str> = reference
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(specs.len(), 1);
    for text in specs {
        fixtures::load("sampan.toml", text).expect("a spec in the reference loads");
    }
}

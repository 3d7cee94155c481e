//! The template in C: what it says of its types is what its WIT says.

use std::{fs, path::Path};

use wit_component::{
    StringEncoding, embed_component_metadata,
    metadata::{Bindgen, decode, encode},
};

/// A core module in which there is nothing yet.
const EMPTY: &[u8] = b"\0asm\x01\0\0\0";

fn template(name: &str) -> Vec<u8> {
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../templates");
    fs::read(templates.join(name)).expect("readable")
}

/// The types of a module, in the one form that this version writes.
fn types(module: &[u8]) -> Vec<u8> {
    let (stripped, found) = decode(module).expect("good types");
    assert!(stripped.is_some(), "there are types");
    encode(&found.resolve, found.world, StringEncoding::UTF8, None).expect("a good world")
}

/// `world` as a module with its types.
fn embedded(text: &str) -> Vec<u8> {
    let mut resolve = Bindgen::default().resolve;
    let package = resolve.push_source("world.wit", text).expect("good WIT");
    let world = resolve.select_world(&[package], Some("service"));
    let mut module = EMPTY.to_vec();
    let world = world.expect("the world of the template");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("types");
    module
}

#[test]
fn the_types_of_the_template_in_c_are_those_of_its_world() {
    let text = String::from_utf8(template("world.wit")).expect("text");
    let kept = types(&[EMPTY, &template("c/types.bin")].concat());
    let remedy = "templates/c/build.sh says how types.bin is written anew";
    assert!(kept == types(&embedded(&text)), "{remedy}");
    // One function more is another world.
    let other = text.replace(
        "blocking-write-and-flush:",
        "flush: func();\n            blocking-write-and-flush:",
    );
    assert!(kept != types(&embedded(&other)), "no type is compared");
}

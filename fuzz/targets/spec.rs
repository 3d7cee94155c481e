//! Any text as a spec file: it loads or is refused with problems that can be shown, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sampan_core::spec::{self, Input, MAX_PROBLEMS, Problems};

/// What variables are set to. It must not come out again in a message.
const SECRET: &str = "b5f1c3";

fuzz_target!(|text: &str| {
    let input = Input {
        path: "sampan.toml",
        text,
        environment: &|name| (name.len() % 2 == 0).then(|| SECRET.to_owned()),
        // Env files are as hostile as the rest.
        read_file: &|path| match path.len() % 3 {
            0 => Err("there is no such file".to_owned()),
            _ => Ok(text.to_owned()),
        },
        profiles: &["debug".to_owned()],
    };
    match spec::load(&input) {
        Ok(app) => assert!(!app.name.as_str().is_empty()),
        Err(problems) => check(&problems, text),
    }
});

fn check(problems: &Problems, text: &str) {
    let kept = problems.iter().count();
    assert!(kept <= MAX_PROBLEMS && kept <= problems.count() && problems.count() > 0);
    let shown = problems.to_plain();
    assert!(
        !shown.contains(SECRET) || text.contains(SECRET),
        "the value of a variable is shown:\n{shown}"
    );
}

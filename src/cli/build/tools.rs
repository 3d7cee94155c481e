//! Programs that builds need, and what to install where one is missing.

/// The exit code of a shell that does not find a program.
pub(super) const NOT_FOUND: i32 = 127;

/// Programs, and what there is to do for each.
const TOOLS: [(&str, &str); 13] = [
    ("cargo", "install Rust from https://rustup.rs"),
    ("rustup", "install it from https://rustup.rs"),
    ("rustc", "install Rust from https://rustup.rs"),
    (
        "npm",
        "install Node.js 20 or later, from https://nodejs.org or the system's packages",
    ),
    (
        "npx",
        "install Node.js 20 or later, from https://nodejs.org or the system's packages",
    ),
    (
        "node",
        "install Node.js 20 or later, from https://nodejs.org or the system's packages",
    ),
    (
        "python3",
        "install Python 3.10 or later, from https://python.org or the system's packages",
    ),
    (
        "pip",
        "install Python 3.10 or later with pip, from https://python.org or the system's packages",
    ),
    ("componentize-py", "`pip install componentize-py` has it"),
    (
        "go",
        "install Go 1.24 or later, from https://go.dev/dl or the system's packages",
    ),
    (
        "tinygo",
        "install it from https://tinygo.org/getting-started/install",
    ),
    (
        "zig",
        "install it from https://ziglang.org/download, or with `pip install ziglang`",
    ),
    ("make", "the system's packages have it, often as `make`"),
];

/// The program that a shell did not find, if this line of its output says so: `sh: 1: x: not found`
/// as dash has it, or `sh: line 1: x: command not found`.
pub(super) fn not_found(line: &str) -> Option<String> {
    // The template in C takes Zig from Python's packages where it is not in `PATH`.
    if line.ends_with("No module named ziglang") {
        return Some("zig".to_owned());
    }
    let told = line
        .strip_suffix(": not found")
        .or_else(|| line.strip_suffix(": command not found"))?;
    let program = told.rsplit(": ").next()?;
    let is_one = told != program && !program.is_empty() && !program.contains(char::is_whitespace);
    is_one.then(|| program.to_owned())
}

/// What to do about a program that is missing, as the second half of a sentence.
pub(super) fn remedy(program: &str) -> String {
    let remedy = TOOLS.iter().find(|(name, _)| *name == program);
    match remedy {
        Some((_, remedy)) => format!("there is no program `{program}`: {remedy}"),
        None => format!("there is no program `{program}` in `PATH`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_says_what_it_did_not_find() {
        for (line, program) in [
            ("sh: 1: cargo: not found", Some("cargo")),
            ("/bin/sh: line 1: npm: command not found", Some("npm")),
            ("sh: zig: not found", Some("zig")),
            ("/usr/bin/python3: No module named ziglang", Some("zig")),
            ("error: header not found", None),
            ("cannot find it: the file x: not found", None),
            ("cargo: not found", None),
        ] {
            assert_eq!(not_found(line).as_deref(), program, "{line}");
        }
        assert_eq!(
            remedy("cargo"),
            "there is no program `cargo`: install Rust from https://rustup.rs"
        );
    }
}

//! A command that runs to completion, written as any Rust program is (WASI 0.2 through `std`).
//!
//! | arguments | what it does |
//! |---|---|
//! | `args A B …` | prints the arguments behind `args`, one a line |
//! | `env NAME …` | prints `NAME=value` for each of these variables that is set |
//! | `cat` | copies stdin to stdout |
//! | `ls PATH` | prints the names in a directory, sorted |
//! | `warn TEXT` | prints the text to stderr |
//! | `exit N` | ends with this code; `wasi:cli/exit` knows only success and failure, so 0 or 1 |
//!
//! It fails, with a line on stderr, if that does not work or the arguments are none of these.

use std::env;
use std::fs;
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["args", ref rest @ ..] => {
            rest.iter().for_each(|argument| println!("{argument}"));
            Ok(())
        }
        ["env", ref names @ ..] => {
            print_environment(names);
            Ok(())
        }
        ["cat"] => io::copy(&mut io::stdin(), &mut io::stdout()).map(drop),
        ["ls", path] => list(path),
        ["warn", text] => {
            eprintln!("{text}");
            Ok(())
        }
        ["exit", "0"] => return ExitCode::SUCCESS,
        ["exit", "1"] => return ExitCode::FAILURE,
        _ => Err(io::Error::other("want one of: args env cat ls warn exit")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("command: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_environment(names: &[&str]) {
    for name in names {
        if let Ok(value) = env::var(name) {
            println!("{name}={value}");
        }
    }
}

fn list(path: &str) -> io::Result<()> {
    let entries = fs::read_dir(path)?;
    let names = entries.map(|entry| Ok(entry?.file_name().display().to_string()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    names.iter().for_each(|name| println!("{name}"));
    Ok(())
}

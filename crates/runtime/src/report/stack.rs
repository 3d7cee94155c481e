//! A guest's stack in the words of its language.

use std::fmt::{self, Write as _};

use sampan_core::escape;
use wasmtime::{FrameInfo, WasmBacktrace};

use super::Frame;

/// The guest's stack.
pub(crate) fn frames(backtrace: &WasmBacktrace) -> Vec<Frame> {
    let frame = |frame: &FrameInfo| {
        let number = || format!("function {}", frame.func_index());
        let name = frame.func_name().map(demangled);
        Frame {
            function: name.unwrap_or_else(number),
            module: frame.module().name().map(demangled),
            // wasmtime calls it the module's, but counts from the start of what it compiled.
            component_offset: frame.module_offset(),
        }
    };
    backtrace.frames().iter().map(frame).collect()
}

/// The longest name that is demangled; a short one can stand for an enormous one all the same.
const MAX_NAME_BYTES: usize = 1 << 10;
/// Characters of a name that are kept.
const MAX_NAME_CHARACTERS: usize = 200;

/// A text that takes only so much.
struct Short {
    text: String,
    left: usize,
}

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(character);
        }
        Ok(())
    }
}

/// A name as its language writes it, without the hash that Rust puts at its end. It comes from the
/// guest, so it is kept short, and without anything that a terminal would obey.
fn demangled(name: &str) -> String {
    let mut short = Short {
        text: String::new(),
        left: MAX_NAME_CHARACTERS,
    };
    let written = match name.len() {
        ..=MAX_NAME_BYTES => write!(short, "{:#}", rustc_demangle::demangle(name)),
        _ => short.write_str(name),
    };
    if written.is_err() {
        short.text.push('…');
    }
    escape::word(&short.text).into_owned()
}

//! The compiling child: this same program, started by itself.

use std::process::ExitCode;

use sampan_runtime::artifact::compile::child;

/// Compiles, if that is what this process was started for.
pub(super) fn child() -> Option<ExitCode> {
    child::is_wanted().then(|| u8::try_from(child::run()).map_or(ExitCode::FAILURE, ExitCode::from))
}

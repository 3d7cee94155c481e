//! `sampan bench detect`.

use std::time::Duration;

use clap::Args;
use sampan_core::quantity::parse_duration;

use super::session::{self, ReportArguments};
use crate::{
    cli::{End, output::Output},
    serve::bench::detect::{Wanted, measure},
};

/// The longest that it goes on.
const LIMIT: Duration = Duration::from_secs(120);
pub(super) const TITLE: &str = "How soon a fault is found, and whether a good guest is blamed";

/// Measure how soon a guest is found out that traps, spins, waits for ever or is not well
///
/// A trap, a spinning guest, deadlocks of one, two and three, and a failed liveness, each from the
/// request that makes it to the event that tells the verdict. Then a mixed load of guests that do
/// what they should, of which none may be blamed.
///
/// It takes about 25 seconds, and ends after 2 minutes.
#[derive(Args)]
pub(super) struct Arguments {
    /// How often each fault is made
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tries: u32,

    /// How long the mixed load goes on
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    mixed: Duration,

    #[command(flatten)]
    common: ReportArguments,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let wanted = Wanted {
        tries: arguments.tries,
        mixed: arguments.mixed,
    };
    session::one(
        ("detect", TITLE),
        &arguments.common,
        LIMIT,
        output,
        async |part| {
            measure(&wanted, part).await?;
            Ok(true)
        },
    )
}

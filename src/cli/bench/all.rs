//! `sampan bench all`.

use std::{fmt::Write as _, time::Duration};

use clap::Args;

use super::{
    cold_start, density, detect, rollout, scale,
    session::{self, ReportArguments},
    throughput,
};
use crate::{
    cli::{End, output::Output},
    serve::bench::{
        BenchError, Component, cold_start as cold, density as dense, detect as found,
        recorder::{Part, Recorder},
        rollout as rolled, scale as scaled, throughput as through,
    },
};

/// The longest that it goes on.
const LIMIT: Duration = Duration::from_secs(300);

/// Measure everything, with fewer rounds, into one report
///
/// It takes about three minutes, and ends after five.
#[derive(Args)]
pub(super) struct Arguments {
    /// As little as possible of everything: to see whether it works, and not how fast
    #[arg(long)]
    smoke: bool,

    #[command(flatten)]
    common: ReportArguments,
}

/// How much of everything is measured.
struct Plan {
    cold: cold::Wanted,
    rolled: rolled::Wanted,
    through: through::Wanted,
    found: found::Wanted,
    scaled: scaled::Wanted,
    dense: dense::Wanted,
}

impl Plan {
    fn new(is_smoke: bool) -> Self {
        let or = |all: u32, smoke: u32| if is_smoke { smoke } else { all };
        let millis = |all, smoke| Duration::from_millis(or(all, smoke).into());
        let up_to = |all: &[u32]| match is_smoke {
            true => all[..1].to_vec(),
            false => all.to_vec(),
        };
        Self {
            cold: cold::Wanted {
                component: Component::own(),
                isolation: None,
                runs: or(100, 5),
                compile_runs: or(5, 1),
                at_once: up_to(&[1, 8, 64]),
                rounds: or(3, 1),
            },
            rolled: rolled::Wanted {
                first: Component::own(),
                second: None,
                isolation: None,
                replicas: up_to(&[1, 10, 100, 1000]),
                connections: 16,
                rate: f64::from(or(1000, 100)),
                rollouts: or(5, 1),
                steady: millis(1000, 100),
            },
            through: through::Wanted {
                component: None,
                connections: up_to(&[1, 32, 256]),
                rounds: or(5, 1),
                round: millis(300, 50),
                rate: f64::from(or(1000, 100)),
            },
            found: found::Wanted {
                tries: or(10, 1),
                mixed: millis(5000, 500),
            },
            scaled: scaled::Wanted {
                component: None,
                pods: or(5, 2),
                steps: or(3, 1),
                hold: millis(3000, 100),
                wakes: or(5, 1),
            },
            dense: dense::Wanted {
                component: None,
                pods: or(10_000, 10),
            },
        }
    }
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let plan = Plan::new(arguments.smoke);
    session::run(&arguments.common, LIMIT, output, async |recorder| {
        all(&plan, recorder).await
    })
}

/// One that fails does not keep the others from being measured.
async fn all(plan: &Plan, recorder: &Recorder) -> Result<bool, BenchError> {
    let part = |bench, title, from: f64, to: f64| recorder.part(bench, title, (from, to));
    let mut is_good = true;
    let at = part("cold-start", cold_start::TITLE, 0.0, 0.05);
    let measured = cold::measure(&plan.cold, &at).await;
    is_good &= ended(&at, measured.map(|()| true));
    let at = part("rollout", rollout::TITLE, 0.05, 0.15);
    is_good &= ended(&at, rolled::measure(&plan.rolled, &at).await);
    let at = part("throughput", throughput::TITLE, 0.15, 0.5);
    is_good &= ended(&at, through::measure(&plan.through, &at).await);
    let at = part("detect", detect::TITLE, 0.5, 0.6);
    let measured = found::measure(&plan.found, &at).await;
    is_good &= ended(&at, measured.map(|()| true));
    let at = part("scale", scale::TITLE, 0.6, 0.85);
    let measured = scaled::measure(&plan.scaled, &at).await;
    is_good &= ended(&at, measured.map(|()| true));
    let at = part("density", density::TITLE, 0.85, 1.0);
    let measured = dense::measure(&plan.dense, &at).await;
    is_good &= ended(&at, measured.map(|()| true));
    Ok(is_good)
}

/// Ends a section, and says whether it went well.
fn ended(part: &Part, measured: Result<bool, BenchError>) -> bool {
    part.end();
    measured.unwrap_or_else(|error| {
        let mut text = format!("FAILED: {error}");
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            // Writing to a text cannot fail.
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        part.note(text);
        false
    })
}

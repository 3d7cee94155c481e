//! `sampan bench scale`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use sampan_core::quantity::parse_duration;

use super::session::{self, ReportArguments, component};
use crate::{
    cli::{End, output::Output},
    serve::bench::scale::{Wanted, measure},
};

/// The longest that it goes on.
const LIMIT: Duration = Duration::from_secs(180);
pub(super) const TITLE: &str = "The autoscaler at a step of the load, and from zero";

/// Measure how the autoscaler follows a load that steps up and down, and how soon zero pods answer
///
/// It takes about 60 seconds, and ends after 3 minutes.
#[derive(Args)]
pub(super) struct Arguments {
    /// The component, which answers `GET /`; without one, a small one that is built in
    component: Option<PathBuf>,

    /// Pods that the load needs after the step
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=300))]
    pods: u32,

    /// Steps up and down
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    steps: u32,

    /// How long the load stays once there are so many pods
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = parse_duration)]
    hold: Duration,

    /// How often a service without pods is asked
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    wakes: u32,

    #[command(flatten)]
    common: ReportArguments,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let wanted = Wanted {
        component: arguments.component.as_deref().map(component).transpose()?,
        pods: arguments.pods,
        steps: arguments.steps,
        hold: arguments.hold,
        wakes: arguments.wakes,
    };
    session::one(
        ("scale", TITLE),
        &arguments.common,
        LIMIT,
        output,
        async |part| {
            measure(&wanted, part).await?;
            Ok(true)
        },
    )
}

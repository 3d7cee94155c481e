//! `sampan bench density`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::session::{self, ReportArguments, component};
use crate::{
    cli::{End, output::Output},
    serve::bench::density::{Wanted, measure},
};

/// The longest that it goes on.
const LIMIT: Duration = Duration::from_secs(120);
pub(super) const TITLE: &str = "How many pods fit, and what each takes";

/// Measure how many pods fit into one process, and what each takes, idle and lightly loaded
///
/// Pods are added until there are as many as are asked for or a limit is met, which is named. It
/// takes about 20 seconds, and ends after 2 minutes.
#[derive(Args)]
pub(super) struct Arguments {
    /// The component, which answers `GET /`; without one, a small one that is built in
    component: Option<PathBuf>,

    /// The most pods
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pods: u32,

    #[command(flatten)]
    common: ReportArguments,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let wanted = Wanted {
        component: arguments.component.as_deref().map(component).transpose()?,
        pods: arguments.pods,
    };
    session::one(
        ("density", TITLE),
        &arguments.common,
        LIMIT,
        output,
        async |part| {
            measure(&wanted, part).await?;
            Ok(true)
        },
    )
}

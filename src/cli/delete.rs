//! `sampan delete`: an app and everything that belongs to it.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use sampan_core::view;

use super::{
    End,
    api::{ApiArguments, stop},
    apply::lines,
    output::Output,
    run::runtime,
    spec::SpecArguments,
};
use crate::client::quoted;

/// Delete an app with everything that belongs to it: its pods are drained and stopped
#[derive(Args)]
pub(super) struct Arguments {
    /// The app
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    app: Option<String>,

    /// The spec of the app
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    api: ApiArguments,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let app = match (&arguments.app, &arguments.file) {
        (Some(app), _) => app.clone(),
        (None, file) => {
            let spec = SpecArguments {
                file: file.clone().unwrap_or_default(),
                profile: Vec::new(),
            };
            spec.load(output)?.name.to_string()
        }
    };
    let client = arguments.api.client()?;
    let target = format!("/v1/apps/{}", quoted(&app));
    let asked = client.change(Method::DELETE, &target, None::<&()>);
    let plan: view::Plan = runtime()?.block_on(asked).map_err(stop)?;
    output.data(&lines(&plan));
    Ok(())
}

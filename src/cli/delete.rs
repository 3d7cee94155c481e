//! `sampan delete`: an app and everything that belongs to it.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use http::Method;
use sampan_core::{quantity::format_duration, view};

use super::{
    End, api::ApiArguments, apply::lines, output::Output, process::runtime, spec::SpecArguments,
    wait::duration,
};
use crate::client::{Client, ClientError, quoted};

/// Delete an app with everything that belongs to it: its pods are drained and stopped
#[derive(Args)]
pub(super) struct Arguments {
    /// The app
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    app: Option<String>,

    /// The spec of the app
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Wait until nothing of it is left
    #[arg(long)]
    wait: bool,

    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    timeout: Duration,

    #[command(flatten)]
    api: ApiArguments,
}

/// How often it is looked whether the app is gone.
const LOOK: Duration = Duration::from_millis(50);

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
    runtime()?.block_on(async {
        let asked = client.change(Method::DELETE, &target, None::<&()>);
        let plan: view::Plan = asked.await?;
        output.data(&lines(&plan));
        if !arguments.wait {
            return Ok(());
        }
        let gone = tokio::time::timeout(arguments.timeout, gone(&client, &target));
        gone.await.unwrap_or_else(|_| {
            let took = format_duration(arguments.timeout);
            let reason = format!("app `{app}` is not gone after {took}; it is still being deleted");
            Err(anyhow::anyhow!(reason).into())
        })
    })
}

/// Waits until there is no such app.
async fn gone(client: &Client, target: &str) -> End {
    loop {
        match client.get::<view::App>(target).await {
            Ok(_) => tokio::time::sleep(LOOK).await,
            Err(ClientError::Refused(refused)) if refused.code == "NotFound" => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

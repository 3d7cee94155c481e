//! `sampan restart`: other pods just like the present ones.

use clap::Args;
use http::Method;
use sampan_core::view;

use super::{
    End,
    api::{ApiArguments, AppArgument, service, stop, target},
    completions::services,
    output::Output,
    run::runtime,
};

/// Replace all pods of services by others just like them, without a pause
#[derive(Args)]
pub(super) struct Arguments {
    /// Which services
    #[arg(value_name = "SERVICE", required = true, add = services())]
    services: Vec<String>,

    #[command(flatten)]
    app: AppArgument,

    #[command(flatten)]
    api: ApiArguments,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let client = arguments.api.client()?;
    runtime()?.block_on(async {
        for name in &arguments.services {
            let found = service(&client, &arguments.app, name).await?;
            let target = target(&found, "restart");
            let asked = client.change(Method::POST, &target, None::<&()>);
            let restarted: view::Service = asked.await.map_err(stop)?;
            output.data(&format!(
                "service/{} restarted as revision {}\n",
                restarted.name, restarted.revision
            ));
        }
        Ok(())
    })
}

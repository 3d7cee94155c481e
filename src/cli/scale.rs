//! `sampan scale`: another number of pods.

use clap::Args;
use http::Method;
use sampan_core::view;

use super::{
    End,
    api::{Scope, service, target},
    completions::services,
    output::Output,
    process::runtime,
    up::Scale,
};

/// Run another number of pods of services
///
/// The next `apply` sets the number that the spec says, but for services with an autoscaler.
#[derive(Args)]
pub(super) struct Arguments {
    /// Which service, and how many pods
    #[arg(value_name = "SERVICE=N", required = true, add = services())]
    scale: Vec<Scale>,

    #[command(flatten)]
    scope: Scope,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let client = arguments.scope.api.client()?;
    runtime()?.block_on(async {
        for Scale {
            service: name,
            replicas,
        } in &arguments.scale
        {
            let found = service(&client, &arguments.scope.app, name.as_str()).await?;
            let body = view::Scale {
                replicas: *replicas,
            };
            let target = target(&found, "scale");
            let asked = client.change(Method::PUT, &target, Some(&body));
            let scaled: view::Service = asked.await?;
            output.data(&format!(
                "service/{} scaled to {}\n",
                scaled.name, scaled.replicas
            ));
        }
        Ok(())
    })
}

//! `sampan delete`: an app and everything that belongs to it.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use http::Method;
use sampan_core::{quantity::format_duration, view};

use super::{
    End,
    api::ApiArguments,
    apply::lines,
    output::{Output, size},
    process::runtime,
    spec::SpecArguments,
    wait::duration,
};
use crate::client::{Client, ClientError, quoted};

/// Delete an app with everything that belongs to it: its pods are drained and stopped
///
/// Its volumes are kept unless `--volumes` is given.
#[derive(Args)]
pub(super) struct Arguments {
    /// The app
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    app: Option<String>,

    /// The spec of the app
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Remove what it keeps too, once its pods are gone: its volumes and key-value stores, with
    /// what is in them; also those of an app that is gone already
    #[arg(long)]
    volumes: bool,

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
    let deletion = Deletion {
        verb: "delete",
        app: &app,
        volumes: arguments.volumes,
        wait: arguments.wait,
        timeout: arguments.timeout,
    };
    runtime()?.block_on(deletion.run(&client, output))
}

/// An app to be deleted.
pub(super) struct Deletion<'a> {
    /// What the user has typed, and types again to remove what is kept.
    pub(super) verb: &'static str,
    pub(super) app: &'a str,
    /// Whether what it keeps goes too.
    pub(super) volumes: bool,
    pub(super) wait: bool,
    /// How long that may take.
    pub(super) timeout: Duration,
}

impl Deletion<'_> {
    /// Deletes the app, and tells what becomes of it.
    pub(super) async fn run(&self, client: &Client, output: &Output) -> End {
        let app = self.app;
        let target = format!("/v1/apps/{}", quoted(app));
        let kept = stores(client, app).await?;
        let asked = client.change(Method::DELETE, &target, None::<&()>);
        let plan: Result<view::Plan, _> = asked.await;
        match plan {
            Ok(plan) => output.data(&lines(&plan)),
            // Of one that is gone, what it keeps can be removed all the same.
            Err(ClientError::Refused(refused)) if self.volumes && refused.code == "NotFound" => {}
            Err(error) => return Err(error.into()),
        }
        if !self.volumes {
            self.tell_kept(client, &kept, output).await?;
        }
        if !self.wait && !self.volumes {
            return Ok(());
        }
        let end = async {
            gone(client, &target).await?;
            match self.volumes {
                true => {
                    remove_volumes(client, &target, output).await?;
                    remove_stores(client, &target, &kept, output).await
                }
                false => Ok(()),
            }
        };
        let gone = tokio::time::timeout(self.timeout, end);
        gone.await.unwrap_or_else(|_| {
            let took = format_duration(self.timeout);
            let reason = format!("app `{app}` is not gone after {took}; it is still being deleted");
            Err(anyhow::anyhow!(reason).into())
        })
    }

    /// Says which volumes and key-value stores stay.
    async fn tell_kept(
        &self,
        client: &Client,
        stores: &[view::KeyValueStore],
        output: &Output,
    ) -> End {
        let target = format!("/v1/volumes?app={}", quoted(self.app));
        let volumes: Vec<view::Volume> = client.get(&target).await?;
        let remedy = format!("`sampan {} {} --volumes` removes it", self.verb, self.app);
        for volume in volumes {
            let (name, size) = (&volume.name, size(volume.used_bytes));
            output.data(&format!("volume {name} is kept, with {size}; {remedy}\n"));
        }
        for store in stores {
            output.data(&format!("store {} is kept; {remedy}\n", store.name));
        }
        Ok(())
    }
}

/// Removes the key-value stores of an app that is gone.
async fn remove_stores(
    client: &Client,
    target: &str,
    stores: &[view::KeyValueStore],
    output: &Output,
) -> End {
    if stores.is_empty() {
        return Ok(());
    }
    client.remove(&format!("{target}/stores")).await?;
    for store in stores {
        output.data(&format!("store {} is removed\n", store.name));
    }
    Ok(())
}

/// Removes the volumes of an app that is gone, as soon as no pod has them any more.
async fn remove_volumes(client: &Client, target: &str, output: &Output) -> End {
    let target = format!("{target}/volumes");
    loop {
        let removed = client.change(Method::DELETE, &target, None::<&()>);
        let removed: Result<Vec<String>, _> = removed.await;
        match removed {
            Ok(removed) => {
                for name in removed {
                    output.data(&format!("volume {name} is removed\n"));
                }
                return Ok(());
            }
            Err(ClientError::Refused(refused)) if refused.code == "Conflict" => {
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The key-value stores of an app.
pub(super) async fn stores(
    client: &Client,
    app: &str,
) -> Result<Vec<view::KeyValueStore>, ClientError> {
    client
        .get(&format!("/v1/apps/{}/stores", quoted(app)))
        .await
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

//! `sampan down`: end an app that runs in the background, and its node with the last one.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use sampan_core::name::Name;

use super::{
    End, Stop,
    api::ApiArguments,
    background::{Note, Wanted, caretaker, end, is_alive},
    delete::Deletion,
    output::Output,
    process::runtime,
    spec::SpecArguments,
    wait::duration,
};
use crate::{
    client::{Client, ClientError},
    config,
};

/// End an app that runs in the background: its pods are drained and stopped, and it is deleted
///
/// Its volumes and key-value stores are kept unless `--volumes` is given. A node that `up -d` has
/// started ends with its last app; one that was started with `serve` goes on.
#[derive(Args)]
pub(super) struct Arguments {
    /// The app; without it that of the spec
    #[arg(conflicts_with = "file")]
    app: Option<String>,

    /// The spec of the app [default: sampan.toml]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Remove what it keeps too: its volumes and key-value stores, with what is in them
    #[arg(short, long)]
    volumes: bool,

    /// How long its pods may take to end
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    timeout: Duration,

    #[command(flatten)]
    api: ApiArguments,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let app = match &arguments.app {
        Some(app) => Name::parse(app).map_err(Stop::usage)?,
        None => {
            let file = arguments.file.clone();
            let spec = SpecArguments {
                file: file.unwrap_or_else(|| PathBuf::from("sampan.toml")),
                profile: Vec::new(),
            };
            spec.load(output)?.name
        }
    };
    runtime()?.block_on(down(&app, arguments, output))
}

async fn down(app: &Name, arguments: &Arguments, output: &Output) -> End {
    let Some(client) = client(app, arguments, output).await? else {
        output.talk(&format!(
            "app `{app}` does not run: no node of this user does"
        ));
        return Ok(());
    };
    let deletion = Deletion {
        verb: "down",
        app: app.as_str(),
        volumes: arguments.volumes,
        wait: true,
        timeout: arguments.timeout,
    };
    match deletion.run(&client, output).await {
        Err(Stop::Because(_, reason)) if is_absent(&reason) => {
            output.talk(&format!("app `{app}` does not run"));
        }
        other => other?,
    }
    if end(&client).await? {
        output.talk("the node in the background has no app left and ends");
    }
    Ok(())
}

fn is_absent(reason: &anyhow::Error) -> bool {
    let refused = reason.downcast_ref::<ClientError>();
    refused.is_some_and(|it| matches!(it, ClientError::Refused(it) if it.code == "NotFound"))
}

/// The node to ask, if there is one. One that was killed is started again, so that its app does not
/// come back with the next; so is one that has to remove what is kept.
async fn client(
    app: &Name,
    arguments: &Arguments,
    output: &Output,
) -> Result<Option<Client>, Stop> {
    let socket = config::daemon_socket();
    if arguments.api.is_asked() || is_alive(&socket) {
        return Ok(Some(arguments.api.client()?));
    }
    let foreground = config::app_socket(app);
    if is_alive(&foreground) {
        let reason = anyhow::anyhow!(
            "app `{app}` runs in the foreground, at `{}`: Ctrl-C there ends it",
            foreground.display()
        );
        return Err(reason.into());
    }
    let note = match (Note::find(), arguments.volumes) {
        (Some(note), _) => note,
        (None, true) => return caretaker(output).await.map(Some),
        (None, false) => return Ok(None),
    };
    let wanted = Wanted {
        socket,
        http: note.http,
        config: note.config,
    };
    Ok(Some(wanted.found(output).await?.client))
}

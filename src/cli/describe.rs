//! `sampan describe`: everything about one thing, and why it is as it is.

mod text;

use std::ops::ControlFlow;

use anyhow::bail;
use clap::Args;
use sampan_core::view;

use super::{
    End, Stop,
    api::{ApiArguments, AppArgument, job, service, stop, target},
    output::Output,
    process::runtime,
};
use crate::client::{Client, quoted};

/// Events that are shown of one thing.
const EVENTS: usize = 10;

/// Show everything about an app, service, job or pod: its state, what has happened, and why
#[derive(Args)]
pub(super) struct Arguments {
    /// What, as in `service/web` or `pod/web-1-0`
    #[arg(value_name = "KIND/NAME")]
    object: String,

    /// The name, if it does not stand behind the kind
    name: Option<String>,

    /// Print it as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    app: AppArgument,

    #[command(flatten)]
    api: ApiArguments,
}

/// What is described.
#[derive(Debug, PartialEq, Eq)]
enum Object {
    App(String),
    Service(String),
    Job(String),
    Pod(String),
}

/// `KIND/NAME`, or `KIND` and `NAME`.
fn parse(object: &str, name: Option<&str>) -> anyhow::Result<Object> {
    let (kind, name) = match (object.split_once('/'), name) {
        (Some((kind, name)), None) if !name.is_empty() => (kind, name),
        (None, Some(name)) => (object, name),
        _ => bail!(
            "write it as `KIND/NAME`: `service/web`, `pod/web-1-0`, `job/migrate`, `app/shop`"
        ),
    };
    let name = name.to_owned();
    Ok(match kind {
        "app" | "apps" => Object::App(name),
        "service" | "services" | "svc" => Object::Service(name),
        "job" | "jobs" => Object::Job(name),
        "pod" | "pods" | "po" => Object::Pod(name),
        other => bail!("there is no kind `{other}`: there are `app`, `service`, `job` and `pod`"),
    })
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let object = parse(&arguments.object, arguments.name.as_deref()).map_err(Stop::usage)?;
    let client = arguments.api.client()?;
    runtime()?.block_on(async {
        match object {
            Object::App(name) => describe_app(&client, &name, arguments, output).await,
            Object::Service(name) => describe_service(&client, &name, arguments, output).await,
            Object::Job(name) => describe_job(&client, &name, arguments, output).await,
            Object::Pod(name) => describe_pod(&client, &name, arguments, output).await,
        }
    })
}

async fn describe_app(client: &Client, name: &str, arguments: &Arguments, output: &Output) -> End {
    let app: view::App = client
        .get(&format!("/v1/apps/{}", quoted(name)))
        .await
        .map_err(stop)?;
    if arguments.json {
        return output.json(&app);
    }
    let query = format!("?app={}", quoted(name));
    let services: Vec<view::Service> = client
        .get(&format!("/v1/services{query}"))
        .await
        .map_err(stop)?;
    let jobs: Vec<view::Job> = client
        .get(&format!("/v1/jobs{query}"))
        .await
        .map_err(stop)?;
    let events = events(client, name, &|_| true).await?;
    output.data(&text::app(&app, &services, &jobs, &events));
    Ok(())
}

async fn describe_service(
    client: &Client,
    name: &str,
    arguments: &Arguments,
    output: &Output,
) -> End {
    let found = service(client, &arguments.app, name).await?;
    if arguments.json {
        return output.json(&found);
    }
    let (app, service) = (quoted(&found.app), quoted(&found.name));
    let target = target(&found, "revisions");
    let revisions: Vec<view::Revision> = client.get(&target).await.map_err(stop)?;
    let target = format!("/v1/pods?app={app}&service={service}");
    let pods: Vec<view::Pod> = client.get(&target).await.map_err(stop)?;
    let objects: Vec<_> = pods.iter().map(|pod| format!("pod/{}", pod.name)).collect();
    let itself = format!("service/{}", found.name);
    let ours = |event: &view::Event| event.object == itself || objects.contains(&event.object);
    let events = events(client, &found.app, &ours).await?;
    output.data(&text::service(&found, &revisions, &pods, &events));
    Ok(())
}

async fn describe_job(client: &Client, name: &str, arguments: &Arguments, output: &Output) -> End {
    let found = job(client, &arguments.app, name).await?;
    if arguments.json {
        return output.json(&found);
    }
    let itself = format!("job/{}", found.name);
    let events = events(client, &found.app, &|event| event.object == itself).await?;
    output.data(&text::job(&found, &events));
    Ok(())
}

async fn describe_pod(client: &Client, name: &str, arguments: &Arguments, output: &Output) -> End {
    let query = arguments.app.query(&[]);
    let target = format!("/v1/pods/{}{query}", quoted(name));
    let pod: view::Pod = client.get(&target).await.map_err(stop)?;
    match arguments.json {
        true => output.json(&pod),
        false => {
            output.data(&text::pod(&pod));
            Ok(())
        }
    }
}

/// The last events of an app that are asked for.
async fn events(
    client: &Client,
    app: &str,
    ours: &dyn Fn(&view::Event) -> bool,
) -> Result<Vec<view::Event>, Stop> {
    let mut events = Vec::new();
    let take = |line: &str| {
        if let Ok(event) = serde_json::from_str::<view::Event>(line)
            && ours(&event)
        {
            if events.len() == EVENTS {
                events.remove(0);
            }
            events.push(event);
        }
        ControlFlow::Continue(())
    };
    let target = format!("/v1/events?app={}", quoted(app));
    client.lines(&target, take).await.map_err(stop)?;
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_and_a_name() {
        let parsed = |object: &str, name| parse(object, name).map_err(|error| error.to_string());
        assert_eq!(
            parsed("pod/web-1-0", None),
            Ok(Object::Pod("web-1-0".to_owned()))
        );
        assert_eq!(
            parsed("svc", Some("web")),
            Ok(Object::Service("web".to_owned()))
        );
        assert_eq!(
            parsed("apps/shop", None),
            Ok(Object::App("shop".to_owned()))
        );
        for (object, name) in [("web", None), ("pod/", None), ("pod/a", Some("b"))] {
            let error = parsed(object, name).expect_err(object);
            assert!(error.starts_with("write it as `KIND/NAME`"), "{error}");
        }
        assert_eq!(
            parsed("boat/x", None),
            Err("there is no kind `boat`: there are `app`, `service`, `job` and `pod`".to_owned())
        );
    }
}

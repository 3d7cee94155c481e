//! `sampan describe`: everything about one thing, and why it is as it is.

mod text;

use std::{collections::VecDeque, ops::ControlFlow};

use anyhow::bail;
use clap::{Args, ValueEnum as _};
use sampan_core::view;

use super::{
    End, Stop,
    api::{AppArgument, Scope, absent, all, one, service, target},
    get::Kind,
    output::Output,
    process::runtime,
};
use crate::client::{Client, ClientError, quoted};

/// Events that are shown of one thing.
const EVENTS: usize = 10;
/// Lines of what was denied to guests, or what else the host says of them, that are shown.
const SAID: usize = 5;
/// Lines of a log among which these are looked for.
const LINES: usize = 1000;

/// Show everything about an app, service, job, pod or node: its state, what has happened, and why
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
    scope: Scope,
}

/// `KIND/NAME`, or `KIND` and `NAME`.
fn parse(object: &str, name: Option<&str>) -> anyhow::Result<(Kind, String)> {
    let (kind, name) = match (object.split_once('/'), name) {
        (Some((kind, name)), None) if !name.is_empty() => (kind, name),
        (None, Some(name)) => (object, name),
        _ => bail!(
            "write it as `KIND/NAME`: `service/web`, `pod/web-1-0`, `job/migrate`, `app/shop`"
        ),
    };
    match Kind::from_str(kind, false) {
        Ok(found @ (Kind::Apps | Kind::Services | Kind::Jobs | Kind::Pods | Kind::Nodes)) => {
            Ok((found, name.to_owned()))
        }
        _ => {
            bail!("there is no kind `{kind}`: there are `app`, `service`, `job`, `pod` and `node`")
        }
    }
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let parsed = parse(&arguments.object, arguments.name.as_deref());
    let (kind, name) = parsed.map_err(Stop::usage)?;
    let client = arguments.scope.api.client()?;
    runtime()?.block_on(async {
        match kind {
            Kind::Apps => describe_app(&client, &name, arguments, output).await,
            Kind::Services => describe_service(&client, &name, arguments, output).await,
            Kind::Jobs => describe_job(&client, &name, arguments, output).await,
            Kind::Nodes => describe_node(&client, &name, arguments, output).await,
            _ => describe_pod(&client, &name, arguments, output).await,
        }
    })
}

async fn describe_app(client: &Client, name: &str, arguments: &Arguments, output: &Output) -> End {
    let target = format!("/v1/apps/{}", quoted(name));
    let app: view::App = client.get(&target).await?;
    if arguments.json {
        return output.json(&app);
    }
    let of = AppArgument {
        app: Some(name.to_owned()),
    };
    let services: Vec<view::Service> = all(client, "services", &of).await?;
    let jobs: Vec<view::Job> = all(client, "jobs", &of).await?;
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
    let found = service(client, &arguments.scope.app, name).await?;
    if arguments.json {
        return output.json(&found);
    }
    let (app, service) = (quoted(&found.app), quoted(&found.name));
    let target = target(&found, "revisions");
    let revisions: Vec<view::Revision> = client.get(&target).await?;
    let target = format!("/v1/pods?app={app}&service={service}");
    let pods: Vec<view::Pod> = client.get(&target).await?;
    let objects: Vec<_> = pods.iter().map(|pod| format!("pod/{}", pod.name)).collect();
    let itself = format!("service/{}", found.name);
    let ours = |event: &view::Event| event.object == itself || objects.contains(&event.object);
    let events = events(client, &found.app, &ours).await?;
    let said = said(client, &format!("app={app}&service={service}")).await?;
    output.data(&text::service(&found, &revisions, &pods, &said, &events));
    Ok(())
}

async fn describe_job(client: &Client, name: &str, arguments: &Arguments, output: &Output) -> End {
    let jobs: Vec<view::Job> = all(client, "jobs", &arguments.scope.app).await?;
    let found = one("job", jobs, name, |it| (&it.app, &it.name))?;
    if arguments.json {
        return output.json(&found);
    }
    let itself = format!("job/{}", found.name);
    let events = events(client, &found.app, &|event| event.object == itself).await?;
    output.data(&text::job(&found, &events));
    Ok(())
}

async fn describe_node(client: &Client, name: &str, arguments: &Arguments, output: &Output) -> End {
    let nodes: Vec<view::Node> = client.get("/v1/nodes").await?;
    let known = nodes
        .iter()
        .map(|node| node.name.clone())
        .collect::<Vec<_>>();
    let found = nodes.into_iter().find(|node| node.name == name);
    let found = found.ok_or_else(|| absent("node", name, known.iter().map(String::as_str)))?;
    if arguments.json {
        return output.json(&found);
    }
    output.data(&text::node(&found));
    Ok(())
}

async fn describe_pod(client: &Client, name: &str, arguments: &Arguments, output: &Output) -> End {
    let query = arguments.scope.app.query(&[]);
    let target = format!("/v1/pods/{}{query}", quoted(name));
    let pod: view::Pod = client.get(&target).await?;
    if arguments.json {
        return output.json(&pod);
    }
    let (app, name) = (quoted(&pod.app), quoted(&pod.name));
    let said = said(client, &format!("app={app}&pod={name}")).await?;
    output.data(&text::pod(&pod, &said));
    Ok(())
}

/// What the host has said last of the pods that are asked for: what guests were denied, for example.
async fn said(client: &Client, of: &str) -> Result<Vec<view::LogLine>, ClientError> {
    let mut said = VecDeque::new();
    let take = |line: &str| {
        if let Ok(line) = serde_json::from_str::<view::LogLine>(line)
            && line.stream == "host"
        {
            said.push_back(line);
            said.drain(..said.len().saturating_sub(SAID));
        }
        ControlFlow::Continue(())
    };
    let target = format!("/v1/logs?{of}&tail={LINES}");
    client.lines(&target, take).await?;
    Ok(said.into())
}

/// The last events of an app that are asked for.
async fn events(
    client: &Client,
    app: &str,
    ours: &dyn Fn(&view::Event) -> bool,
) -> Result<Vec<view::Event>, ClientError> {
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
    client.lines(&target, take).await?;
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
            Ok((Kind::Pods, "web-1-0".to_owned()))
        );
        assert_eq!(
            parsed("svc", Some("web")),
            Ok((Kind::Services, "web".to_owned()))
        );
        assert_eq!(
            parsed("apps/shop", None),
            Ok((Kind::Apps, "shop".to_owned()))
        );
        assert_eq!(parsed("node/b", None), Ok((Kind::Nodes, "b".to_owned())));
        for (object, name) in [("web", None), ("pod/", None), ("pod/a", Some("b"))] {
            let error = parsed(object, name).expect_err(object);
            assert!(error.starts_with("write it as `KIND/NAME`"), "{error}");
        }
        assert_eq!(
            parsed("boat/x", None),
            Err(
                "there is no kind `boat`: there are `app`, `service`, `job`, `pod` and `node`"
                    .to_owned()
            )
        );
    }
}

//! `sampan logs`: what pods have printed.

use std::{borrow::Cow, collections::BTreeSet, ops::ControlFlow, time::Duration};

use anyhow::bail;
use clap::Args;
use sampan_core::view;

use super::{
    End,
    api::{AppArgument, Scope, absent, all},
    completions::services_and_pods,
    output::{Channel, Output, Prefix},
    process::runtime,
    wait::duration,
};
use crate::client::{Client, ClientError, quoted};

/// Show what the pods of a service or job, or one pod, have printed
#[derive(Args)]
pub(super) struct Arguments {
    /// Which service, job or pod; a kind may stand before it, as in `pod/web-1-0`
    #[arg(add = services_and_pods())]
    name: String,

    /// Go on with what is printed from now on
    #[arg(short, long)]
    follow: bool,

    /// Only what was printed in this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,

    /// Only the last so many lines
    #[arg(long, value_name = "N")]
    tail: Option<usize>,

    /// Print JSON objects, one a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    scope: Scope,
}

/// What can be shown: an app, `service` or `pod`, and a name.
type Choice = (String, &'static str, String);

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let client = arguments.scope.api.client()?;
    runtime()?.block_on(async {
        let choices = choices(&client, &arguments.scope.app).await?;
        let (app, field, name) = choose(&choices, &arguments.name)?;
        let mut target = format!("/v1/logs?app={}&{field}={}", quoted(&app), quoted(&name));
        target += &format!("&follow={}", arguments.follow);
        if let Some(since) = arguments.since {
            target += &format!("&since={}", since.as_secs_f64().ceil());
        }
        if let Some(tail) = arguments.tail {
            target += &format!("&tail={tail}");
        }
        let mut pods = Vec::new();
        let print = |line: &str| {
            match arguments.json {
                true => output.json_text(line),
                false => print(line, &mut pods, output),
            }
            ControlFlow::Continue(())
        };
        client.lines(&target, print).await?;
        Ok(())
    })
}

fn print(line: &str, pods: &mut Vec<String>, output: &Output) {
    let Ok(line) = serde_json::from_str::<view::LogLine>(line) else {
        return;
    };
    if line.pod.is_empty() {
        return output.talk(&line.text);
    }
    let number = pods.iter().position(|pod| *pod == line.pod);
    let number = number.unwrap_or_else(|| {
        pods.push(line.pod.clone());
        pods.len() - 1
    });
    let width = line.pod.len();
    let prefix = Prefix::new(&line.pod, width, number);
    let channel = match line.stream.as_str() {
        "host" => Channel::Err,
        _ => Channel::Out,
    };
    let text = match &line.level {
        Some(level) => format!("{} {}", level.to_ascii_uppercase(), line.text),
        None => line.text,
    };
    output.pod_line(channel, &prefix, &whole(&text, line.partial));
}

/// A line as it is shown: one that is too long for one says so.
pub(super) fn whole(text: &str, partial: bool) -> Cow<'_, str> {
    match partial {
        true => Cow::Owned(format!("{text} (goes on in the next line)")),
        false => Cow::Borrowed(text),
    }
}

/// Everything whose lines could be asked for.
async fn choices(client: &Client, app: &AppArgument) -> Result<BTreeSet<Choice>, ClientError> {
    let pods: Vec<view::Pod> = all(client, "pods", app).await?;
    let services: Vec<view::Service> = all(client, "services", app).await?;
    let jobs: Vec<view::Job> = all(client, "jobs", app).await?;
    let mut choices = BTreeSet::new();
    for pod in pods {
        choices.insert((pod.app.clone(), "service", pod.service));
        choices.insert((pod.app, "pod", pod.name));
    }
    choices.extend(services.into_iter().map(|it| (it.app, "service", it.name)));
    choices.extend(jobs.into_iter().map(|it| (it.app, "service", it.name)));
    Ok(choices)
}

/// The one that a name means: a service or job rather than a pod.
fn choose(choices: &BTreeSet<Choice>, name: &str) -> anyhow::Result<Choice> {
    let (fields, name): (&[_], _) = match name.split_once('/') {
        Some(("pod" | "pods" | "po", name)) => (&["pod"], name),
        Some(("service" | "services" | "svc" | "job" | "jobs", name)) => (&["service"], name),
        Some((other, _)) => {
            bail!("there is no kind `{other}` with lines: there are `service`, `job` and `pod`")
        }
        None => (&["service", "pod"], name),
    };
    for field in fields {
        let mut found = choices
            .iter()
            .filter(|choice| choice.1 == *field && choice.2 == name);
        match (found.next(), found.next()) {
            (Some(one), None) => return Ok(one.clone()),
            (Some(one), Some(other)) => bail!(
                "`{name}` is in `{}` and in `{}`; `--app` says which",
                one.0,
                other.0
            ),
            (None, _) => {}
        }
    }
    let known: BTreeSet<_> = choices
        .iter()
        .filter(|choice| choice.1 == "service")
        .map(|choice| &choice.2)
        .collect();
    let absent = absent("service, job or pod", name, known.iter());
    match known.is_empty() {
        true => Err(absent),
        false => bail!("{absent} and their pods"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_service_or_a_pod() {
        let choice = |app: &str, field, name: &str| (app.to_owned(), field, name.to_owned());
        let choices: BTreeSet<_> = [
            choice("shop", "service", "web"),
            choice("shop", "pod", "web-1-0"),
            choice("shop", "service", "web-1-0"),
            choice("blog", "service", "web"),
            choice("blog", "pod", "web-1-1"),
        ]
        .into();
        let chosen = |name: &str| choose(&choices, name).map_err(|error| error.to_string());
        assert_eq!(chosen("web-1-0"), Ok(choice("shop", "service", "web-1-0")));
        assert_eq!(chosen("pod/web-1-0"), Ok(choice("shop", "pod", "web-1-0")));
        assert_eq!(chosen("web-1-1"), Ok(choice("blog", "pod", "web-1-1")));
        assert_eq!(
            chosen("web"),
            Err("`web` is in `blog` and in `shop`; `--app` says which".to_owned())
        );
        assert_eq!(
            chosen("api"),
            Err(
                "there is no service, job or pod `api`; there are `web`, `web-1-0` and their pods"
                    .to_owned()
            )
        );
        assert!(chosen("app/shop").is_err());
    }
}

//! `sampan logs`: what pods have printed, those that are gone too.

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
///
/// A daemon keeps it on disk, so that pods that have died, apps that are deleted, and what was
/// printed before the daemon was started again can be looked at too.
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

    /// Only lines that this regular expression matches, as in `--grep 'error|panic'`
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    grep: Option<String>,

    /// Only what each pod printed before its last restart
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,

    /// Show before each line when it was printed, on which stream, and for which request
    #[arg(short, long)]
    timestamps: bool,

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
        let [there, kept] = choices(&client, &arguments.scope.app).await?;
        let (app, field, name) = choose(&there, &kept, &arguments.name)?;
        let mut target = format!("/v1/logs?app={}&{field}={}", quoted(&app), quoted(&name));
        target += &format!("&follow={}", arguments.follow);
        if let Some(since) = arguments.since {
            target += &format!("&since={}", since.as_secs_f64().ceil());
        }
        if let Some(tail) = arguments.tail {
            target += &format!("&tail={tail}");
        }
        if let Some(grep) = &arguments.grep {
            target += &format!("&grep={}", quoted(grep));
        }
        if arguments.previous {
            target += "&previous=true";
        }
        let mut pods = Vec::new();
        let print = |line: &str| {
            match arguments.json {
                true => output.json_text(line),
                false => print(line, arguments.timestamps, &mut pods, output),
            }
            ControlFlow::Continue(())
        };
        client.lines(&target, print).await?;
        Ok(())
    })
}

fn print(line: &str, timestamps: bool, pods: &mut Vec<String>, output: &Output) {
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
    let text = whole(&text, line.partial);
    let text = match (timestamps, line.request) {
        (false, _) => text,
        (true, None) => format!("{} {} {text}", line.time, line.stream).into(),
        (true, Some(request)) => format!("{} {} {request} {text}", line.time, line.stream).into(),
    };
    output.pod_line(channel, &prefix, &text);
}

/// A line as it is shown: one that is too long for one says so.
pub(super) fn whole(text: &str, partial: bool) -> Cow<'_, str> {
    match partial {
        true => Cow::Owned(format!("{text} (goes on in the next line)")),
        false => Cow::Borrowed(text),
    }
}

/// Everything whose lines could be asked for: what is there, and of what else there are lines.
async fn choices(client: &Client, app: &AppArgument) -> Result<[BTreeSet<Choice>; 2], ClientError> {
    let lines: Vec<view::LogPod> = all(client, "logs/pods", app).await?;
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
    let mut kept = BTreeSet::new();
    for pod in lines {
        kept.insert((pod.app.clone(), "service", pod.service));
        kept.insert((pod.app, "pod", pod.pod));
    }
    Ok([choices, kept])
}

/// The one that a name means: one that is there rather than one that is gone, and a service or job
/// rather than a pod.
fn choose(there: &BTreeSet<Choice>, kept: &BTreeSet<Choice>, name: &str) -> anyhow::Result<Choice> {
    let (fields, name): (&[_], _) = match name.split_once('/') {
        Some(("pod" | "pods" | "po", name)) => (&["pod"], name),
        Some(("service" | "services" | "svc" | "job" | "jobs", name)) => (&["service"], name),
        Some((other, _)) => {
            bail!("there is no kind `{other}` with lines: there are `service`, `job` and `pod`")
        }
        None => (&["service", "pod"], name),
    };
    let order = [there, kept].into_iter();
    for (choices, field) in order.flat_map(|choices| fields.iter().map(move |it| (choices, it))) {
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
    let known: BTreeSet<_> = there
        .iter()
        .chain(kept)
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
        let kept: BTreeSet<_> = [
            choice("gone", "service", "web-1-0"),
            choice("gone", "service", "cart"),
            choice("gone", "pod", "web-1-1"),
            choice("gone", "pod", "cart-1-0"),
            choice("older", "pod", "cart-1-0"),
        ]
        .into();
        let chosen = |name: &str| choose(&choices, &kept, name).map_err(|error| error.to_string());
        assert_eq!(chosen("web-1-0"), Ok(choice("shop", "service", "web-1-0")));
        assert_eq!(chosen("pod/web-1-0"), Ok(choice("shop", "pod", "web-1-0")));
        assert_eq!(chosen("cart"), Ok(choice("gone", "service", "cart")));
        assert_eq!(
            chosen("cart-1-0"),
            Err("`cart-1-0` is in `gone` and in `older`; `--app` says which".to_owned())
        );
        assert_eq!(chosen("web-1-1"), Ok(choice("blog", "pod", "web-1-1")));
        assert_eq!(
            chosen("web"),
            Err("`web` is in `blog` and in `shop`; `--app` says which".to_owned())
        );
        assert_eq!(
            chosen("api"),
            Err(
                "there is no service, job or pod `api`; there are `cart`, `web`, `web-1-0` and their pods"
                    .to_owned()
            )
        );
        assert!(chosen("app/shop").is_err());
    }
}

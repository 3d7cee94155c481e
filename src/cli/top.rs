//! `sampan top`: what services and pods are doing, and which limits would fit them.

mod advice;
mod grid;
mod screen;
mod table;

use std::ops::ControlFlow;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use sampan_core::view::{self, Top};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    EXIT_UNREACHABLE, End, Stop,
    api::{Scope, absent},
    completions::services,
    interrupts::Interrupts,
    output::{Output, Size},
    process::runtime,
};
use crate::client::Client;
use screen::{Screen, fit};
use table::{Sort, Widths};

/// Columns where there is no terminal that could have fewer.
const ENOUGH_COLUMNS: usize = 10_000;

/// Show what services and pods are doing: CPU, memory, requests, and why there are so many pods
///
/// On a terminal the table is drawn again after each measurement, once a second, until Ctrl-C.
/// Elsewhere it is printed once.
///
/// CPU is in thousandths of a core, and as a share of `limits.cpu` of all ready pods together;
/// `throttled` is the share of time in which pods were held back by that limit. `replicas` is how
/// many pods the service is set to, and after a stroke how many the autoscaler wants. Latencies are
/// those of the last ten seconds. In a cluster it is what all nodes together do: a request
/// counts at the node where it came in, and what a pod uses at that of the pod. Nodes that have not answered are
/// shown with the reason.
#[derive(Args)]
pub(super) struct Arguments {
    /// Only these services; of a single one its pods are shown too
    #[arg(value_name = "NAME", add = services())]
    names: Vec<String>,

    /// Show pods too
    #[arg(long)]
    pods: bool,

    /// Show nodes of the cluster too: what their pods use, and what comes in at each
    #[arg(long)]
    nodes: bool,

    /// Print one table and end, on a terminal too
    #[arg(long)]
    once: bool,

    /// How to print it; JSON is printed once
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,

    /// By what to sort: the most first
    #[arg(long, value_enum, default_value = "name")]
    sort: Sort,

    /// Say which limits would fit, from what was seen since the pods of the present revision run
    #[arg(long, conflicts_with_all = ["pods", "nodes", "sort"])]
    advise: bool,

    #[command(flatten)]
    scope: Scope,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let client = arguments.scope.api.client()?;
    runtime()?.block_on(async {
        if arguments.advise {
            return advise(&client, arguments, output).await;
        }
        let target = format!("/v1/top{}", arguments.scope.app.query(&[]));
        let mut top: Top = client.get(&target).await?;
        let services = top.services.iter();
        known(services.map(|it| &it.service), &arguments.names)?;
        arguments.choose(&mut top);
        let is_once = arguments.once || arguments.output == Format::Json;
        if !is_once && output.screen().is_some() {
            return live(&client, arguments, top, output).await;
        }
        match arguments.output {
            Format::Json => output.json(&top),
            Format::Table if top.services.is_empty() => {
                output.talk(NOTHING);
                Ok(())
            }
            Format::Table => {
                let sections = arguments.sections(&top, columns(output), &mut Widths::default());
                print(&fit(sections, usize::MAX).join("\n"), output);
                Ok(())
            }
        }
    })
}

const NOTHING: &str = "there are no services; `sampan apply` makes some";

impl Arguments {
    /// Leaves what was asked for.
    fn choose(&self, top: &mut Top) {
        let asked = |service: &String| self.names.is_empty() || self.names.contains(service);
        top.services.retain(|it| asked(&it.service));
        top.pods.retain(|it| asked(&it.service));
    }

    fn sections(&self, top: &Top, columns: usize, widths: &mut Widths) -> Vec<screen::Section> {
        let pods = self.pods || self.names.len() == 1;
        let shown = table::Shown {
            pods,
            nodes: self.nodes,
            sort: self.sort,
        };
        table::sections(top, shown, columns, widths)
    }

    /// What a terminal of this size shows.
    fn picture(&self, top: &Top, size: Size, widths: &mut Widths) -> Vec<String> {
        match top.services.is_empty() {
            true => vec![NOTHING.to_owned()],
            false => {
                // A terminal may take a line that fills it for one that goes on in the next.
                let columns = size.columns.saturating_sub(1);
                let sections = self.sections(top, columns, widths);
                // The cursor stands in the last row.
                fit(sections, size.rows.saturating_sub(1))
            }
        }
    }
}

/// Fails if there is no service of one of the names.
fn known<'a>(services: impl Iterator<Item = &'a String>, names: &[String]) -> anyhow::Result<()> {
    let services: Vec<_> = services.collect();
    match names.iter().find(|name| !services.contains(name)) {
        None => Ok(()),
        Some(name) => Err(absent("service", name, services.iter())),
    }
}

fn columns(output: &Output) -> usize {
    output.screen().map_or(ENOUGH_COLUMNS, |it| it.columns)
}

/// Prints a table, whose parts are escaped and whose head has a style.
fn print(text: &str, output: &Output) {
    let lines = text.lines().map(str::trim_end);
    let text: Vec<_> = lines.collect();
    output.draw(&(text.join("\n") + "\n"));
}

async fn advise(client: &Client, arguments: &Arguments, output: &Output) -> End {
    let target = format!("/v1/advice{}", arguments.scope.app.query(&[]));
    let mut advice: Vec<view::Advice> = client.get(&target).await?;
    known(advice.iter().map(|it| &it.service), &arguments.names)?;
    advice.retain(|it| arguments.names.is_empty() || arguments.names.contains(&it.service));
    match arguments.output {
        Format::Json => output.json(&advice),
        Format::Table if advice.is_empty() => {
            output.talk(NOTHING);
            Ok(())
        }
        Format::Table => {
            print(&advice::text(&advice, columns(output)), output);
            Ok(())
        }
    }
}

/// Draws a table after each measurement and whenever the terminal is resized, until Ctrl-C.
async fn live(client: &Client, arguments: &Arguments, first: Top, output: &Output) -> End {
    let mut interrupts = Interrupts::listen()?;
    let resized = signal(SignalKind::window_change());
    let mut resized = resized.context("cannot listen for signals")?;
    let (tops, mut next) = watch::channel(first);
    next.mark_changed();
    let target = format!("/v1/top{}", arguments.scope.app.query(&[("watch", "true")]));
    let follow = client.lines(&target, |line| {
        if let Ok(mut top) = serde_json::from_str::<Top>(line) {
            arguments.choose(&mut top);
            tops.send_replace(top);
        }
        ControlFlow::Continue(())
    });
    tokio::pin!(follow);
    let (mut screen, mut widths) = (Screen::default(), Widths::default());
    let mut last = None;
    let end = loop {
        tokio::select! {
            biased;
            _ = interrupts.next() => break Ok(()),
            _ = resized.recv() => {}
            changed = next.changed() => changed.expect("the sender is here"),
            ended = &mut follow => break Err(match ended {
                Err(error) => error.into(),
                Ok(()) => Stop::Because(EXIT_UNREACHABLE, anyhow!("the node went away")),
            }),
        }
        let Some(size) = output.screen() else {
            break Ok(());
        };
        // What was wide enough for another terminal says nothing about this one.
        if last.replace(size) != Some(size) {
            widths = Widths::default();
        }
        let lines = arguments.picture(&next.borrow_and_update(), size, &mut widths);
        output.draw(&screen.draw(&lines, size));
    };
    output.draw(&screen.leave());
    end
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(line: &[&str]) -> Result<Arguments, String> {
        let parsed = Line::try_parse_from(["top"].iter().chain(line));
        parsed
            .map(|line| line.arguments)
            .map_err(|error| error.to_string())
    }

    fn shown(line: &[&str], rows: usize) -> Vec<String> {
        let arguments = arguments(line).expect("good arguments");
        let mut top = table::tests::shop();
        arguments.choose(&mut top);
        let size = Size { columns: 132, rows };
        let lines = arguments.picture(&top, size, &mut Widths::default());
        let first = |line: &String| {
            let plain = anstream::adapter::strip_str(line).to_string();
            plain.split("  ").next().unwrap_or_default().to_owned()
        };
        lines.iter().map(first).collect()
    }

    #[test]
    fn pods_are_shown_when_they_are_asked_for() {
        assert_eq!(shown(&[], 24), ["service", "api", "reports", "web", ""]);
        assert_eq!(
            shown(&["web"], 24),
            [
                "service", "web", "", "", "pod", "web-1-0", "web-1-1", "web-1-2"
            ]
        );
        let two = shown(&["web", "api"], 24);
        assert!(!two.contains(&"pod".to_owned()), "{two:?}");
        assert_eq!(shown(&["web", "api", "--pods"], 24).len(), 10);
        assert_eq!(
            shown(&["--pods"], 6),
            ["service", "api", "reports", "… and 1 service, 4 pods more"]
        );
    }

    #[test]
    fn nothing_is_said_in_words() {
        let arguments = arguments(&[]).expect("good arguments");
        let size = Size {
            columns: 80,
            rows: 24,
        };
        let lines = arguments.picture(&Top::default(), size, &mut Widths::default());
        assert_eq!(lines, ["there are no services; `sampan apply` makes some"]);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        assert!(arguments(&["--advise", "web", "-o", "json"]).is_ok());
        assert!(arguments(&["--advise", "--pods"]).is_err());
        assert!(arguments(&["--sort", "age"]).is_err());
    }

    #[test]
    fn an_unknown_name_is_told_with_those_there_are() {
        let names = |names: &[&str]| names.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
        let told = |services: &[&str], asked: &[&str]| {
            let known = known(names(services).iter(), &names(asked));
            known.map_err(|error| error.to_string())
        };
        assert_eq!(told(&["web", "api"], &["api", "web"]), Ok(()));
        assert_eq!(told(&[], &[]), Ok(()));
        assert_eq!(
            told(&["web", "api"], &["api", "wbe"]),
            Err("there is no service `wbe`; there are `web`, `api`".to_owned())
        );
        assert_eq!(
            told(&[], &["web"]),
            Err("there is no service `web`; there are none".to_owned())
        );
    }
}

//! `sampan get`: lists of what runs.

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use sampan_core::view;

use super::{
    End,
    api::{ApiArguments, stop},
    describe::cpu,
    output::{Output, one_line, size, time},
    run::runtime,
};

/// List what runs
#[derive(Args)]
pub(super) struct Arguments {
    /// What to list
    #[arg(value_enum)]
    kind: Kind,

    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,

    #[command(flatten)]
    api: ApiArguments,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Pods,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

const COLUMNS: [&str; 8] = [
    "pod",
    "service",
    "phase",
    "ready",
    "restarts",
    "guest CPU",
    "memory",
    "reason",
];

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let client = arguments.api.client()?;
    let target = match arguments.kind {
        Kind::Pods => "/v1/pods",
    };
    let pods: Vec<view::Pod> = runtime()?.block_on(client.get(target)).map_err(stop)?;
    match arguments.output {
        Format::Json => output.json(&pods),
        Format::Table => {
            output.data(&format!("{}\n", table(&pods)));
            Ok(())
        }
    }
}

fn table(pods: &[view::Pod]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(COLUMNS);
    for pod in pods {
        let next = pod.next_try_ms.map(|millis| {
            let next = std::time::Duration::from_millis(millis);
            format!("next try in {}; ", time(next))
        });
        let reason = pod.reason.as_deref().unwrap_or_default();
        table.add_row([
            pod.name.clone(),
            pod.service.clone(),
            pod.phase.clone(),
            if pod.ready { "yes" } else { "no" }.to_owned(),
            pod.restarts.to_string(),
            time(cpu(&pod.usage)),
            size(pod.usage.memory_bytes),
            one_line(&format!("{}{reason}", next.unwrap_or_default())),
        ]);
    }
    table.trim_fmt()
}

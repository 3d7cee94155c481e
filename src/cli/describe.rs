//! `sampan describe`: everything about one pod, and why its instances were ended.

use std::time::Duration;

use clap::Args;
use sampan_core::view;

use super::{
    End,
    api::{ApiArguments, pod_name, stop},
    output::{Output, one_line, size, time, visible},
    run::runtime,
};

/// Show everything about a pod: its state, and how its last instances ended and why
#[derive(Args)]
pub(super) struct Arguments {
    /// Which pod, as in `pod/web-1-0`
    #[arg(value_name = "pod/NAME", value_parser = pod_name)]
    object: String,

    /// Print it as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    api: ApiArguments,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let client = arguments.api.client()?;
    let target = format!("/v1/pods/{}", arguments.object);
    let pod: view::Pod = runtime()?.block_on(client.get(&target)).map_err(stop)?;
    match arguments.json {
        true => output.json(&pod),
        false => {
            output.data(&text(&pod));
            Ok(())
        }
    }
}

/// The CPU time that a pod has used. What is no time, from another version, counts as none.
pub(super) fn cpu(usage: &view::Usage) -> Duration {
    Duration::try_from_secs_f64(usage.cpu_ms / 1e3).unwrap_or_default()
}

fn text(pod: &view::Pod) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| {
        text.push_str(&format!("{name:12}{}\n", one_line(value)));
    };
    field("pod", &pod.name);
    field("service", &pod.service);
    let ready = if pod.ready { ", ready" } else { ", not ready" };
    field("phase", &format!("{}{ready}", pod.phase));
    if let Some(reason) = &pod.reason {
        field("reason", reason);
    }
    if let Some(millis) = pod.next_try_ms {
        let next = Duration::from_millis(millis);
        field("next try", &format!("in {}", time(next)));
    }
    field("restarts", &pod.restarts.to_string());
    if pod.starved_probes > 0 {
        let starved = format!("{} probes, which count for nothing", pod.starved_probes);
        field("starved", &starved);
    }
    let usage = &pod.usage;
    let cpu = time(cpu(usage));
    let (now, peak) = (size(usage.memory_bytes), size(usage.memory_peak_bytes));
    field("guest CPU", &cpu);
    field("memory", &format!("{now} now, {peak} at the most"));
    let (made, failed) = (usage.instances, usage.failures);
    field("instances", &format!("{made} made, {failed} ended badly"));
    for end in pod.terminations.iter().rev() {
        text.push_str(&format!("\n{}  ", end.time));
        for line in end.explanation.lines() {
            text.push_str(&visible(line));
            text.push('\n');
        }
    }
    text
}

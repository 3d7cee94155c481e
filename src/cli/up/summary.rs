//! What an app has done, as a table.

use comfy_table::{CellAlignment, Table, presets};

use crate::{
    cli::output::{size, time},
    serve::app::ServiceSummary,
};

const COLUMNS: [&str; 9] = [
    "service",
    "requests",
    "errors",
    "dropped",
    "p50",
    "p99",
    "cold starts",
    "guest CPU",
    "peak memory",
];

pub(super) fn table(services: &[ServiceSummary]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(COLUMNS);
    for service in services {
        let latency = |latency| match service.stats.requests {
            0 => "-".to_owned(),
            _ => time(latency),
        };
        table.add_row([
            service.name.to_string(),
            service.stats.requests.to_string(),
            service.stats.errors.to_string(),
            service.stats.dropped.to_string(),
            latency(service.stats.p50),
            latency(service.stats.p99),
            service.usage.instances.to_string(),
            time(service.usage.cpu),
            size(service.usage.memory_peak_bytes),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

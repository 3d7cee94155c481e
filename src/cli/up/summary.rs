//! What an app has done, as a table.

use std::time::Duration;

use crate::{
    cli::{
        get::table::numbers,
        output::{size, time},
    },
    serve::app::ServiceSummary,
};

type Column = (&'static str, fn(&ServiceSummary) -> String);

const COLUMNS: [Column; 9] = [
    ("service", |it| it.name.to_string()),
    ("requests", |it| it.stats.requests.to_string()),
    ("errors", |it| it.stats.errors.to_string()),
    ("dropped", |it| it.stats.dropped.to_string()),
    ("p50", |it| latency(it, it.stats.p50)),
    ("p99", |it| latency(it, it.stats.p99)),
    ("cold starts", |it| it.usage.instances.to_string()),
    ("guest CPU", |it| time(it.usage.cpu)),
    ("peak memory", |it| size(it.usage.memory_peak_bytes)),
];

fn latency(service: &ServiceSummary, latency: Duration) -> String {
    match service.stats.requests {
        0 => "-".to_owned(),
        _ => time(latency),
    }
}

pub(super) fn table(services: &[ServiceSummary]) -> String {
    let row = |service| COLUMNS.map(|(_, cell)| cell(service)).to_vec();
    numbers(&COLUMNS.map(|(name, _)| name), services.iter().map(row))
}

//! Writes what was sold in the last 24 hours into `/reports/sales-SECONDS.csv` (WASI 0.2, plain std).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::time::SystemTime;

use shop_records::{Shop, said};

/// The orders that are looked at.
const ORDERS: u64 = 10_000;
const DAY: u64 = 24 * 60 * 60;

fn main() -> ExitCode {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    match report(now.unwrap_or_default().as_secs()) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn report(now: u64) -> Result<String, String> {
    let orders = Shop::open().and_then(|shop| shop.newest(ORDERS));
    let mut sold: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for order in orders.map_err(|error| said(&error))? {
        if order.placed + DAY >= now {
            let (pieces, cents) = sold.entry(order.product.id).or_default();
            *pieces += u64::from(order.quantity);
            *cents += order.product.cents * u64::from(order.quantity);
        }
    }
    let mut table = "product,pieces,cents\n".to_owned();
    for (product, (pieces, cents)) in &sold {
        let _ = writeln!(table, "{product},{pieces},{cents}");
    }
    let path = format!("/reports/sales-{now}.csv");
    fs::write(&path, table).map_err(|error| format!("{path}: {error}"))?;
    let pieces: u64 = sold.values().map(|(pieces, _)| pieces).sum();
    Ok(format!("{pieces} pieces sold, in {path}"))
}

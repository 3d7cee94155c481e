//! Copies packed orders into a table of PostgreSQL, in one transaction (WASI 0.2, plain std).
//!
//! `PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE` and `PGPASSWORD` in its environment mean what they mean to
//! `psql`. Running it again copies no order twice.

mod postgres;

use std::env;
use std::io;
use std::process::ExitCode;

use postgres::Postgres;
use shop_records::{Shop, State, said};

/// The orders that are looked at.
const ORDERS: u64 = 1000;

fn main() -> ExitCode {
    match copy() {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn copy() -> io::Result<String> {
    let orders = Shop::open().and_then(|shop| shop.newest(ORDERS));
    let orders = orders.map_err(|error| io::Error::other(said(&error)))?;
    let setting = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let port = setting("PGPORT", "5432");
    let port = port
        .parse()
        .map_err(|_| io::Error::other(format!("PGPORT: `{port}` is no port")))?;
    let user = setting("PGUSER", "postgres");
    let mut server = Postgres::connect(
        (&setting("PGHOST", "localhost"), port),
        &user,
        &setting("PGDATABASE", &user),
        &setting("PGPASSWORD", ""),
    )?;
    server.run("begin", &[])?;
    server.run(
        "create table if not exists sales (number bigint primary key, product text not null, \
         pieces integer not null, cents bigint not null, placed timestamptz not null)",
        &[],
    )?;
    let mut copied = 0;
    for order in orders.iter().filter(|order| order.state == State::Packed) {
        let cents = order.product.cents * u64::from(order.quantity);
        copied += server.run(
            "insert into sales values ($1::text::bigint, $2, $3::text::integer, $4::text::bigint, \
             to_timestamp($5::text::bigint)) on conflict do nothing",
            &[
                &order.number.to_string(),
                &order.product.id,
                &order.quantity.to_string(),
                &cents.to_string(),
                &order.placed.to_string(),
            ],
        )?;
    }
    server.run("commit", &[])?;
    Ok(format!("{copied} new orders in the ledger"))
}

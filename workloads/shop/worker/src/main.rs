//! Packs what was ordered, for as long as it runs (WASI 0.2, plain std).
//!
//! It looks for orders every `EVERY_MS` milliseconds, 500 if its environment does not say. Several
//! workers may run at once, as they do during a rollout: each order is packed by one of them.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use shop_records::{Error, Queue, Shop, said};

fn main() -> ExitCode {
    let every = std::env::var("EVERY_MS").ok();
    let every = every.and_then(|ms| ms.parse().ok()).unwrap_or(500);
    println!("waiting for orders");
    loop {
        if let Err(error) = work() {
            eprintln!("{}", said(&error));
            return ExitCode::FAILURE;
        }
        sleep(Duration::from_millis(every));
    }
}

fn work() -> Result<(), Error> {
    let (shop, queue) = (Shop::open()?, Queue::open()?);
    for number in queue.numbers()? {
        if let Some(order) = shop.pack(number)? {
            println!(
                "packed order {number}: {} × {}",
                order.quantity, order.product.name
            );
        }
        // An order that is in the queue and not kept yet is looked at again.
        if shop.order(number)?.is_some() {
            queue.done(number)?;
        }
    }
    Ok(())
}

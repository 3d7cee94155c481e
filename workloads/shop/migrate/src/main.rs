//! Puts into the shop what it needs before it opens (WASI 0.2, plain std).
//!
//! Running it again changes neither what was ordered nor what is left of the stock.

use std::process::ExitCode;

use shop_records::{Error, Product, SCHEMA, Shop, said};

/// How many there are of each thing at first.
const STOCK: u32 = 20;

fn main() -> ExitCode {
    match migrate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", said(&error));
            ExitCode::FAILURE
        }
    }
}

fn migrate() -> Result<(), Error> {
    let shop = Shop::open()?;
    let before = shop.schema()?;
    if before > SCHEMA {
        let problem = format!("the store has version {before}, and this is {SCHEMA}");
        return Err(Error::Other(problem));
    }
    let product = |id: &str, name: &str, cents| Product {
        id: id.to_owned(),
        name: name.to_owned(),
        cents,
    };
    let products = [
        product("boat", "Wooden boat", 129_900),
        product("oar", "Oar of ash", 4_950),
        product("rope", "Hemp rope, 20 m", 2_490),
    ];
    shop.prepare(&products, STOCK)?;
    println!(
        "version {before} is now version {SCHEMA}, {} products",
        products.len()
    );
    Ok(())
}

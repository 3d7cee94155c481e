//! What the shop keeps in key-value stores, which all of its services and jobs share.
//!
//! | key in the store `shop` | value |
//! |---|---|
//! | `schema` | the version of this table, a number |
//! | `products` | the list of [`Product`], as JSON |
//! | `stock/PRODUCT` | how many are left, a number that changes by increments |
//! | `orders` | the number of the last order, which changes by increments |
//! | `order/NUMBER` | an [`Order`], as JSON |
//!
//! The store `queue` has a key for each order that the worker has to pack: its number.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The bindings for `wit/world.wit`.
mod bindings {
    #![allow(missing_docs, reason = "generated")]
    wit_bindgen::generate!({ path: "wit", generate_all });
}

use bindings::wasi::keyvalue::atomics::{Cas, CasError, increment, swap};
use bindings::wasi::keyvalue::batch::get_many;
use bindings::wasi::keyvalue::store::{self, Bucket};

pub use bindings::wasi::keyvalue::store::Error;

/// The version of the table above.
pub const SCHEMA: u64 = 1;

/// Something to buy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Product {
    /// Its name in keys and URLs.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The price of one, in cents.
    pub cents: u64,
}

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is paid and lies with the worker.
    Placed,
    /// The worker is done with it.
    Packed,
}

/// An order of one product.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Its number. The first order has 1.
    pub number: u64,
    /// What was ordered.
    pub product: Product,
    /// How many of it.
    pub quantity: u32,
    /// When, in seconds since 1970.
    pub placed: u64,
    /// How far it is.
    pub state: State,
}

/// The store `shop`.
pub struct Shop(Bucket);

/// The store `queue`.
pub struct Queue(Bucket);

impl Queue {
    /// Opens the store, which the spec has to allow: `allow.keyvalue = ["queue"]`.
    pub fn open() -> Result<Self, Error> {
        store::open("queue").map(Self)
    }

    /// The numbers of orders that wait, at most as many as the store lists at a time.
    pub fn numbers(&self) -> Result<Vec<u64>, Error> {
        let keys = self.0.list_keys(None)?.keys;
        Ok(keys.iter().filter_map(|key| key.parse().ok()).collect())
    }

    /// Takes an order out that is packed.
    pub fn done(&self, number: u64) -> Result<(), Error> {
        self.0.delete(&number.to_string())
    }

    fn add(&self, number: u64) -> Result<(), Error> {
        self.0.set(&number.to_string(), b"")
    }
}

impl Shop {
    /// Opens the store, which the spec has to allow: `allow.keyvalue = ["shop"]`.
    pub fn open() -> Result<Self, Error> {
        store::open("shop").map(Self)
    }

    /// The version of the table that the store was prepared for; 0 before that.
    pub fn schema(&self) -> Result<u64, Error> {
        self.number("schema")
    }

    /// Prepares the store for this version: what is for sale, and `stock` of each thing that is new.
    pub fn prepare(&self, products: &[Product], stock: u32) -> Result<(), Error> {
        self.set("products", &products)?;
        for product in products {
            let key = stock_of(&product.id);
            if !self.0.exists(&key)? {
                increment(&self.0, &key, stock.into())?;
            }
        }
        self.set("schema", &SCHEMA)
    }

    /// What is for sale.
    pub fn products(&self) -> Result<Vec<Product>, Error> {
        self.get("products").map(Option::unwrap_or_default)
    }

    /// How many of a product are left.
    pub fn stock(&self, product: &Product) -> Result<u64, Error> {
        self.number(&stock_of(&product.id))
    }

    /// Takes `quantity` of a product from the stock and keeps an order for it, in the queue too; `None`
    /// if so many are not left. Two who ask for the last one at once do not both get it: an increment is
    /// one step. Whatever ends this half-way, there is no order that is not in the queue.
    pub fn place(
        &self,
        queue: &Queue,
        product: Product,
        quantity: u32,
        placed: u64,
    ) -> Result<Option<Order>, Error> {
        let key = stock_of(&product.id);
        if increment(&self.0, &key, -i64::from(quantity))? < 0 {
            increment(&self.0, &key, quantity.into())?;
            return Ok(None);
        }
        let order = Order {
            number: increment(&self.0, "orders", 1)?.unsigned_abs(),
            product,
            quantity,
            placed,
            state: State::Placed,
        };
        queue.add(order.number)?;
        self.set(&order_of(order.number), &order)?;
        Ok(Some(order))
    }

    /// The order with a number.
    pub fn order(&self, number: u64) -> Result<Option<Order>, Error> {
        self.get(&order_of(number))
    }

    /// The newest orders, the last one first.
    pub fn newest(&self, count: u64) -> Result<Vec<Order>, Error> {
        let last = self.number("orders")?;
        let keys: Vec<String> = (1..=last)
            .rev()
            .take(count as usize)
            .map(order_of)
            .collect();
        let found = get_many(&self.0, &keys)?;
        let kept = found
            .iter()
            .filter_map(|(key, bytes)| Some((key, bytes.as_ref()?)));
        kept.map(|(key, bytes)| decode(key, bytes)).collect()
    }

    /// Marks an order as packed, and returns it. `None` if another worker has done it, or if the order
    /// is not kept yet.
    pub fn pack(&self, number: u64) -> Result<Option<Order>, Error> {
        let key = order_of(number);
        let found = Cas::new(&self.0, &key)?;
        let current = found.current()?.map(|bytes| decode::<Order>(&key, &bytes));
        match current.transpose()? {
            Some(current) if current.state == State::Placed => {
                let packed = Order {
                    state: State::Packed,
                    ..current
                };
                match swap(found, &encode(&packed)?) {
                    Ok(()) => Ok(Some(packed)),
                    Err(CasError::CasFailed(_)) => Ok(None),
                    Err(CasError::StoreError(error)) => Err(error),
                }
            }
            _ => Ok(None),
        }
    }

    fn number(&self, key: &str) -> Result<u64, Error> {
        self.get(key).map(Option::unwrap_or_default)
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.0
            .get(key)?
            .map(|bytes| decode(key, &bytes))
            .transpose()
    }

    fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), Error> {
        self.0.set(key, &encode(value)?)
    }
}

/// What went wrong, for a log.
pub fn said(error: &Error) -> String {
    match error {
        Error::NoSuchStore => "there is no such store".to_owned(),
        Error::AccessDenied => "a store is not allowed".to_owned(),
        Error::Other(reason) => reason.clone(),
    }
}

fn stock_of(product: &str) -> String {
    format!("stock/{product}")
}

fn order_of(number: u64) -> String {
    format!("order/{number}")
}

fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Other(format!("`{key}`: {error}")))
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Other(error.to_string()))
}

//! The stores as their users see them: the laws on every implementation, kills, damage, full disks.

// Clippy takes for tests only the functions marked as such, not what they share.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[macro_use]
#[path = "it/contract.rs"]
mod contract;
#[path = "it/damage.rs"]
mod damage;
#[path = "it/etcd.rs"]
mod etcd;
#[path = "it/events.rs"]
mod events;
#[path = "it/faults.rs"]
mod faults;
#[path = "it/fixture.rs"]
mod fixture;
#[path = "it/full.rs"]
mod full;
#[path = "it/kill.rs"]
mod kill;
#[path = "it/lock.rs"]
mod lock;
#[path = "it/members.rs"]
mod members;
#[path = "it/model.rs"]
mod model;
#[path = "it/sessions.rs"]
mod sessions;
#[path = "it/shared.rs"]
mod shared;

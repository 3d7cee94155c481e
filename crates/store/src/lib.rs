//! Sampan's store: what is wanted and what is known, as keys with values.
//!
//! The model is that of etcd v3. The store is one ordered map. It changes only by transactions,
//! each of which is all or nothing and gets a [`Revision`], and it can be followed: a [`Watch`]
//! delivers every transaction once and in order. [`Memory`] lives as long as the process,
//! [`Sqlite`] in a file, [`Etcd`] in an etcd that others use as well. Beside the store are the [`EventLog`] and the [`LineLog`], which each node has for
//! itself, and the [`KeyValues`] in which guests keep what is theirs.

mod error;
mod etcd;
mod event_log;
mod keyvalue;
mod line_log;
mod memory;
mod own_file;
mod published;
mod session;
mod sqlite;
mod standby;
mod state;
mod store;
mod transaction;
mod turns;
mod value;
mod watch;

pub use error::StoreError;
pub use etcd::{
    Etcd, EtcdError, EtcdLimits, EtcdOptions, EtcdReach, EtcdTls, MAX_PREFIX_BYTES, exposed,
};
pub use event_log::{EventLog, EventLogError, LOGGED_EVENTS, LoggedEvent};
pub use keyvalue::{AppStores, Found, KeyPage, KeyValueError, KeyValues, StoreSummary};
pub use line_log::{
    KeptSource, LineLog, LineLogError, LinePage, LinesBack, LinesOf, LogBegin, LogSource,
    LoggedLine,
};
pub use memory::Memory;
pub use session::{BootInstant, SESSION_MARGIN, Session, SessionSource};
pub use sqlite::{OpenError, Sqlite};
pub use standby::Standby;
pub use state::{HISTORY_BYTES, HISTORY_TRANSACTIONS};
pub use store::Store;
pub use transaction::{
    Compare, MAX_KEY_BYTES, MAX_OPERATIONS, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES, Outcome,
    Transaction, TransactionError, Write,
};
pub use turns::{Alone, Shared, Turns};
pub use value::{Batch, Change, Entry, Key, Listing, Revision, SessionId};
pub use watch::{Watch, WatchError, WatchSource};

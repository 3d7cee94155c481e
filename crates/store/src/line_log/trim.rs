//! What is forgotten of a log of lines.

use std::collections::HashMap;

use rusqlite::{Connection, Transaction, params};

use super::{
    line::{SIZE, signed},
    read,
};

/// Lines, and bytes of them, that one transaction forgets.
const STEP_LINES: usize = 20_000;
const STEP_BYTES: u64 = 8 << 20;
/// Transactions of one call. The rest is forgotten by the next.
const MAX_STEPS: usize = 64;

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<u64> {
    let number = connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    number.map(i64::cast_unsigned)
}

/// The size of the file, with what is free in it.
pub(super) fn file_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    Ok(number(connection, "page_count")? * number(connection, "page_size")?)
}

/// The size of the file, without what is free in it.
pub(super) fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pages = number(connection, "page_count")? - number(connection, "freelist_count")?;
    Ok(pages * number(connection, "page_size")?)
}

/// Forgets the oldest lines, so that the file takes at most so many bytes: and a little more of
/// them, so that it happens rarely.
pub(super) fn node(connection: &Connection, most: u64) -> rusqlite::Result<()> {
    let goal = most - most / 16;
    let mut used = used_bytes(connection)?;
    if used <= most {
        return Ok(());
    }
    for _ in 0..MAX_STEPS {
        if !oldest(connection, (used - goal).min(STEP_BYTES))? {
            break;
        }
        used = used_bytes(connection)?;
        if used <= goal {
            break;
        }
    }
    Ok(())
}

/// Forgets lines that are older than this time.
pub(super) fn older(connection: &Connection, time_ms: u64) -> rusqlite::Result<()> {
    let kept = read::since(connection, time_ms)?;
    for _ in 0..MAX_STEPS {
        if !before(connection, kept, u64::MAX)? {
            break;
        }
    }
    Ok(())
}

/// Forgets the oldest lines with so many bytes. Says whether there were any.
fn oldest(connection: &Connection, bytes: u64) -> rusqlite::Result<bool> {
    before(connection, u64::MAX, bytes)
}

/// Forgets the oldest lines before `kept` with so many bytes, or as much as one transaction may.
/// Says whether there were any.
fn before(connection: &Connection, kept: u64, bytes: u64) -> rusqlite::Result<bool> {
    let transaction = connection.unchecked_transaction()?;
    let mut of_pods = HashMap::<i64, u64>::new();
    let mut last = None;
    {
        let select = format!("SELECT seq, pod, {SIZE} FROM lines WHERE seq < ?1 ORDER BY seq");
        let mut select = transaction.prepare_cached(&select)?;
        let mut rows = select.query([signed(kept)])?;
        let (mut count, mut sum) = (0, 0);
        while count < STEP_LINES
            && sum < bytes.min(STEP_BYTES)
            && let Some(row) = rows.next()?
        {
            let size = row.get::<_, i64>(2)?.cast_unsigned();
            *of_pods.entry(row.get(1)?).or_default() += size;
            last = Some(row.get::<_, i64>(0)?);
            (count, sum) = (count + 1, sum + size);
        }
    }
    let Some(last) = last else {
        return Ok(false);
    };
    transaction.execute("DELETE FROM lines WHERE seq <= ?1", [last])?;
    for (pod, bytes) in of_pods {
        less(&transaction, pod, bytes, last)?;
    }
    // Of pods without lines nothing is known.
    transaction.execute("DELETE FROM begins WHERE seq <= ?1", [last])?;
    transaction.execute("DELETE FROM pods WHERE last <= ?1", [last])?;
    transaction.commit()?;
    Ok(true)
}

/// Forgets the oldest lines of a pod with so many bytes.
pub(super) fn pod(transaction: &Transaction<'_>, pod: i64, bytes: u64) -> rusqlite::Result<()> {
    let (mut last, mut sum) = (None, 0);
    {
        let select = format!("SELECT seq, {SIZE} FROM lines WHERE pod = ?1 ORDER BY seq");
        let mut select = transaction.prepare_cached(&select)?;
        let mut rows = select.query([pod])?;
        while sum < bytes
            && let Some(row) = rows.next()?
        {
            last = Some(row.get::<_, i64>(0)?);
            sum += row.get::<_, i64>(1)?.cast_unsigned();
        }
    }
    if let Some(last) = last {
        let forget = "DELETE FROM lines WHERE pod = ?1 AND seq <= ?2";
        transaction.execute(forget, params![pod, last])?;
        less(transaction, pod, sum, last)?;
    }
    Ok(())
}

/// There are so many bytes less of a pod, and nothing up to this line.
fn less(transaction: &Transaction<'_>, pod: i64, bytes: u64, last: i64) -> rusqlite::Result<()> {
    let less =
        "UPDATE pods SET bytes = max(bytes - ?2, 0), first = max(first, ?3 + 1) WHERE id = ?1";
    let mut less = transaction.prepare_cached(less)?;
    less.execute(params![pod, signed(bytes), last]).map(drop)
}

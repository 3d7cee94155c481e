//! The order in which requests wait: clients take turns, those with long bodies let some of the
//! others pass, and those that are slow stand behind.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use crate::ticket::Ticket;

/// What a request says when it begins to wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asker {
    /// The client that shares its turns with the client's other requests. Each request without one
    /// is a client of its own.
    pub(crate) client: Option<IpAddr>,
    pub(crate) lane: Lane,
    /// The number of the thread that it waits on.
    pub(crate) thread: usize,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lane {
    /// All of its body is there: the pod can work on it without its client.
    #[default]
    Ahead,
    /// Its body is longer than what is read ahead of the slot, so it keeps the slot for as long
    /// as its client sends: [`PASSING`] of those ahead pass each one.
    Long,
    /// Its client has kept it waiting: it gets what the others leave.
    Behind,
}

/// How many of those ahead pass each one with a long body. Many of these at once, however fast they
/// send, hold up no short request for longer than one slot takes to become free.
const PASSING: u32 = 3;

/// A slot of a pod goes to one that waits on the pod's own thread, if there is one among so many that
/// stand first: no other thread has to be woken.
const DRAWN_FROM: usize = 32;
/// How often in a row that is not the first of all.
const DRAWN: u32 = 3;

/// One that was taken out.
#[derive(Debug)]
pub(super) struct Next<T> {
    pub(super) item: T,
    pub(super) client: Option<IpAddr>,
    /// Where it stood.
    pub(super) ticket: Ticket,
}

#[derive(Debug)]
struct Entry<T> {
    ticket: Ticket,
    client: Option<IpAddr>,
    thread: usize,
    item: T,
}

/// What is known of a client while requests of it wait.
#[derive(Debug, Default)]
struct Client {
    waiting: usize,
    /// The turn of its latest request.
    turn: u64,
}

/// Those that wait.
#[derive(Debug)]
pub(super) struct Line<T> {
    /// By [`Lane`], in its order.
    lanes: [VecDeque<Entry<T>>; 3],
    /// How many of those ahead have passed the first one with a long body.
    passed: u32,
    /// How many in a row were served before the first, because they wait on the thread of the slot.
    drawn: u32,
    clients: HashMap<IpAddr, Client>,
    /// The turn that is being served.
    turn: u64,
    next_id: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            lanes: Default::default(),
            passed: 0,
            drawn: 0,
            clients: HashMap::new(),
            // Before the first one stand those that come back.
            turn: 1,
            next_id: 0,
        }
    }
}

impl<T> Line<T> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    /// How many of them do not stand behind.
    pub(super) fn ahead(&self) -> usize {
        let [ahead, long, _] = &self.lanes;
        ahead.len() + long.len()
    }

    /// How many of them do not stand behind and have a client that may be served.
    pub(super) fn ahead_of(&self, may: impl Fn(Option<IpAddr>) -> bool) -> usize {
        let [ahead, long, _] = &self.lanes;
        let all = ahead.iter().chain(long);
        all.filter(|entry| may(entry.client)).count()
    }

    /// Adds one, if there are fewer than `max`, or if another one stands behind, which has to go
    /// then and comes back. `None` if it may not wait: one client gets no more than `share` places.
    pub(super) fn push(
        &mut self,
        asker: Asker,
        item: T,
        max: usize,
        share: usize,
    ) -> Option<(Ticket, Option<T>)> {
        let waiting = |client: IpAddr| self.clients.get(&client).map_or(0, |it| it.waiting);
        if asker.client.is_some_and(|client| waiting(client) >= share) {
            return None;
        }
        let is_behind = asker.lane == Lane::Behind;
        let displaced = match self.len() < max {
            true => None,
            false if !is_behind && max > 0 => Some(self.displace()?),
            false => return None,
        };
        let turn = match asker.client {
            None => self.turn,
            Some(client) => {
                let client = self.clients.entry(client).or_insert(Client {
                    waiting: 0,
                    turn: self.turn,
                });
                // The first one has this turn, each further one a later turn.
                if client.waiting > 0 {
                    client.turn = client.turn.max(self.turn) + 1;
                }
                client.waiting += 1;
                client.turn
            }
        };
        let id = self.next_id;
        self.next_id += 1;
        let ticket = Ticket { turn, id };
        let entry = Entry {
            ticket,
            client: asker.client,
            thread: asker.thread,
            item,
        };
        insert(&mut self.lanes[asker.lane as usize], entry);
        Some((ticket, displaced))
    }

    /// Takes the next one out for a slot of a pod on `thread`, if it is on one, whose client may be
    /// served. It is asked for each until that is so.
    pub(super) fn pop(
        &mut self,
        thread: Option<usize>,
        mut may: impl FnMut(Option<IpAddr>) -> bool,
    ) -> Option<Next<T>> {
        let window = match thread {
            Some(_) if self.drawn < DRAWN => DRAWN_FROM,
            Some(_) | None => 0,
        };
        // One client has no turns to lose.
        let has_turns = self.clients.len() > 1;
        let mut is_drawn = false;
        let mut next = |lane: &mut VecDeque<Entry<T>>| {
            let turn = lane.front()?.ticket.turn;
            let near = lane.iter().take(window).position(|entry| {
                let is_turn = !has_turns || entry.ticket.turn == turn;
                is_turn && Some(entry.thread) == thread && may(entry.client)
            });
            let index = near.or_else(|| lane.iter().position(|entry| may(entry.client)))?;
            is_drawn = near.is_some_and(|index| index > 0);
            lane.remove(index)
        };
        let [ahead, long, behind] = &mut self.lanes;
        let before = long.len();
        let due = match self.passed >= PASSING {
            true => next(long),
            false => None,
        };
        let entry = due
            .or_else(|| next(ahead))
            .or_else(|| next(long))
            .or_else(|| next(behind))?;
        self.passed = match long.len() {
            left if left > 0 && left == before => self.passed + 1,
            _ => 0,
        };
        self.drawn = match is_drawn {
            true => self.drawn + 1,
            false => 0,
        };
        self.turn = self.turn.max(entry.ticket.turn);
        self.forget(entry.client);
        Some(Next {
            item: entry.item,
            client: entry.client,
            ticket: entry.ticket,
        })
    }

    /// Puts one back that was taken out with this ticket, where it stood. Without a ticket it has never
    /// waited, and so has come before all that wait, but for others like it.
    pub(super) fn put_back(&mut self, asker: Asker, item: T, ticket: Option<Ticket>) -> Ticket {
        let ticket = ticket.unwrap_or_else(|| {
            self.next_id += 1;
            Ticket {
                turn: 0,
                id: self.next_id - 1,
            }
        });
        if let Some(client) = asker.client {
            self.clients.entry(client).or_default().waiting += 1;
        }
        let entry = Entry {
            ticket,
            client: asker.client,
            thread: asker.thread,
            item,
        };
        insert(&mut self.lanes[asker.lane as usize], entry);
        ticket
    }

    /// Takes all out of which this is so.
    pub(super) fn take_all(&mut self, is: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken: Vec<Entry<T>> = Vec::new();
        for lane in &mut self.lanes {
            let entries = std::mem::take(lane).into_iter();
            let (out, kept): (VecDeque<_>, _) = entries.partition(|entry| is(&entry.item));
            *lane = kept;
            taken.extend(out);
        }
        for entry in &taken {
            self.forget(entry.client);
        }
        taken.into_iter().map(|entry| entry.item).collect()
    }

    /// Takes this one out, if it still waits.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let entry = self.lanes.iter_mut().find_map(|lane| take(lane, ticket))?;
        self.forget(entry.client);
        Some(entry.item)
    }

    /// Whether this one waits.
    pub(super) fn has(&self, ticket: Ticket) -> bool {
        let stands = |lane: &VecDeque<Entry<T>>| {
            lane.binary_search_by_key(&ticket, |entry| entry.ticket)
                .is_ok()
        };
        self.lanes.iter().any(stands)
    }

    /// Lets this one stand behind no longer, but in this lane.
    pub(super) fn promote(&mut self, ticket: Ticket, lane: Lane) {
        if let Some(entry) = take(&mut self.lanes[Lane::Behind as usize], ticket) {
            insert(&mut self.lanes[lane as usize], entry);
        }
    }

    /// Takes out the last of those that stand behind.
    fn displace(&mut self) -> Option<T> {
        let entry = self.lanes[Lane::Behind as usize].pop_back()?;
        self.forget(entry.client);
        Some(entry.item)
    }

    fn forget(&mut self, client: Option<IpAddr>) {
        let Some(address) = client else {
            return;
        };
        if let Some(client) = self.clients.get_mut(&address) {
            client.waiting -= 1;
            if client.waiting == 0 {
                self.clients.remove(&address);
            }
        }
    }
}

fn insert<T>(lane: &mut VecDeque<Entry<T>>, entry: Entry<T>) {
    let index = lane.partition_point(|other| other.ticket < entry.ticket);
    lane.insert(index, entry);
}

fn take<T>(lane: &mut VecDeque<Entry<T>>, ticket: Ticket) -> Option<Entry<T>> {
    let index = lane.binary_search_by_key(&ticket, |entry| entry.ticket);
    lane.remove(index.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(client: u8) -> Asker {
        Asker {
            client: Some(IpAddr::from([192, 0, 2, client])),
            lane: Lane::Ahead,
            thread: 0,
        }
    }

    fn slow() -> Asker {
        Asker {
            client: None,
            lane: Lane::Behind,
            thread: 0,
        }
    }

    fn next<T>(line: &mut Line<T>) -> Option<T> {
        line.pop(Some(0), |_| true).map(|next| next.item)
    }

    fn all<T>(line: &mut Line<T>) -> Vec<T> {
        std::iter::from_fn(|| next(line)).collect()
    }

    #[test]
    fn without_clients_the_first_is_served_first() {
        let mut line = Line::default();
        for n in 0..5 {
            assert!(line.push(Asker::default(), n, 5, 5).is_some());
        }
        assert!(line.push(Asker::default(), 5, 5, 5).is_none());
        assert_eq!(all(&mut line), [0, 1, 2, 3, 4]);
    }

    fn on(thread: usize) -> Asker {
        Asker {
            thread,
            ..Asker::default()
        }
    }

    #[test]
    fn a_slot_goes_to_its_thread_and_the_first_waits_for_few_of_them() {
        let mut line = Line::default();
        for n in 0..40 {
            // The first is on another thread than all that follow.
            line.push(on(usize::from(n > 0)), n, 100, 100)
                .expect("room");
        }
        let served: Vec<_> = (0..=DRAWN + 1)
            .filter_map(|_| line.pop(Some(1), |_| true))
            .collect();
        let served: Vec<_> = served.into_iter().map(|next| next.item).collect();
        let drawn: Vec<_> = (1..=DRAWN as i32).chain([0, DRAWN as i32 + 1]).collect();
        assert_eq!(served, drawn);
        // No thread's slot stays free for want of one of its own.
        assert_eq!(
            line.pop(Some(7), |_| true).map(|next| next.item),
            Some(DRAWN as i32 + 2)
        );
    }

    #[test]
    fn no_client_loses_its_turn_to_a_thread() {
        let mut line = Line::default();
        for (client, thread, item) in [(1, 0, "a1"), (2, 0, "b1"), (1, 1, "a2"), (1, 1, "a3")] {
            let asker = Asker {
                thread,
                ..from(client)
            };
            line.push(asker, item, 100, 100).expect("room");
        }
        let mut next = || line.pop(Some(1), |_| true).map(|next| next.item);
        assert_eq!([next(), next()], [Some("a1"), Some("b1")]);
        // It is alone now.
        assert_eq!([next(), next()], [Some("a2"), Some("a3")]);
    }

    #[test]
    fn clients_take_turns() {
        let mut line = Line::default();
        for (client, item) in [
            (1, "a1"),
            (1, "a2"),
            (1, "a3"),
            (2, "b1"),
            (2, "b2"),
            (3, "c1"),
        ] {
            assert!(line.push(from(client), item, 100, 100).is_some());
        }
        assert_eq!(all(&mut line), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(line.clients.is_empty());
    }

    #[test]
    fn who_comes_later_does_not_make_up_for_turns_that_it_did_not_take() {
        let mut line = Line::default();
        for item in 0..50 {
            assert!(line.push(from(1), item, 200, 200).is_some());
        }
        assert_eq!((0..25).filter_map(|_| next(&mut line)).count(), 25);
        for item in 100..103 {
            assert!(line.push(from(2), item, 200, 200).is_some());
        }
        let next: Vec<_> = (0..6).filter_map(|_| next(&mut line)).collect();
        assert_eq!(next, [100, 25, 101, 26, 102, 27]);
    }

    #[test]
    fn one_client_gets_no_more_than_its_share() {
        let mut line = Line::default();
        for item in 0..5 {
            assert!(line.push(from(1), item, 10, 5).is_some());
        }
        assert!(line.push(from(1), 5, 10, 5).is_none());
        assert!(line.push(from(2), 6, 10, 5).is_some());
        next(&mut line);
        assert!(line.push(from(1), 7, 10, 5).is_some());
        assert!(Line::default().push(from(1), 0, 0, 0).is_none());
    }

    fn long() -> Asker {
        Asker {
            client: None,
            lane: Lane::Long,
            thread: 0,
        }
    }

    #[test]
    fn three_requests_pass_each_one_with_a_long_body() {
        let mut line = Line::default();
        for item in ["l1", "l2", "l3"] {
            assert!(line.push(long(), item, 100, 100).is_some());
        }
        for item in ["a1", "a2", "a3", "a4"] {
            assert!(line.push(Asker::default(), item, 100, 100).is_some());
        }
        assert_eq!((line.len(), line.ahead()), (7, 7));
        assert_eq!(
            all(&mut line),
            ["a1", "a2", "a3", "l1", "a4", "l2", "l3"],
            "no long body waits for ever, nor keeps the short ones waiting"
        );
        // Without others they wait for nothing.
        assert!(line.push(long(), "l4", 100, 100).is_some());
        assert!(line.push(Asker::default(), "a5", 100, 100).is_some());
        assert_eq!(next(&mut line), Some("a5"));
        assert_eq!(next(&mut line), Some("l4"));
    }

    #[test]
    fn a_slow_client_that_has_sent_a_long_body_stands_where_such_bodies_stand() {
        let mut line = Line::default();
        let (slow, _) = line.push(slow(), "slow", 10, 10).expect("room");
        assert!(line.push(long(), "long", 10, 10).is_some());
        assert!(line.push(Asker::default(), "short", 10, 10).is_some());
        line.promote(slow, Lane::Long);
        assert_eq!(line.ahead(), 3);
        assert_eq!(all(&mut line), ["short", "slow", "long"]);
    }

    #[test]
    fn who_may_not_be_served_lets_the_others_pass() {
        let mut line = Line::default();
        for (client, item) in [(1, "a1"), (2, "b1"), (1, "a2")] {
            assert!(line.push(from(client), item, 10, 10).is_some());
        }
        assert!(line.push(slow(), "s", 10, 10).is_some());
        let not_the_first = |client| client != from(1).client;
        assert_eq!(line.ahead_of(not_the_first), 1);
        let served: Vec<_> = std::iter::from_fn(|| line.pop(Some(0), not_the_first))
            .map(|next| next.item)
            .collect();
        assert_eq!(served, ["b1", "s"]);
        assert_eq!(all(&mut line), ["a1", "a2"]);
    }

    #[test]
    fn the_slow_stand_behind_and_make_room() {
        let mut line = Line::default();
        let [(first, _), _] = ["s1", "s2"].map(|item| line.push(slow(), item, 3, 3).expect("room"));
        assert!(line.push(from(1), "a", 3, 3).is_some());
        assert!(line.push(slow(), "s3", 3, 3).is_none());
        let (_, displaced) = line.push(from(2), "b", 3, 3).expect("room is made");
        assert_eq!(displaced, Some("s2"));
        assert_eq!((line.len(), line.ahead()), (3, 2));
        line.promote(first, Lane::Ahead);
        assert_eq!((line.len(), line.ahead()), (3, 3));
        assert!(
            line.push(from(3), "c", 3, 3).is_none(),
            "none stands behind"
        );
        assert_eq!(line.remove(first), Some("s1"));
        assert_eq!(line.remove(first), None);
        assert_eq!(all(&mut line), ["a", "b"]);
    }

    #[test]
    fn without_places_none_waits() {
        let mut line = Line::default();
        assert!(line.push(Asker::default(), 0, 0, 0).is_none());
        assert!(line.push(slow(), 0, 0, 0).is_none());
    }

    #[test]
    fn one_that_comes_back_stands_where_it_stood() {
        let mut line = Line::default();
        for (client, item) in [(1, "a1"), (1, "a2"), (2, "b1"), (2, "b2")] {
            line.push(from(client), item, 4, 4).expect("room");
        }
        let first = line.pop(None, |_| true).expect("the first");
        assert_eq!(first.item, "a1");
        // The line is full again by now, which it takes no account of.
        line.push(from(3), "c1", 4, 4).expect("room");
        line.put_back(from(1), first.item, Some(first.ticket));
        // These have never waited, and were there before all others.
        line.put_back(from(4), "x1", None);
        line.put_back(from(1), "x2", None);
        assert_eq!(all(&mut line), ["x1", "x2", "a1", "b1", "c1", "a2", "b2"]);
        assert!(line.clients.is_empty());
    }
}

//! Which waits can never end: the OR model of deadlock, as a property of a graph.
//!
//! A node is a wait. Any one of the nodes it points to can end the wait. It is dead if all of them
//! are dead too: then none can ever end. This is the knot condition of Holt ("Some
//! deadlock properties of computer systems", 1972) and of Chandy, Misra and Haas ("Distributed
//! deadlock detection", 1983, the communication model).

/// Who could end one wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    outside: bool,
    enders: Vec<usize>,
}

impl Wait {
    /// A wait that something outside the graph could end: a timer, a socket, a guest that runs.
    pub fn outside() -> Self {
        Self {
            outside: true,
            enders: Vec::new(),
        }
    }

    /// A wait that only these could end, each of them alone, by their numbers in the slice. Without
    /// any it never ends.
    pub fn on(enders: impl IntoIterator<Item = usize>) -> Self {
        let mut enders: Vec<_> = enders.into_iter().collect();
        enders.sort_unstable();
        enders.dedup();
        Self {
            outside: false,
            enders,
        }
    }

    /// Those who wait themselves and could end this.
    pub fn enders(&self) -> &[usize] {
        &self.enders
    }
}

/// The waits that can never end, in ascending order: the greatest set from which no way leads to
/// an ender that does not wait. Linear in nodes and edges. An ender that is not in the slice counts
/// as one that does not wait.
pub fn dead(waits: &[Wait]) -> Vec<usize> {
    let mut ended_by: Vec<Vec<usize>> = vec![Vec::new(); waits.len()];
    let mut alive = vec![false; waits.len()];
    let mut queue = Vec::new();
    for (n, wait) in waits.iter().enumerate() {
        alive[n] = wait.outside;
        for &ender in &wait.enders {
            match ended_by.get_mut(ender) {
                Some(nodes) => nodes.push(n),
                None => alive[n] = true,
            }
        }
        if alive[n] {
            queue.push(n);
        }
    }
    while let Some(n) = queue.pop() {
        for &waiting in &ended_by[n] {
            if !alive[waiting] {
                alive[waiting] = true;
                queue.push(waiting);
            }
        }
    }
    (0..waits.len()).filter(|&n| !alive[n]).collect()
}

/// The knots among waits that are all dead: groups in which each waits for all others,
/// directly or not, and for none outside of the group (the sinks among the strongly connected
/// components). Each must be broken; every other dead wait leads to one of them. A wait without
/// enders is a knot of its own. Linear in nodes and edges.
pub fn knots(dead: &[Wait]) -> Vec<Vec<usize>> {
    let groups = groups(dead);
    let mut group_of = vec![0; dead.len()];
    for (number, group) in groups.iter().enumerate() {
        group.iter().for_each(|&n| group_of[n] = number);
    }
    let is_knot = |number: usize, group: &[usize]| {
        let enders = group.iter().flat_map(|&n| dead[n].enders());
        enders
            .filter_map(|&ender| group_of.get(ender))
            .all(|&it| it == number)
    };
    let knots = groups.iter().enumerate();
    let mut knots: Vec<_> = knots
        .filter(|(number, group)| is_knot(*number, group))
        .map(|(_, group)| group.clone())
        .collect();
    knots.iter_mut().for_each(|knot| knot.sort_unstable());
    knots.sort_unstable();
    knots
}

/// The strongly connected groups, by the algorithm of Tarjan ("Depth-first search and linear graph
/// algorithms", 1972) with a stack of its own: a chain of waits may be long.
pub(crate) fn groups(waits: &[Wait]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let mut order = vec![UNSEEN; waits.len()];
    let mut lowest = vec![UNSEEN; waits.len()];
    let (mut seen, mut open, mut groups) = (0, Vec::new(), Vec::new());
    let mut is_open = vec![false; waits.len()];
    for root in 0..waits.len() {
        if order[root] != UNSEEN {
            continue;
        }
        // A node, and the number of its enders that have been looked at.
        let mut path = vec![(root, 0)];
        while let Some((n, looked_at)) = path.pop() {
            if looked_at == 0 {
                (order[n], lowest[n]) = (seen, seen);
                seen += 1;
                open.push(n);
                is_open[n] = true;
            }
            if let Some(&ender) = waits[n].enders().get(looked_at) {
                path.push((n, looked_at + 1));
                match order.get(ender) {
                    Some(&UNSEEN) => path.push((ender, 0)),
                    Some(&at) if is_open[ender] => lowest[n] = lowest[n].min(at),
                    Some(_) | None => {}
                }
                continue;
            }
            if let Some(&(above, _)) = path.last() {
                lowest[above] = lowest[above].min(lowest[n]);
            }
            if lowest[n] == order[n] {
                let start = open.iter().rposition(|&it| it == n).unwrap_or_default();
                let group = open.split_off(start);
                group.iter().for_each(|&it| is_open[it] = false);
                groups.push(group);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The union of all sets that are closed: each of them is dead, and the greatest is wanted.
    fn oracle(waits: &[Wait]) -> Vec<usize> {
        let closed = |set: u32| {
            let inside = |n: &usize| set >> n & 1 == 1;
            (0..waits.len())
                .filter(inside)
                .all(|n| !waits[n].outside && waits[n].enders.iter().all(inside))
        };
        let union = (0..1_u32 << waits.len())
            .filter(|&set| closed(set))
            .fold(0, |union, set| union | set);
        (0..waits.len()).filter(|n| union >> n & 1 == 1).collect()
    }

    fn check(waits: &[Wait]) {
        let dead = dead(waits);
        assert_eq!(dead, oracle(waits), "{waits:?}");
        let place = |n: &usize| dead.iter().position(|d| d == n);
        let inner: Vec<_> = dead
            .iter()
            .map(|&n| Wait::on(waits[n].enders.iter().filter_map(place)))
            .collect();
        let knots = knots(&inner);
        assert_eq!(knots.is_empty(), dead.is_empty(), "{waits:?}");
        for knot in &knots {
            // It is closed by itself, and no part of it is.
            let part: Vec<_> = inner
                .iter()
                .enumerate()
                .map(|(n, wait)| match knot.contains(&n) {
                    true => wait.clone(),
                    false => Wait::outside(),
                })
                .collect();
            assert_eq!(&oracle(&part), knot, "{waits:?}");
            for &broken in knot {
                let mut part = part.clone();
                part[broken] = Wait::outside();
                assert!(oracle(&part).is_empty(), "{waits:?}");
            }
        }
    }

    /// Every graph of up to three waits, and every one of four who do not wait for themselves.
    #[test]
    fn small_graphs_are_judged_like_the_oracle_does() {
        let mut count = 0;
        for size in 0..=4_usize {
            let others = |n: usize| (0..size).filter(move |&m| size < 4 || m != n);
            let choices: Vec<Vec<Wait>> = (0..size)
                .map(|n| {
                    let others: Vec<_> = others(n).collect();
                    let sets = 0..1_u32 << others.len();
                    let set = |set: u32| {
                        let chosen = others.iter().enumerate();
                        Wait::on(chosen.filter(|(i, _)| set >> i & 1 == 1).map(|(_, &m)| m))
                    };
                    sets.map(set).chain([Wait::outside()]).collect()
                })
                .collect();
            let mut odometer = vec![0; size];
            loop {
                let waits: Vec<_> = (0..size).map(|n| choices[n][odometer[n]].clone()).collect();
                check(&waits);
                count += 1;
                let Some(n) = (0..size).find(|&n| odometer[n] + 1 < choices[n].len()) else {
                    break;
                };
                odometer[..n].fill(0);
                odometer[n] += 1;
            }
        }
        assert_eq!(count, 1 + 3 + 25 + 729 + 6561);
    }

    fn any_wait(size: usize) -> impl Strategy<Value = Wait> {
        prop_oneof![
            1 => Just(Wait::outside()),
            6 => proptest::collection::vec(0..size, 0..4).prop_map(Wait::on),
        ]
    }

    fn any_waits() -> impl Strategy<Value = Vec<Wait>> {
        (1..9_usize).prop_flat_map(|size| proptest::collection::vec(any_wait(size), size))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        #[test]
        fn larger_graphs_are_judged_like_the_oracle_does(waits in any_waits()) {
            check(&waits);
        }
    }

    #[test]
    fn an_ender_outside_the_graph_does_not_wait() {
        assert!(dead(&[Wait::on([7])]).is_empty());
        assert_eq!(dead(&[Wait::on([])]), [0]);
    }
}

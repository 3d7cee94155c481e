//! The limits that pods meet: how much of each is used, and which one it was.

use std::{fmt, fs};

use rustix::process::{Resource, getrlimit};
use sampan_runtime::{PoolBound, PoolUse};

use crate::serve::{bench::machine::Held, memory::Room};

/// The part of a limit of this process from which on there is no room for another pod.
const NEARLY: f64 = 0.94;
/// The part of the machine's memory that is left for everything else.
const MEMORY_LEFT: f64 = 0.1;

/// Why there are no more pods.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Limit {
    /// As many came as were asked for.
    Asked,
    Memory(Room),
    Maps(Used),
    Descriptors(Used),
    Pool(PoolUse),
    /// The node does not take the app.
    Refused(String),
    /// What a pod that does not come says.
    Said(String),
}

/// How much of a limit of this process it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) now: u64,
    pub(super) most: Option<u64>,
}

impl Used {
    /// The part of the limit, which is none where there is no limit.
    pub(super) fn part(self) -> f64 {
        let most = self.most.filter(|most| *most > 0);
        most.map_or(0.0, |most| self.now as f64 / most as f64)
    }
}

/// What is used of each limit.
#[derive(Clone, Debug)]
pub(super) struct Uses {
    pub(super) memory: Option<Room>,
    pub(super) maps: Used,
    pub(super) descriptors: Used,
    /// The pool with the fewest places left.
    pub(super) pool: Option<PoolUse>,
}

impl Uses {
    pub(super) fn now(pools: &[PoolUse]) -> Self {
        let held = Held::now();
        let most_maps = fs::read_to_string("/proc/sys/vm/max_map_count");
        let left = |pool: &&PoolUse| pool.instances.saturating_sub(pool.taken);
        Self {
            memory: Room::now(),
            maps: Used {
                now: held.maps,
                most: most_maps.ok().and_then(|it| it.trim().parse().ok()),
            },
            descriptors: Used {
                now: held.descriptors,
                most: getrlimit(Resource::Nofile).current,
            },
            pool: pools.iter().min_by_key(left).copied(),
        }
    }

    /// Which limit it was, if no pod comes and one of them says this.
    pub(super) fn limit(&self, said: Option<String>) -> Limit {
        if let Some(room) = self.memory.filter(|it| is_short(*it)) {
            return Limit::Memory(room);
        }
        if let Some(pool) = self.pool.filter(|it| it.taken >= it.instances) {
            return Limit::Pool(pool);
        }
        if self.maps.part() >= NEARLY {
            return Limit::Maps(self.maps);
        }
        if self.descriptors.part() >= NEARLY {
            return Limit::Descriptors(self.descriptors);
        }
        Limit::Said(said.unwrap_or_else(|| "no other pod came, and none says why".to_owned()))
    }
}

/// Whether more pods would take memory that the machine needs.
pub(super) fn is_short(room: Room) -> bool {
    room.used_part() > 1.0 - MEMORY_LEFT
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = |used: &Used| used.most.unwrap_or_default();
        match self {
            Self::Asked => f.write_str("the number that was asked for (`--pods`)"),
            Self::Memory(Room { free, whole }) => write!(
                f,
                "memory: {} MiB of {} are free, and a tenth is left for everything else",
                free >> 20,
                whole >> 20
            ),
            Self::Maps(used) => write!(
                f,
                "memory maps: this process has {} of {} (`vm.max_map_count`)",
                used.now,
                most(used)
            ),
            Self::Descriptors(used) => write!(
                f,
                "file descriptors: this process has {} of {} (`ulimit -n`)",
                used.now,
                most(used)
            ),
            Self::Pool(pool) => {
                let all = pool.instances;
                write!(f, "the pool of instances: all {all} places are taken")?;
                f.write_str(match pool.bound {
                    PoolBound::Asked => "",
                    PoolBound::Maps => {
                        ", and more could need more memory maps than `vm.max_map_count` allows"
                    }
                    PoolBound::Addresses => ", and there are no addresses for more memories",
                })
            }
            Self::Refused(why) => write!(f, "one of the node: {why}"),
            Self::Said(why) => write!(f, "none of those that are known: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses() -> Uses {
        let room = Room {
            free: 8 << 30,
            whole: 16 << 30,
        };
        let used = |now| Used {
            now,
            most: Some(1000),
        };
        Uses {
            memory: Some(room),
            maps: used(500),
            descriptors: used(20),
            pool: Some(PoolUse {
                instances: 100,
                taken: 50,
                bound: PoolBound::Maps,
            }),
        }
    }

    #[test]
    fn the_limit_that_is_used_up_is_named() {
        let told = |change: &dyn Fn(&mut Uses)| {
            let mut uses = uses();
            change(&mut uses);
            uses.limit(Some("it said so".to_owned())).to_string()
        };
        let begins = |change: &dyn Fn(&mut Uses), with: &str| {
            let told = told(change);
            assert!(told.starts_with(with), "{told}");
        };
        begins(&|_| {}, "none of those that are known: it said so");
        begins(
            &|uses| uses.maps.now = 960,
            "memory maps: this process has 960 of 1000",
        );
        begins(
            &|uses| uses.descriptors.now = 999,
            "file descriptors: this process has 999 of 1000",
        );
        begins(
            &|uses| uses.pool.as_mut().expect("a pool").taken = 100,
            "the pool of instances: all 100 places are taken, and more could need more memory maps",
        );
        begins(
            &|uses| uses.memory.as_mut().expect("known").free = 1 << 30,
            "memory: 1024 MiB of 16384 are free",
        );
        let unlimited = Used { now: 7, most: None };
        assert_eq!(unlimited.part(), 0.0);
    }
}

//! Counters that many threads add to without passing cache lines around.
//!
//! One shared atomic costs a few nanoseconds to a lone thread and some hundred where many cores
//! fight for its cache line. Here each thread adds to a block of its own (as long as there are no
//! more threads than blocks; more is slower, never wrong), and only a scrape reads them all.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Most blocks of one set. Past that many threads, blocks are shared.
const BLOCKS_MAX: usize = 128;

/// `N` counters that belong together, each split over the threads that add to it.
///
/// Memory: 16 bytes a block at first; a block of `N` counters, rounded up to 128 bytes, is made when
/// a thread adds for the first time. So what sees no traffic stays small.
#[derive(Debug)]
pub struct Sharded<const N: usize> {
    blocks: Box<[OnceLock<Box<Block<N>>>]>,
}

/// 128 bytes, because processors fetch cache lines of 64 bytes in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Block<const N: usize>([AtomicU64; N]);

/// A number for the calling thread: small, unique while the process lives, and always the same.
pub(crate) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// A power of two with room for the workers and for as many other threads, so that two workers
/// rarely meet in one block.
fn block_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (2 * cores).next_power_of_two().min(BLOCKS_MAX)
    })
}

impl<const N: usize> Default for Sharded<N> {
    fn default() -> Self {
        Self {
            blocks: (0..block_count()).map(|_| OnceLock::new()).collect(),
        }
    }
}

impl<const N: usize> Sharded<N> {
    /// Adds `amount` to the counter `index`, which is below `N`. Never waits, except where a block
    /// is being made.
    #[inline]
    pub fn add(&self, index: usize, amount: u64) {
        self.block()[index].fetch_add(amount, Ordering::Relaxed);
    }

    /// The calling thread's counters, for several additions at once.
    #[inline]
    pub fn block(&self) -> &[AtomicU64; N] {
        let place = thread_number() & (self.blocks.len() - 1);
        let block = self.blocks[place]
            .get_or_init(|| Box::new(Block(std::array::from_fn(|_| AtomicU64::new(0)))));
        &block.0
    }

    /// The sums over all threads. Each is exact once the threads that added are done; while they
    /// add, sums of one call may differ by additions that are under way.
    pub fn sums(&self) -> [u64; N] {
        let mut sums = [0_u64; N];
        for block in self.blocks.iter().filter_map(OnceLock::get) {
            for (sum, counter) in sums.iter_mut().zip(&block.0) {
                *sum = sum.wrapping_add(counter.load(Ordering::Relaxed));
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_addition_is_lost_when_more_threads_than_blocks_add() {
        let counters = Sharded::<3>::default();
        std::thread::scope(|scope| {
            for _ in 0..block_count() + 5 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        counters.add(0, 1);
                        counters.add(2, 3);
                    }
                });
            }
        });
        let threads = u64::try_from(block_count() + 5).expect("a small number");
        assert_eq!(counters.sums(), [threads * 1_000, 0, threads * 3_000]);
    }

    #[test]
    fn counters_that_nobody_adds_to_hold_no_block() {
        let counters = Sharded::<64>::default();
        assert!(counters.blocks.iter().all(|block| block.get().is_none()));
        assert_eq!(counters.sums(), [0; 64]);
    }
}

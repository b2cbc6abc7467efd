//! A generator of random numbers. With the same seed, a test gets the same numbers again. Pure, except for the choice
//! of a seed.

use std::hash::{BuildHasher, RandomState};

/// The environment variable with the seed of one sequence to repeat.
const SEED_VARIABLE: &str = "AKROBATEO_DATA_PATH_SEED";

/// A generator of random numbers (`SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// Returns a number below `limit`.
    pub(crate) fn number_below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    /// Returns true with a probability of `percent` %.
    pub(crate) fn random_bool(&mut self, percent: usize) -> bool {
        self.number_below(100) < percent
    }

    pub(crate) fn choose<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.number_below(values.len())]
    }

    /// Returns each value with a chance of 50 %.
    pub(crate) fn choose_some<T: Clone>(&mut self, values: &[T]) -> Vec<T> {
        values.iter().filter(|_| self.random_bool(50)).cloned().collect()
    }
}

/// Runs `test` with `count` seeds, or only with the seed in the environment variable. Prints the seed of a failure.
pub(crate) fn for_each_seed(count: u64, mut test: impl FnMut(u64)) {
    struct SeedPrinter(u64);
    impl Drop for SeedPrinter {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("to repeat this sequence, set {SEED_VARIABLE}={}", self.0);
            }
        }
    }
    let chosen_seed = chosen_seed();
    let first_seed = chosen_seed.unwrap_or_else(new_seed);
    for seed in first_seed..first_seed + chosen_seed.map_or(count, |_| 1) {
        let seed_printer = SeedPrinter(seed);
        test(seed);
        drop(seed_printer);
    }
}

/// Returns the seed in the environment variable, or a random seed. Prints the seed.
pub(crate) fn random_seed() -> u64 {
    let seed = chosen_seed().unwrap_or_else(new_seed);
    eprintln!("{SEED_VARIABLE}={seed}");
    seed
}

fn chosen_seed() -> Option<u64> {
    std::env::var(SEED_VARIABLE).ok().map(|seed| seed.parse().unwrap())
}

fn new_seed() -> u64 {
    RandomState::new().hash_one(0) >> 16
}

//! Random sequences of events on a table, checked against a model, and the log records of evictions.

use super::world::any_table;
use crate::logic::random::Random;
use crate::logic::tests::epoch;

#[test]
fn a_random_table_keeps_its_guarantees() {
    for seed in 0..500 {
        let mut random = Random::new(seed);
        any_table(epoch(), &mut |n| random.bits() % n);
    }
}

#[test]
fn the_fuzzer_seeds_keep_the_guarantees() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/table");
    // The published crate does not include the seeds.
    let Ok(seeds) = std::fs::read_dir(folder) else { return };
    let seeds: Vec<Vec<u8>> = seeds.map(|seed| std::fs::read(seed.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty());
    for seed in seeds {
        let mut bytes = seed.into_iter();
        let mut byte = || u64::from(bytes.next().unwrap_or(0));
        any_table(epoch(), &mut |n| match n {
            0..=256 => byte() % n,
            _ => ((byte() << 8 | byte()) * n) >> 16,
        });
    }
}

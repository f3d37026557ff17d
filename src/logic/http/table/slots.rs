//! The slots of a table: small numbers that are reused. Each has a generation, so that an event for a connection that
//! has been removed does not reach the next connection in its slot.

/// Smaller tables are not worth shrinking.
pub const FEW: usize = 32;

/// Generations wrap at this value, because the epoll data has 24 bits for [`Key::generation`].
pub const GENERATION_MASK: u32 = (1 << 24) - 1;

/// A slot and its generation. An event may be handled after its connection was removed, because both can happen in one
/// batch of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The index of the slot.
    pub slot: u32,
    /// The generation of the connection in the slot, in 24 bits.
    pub generation: u32,
}

/// Slots, each free or taken by a `T`.
#[derive(Debug)]
pub(super) struct Slots<T> {
    entries: Vec<Option<(u32, T)>>,
    free: Vec<u32>,
    generations: u32,
}

impl<T> Slots<T> {
    /// Returns a table without slots, which owns no memory.
    pub(super) fn new() -> Slots<T> {
        Slots { entries: Vec::new(), free: Vec::new(), generations: 0 }
    }

    /// Returns the number of taken slots.
    pub(super) fn taken(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Returns the number of slots, taken or free.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Puts a value into the slot that was freed last or, if none is free, into a new one.
    pub(super) fn insert(&mut self, value: T) -> Key {
        self.generations = self.generations.wrapping_add(1) & GENERATION_MASK;
        let generation = self.generations;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.len() - 1
        });
        if let Some(entry) = self.entry(slot) {
            *entry = Some((generation, value));
        }
        Key { slot, generation }
    }

    /// Returns the key of the value in a slot.
    pub(super) fn key(&self, slot: u32) -> Option<Key> {
        self.taken_entry(slot).map(|(generation, _)| Key { slot, generation: *generation })
    }

    /// Returns the value in a slot.
    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.taken_entry(slot).map(|(_, value)| value)
    }

    /// Returns the value in a slot, whatever its generation.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.entry(slot)?.as_mut().map(|(_, value)| value)
    }

    /// Returns the value that has this key, unless it was removed.
    pub(super) fn of_key(&mut self, key: Key) -> Option<&mut T> {
        let (generation, value) = self.entry(key.slot)?.as_mut()?;
        (*generation == key.generation).then_some(value)
    }

    /// Returns all values with their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.entries).filter_map(|(slot, entry)| Some((slot, &entry.as_ref()?.1)))
    }

    /// Frees a slot if it is taken.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(entry) = self.entry(slot).filter(|entry| entry.is_some()) else { return };
        *entry = None;
        self.free.push(slot);
        // After a burst the table frees its memory beyond the last taken slot. Generations are not reset.
        if self.entries.len() >= 2 * FEW && self.free.len() >= self.entries.len() / 4 * 3 {
            let used = self.entries.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            self.entries.truncate(used);
            self.entries.shrink_to(FEW);
            self.free.retain(|slot| usize::try_from(*slot).is_ok_and(|slot| slot < used));
            self.free.shrink_to(FEW);
        }
    }

    fn taken_entry(&self, slot: u32) -> Option<&(u32, T)> {
        self.entries.get(usize::try_from(slot).ok()?)?.as_ref()
    }

    fn entry(&mut self, slot: u32) -> Option<&mut Option<(u32, T)>> {
        self.entries.get_mut(usize::try_from(slot).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_reach_the_next_value_in_its_slot() {
        let mut slots = Slots::new();
        let first = slots.insert('a');
        slots.remove(first.slot);
        slots.remove(first.slot);
        let second = slots.insert('b');
        assert_eq!((second.slot, slots.taken(), slots.len()), (first.slot, 1, 1));
        assert_eq!(slots.of_key(first), None);
        assert_eq!(slots.of_key(second), Some(&mut 'b'));
    }

    #[test]
    fn generations_are_counted_modulo_24_bits() {
        let mut slots = Slots::new();
        slots.generations = GENERATION_MASK - 1;
        let keys = [(); 2].map(|()| slots.insert(()).generation);
        assert_eq!(keys, [GENERATION_MASK, 0]);
    }

    #[test]
    fn after_a_burst_the_table_shrinks_to_its_last_taken_slot() {
        let mut slots = Slots::new();
        let keys: Vec<Key> = (0..1000).map(|value| slots.insert(value)).collect();
        for key in keys.iter().filter(|key| key.slot != 40) {
            slots.remove(key.slot);
        }
        assert!(slots.len() < 128 && slots.taken() == 1, "{}", slots.len());
        assert!(slots.entries.capacity() < 256 && slots.free.capacity() < 256);
        assert_eq!(slots.of_key(keys[40]), Some(&mut 40));
        let next: Vec<u32> = (0..200).map(|value| slots.insert(value).slot).collect();
        assert!(!next.contains(&40) && slots.taken() == 201);
    }
}

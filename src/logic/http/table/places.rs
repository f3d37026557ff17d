//! The places of a table: small numbers that are used again, each with a generation, so that what was meant for one
//! that has left does not meet the next in its place.

/// A table of this size is not worth shrinking.
pub const FEW: usize = 32;

/// Generations are counted modulo this: [`Key::generation`] has 24 bits in what epoll keeps for kapo.
pub const GENERATION_MASK: u32 = (1 << 24) - 1;

/// A place and its generation. An event may outlive its connection within one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The place.
    pub slot: u32,
    /// The number of the one that has the place; 24 bits.
    pub generation: u32,
}

/// Places, each free or taken by a `T`.
#[derive(Debug)]
pub(super) struct Places<T> {
    slots: Vec<Option<(u32, T)>>,
    free: Vec<u32>,
    generations: u32,
}

impl<T> Places<T> {
    /// None is taken; no memory is owned.
    pub(super) fn new() -> Places<T> {
        Places { slots: Vec::new(), free: Vec::new(), generations: 0 }
    }

    /// Taken places.
    pub(super) fn taken(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Every slot number, taken or free, is below this.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Takes a free place, the one that was left last, or a new one.
    pub(super) fn insert(&mut self, value: T) -> Key {
        self.generations = self.generations.wrapping_add(1) & GENERATION_MASK;
        let generation = self.generations;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.len() - 1
        });
        if let Some(place) = self.place(slot) {
            *place = Some((generation, value));
        }
        Key { slot, generation }
    }

    /// The key of the one in a place.
    pub(super) fn key(&self, slot: u32) -> Option<Key> {
        self.taken_place(slot).map(|(generation, _)| Key { slot, generation: *generation })
    }

    /// The one in a place.
    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.taken_place(slot).map(|(_, value)| value)
    }

    /// The one in a place, whatever its generation.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.place(slot)?.as_mut().map(|(_, value)| value)
    }

    /// The one that a key was given for, unless it has left.
    pub(super) fn of_key(&mut self, key: Key) -> Option<&mut T> {
        let (generation, value) = self.place(key.slot)?.as_mut()?;
        (*generation == key.generation).then_some(value)
    }

    /// All with their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(slot, place)| Some((slot, &place.as_ref()?.1)))
    }

    /// Frees a place, if it is taken.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(place) = self.place(slot).filter(|place| place.is_some()) else { return };
        *place = None;
        self.free.push(slot);
        // After a storm the table gives its memory back down to the last slot in use. Generations go on counting.
        if self.slots.len() >= 2 * FEW && self.free.len() >= self.slots.len() / 4 * 3 {
            let used = self.slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            self.slots.truncate(used);
            self.slots.shrink_to(FEW);
            self.free.retain(|slot| usize::try_from(*slot).is_ok_and(|slot| slot < used));
            self.free.shrink_to(FEW);
        }
    }

    fn taken_place(&self, slot: u32) -> Option<&(u32, T)> {
        self.slots.get(usize::try_from(slot).ok()?)?.as_ref()
    }

    fn place(&mut self, slot: u32) -> Option<&mut Option<(u32, T)>> {
        self.slots.get_mut(usize::try_from(slot).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_reach_the_next_in_its_place() {
        let mut places = Places::new();
        let first = places.insert('a');
        places.remove(first.slot);
        places.remove(first.slot);
        let second = places.insert('b');
        assert_eq!((second.slot, places.taken(), places.len()), (first.slot, 1, 1));
        assert_eq!(places.of_key(first), None);
        assert_eq!(places.of_key(second), Some(&mut 'b'));
    }

    #[test]
    fn generations_are_counted_modulo_24_bits() {
        let mut places = Places::new();
        places.generations = GENERATION_MASK - 1;
        let keys = [(); 2].map(|()| places.insert(()).generation);
        assert_eq!(keys, [GENERATION_MASK, 0]);
    }

    #[test]
    fn after_a_storm_memory_is_kept_to_the_last_place_in_use() {
        let mut places = Places::new();
        let keys: Vec<Key> = (0..1000).map(|value| places.insert(value)).collect();
        for key in keys.iter().filter(|key| key.slot != 40) {
            places.remove(key.slot);
        }
        assert!(places.len() < 128 && places.taken() == 1, "{}", places.len());
        assert!(places.slots.capacity() < 256 && places.free.capacity() < 256);
        assert_eq!(places.of_key(keys[40]), Some(&mut 40));
        let next: Vec<u32> = (0..200).map(|value| places.insert(value).slot).collect();
        assert!(!next.contains(&40) && places.taken() == 201);
    }
}

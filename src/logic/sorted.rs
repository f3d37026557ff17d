//! A map in a sorted vector. An insertion moves the entries behind it, which takes microseconds for thousands of
//! entries, and the code is a tenth of that of a `BTreeMap`.

/// A map, sorted by key.
#[derive(Debug)]
pub(crate) struct SortedMap<K, V>(Vec<(K, V)>);

impl<K: Ord + Copy, V> SortedMap<K, V> {
    /// Returns an empty map, which has allocated nothing.
    pub(crate) const fn new() -> Self {
        SortedMap(Vec::new())
    }

    /// Returns the number of entries.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(at, _)| at.cmp(key))
    }

    /// Whether the map has the key.
    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    /// Returns the value of a key.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(self.find(key).ok()?).map(|(_, value)| value)
    }

    /// Returns the value of a key, to change it.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// Sets the value of a key.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(at) => {
                if let Some(entry) = self.0.get_mut(at) {
                    entry.1 = value;
                }
            }
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    /// Removes a key. Memory that is no longer needed is freed.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (_, value) = self.0.remove(self.find(key).ok()?);
        if self.0.capacity() > 64 && self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to(self.0.len() * 2);
        }
        Some(value)
    }

    /// Returns the first key.
    pub(crate) fn first(&self) -> Option<K> {
        self.0.first().map(|(key, _)| *key)
    }

    /// Returns all entries, sorted by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.0.iter()
    }

    /// Returns all values, to change them.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_behaves_as_a_tree() {
        let (mut map, mut tree) = (SortedMap::new(), BTreeMap::new());
        let mut random = 1_u32;
        for step in 0..20_000_u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = random >> 23;
            // Grows at first and shrinks at the end.
            if random >> 8 & 0xff < step / 80 {
                assert_eq!(map.remove(&key), tree.remove(&key));
            } else {
                map.insert(key, step);
                tree.insert(key, step);
            }
            assert_eq!((map.get(&key), map.contains_key(&key)), (tree.get(&key), tree.contains_key(&key)));
            assert_eq!((map.len(), map.first()), (tree.len(), tree.first_key_value().map(|(key, _)| *key)));
        }
        assert!(map.iter().map(|(key, value)| (key, value)).eq(tree.iter()));
    }

    #[test]
    fn memory_is_freed_when_entries_go() {
        let mut map = SortedMap::new();
        (0..1_000).for_each(|key| map.insert(key, ()));
        for key in 0..990 {
            assert_eq!(map.remove(&key), Some(()));
        }
        assert!(map.0.capacity() <= 64, "{}", map.0.capacity());
        assert_eq!(map.first(), Some(990));
    }
}

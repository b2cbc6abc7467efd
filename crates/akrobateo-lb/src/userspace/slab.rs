//! A store of values by key. Pure.
//!
//! The key of a removed value never finds a newer value. A late event of a closed socket therefore cannot reach the
//! wrong object.

/// Identifies one value of a [`Slab`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// A store of values by [`Key`].
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// The generation and the value of each index.
    entries: Vec<(u32, Option<T>)>,
    /// Indices without a value.
    free_indices: Vec<u32>,
}

impl<T> Slab<T> {
    /// The number of generations. An epoll event has 28 bits for the generation.
    pub(super) const GENERATION_COUNT: u32 = 1 << 28;

    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), free_indices: Vec::new() }
    }

    /// Returns the number of values.
    pub(super) const fn len(&self) -> usize {
        self.entries.len() - self.free_indices.len()
    }

    /// Stores a value and returns its key.
    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free_indices.pop()
            && let Some((generation, entry)) = self.entries.get_mut(index as usize)
        {
            *entry = Some(value);
            return Key { index, generation: *generation };
        }
        // Each value has a file descriptor, and descriptors run out long before the indices do.
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push((0, Some(value)));
        Key { index, generation: 0 }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, value) = self.entries.get_mut(key.index as usize)?;
        if *generation == key.generation { value.as_mut() } else { None }
    }

    /// Removes and returns a value.
    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let (generation, value) = self.entries.get_mut(key.index as usize)?;
        if *generation != key.generation {
            return None;
        }
        let value = value.take()?;
        *generation = (*generation + 1) % Self::GENERATION_COUNT;
        self.free_indices.push(key.index);
        Some(value)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.entries.iter_mut().enumerate().filter_map(|(index, (generation, value))| {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let generation = *generation;
            value.as_mut().map(|value| (Key { index, generation }, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn key_finds_its_value_until_the_value_is_removed(
            steps in prop::collection::vec(any::<(bool, u8)>(), 0..200),
        ) {
            let (mut slab, mut model, mut removed_keys) = (Slab::new(), HashMap::new(), Vec::new());
            for (step, (insert, number)) in steps.into_iter().enumerate() {
                if insert || model.is_empty() {
                    prop_assert_eq!(model.insert(slab.insert(step), step), None);
                } else {
                    let key = *model.keys().nth(usize::from(number) % model.len()).unwrap();
                    prop_assert_eq!(slab.remove(key), model.remove(&key));
                    removed_keys.push(key);
                }
                prop_assert_eq!(slab.len(), model.len());
                let values: HashMap<_, _> = slab.iter_mut().map(|(key, value)| (key, *value)).collect();
                prop_assert_eq!(&values, &model);
                for key in &removed_keys {
                    prop_assert!(slab.get_mut(*key).is_none() && slab.remove(*key).is_none());
                }
            }
        }
    }
}

//! A store whose keys are never valid again once their value is gone, so that late events find nothing. Pure.

/// Finds a value in a [`Slab`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// Values that are found by [`Key`].
#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// Generations are counted below this, so that a key fits into an event.
    pub(super) const GENERATIONS: u32 = 1 << 28;

    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    /// How many values there are.
    pub(super) const fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Puts a value in.
    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop()
            && let Some((generation, entry)) = self.entries.get_mut(index as usize)
        {
            *entry = Some(value);
            return Key { index, generation: *generation };
        }
        // Descriptors, of which each value has one, run out long before the indices.
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push((0, Some(value)));
        Key { index, generation: 0 }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, value) = self.entries.get_mut(key.index as usize)?;
        if *generation == key.generation { value.as_mut() } else { None }
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let (generation, value) = self.entries.get_mut(key.index as usize)?;
        if *generation != key.generation {
            return None;
        }
        let value = value.take()?;
        *generation = (*generation + 1) % Self::GENERATIONS;
        self.free.push(key.index);
        Some(value)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.entries.iter_mut().enumerate().filter_map(|(index, (generation, value))| {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let generation = *generation;
            value.as_mut().map(|value| (Key { index, generation }, value))
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, (generation, value))| {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            value.as_ref().map(|value| (Key { index, generation: *generation }, value))
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
        fn a_key_finds_its_value_until_it_is_taken_and_nothing_after(steps in prop::collection::vec(any::<(bool, u8)>(), 0..200)) {
            let (mut slab, mut model, mut gone) = (Slab::new(), HashMap::new(), Vec::new());
            for (step, (insert, number)) in steps.into_iter().enumerate() {
                if insert || model.is_empty() {
                    prop_assert_eq!(model.insert(slab.insert(step), step), None);
                } else {
                    let key = *model.keys().nth(usize::from(number) % model.len()).unwrap();
                    prop_assert_eq!(slab.remove(key), model.remove(&key));
                    gone.push(key);
                }
                prop_assert_eq!(slab.len(), model.len());
                prop_assert_eq!(slab.iter().map(|(key, value)| (key, *value)).collect::<HashMap<_, _>>(), model.clone());
                for key in &gone {
                    prop_assert!(slab.get_mut(*key).is_none() && slab.remove(*key).is_none());
                }
            }
        }
    }
}

//! The order in which variants take their turns: another one each round. Pure.

/// A small generator of numbers that look random (xorshift), for an order that can be had again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shuffle(u64);

impl Shuffle {
    /// The orders that come from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed ^ 0x9E37_79B9_7F4A_7C15)
    }

    /// Puts the items in a new order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let other = usize::try_from(self.0 % (last as u64 + 1)).unwrap_or(0);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_order_has_all_items_and_the_same_seed_gives_the_same_orders() {
        let orders = |seed| {
            let mut shuffle = Shuffle::new(seed);
            [0; 5].map(|_| {
                let mut items = [0, 1, 2, 3, 4, 5];
                shuffle.shuffle(&mut items);
                items
            })
        };
        let first = orders(1);
        assert_eq!(first, orders(1));
        assert_ne!(first, orders(2));
        assert_ne!(first[0], first[1]);
        for mut order in first {
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3, 4, 5]);
        }
    }
}

//! Tables. Pure.

use super::chain::Chain;
use super::set::Set;
use super::value::Name;

/// The family of a table. The family determines which packets pass the base chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableFamily {
    /// IPv4 and IPv6 packets (`NFPROTO_INET`, `linux/netfilter.h`).
    Inet,
    /// IPv4 packets (`NFPROTO_IPV4`).
    Ip,
    /// IPv6 packets (`NFPROTO_IPV6`).
    Ip6,
    /// Frames of network interfaces (`NFPROTO_NETDEV`).
    Netdev,
}

impl TableFamily {
    /// All families.
    pub const ALL: [Self; 4] = [Self::Inet, Self::Ip, Self::Ip6, Self::Netdev];

    /// Returns the name, as in the nft program.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Netdev => "netdev",
        }
    }

    /// Returns the kernel's number of the family.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
            Self::Netdev => 5,
        }
    }

    /// Returns the family with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.number() == number)
    }
}

/// The identity of a table: its family and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    /// The family.
    pub family: TableFamily,
    /// The name.
    pub name: Name,
}

impl TableId {
    /// Creates the identity of a table.
    #[must_use]
    pub fn new(family: TableFamily, name: impl Into<Name>) -> Self {
        Self { family, name: name.into() }
    }
}

impl std::fmt::Display for TableId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family.as_str(), self.name)
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The family and the name.
    pub id: TableId,
    /// The sets and maps, in the order in which they are created.
    pub sets: Vec<Set>,
    /// The chains, in the order of their creation.
    pub chains: Vec<Chain>,
}

impl Table {
    /// Creates a table without content.
    #[must_use]
    pub fn empty(id: TableId) -> Self {
        Self { id, sets: Vec::new(), chains: Vec::new() }
    }

    /// Returns the set or map of this name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// Returns the chain of this name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// Sets each counter to its value in `previous`, or to zero if the element is new.
    pub fn copy_counters_from(&mut self, previous: &Self) {
        for set in self.sets.iter_mut().filter(|set| set.definition.has_counters) {
            let Some(previous) = previous.set(&set.name) else { continue };
            for element in &mut set.elements {
                element.counter = previous.counter(&element.key).unwrap_or_default();
            }
        }
    }

    /// Returns true if both tables handle packets in the same way. Ignores counters and the elements of dynamic sets,
    /// because packets change both. Kernels before 5.7 do not have counters in sets. Also ignores the order of sets and
    /// chains.
    #[must_use]
    pub fn equals_ignoring_state(&self, other: &Self) -> bool {
        let Self { id, sets, chains } = self;
        let has_equal_set =
            |set: &Set| other.set(&set.name).is_some_and(|other| set.equals_ignoring_state(other));
        let has_equal_chain = |chain: &Chain| {
            other.chain(&chain.name).is_some_and(|other| chain.equals_ignoring_counters(other))
        };
        *id == other.id
            && sets.len() == other.sets.len()
            && chains.len() == other.chains.len()
            && sets.iter().all(has_equal_set)
            && chains.iter().all(has_equal_chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::model::{Counter, DataType, Element, SetDefinition, Value};

    fn table(has_counters: bool, elements: &[(u8, u64)]) -> Table {
        let element = |&(key, packets): &(u8, u64)| Element {
            counter: Counter { packets, bytes: 0 },
            ..Element::new(Value::from([key]))
        };
        let definition = SetDefinition { has_counters, ..SetDefinition::set(DataType::PROTOCOL) };
        let set = Set::new("protocols", definition, elements.iter().map(element).collect());
        Table { sets: vec![set], ..Table::empty(TableId::new(TableFamily::Inet, "test")) }
    }

    #[test]
    fn comparison_of_tables_ignores_counters() {
        let counted_table = table(true, &[(1, 7)]);
        assert!(counted_table.equals_ignoring_state(&table(true, &[(1, 8)])));
        assert!(counted_table.equals_ignoring_state(&table(false, &[(1, 0)])));
        assert!(!counted_table.equals_ignoring_state(&table(true, &[(2, 7)])));
        assert!(!counted_table.equals_ignoring_state(&table(true, &[(1, 7), (2, 0)])));
    }

    #[test]
    fn counters_are_copied_to_elements_with_the_same_key() {
        let mut replacement = table(true, &[(1, 0), (3, 0)]);
        replacement.copy_counters_from(&table(true, &[(1, 7), (2, 8)]));
        assert_eq!(replacement, table(true, &[(1, 7), (3, 0)]));
    }
}

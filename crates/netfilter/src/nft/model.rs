//! A table of nftables as a value, as far as Akrobateo uses them. Pure.

use std::borrow::Cow;

/// A name. What is known beforehand takes no memory, for small pieces between the large ones would keep those.
pub type Name = Cow<'static, str>;

/// A table of family `inet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: Name,
    /// Sets and maps, in the order in which they were made.
    pub sets: Vec<Set>,
    /// Base chains, in the order in which they were made.
    pub chains: Vec<Chain>,
}

impl Table {
    /// The set or map of this name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// Lets elements that `before` has too go on counting from there.
    pub fn carry_counters(&mut self, before: &Self) {
        for set in self.sets.iter_mut().filter(|set| set.counted) {
            let Some(before) = before.set(&set.name) else { continue };
            for element in &mut set.elements {
                element.count = before.count(&element.key).unwrap_or_default();
            }
        }
    }

    /// The same without counting. Kernels before 5.7 hold a table so, and decide alike.
    #[must_use]
    pub fn without_counters(mut self) -> Self {
        for set in &mut self.sets {
            set.counted = false;
            set.elements.iter_mut().for_each(|element| element.count = Count::default());
        }
        self
    }
}

/// A named set, or a map where it has a type of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name, unique in the table.
    pub name: Name,
    /// What it is looked up by.
    pub key: DataType,
    /// What it holds, if it is a map.
    pub value: Option<DataType>,
    /// Whether the keys are bounds of intervals.
    pub interval: bool,
    /// Whether each element counts the packets that found it.
    pub counted: bool,
    /// What it contains, sorted.
    pub elements: Vec<Element>,
}

impl Set {
    /// What the element with this key has counted; `None` if it isn't there, or doesn't count.
    #[must_use]
    pub fn count(&self, key: &Value) -> Option<Count> {
        let at = self.elements.binary_search_by_key(key, |element| element.key).ok()?;
        self.elements.get(at).filter(|_| self.counted).map(|element| element.count)
    }
}

/// A type of keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataType {
    /// By which the nft program knows how to print it; the kernel only keeps it.
    pub id: u32,
    /// Length in bytes; each part of a concatenation fills a multiple of 4.
    pub len: u32,
}

/// An element of a set. In an interval set, a lower bound, or an upper bound that is itself outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// The key, in network byte order.
    pub key: Value,
    /// Whether it is an upper bound.
    pub end: bool,
    /// The value, in a map.
    pub value: Option<Value>,
    /// What it has counted, or begins with; zero where the set doesn't count.
    pub count: Count,
}

/// What a counter has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// Packets, as the kernel handles them: what it has joined, or has yet to cut, counts once.
    pub packets: u64,
    /// Bytes of these packets, with their IP headers.
    pub bytes: u64,
}

/// A key or a value; in place, for there may be thousands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

impl Value {
    /// An IPv6 address and a port.
    pub const MAX_LEN: usize = 20;

    /// What was read, or `None` if it is too long.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut datum = Self { bytes: [0; Self::MAX_LEN], len: u8::try_from(bytes.len()).ok()? };
        datum.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(datum)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl<const LEN: usize> From<[u8; LEN]> for Value {
    fn from(from: [u8; LEN]) -> Self {
        const { assert!(LEN <= Self::MAX_LEN) };
        let mut bytes = [0; Self::MAX_LEN];
        bytes[..LEN].copy_from_slice(&from);
        #[expect(clippy::cast_possible_truncation, reason = "checked above")]
        Self { bytes, len: LEN as u8 }
    }
}

/// A base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name, unique in the table.
    pub name: Name,
    /// `nat` or `filter`.
    pub kind: Name,
    /// Where packets pass it (linux/netfilter.h, enum `nf_inet_hooks`).
    pub hook: u32,
    /// Its place among the hook's chains, the lowest first.
    pub priority: i32,
    /// The verdict when no rule gives one (linux/netfilter.h: [`ACCEPT`] or 0).
    pub policy: u32,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// `NF_ACCEPT`.
pub const ACCEPT: u32 = 1;

/// Expressions, evaluated in order until one doesn't match.
pub type Rule = Vec<Expr>;

/// A register of 4 bytes, from 0 to 15; longer data fill the next ones too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u8);

/// An expression of a rule (`linux/netfilter/nf_tables.h`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads what is known about the packet.
    Meta {
        /// enum `nft_meta_keys`.
        key: u32,
        /// Where it goes.
        into: Reg,
    },
    /// Loads what is known about the flow.
    Ct {
        /// enum `nft_ct_keys`.
        key: u32,
        /// Where it goes.
        into: Reg,
    },
    /// Gives the flow its mark.
    SetCtMark {
        /// Where the mark comes from.
        from: Reg,
    },
    /// Loads part of a header.
    Payload {
        /// enum `nft_payload_bases`.
        base: u32,
        /// From the header's start, in bytes.
        offset: u32,
        /// In bytes.
        len: u32,
        /// Where it goes.
        into: Reg,
    },
    /// Goes on only if a register equals, or doesn't equal, the data.
    Cmp {
        /// What is compared.
        from: Reg,
        /// Whether it must equal.
        equal: bool,
        /// What it is compared with.
        data: Vec<u8>,
    },
    /// Keeps some bits of a register.
    Mask {
        /// Which register, read and written.
        reg: Reg,
        /// Which bits.
        mask: Vec<u8>,
    },
    /// Goes on only if the key is in the set, or isn't.
    Lookup {
        /// The set's name.
        set: Name,
        /// The key.
        from: Reg,
        /// Where a map's value goes.
        into: Option<Reg>,
        /// Whether the key must be missing.
        missing: bool,
    },
    /// Sends the flow elsewhere.
    Dnat {
        /// 2 or 10 (`NFPROTO_IPV4`, `NFPROTO_IPV6`).
        family: u32,
        /// The register with the address.
        address: Reg,
        /// The register with the port.
        port: Reg,
    },
    /// Gives the flow this machine's address as its source.
    Masquerade,
    /// Gives a verdict (linux/netfilter.h: [`ACCEPT`] or [`DROP`]).
    Verdict(u32),
}

/// `NF_DROP`.
pub const DROP: u32 = 0;

//! nftables tables as values, with the features of nftables that Akrobateo uses. Pure.

mod chain;
mod check;
mod data_type;
mod expr;
mod set;
mod table;
mod value;
mod verdict;

pub use chain::{BaseChain, Chain, ChainType, Hook, Policy, Rule};
pub use check::TableError;
pub use data_type::{DataType, ValueType};
pub use expr::{
    CmpOp, Direction, ElementChange, Expr, LookupResult, NatFlags, NatKind, PayloadBase, PayloadField, Reg,
    Reject,
};
pub use set::{DynamicProperties, Element, ElementValue, KeyMatching, Lifetime, Set, SetDefinition};
pub use table::{Table, TableFamily, TableId};
pub use value::{Counter, Name, Value};
pub use verdict::Verdict;

//! What happens when something breaks. One test at a time, in a cluster of ours; each mends what it broke.

mod nodes;
mod operator;
mod proxies;
mod scope;

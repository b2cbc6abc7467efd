//! What happens when something breaks. One test at a time, in a cluster of ours; each mends what it broke.

mod addresses;
mod api_server;
mod many;
mod nodes;
mod operator;
mod proxies;
mod replicas;
mod scope;
mod settings;
mod settled;

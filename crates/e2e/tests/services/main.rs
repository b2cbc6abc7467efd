//! What every cluster must show. These tests run side by side.

mod access;
mod annotations;
mod by_hand;
mod changes;
mod exposure;
mod proxy_pods;
mod removal;
mod workloads;

//! What every cluster must show. These tests run side by side.

mod access;
mod annotations;
mod by_hand;
mod changes;
mod data_plane;
mod exposure;
mod local;
mod ownership;
mod placement;
mod proxy_pods;
mod removal;
mod userspace;
mod workloads;

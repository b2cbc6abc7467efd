//! Reads the generation number of a namespace's nftables rules, to detect a change. Does I/O.
//!
//! With a netlink listener, the kernel would report each element of a set. These reports would increase the measured
//! start time of the proxy.

use std::thread;
use std::time::{Duration, Instant};

use netfilter::nft::NftError;
use netfilter::nft::client::Nftables;
use netns_testkit::Namespace;

use crate::error::BenchError;

/// The time between two polls. This time is short compared with the measured times.
const POLL_INTERVAL: Duration = Duration::from_micros(50);

/// Detects changes of a namespace's rules after the watch was created.
#[derive(Debug)]
pub(crate) struct RulesetWatch {
    nftables: Nftables,
    initial_generation: u32,
}

impl RulesetWatch {
    /// Starts to watch.
    pub(crate) fn new(namespace: &Namespace) -> Result<Self, BenchError> {
        namespace.run(|| {
            let nftables = Nftables::open().map_err(|error| generation_error(&error))?;
            let initial_generation = nftables.generation().map_err(|error| generation_error(&error))?;
            Ok(Self { nftables, initial_generation })
        })
    }

    /// Waits until a transaction has changed the rules.
    pub(crate) fn wait_for_change(&self, timeout: Duration) -> Result<(), BenchError> {
        let start = Instant::now();
        while self.nftables.generation().map_err(|error| generation_error(&error))? == self.initial_generation
        {
            if start.elapsed() > timeout {
                return Err(BenchError::Timeout("the nftables rules change".to_owned(), timeout));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

fn generation_error(error: &NftError) -> BenchError {
    BenchError::UnexpectedState(format!("cannot read the generation of the nftables rules: {error}"))
}

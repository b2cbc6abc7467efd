//! Notices when rules of nftables come into force, without the kernel having to tell of each. I/O only.

use std::thread;
use std::time::{Duration, Instant};

use netfilter::nft::client::{NftError, Nftables};

use crate::failure::Failure;
use crate::namespace::Namespace;

/// Between two looks; short against what is measured.
const LOOK: Duration = Duration::from_micros(50);

/// Sees the rules of a namespace change, from its making on.
#[derive(Debug)]
pub(crate) struct Watch {
    nftables: Nftables,
    before: u32,
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn new(namespace: &Namespace) -> Result<Self, Failure> {
        namespace.run(|| {
            let nftables = Nftables::open().map_err(failed)?;
            let before = nftables.generation().map_err(failed)?;
            Ok(Self { nftables, before })
        })
    }

    /// Waits until a transaction is complete: the kernel counts them.
    pub(crate) fn changed(&self, patience: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        while self.nftables.generation().map_err(failed)? == self.before {
            if start.elapsed() > patience {
                return Err(Failure::Late("rules come into force".to_owned(), patience));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

fn failed(error: NftError) -> Failure {
    Failure::Wrong(format!("the generation of rules: {error}"))
}

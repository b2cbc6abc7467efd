//! Verdicts. Pure.

use super::value::Name;

/// The decision about a packet, or the chain in which the packet continues (enum `nft_verdicts`,
/// `linux/netfilter/nf_tables.h`, and `linux/netfilter.h`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Ends this base chain. The packet continues with the next base chain of the hook (`NF_ACCEPT`).
    Accept,
    /// Drops the packet (`NF_DROP`).
    Drop,
    /// Continues with the next rule (`NFT_CONTINUE`).
    Continue,
    /// Returns to the chain that jumped to this chain (`NFT_RETURN`). In a base chain, the policy decides.
    Return,
    /// Continues in a chain. At the end of that chain, the packet returns to this chain (`NFT_JUMP`).
    Jump(Name),
    /// Continues in a chain. At the end of that chain, the packet returns to the chain that jumped to this chain
    /// (`NFT_GOTO`).
    Goto(Name),
}

impl Verdict {
    /// Creates a [`Self::Goto`].
    #[must_use]
    pub fn goto(chain: impl Into<Name>) -> Self {
        Self::Goto(chain.into())
    }

    /// Creates a [`Self::Jump`].
    #[must_use]
    pub fn jump(chain: impl Into<Name>) -> Self {
        Self::Jump(chain.into())
    }

    /// Returns the chain in which the packet continues.
    #[must_use]
    pub fn target_chain(&self) -> Option<&Name> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            Self::Accept | Self::Drop | Self::Continue | Self::Return => None,
        }
    }
}

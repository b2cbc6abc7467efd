//! The reasons why an nftables request fails, with messages for administrators. Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;

use rustix::io::Errno;

use super::expr;
use super::model::{Chain, ChainType, Hook};
use super::transaction::{Action, Step};
use crate::netlink::NetlinkError;

/// The reason why an nftables request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NftError {
    /// The process lacks the capability `NET_ADMIN`.
    #[error(
        "not allowed to program nftables: the container needs the capability NET_ADMIN \
         (securityContext.capabilities.add)"
    )]
    NoNetAdmin,
    /// The kernel lacks a feature.
    #[error(
        "this node's kernel has no {0}: load or build the module, or use the userspace data path \
         (akrobateo.io/data-path: userspace)"
    )]
    MissingFeature(Cow<'static, str>),
    /// The table does not fit into one transaction.
    #[error(
        "the rules need {0} bytes, which is more than the kernel accepts in one transaction from this container: \
         reduce the ports or source ranges, or raise net.core.wmem_max on the node"
    )]
    TransactionTooLarge(usize),
    /// The kernel rejected the request with another error.
    #[error("nftables request failed (cannot {operation}): {error}")]
    Netlink {
        /// The cause.
        error: NetlinkError,
        /// The operation that failed, with the name of the object.
        operation: String,
    },
}

impl NftError {
    /// Returns true if the kernel may have rejected a transaction because the kernel does not support a part of the
    /// transaction.
    #[must_use]
    pub fn may_be_unsupported(&self) -> bool {
        match self {
            Self::MissingFeature(_) => true,
            Self::Netlink { error: NetlinkError::Rejected { errno, .. }, .. } => {
                is_missing_feature(*errno) || *errno == Errno::INVAL
            }
            Self::NoNetAdmin | Self::TransactionTooLarge(_) | Self::Netlink { .. } => false,
        }
    }

    /// Returns the error of a read, or of opening a socket.
    pub(super) fn from_read(error: NetlinkError, operation: String) -> Self {
        match errno(error) {
            Some(Errno::PERM | Errno::ACCESS) => Self::NoNetAdmin,
            // The protocol is missing only when a socket is opened.
            Some(errno) if is_missing_feature(errno) && matches!(error, NetlinkError::OpenFailed(_)) => {
                Self::MissingFeature(NFTABLES_FEATURE.into())
            }
            _ => Self::Netlink { error, operation },
        }
    }

    /// Returns the error of a transaction. `step` is the step that the kernel rejected; `None` means that the kernel
    /// rejected the whole transaction.
    pub(super) fn from_step(error: NetlinkError, step: Option<&Step<'_>>) -> Self {
        match errno(error) {
            Some(Errno::PERM | Errno::ACCESS) => return Self::NoNetAdmin,
            Some(errno) if is_missing_feature(errno) => {
                let feature = match step {
                    Some(step) => needed_feature(&step.action, errno),
                    None => Some(NFTABLES_FEATURE.into()),
                };
                if let Some(feature) = feature {
                    return Self::MissingFeature(feature);
                }
            }
            _ => {}
        }
        let operation = step.map_or_else(|| "execute a transaction".to_owned(), ToString::to_string);
        Self::Netlink { error, operation }
    }
}

impl From<NetlinkError> for NftError {
    fn from(error: NetlinkError) -> Self {
        Self::from_read(error, "open a netlink socket".to_owned())
    }
}

const NFTABLES_FEATURE: &str = "nftables (nf_tables, family inet)";

fn errno(error: NetlinkError) -> Option<Errno> {
    match error {
        NetlinkError::OpenFailed(errno) | NetlinkError::Rejected { errno, .. } => Some(errno),
        NetlinkError::TransportFailed(_)
        | NetlinkError::NoAcknowledgement
        | NetlinkError::DumpInterrupted => None,
    }
}

/// Returns true if the kernel may answer with this error number because the kernel lacks a module.
fn is_missing_feature(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT | Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::NOPROTOOPT
    )
}

/// Returns the kernel feature that an action needs, with the names of its modules.
fn needed_feature(action: &Action<'_>, errno: Errno) -> Option<Cow<'static, str>> {
    match action {
        Action::CreateTable | Action::EnsureTable => Some(NFTABLES_FEATURE.into()),
        Action::CreateSet(_) => Some("sets or counters in nftables (nf_tables_set, nft_counter)".into()),
        // Other error numbers may also mean that an interface or a target chain is missing.
        Action::AddElements(..) if errno == Errno::OPNOTSUPP => {
            Some("sets or counters in nftables (nf_tables_set, nft_counter)".into())
        }
        Action::CreateChain(Chain { base: Some(base), .. }) => match (&base.hook, base.chain_type) {
            (_, ChainType::Nat) => Some("NAT in nftables (nft_chain_nat; for family inet, Linux 5.2)".into()),
            (Hook::Egress(_), _) if errno == Errno::OPNOTSUPP => {
                Some("egress hook of nftables (CONFIG_NETFILTER_EGRESS, Linux 5.16)".into())
            }
            _ => None,
        },
        Action::AddRule(_, rule) => {
            let modules: BTreeSet<_> = rule.expressions.iter().map(expr::expression_name).collect();
            let is_built_in = |name: &&str| BUILT_IN_EXPRESSIONS.contains(name);
            let modules: Vec<_> = modules
                .into_iter()
                .filter(|name| !is_built_in(name))
                .map(|name| format!("nft_{name}"))
                .collect();
            let names = modules.join(", ");
            (!modules.is_empty())
                .then(|| format!("NAT or another expression of an nftables rule ({names})").into())
        }
        _ => None,
    }
}

/// The expressions that are part of the module `nf_tables` (`net/netfilter/nf_tables_core.c`).
const BUILT_IN_EXPRESSIONS: [&str; 11] = [
    "bitwise",
    "byteorder",
    "cmp",
    "counter",
    "dynset",
    "exthdr",
    "immediate",
    "lookup",
    "meta",
    "payload",
    "range",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::model::{DataType, Expr, NatFlags, Rule, Set, SetDefinition, TableFamily, TableId};

    fn rejection_error(errno: Errno, action: Option<Action<'_>>) -> NftError {
        let table = TableId::new(TableFamily::Inet, "akrobateo");
        let step = action.map(|action| Step { table: &table, action });
        NftError::from_step(NetlinkError::Rejected { seq: 1, errno }, step.as_ref())
    }

    #[test]
    fn error_mentions_the_kernel_feature_that_the_rejected_step_needs() {
        assert_eq!(rejection_error(Errno::PERM, None), NftError::NoNetAdmin);
        let nat_chain = Chain::base("prerouting", ChainType::Nat, Hook::Prerouting, -100, Vec::new());
        let egress_chain =
            Chain::base("egress", ChainType::Filter, Hook::Egress(vec!["eth0".into()]), 0, Vec::new());
        let rule = Rule::new(vec![Expr::Masquerade(NatFlags::default())]);
        let set = Set::new("services4", SetDefinition::set(DataType::PORT), Vec::new());
        for (error, feature) in [
            (
                NftError::from_read(NetlinkError::OpenFailed(Errno::PROTONOSUPPORT), String::new()),
                "nf_tables, family inet",
            ),
            (rejection_error(Errno::OPNOTSUPP, None), "nf_tables, family inet"),
            (rejection_error(Errno::AFNOSUPPORT, Some(Action::CreateTable)), "nf_tables, family inet"),
            (rejection_error(Errno::NOENT, Some(Action::CreateChain(&nat_chain))), "nft_chain_nat"),
            (rejection_error(Errno::OPNOTSUPP, Some(Action::CreateChain(&egress_chain))), "Linux 5.16"),
            (rejection_error(Errno::NOENT, Some(Action::CreateChain(&egress_chain))), "the chain egress of"),
            (rejection_error(Errno::NOENT, Some(Action::AddRule("nat", &rule))), "(nft_masq)"),
            (rejection_error(Errno::NOMEM, Some(Action::CreateSet(&set))), "create the set services4 of"),
        ] {
            assert!(error.to_string().contains(feature), "{error}");
        }
    }

    #[test]
    fn rejection_by_error_number_may_mean_a_missing_feature() {
        let set = Set::new("services4", SetDefinition::set(DataType::PORT), Vec::new());
        let reject = |errno| rejection_error(errno, Some(Action::CreateSet(&set)));
        for errno in [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOENT] {
            assert!(reject(errno).may_be_unsupported(), "{errno}");
        }
        for errno in [Errno::PERM, Errno::NOMEM, Errno::BUSY] {
            assert!(!reject(errno).may_be_unsupported(), "{errno}");
        }
    }
}

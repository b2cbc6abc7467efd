//! The client of the kernel's nftables: replaces a table, reads a table, and watches for changes. I/O only.

use rustix::io::Errno;

use super::abi::{self, msg};
use super::decode::{Decoder, UnknownObject};
use super::encode::{Batch, Operation};
use super::model::Table;
use crate::netlink::{Attr, Attrs, Messages, NetlinkError, Protocol, Socket, message};

/// The maximum number of attempts to read a table. An attempt fails if the table changes during the read.
const MAX_READ_ATTEMPTS: u32 = 10;

/// The reason why an nftables request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
    MissingFeature(&'static str),
    /// The table does not fit into one transaction.
    #[error(
        "the rules need {0} bytes, which is more than the kernel accepts in one transaction from this container: \
         reduce the ports or source ranges, or raise net.core.wmem_max on the node"
    )]
    TransactionTooLarge(usize),
    /// The kernel rejected the request for another reason.
    #[error("nftables request failed ({operation:?}): {error}")]
    Netlink {
        /// The cause.
        error: NetlinkError,
        /// The operation of the message that failed.
        operation: Operation,
    },
}

impl NftError {
    fn new(error: NetlinkError, operation: Operation) -> Self {
        let netlink_error = Self::Netlink { error, operation };
        let errno = match error {
            NetlinkError::OpenFailed(errno) | NetlinkError::Rejected { errno, .. } => errno,
            NetlinkError::TransportFailed(_)
            | NetlinkError::NoAcknowledgement
            | NetlinkError::DumpInterrupted => {
                return netlink_error;
            }
        };
        match errno {
            Errno::PERM | Errno::ACCESS => Self::NoNetAdmin,
            Errno::NOENT
            | Errno::OPNOTSUPP
            | Errno::AFNOSUPPORT
            | Errno::PROTONOSUPPORT
            | Errno::NOPROTOOPT => needed_feature(operation).map_or(netlink_error, Self::MissingFeature),
            _ => netlink_error,
        }
    }
}

/// Returns the kernel feature that an operation needs, with the names of its modules.
const fn needed_feature(operation: Operation) -> Option<&'static str> {
    match operation {
        Operation::Transaction | Operation::Table => Some("nftables (nf_tables, family inet)"),
        Operation::Set => Some("sets or counters in nftables (nf_tables_set, nft_counter)"),
        Operation::NatChain => Some("NAT in nftables (nft_chain_nat; for family inet, Linux 5.2)"),
        Operation::Rule => Some("NAT or connection tracking in nftables (nft_nat, nft_masq, nft_ct)"),
        Operation::Read | Operation::Chain => None,
    }
}

impl From<NetlinkError> for NftError {
    fn from(error: NetlinkError) -> Self {
        Self::new(error, Operation::Transaction)
    }
}

/// The kernel's table of the requested name, or `None` if there is no such table. The error is an object in this table
/// that Akrobateo never creates.
pub type InstalledTable = Result<Option<Table>, UnknownObject>;

/// A client of the nftables of one network namespace.
///
/// The client's socket stays open, because the kernel needs 8 ms to close a socket after a transaction.
#[derive(Debug)]
pub struct Nftables(Socket);

impl Nftables {
    /// Opens a client in this thread's network namespace.
    pub fn open() -> Result<Self, NftError> {
        Ok(Self(Socket::open(Protocol::Netfilter)?))
    }

    /// Replaces the table of the same name with `table`, in one transaction.
    pub fn replace(&self, table: &Table) -> Result<(), NftError> {
        let batch = Batch::new_replacement(table);
        self.0.request(&batch.messages, |_| ()).map_err(|error| match error {
            NetlinkError::Rejected { seq, .. } => NftError::new(error, batch.operation(seq)),
            NetlinkError::TransportFailed(Errno::MSGSIZE) => {
                NftError::TransactionTooLarge(batch.messages.bytes().len())
            }
            _ => error.into(),
        })
    }

    /// Reads the table of this name, and the generation of the ruleset at the time of the read.
    pub fn read(&self, name: &str) -> Result<(u32, InstalledTable), NftError> {
        for _ in 0..MAX_READ_ATTEMPTS {
            let generation = self.generation()?;
            let table = match read_table(&self.0, name) {
                // The table was changed or deleted during the read.
                Err(NetlinkError::DumpInterrupted | NetlinkError::Rejected { errno: Errno::NOENT, .. }) => {
                    continue;
                }
                result => result.map_err(|error| NftError::new(error, Operation::Read))?,
            };
            if self.generation()? == generation {
                return Ok((generation, table));
            }
        }
        Err(NftError::new(NetlinkError::DumpInterrupted, Operation::Read))
    }

    /// Returns the generation of the ruleset: the number of the last transaction of any program.
    pub fn generation(&self) -> Result<u32, NftError> {
        read_generation(&self.0).map_err(|error| NftError::new(error, Operation::Read))
    }
}

/// Opens a socket that becomes readable when any program changes nftables in this thread's network namespace.
pub fn open_watch() -> Result<Socket, NftError> {
    Ok(Socket::listen(Protocol::Netfilter, abi::MULTICAST_GROUP)?)
}

fn read_generation(socket: &Socket) -> Result<u32, NetlinkError> {
    let request = build_read_request(0, msg::GET_GENERATION, message::ACK, |_| ());
    let mut generation = None;
    socket.request(&request, |answer| {
        if answer.kind == abi::message_type(msg::NEW_GENERATION) {
            generation = Attr::find_be32(answer.attrs(abi::HEADER_LEN), abi::generation::ID);
        }
    })?;
    generation.ok_or(NetlinkError::NoAcknowledgement)
}

fn read_table(socket: &Socket, name: &str) -> Result<InstalledTable, NetlinkError> {
    let mut decoder = Decoder::new(name);
    let mut unknown_object = None;
    let mut dump = |decoder: &mut Decoder, message, write_attrs: &dyn Fn(&mut Attrs<'_>)| {
        socket.request(
            &build_read_request(abi::NFPROTO_INET, message, message::DUMP, write_attrs),
            |answer| {
                if let Err(error) = decoder.add_message(answer) {
                    unknown_object.get_or_insert(error);
                }
            },
        )
    };
    dump(&mut decoder, msg::GET_TABLE, &|_| ())?;
    if !decoder.is_empty() {
        for (message, table_attr) in [
            (msg::GET_SET, abi::set::TABLE),
            (msg::GET_CHAIN, abi::chain::TABLE),
            (msg::GET_RULE, abi::rule::TABLE),
        ] {
            dump(&mut decoder, message, &|attrs| attrs.push_text(table_attr, name))?;
        }
        for set_name in decoder.set_names() {
            dump(&mut decoder, msg::GET_ELEMENTS, &|attrs| {
                attrs.push_text(abi::elements::TABLE, name);
                attrs.push_text(abi::elements::SET, &set_name);
            })?;
        }
    }
    Ok(unknown_object.map_or_else(|| Ok(decoder.finish()), Err))
}

fn build_read_request(
    family: u8,
    message: u16,
    flags: u16,
    write_attrs: impl FnOnce(&mut Attrs<'_>),
) -> Messages {
    Messages::single(abi::message_type(message), flags, &abi::header(family, 0), write_attrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection_error(errno: Errno, operation: Operation) -> NftError {
        NftError::new(NetlinkError::Rejected { seq: 1, errno }, operation)
    }

    #[test]
    fn error_mentions_the_kernel_feature_that_the_rejected_operation_needs() {
        assert_eq!(rejection_error(Errno::PERM, Operation::Transaction), NftError::NoNetAdmin);
        for (error, feature) in [
            (
                NftError::new(NetlinkError::OpenFailed(Errno::PROTONOSUPPORT), Operation::Transaction),
                "nf_tables, family inet",
            ),
            (rejection_error(Errno::OPNOTSUPP, Operation::Transaction), "nf_tables, family inet"),
            (rejection_error(Errno::AFNOSUPPORT, Operation::Table), "nf_tables, family inet"),
            (rejection_error(Errno::NOENT, Operation::NatChain), "nft_chain_nat"),
            (rejection_error(Errno::NOENT, Operation::Rule), "nft_masq"),
            (rejection_error(Errno::NOMEM, Operation::Set), "request failed (Set)"),
        ] {
            assert!(error.to_string().contains(feature), "{error}");
        }
    }
}

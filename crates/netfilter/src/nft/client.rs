//! The kernel's nftables: replaces a table, reads one back, tells whether anything changed. I/O only.

use rustix::io::Errno;

use super::abi::{self, msg};
use super::decode::{Decoder, Foreign};
use super::encode::{Batch, Step};
use super::model::Table;
use crate::netlink::{Attr, Attrs, Messages, NetlinkError, Protocol, Socket, message};

/// How often a list that changes while it is read is asked for again.
const ATTEMPTS: u32 = 10;

/// Why rules are not in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NftError {
    /// This process may not.
    #[error(
        "programming nftables was refused: the container needs the capability NET_ADMIN \
         (securityContext.capabilities.add)"
    )]
    NoNetAdmin,
    /// The kernel can't.
    #[error("this node's kernel has no {0}: load or build the module, or use the userspace data path")]
    Missing(&'static str),
    /// The rules don't fit into one transaction.
    #[error(
        "{0} bytes of rules are more than this kernel takes at once from this container: fewer ports, or a higher \
         net.core.wmem_max on the node"
    )]
    TooLarge(usize),
    /// The kernel didn't.
    #[error("{0}, about {1:?}")]
    Netlink(NetlinkError, Step),
}

impl NftError {
    fn new(error: NetlinkError, step: Step) -> Self {
        let errno = match error {
            NetlinkError::Socket(errno) | NetlinkError::Refused { errno, .. } => errno,
            NetlinkError::Transport(_) | NetlinkError::Silent | NetlinkError::Interrupted => {
                return Self::Netlink(error, step);
            }
        };
        let missing = matches!(
            errno,
            Errno::NOENT | Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::NOPROTOOPT
        );
        match step {
            _ if matches!(errno, Errno::PERM | Errno::ACCESS) => Self::NoNetAdmin,
            Step::Transaction | Step::Table if missing => Self::Missing("nftables (nf_tables, family inet)"),
            Step::Set if missing => {
                Self::Missing("sets or counters in nftables (nf_tables_set, nft_counter)")
            }
            Step::NatChain if missing => {
                Self::Missing("NAT in nftables (nft_chain_nat; for family inet, Linux 5.2)")
            }
            Step::Rule if missing => {
                Self::Missing("NAT or connection tracking in nftables (nft_nat, nft_masq, nft_ct)")
            }
            _ => Self::Netlink(error, step),
        }
    }
}

impl From<NetlinkError> for NftError {
    fn from(error: NetlinkError) -> Self {
        Self::new(error, Step::Transaction)
    }
}

/// What the kernel has under a name.
pub type Listed = Result<Option<Table>, Foreign>;

/// The nftables of the network namespace in which it was opened.
///
/// Kept open, for closing a socket after a transaction takes the kernel 8 ms.
#[derive(Debug)]
pub struct Nftables(Socket);

impl Nftables {
    /// Opens the way to the kernel, in this thread's network namespace.
    pub fn open() -> Result<Self, NftError> {
        Ok(Self(Socket::open(Protocol::Netfilter)?))
    }

    /// Replaces the table of this name by `table`, in one transaction.
    pub fn replace(&self, table: &Table) -> Result<(), NftError> {
        let batch = Batch::replace(table);
        self.0.request(&batch.messages, |_| ()).map_err(|error| match error {
            NetlinkError::Refused { seq, .. } => NftError::new(error, batch.step(seq)),
            NetlinkError::Transport(Errno::MSGSIZE) => NftError::TooLarge(batch.messages.bytes().len()),
            _ => error.into(),
        })
    }

    /// Reads the table of this name, and the generation of the rules that it belongs to.
    pub fn read(&self, name: &str) -> Result<(u32, Listed), NftError> {
        for _ in 0..ATTEMPTS {
            let before = self.generation()?;
            let listed = match list(&self.0, name) {
                // Changed, or gone, while it was read.
                Err(NetlinkError::Interrupted | NetlinkError::Refused { errno: Errno::NOENT, .. }) => {
                    continue;
                }
                listed => listed.map_err(|error| NftError::new(error, Step::Reading))?,
            };
            if self.generation()? == before {
                return Ok((before, listed));
            }
        }
        Err(NftError::new(NetlinkError::Interrupted, Step::Reading))
    }

    /// The number of the last transaction, whoever made it.
    pub fn generation(&self) -> Result<u32, NftError> {
        ask_generation(&self.0).map_err(|error| NftError::new(error, Step::Reading))
    }
}

/// A socket that becomes readable when rules of this thread's network namespace change, whoever does it.
pub fn watch() -> Result<Socket, NftError> {
    Ok(Socket::listen(Protocol::Netfilter, abi::GROUP)?)
}

fn ask_generation(socket: &Socket) -> Result<u32, NetlinkError> {
    let request = get(msg::GET_GENERATION, message::ACK, |_| ());
    let mut generation = None;
    socket.request(&request, |answer| {
        if answer.kind == abi::kind(msg::NEW_GENERATION) {
            generation = Attr::find_be32(answer.attrs(abi::HEADER_LEN), abi::generation::ID);
        }
    })?;
    generation.ok_or(NetlinkError::Silent)
}

/// Lists everything that belongs to the table.
fn list(socket: &Socket, name: &str) -> Result<Listed, NetlinkError> {
    let mut decoder = Decoder::new(name);
    let mut foreign = None;
    let mut collect = |decoder: &mut Decoder, request: &Messages| {
        socket.request(request, |answer| {
            if let Err(error) = decoder.message(answer) {
                foreign.get_or_insert(error);
            }
        })
    };
    collect(&mut decoder, &get(msg::GET_TABLE, message::DUMP, |_| ()))?;
    if decoder.is_empty() {
        return Ok(foreign.map_or(Ok(None), Err));
    }
    for (kind, filter) in [
        (msg::GET_SET, abi::set::TABLE),
        (msg::GET_CHAIN, abi::chain::TABLE),
        (msg::GET_RULE, abi::rule::TABLE),
    ] {
        collect(&mut decoder, &get(kind, message::DUMP, |attrs| attrs.text(filter, name)))?;
    }
    for set in decoder.sets() {
        let request = get(msg::GET_ELEMENTS, message::DUMP, |attrs| {
            attrs.text(abi::elements::TABLE, name);
            attrs.text(abi::elements::SET, &set);
        });
        collect(&mut decoder, &request)?;
    }
    Ok(foreign.map_or_else(|| Ok(decoder.finish()), Err))
}

fn get(kind: u16, flags: u16, body: impl FnOnce(&mut Attrs<'_>)) -> Messages {
    let family = if kind == msg::GET_GENERATION { 0 } else { abi::INET };
    Messages::one(abi::kind(kind), flags, &abi::header(family, 0), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: Errno, step: Step) -> NftError {
        NftError::new(NetlinkError::Refused { seq: 1, errno }, step)
    }

    #[test]
    fn what_the_kernel_lacks_is_told_by_what_it_refused() {
        assert_eq!(refused(Errno::PERM, Step::Transaction), NftError::NoNetAdmin);
        for (error, named) in [
            (
                NftError::new(NetlinkError::Socket(Errno::PROTONOSUPPORT), Step::Transaction),
                "nf_tables, family inet",
            ),
            (refused(Errno::OPNOTSUPP, Step::Transaction), "nf_tables, family inet"),
            (refused(Errno::AFNOSUPPORT, Step::Table), "nf_tables, family inet"),
            (refused(Errno::NOENT, Step::NatChain), "nft_chain_nat"),
            (refused(Errno::NOENT, Step::Rule), "nft_masq"),
            (refused(Errno::NOMEM, Step::Set), "about Set"),
        ] {
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}

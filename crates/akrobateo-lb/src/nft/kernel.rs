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
            Step::Set if missing => Self::Missing("sets in nftables (nf_tables_set)"),
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

/// Replaces the table of this name by `table`, in this thread's network namespace, in one transaction.
pub fn replace(table: &Table) -> Result<(), NftError> {
    let batch = Batch::replace(table);
    let done = Socket::open(Protocol::Netfilter).and_then(|socket| socket.request(&batch.messages, |_| ()));
    done.map_err(|error| match error {
        NetlinkError::Refused { seq, .. } => NftError::new(error, batch.step(seq)),
        _ => NftError::new(error, Step::Transaction),
    })
}

/// What the kernel has under this name.
pub type Listed = Result<Option<Table>, Foreign>;

/// Reads the table of this name, and the generation of the rules that it belongs to.
pub fn read(name: &str) -> Result<(u32, Listed), NftError> {
    let reading = || {
        let socket = Socket::open(Protocol::Netfilter)?;
        for _ in 0..ATTEMPTS {
            let before = ask_generation(&socket)?;
            let listed = match list(&socket, name) {
                // Changed, or gone, while it was read.
                Err(NetlinkError::Interrupted | NetlinkError::Refused { errno: Errno::NOENT, .. }) => {
                    continue;
                }
                listed => listed?,
            };
            if ask_generation(&socket)? == before {
                return Ok((before, listed));
            }
        }
        Err(NetlinkError::Interrupted)
    };
    reading().map_err(|error| NftError::new(error, Step::Reading))
}

/// The number of the last transaction in this network namespace, whoever made it.
pub fn generation() -> Result<u32, NftError> {
    let asked = Socket::open(Protocol::Netfilter).and_then(|socket| ask_generation(&socket));
    asked.map_err(|error| NftError::new(error, Step::Transaction))
}

/// A socket that becomes readable when rules change, whoever changes them.
pub fn watch() -> Result<Socket, NftError> {
    Socket::listen(Protocol::Netfilter, abi::GROUP).map_err(|error| NftError::new(error, Step::Transaction))
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

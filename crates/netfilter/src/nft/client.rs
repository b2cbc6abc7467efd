//! The client of the kernel's nftables: executes transactions, reads tables, and probes features. I/O only.

use rustix::io::Errno;

use super::abi::{self, msg};
use super::decode::Decoder;
use super::diff::diff;
use super::encode::Batch;
use super::error::NftError;
use super::installed::InstalledTable;
use super::model::{Element, Set, Table, TableId};
use super::transaction::{Action, Transaction};
use crate::netlink::{Attr, Attrs, Messages, NetlinkError, Protocol, Socket, message};

/// The maximum number of attempts to read a table. An attempt fails if any table changes during the read.
const MAX_READ_ATTEMPTS: u32 = 10;

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

    /// Returns the port ID of the client's socket. Notifications of changes that this client makes contain this port
    /// ID.
    pub fn port_id(&self) -> Result<u32, NftError> {
        self.0.port_id().map_err(|error| NftError::from_read(error, "read the port ID".to_owned()))
    }

    /// Executes a transaction. If the transaction fails, the kernel has changed nothing.
    pub fn execute(&self, transaction: &Transaction<'_>) -> Result<(), NftError> {
        if transaction.is_empty() {
            return Ok(());
        }
        let batch = Batch::encode(transaction);
        self.0.request(&batch.messages, |_| ()).map_err(|error| match error {
            NetlinkError::Rejected { seq, .. } => {
                let step = batch.step_index(seq).and_then(|index| transaction.steps.get(index));
                NftError::from_step(error, step)
            }
            NetlinkError::TransportFailed(Errno::MSGSIZE) => {
                NftError::TransactionTooLarge(batch.messages.bytes().len())
            }
            _ => NftError::from_step(error, None),
        })
    }

    /// Replaces the table of the same family and name with `table`, in one transaction. See [`Transaction::replace`].
    pub fn replace(&self, table: &Table) -> Result<(), NftError> {
        self.execute(&Transaction::replace(table))
    }

    /// Changes the kernel's table into `desired`, in one transaction. See [`diff`]. `installed` is the kernel's table;
    /// `None` if the kernel does not have the table.
    pub fn update(&self, installed: Option<&InstalledTable>, desired: &Table) -> Result<(), NftError> {
        self.execute(&diff(installed, desired))
    }

    /// Checks that the kernel supports everything in `table`, without any effect on packets.
    ///
    /// Creates the table and deletes it in the same transaction, so no packet passes the table's rules. No table with
    /// the same name may exist, and the interfaces of the table must exist.
    pub fn check_support(&self, table: &Table) -> Result<(), NftError> {
        let mut transaction = Transaction::create(table);
        transaction.push(&table.id, Action::DeleteTable);
        self.execute(&transaction)
    }

    /// Reads the table, and the generation of the ruleset at the time of the read. Returns `None` for a missing table.
    pub fn read(&self, id: &TableId) -> Result<(u32, Option<InstalledTable>), NftError> {
        let to_nft_error = |error| NftError::from_read(error, format!("read the table {id}"));
        for _ in 0..MAX_READ_ATTEMPTS {
            let generation = self.generation()?;
            let table = match read_table(&self.0, id) {
                // A table was changed or deleted during the read.
                Err(NetlinkError::DumpInterrupted | NetlinkError::Rejected { errno: Errno::NOENT, .. }) => {
                    continue;
                }
                result => result.map_err(to_nft_error)?,
            };
            if self.generation()? == generation {
                return Ok((generation, table));
            }
        }
        Err(to_nft_error(NetlinkError::DumpInterrupted))
    }

    /// Reads the elements of one set of the table, sorted. Returns `None` if the set or the table is missing.
    ///
    /// Packets may change a dynamic set during the read. The list may therefore lack new elements, and may contain
    /// deleted elements.
    pub fn read_elements(&self, id: &TableId, set: &Set) -> Result<Option<Vec<Element>>, NftError> {
        let to_nft_error =
            |error| NftError::from_read(error, format!("read the set {} of the table {id}", set.name));
        for _ in 0..MAX_READ_ATTEMPTS {
            let mut decoder = Decoder::for_set(id, set);
            match dump_elements(&self.0, id, &set.name, &mut decoder) {
                Err(NetlinkError::DumpInterrupted) => {}
                Err(NetlinkError::Rejected { errno: Errno::NOENT, .. }) => return Ok(None),
                Err(error) => return Err(to_nft_error(error)),
                Ok(()) => {
                    let sets = decoder.finish().map(|installed| installed.table.sets);
                    return Ok(sets.and_then(|mut sets| sets.pop()).map(|set| set.elements));
                }
            }
        }
        Err(to_nft_error(NetlinkError::DumpInterrupted))
    }

    /// Deletes the elements of a dynamic set for which `must_delete` returns true. Returns the number of deleted
    /// elements.
    ///
    /// Deletes each element in its own transaction. If an element has already expired, its deletion fails. In a common
    /// transaction, the deletion of all other elements would then fail too.
    pub fn delete_dynamic_elements(
        &self,
        id: &TableId,
        set: &Set,
        must_delete: impl Fn(&Element) -> bool,
    ) -> Result<usize, NftError> {
        let mut deleted_count = 0;
        for element in self.read_elements(id, set)?.unwrap_or_default() {
            if must_delete(&element) {
                let mut transaction = Transaction::default();
                transaction.push(id, Action::DeleteElements(set, vec![&element]));
                match self.execute(&transaction) {
                    Ok(()) => deleted_count += 1,
                    Err(NftError::Netlink {
                        error: NetlinkError::Rejected { errno: Errno::NOENT, .. },
                        ..
                    }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(deleted_count)
    }

    /// Returns the generation of the ruleset: the number of the last transaction of any program.
    pub fn generation(&self) -> Result<u32, NftError> {
        read_generation(&self.0).map_err(|error| NftError::from_read(error, "read the generation".to_owned()))
    }
}

fn read_generation(socket: &Socket) -> Result<u32, NetlinkError> {
    let request = build_read_request(0, msg::GET_GENERATION, message::NLM_F_ACK, |_| ());
    let mut generation = None;
    socket.request(&request, |answer| {
        if answer.kind == abi::message_type(msg::NEW_GENERATION) {
            generation = Attr::find_be32(answer.attrs(abi::HEADER_LENGTH), abi::generation::NFTA_GEN_ID);
        }
    })?;
    generation.ok_or(NetlinkError::NoAcknowledgement)
}

fn read_table(socket: &Socket, id: &TableId) -> Result<Option<InstalledTable>, NetlinkError> {
    let mut decoder = Decoder::new(id);
    let dump = |decoder: &mut Decoder, message, write_attrs: &dyn Fn(&mut Attrs<'_>)| {
        let request = build_read_request(id.family.number(), message, message::NLM_F_DUMP, write_attrs);
        socket.request(&request, |answer| decoder.add_message(answer))
    };
    dump(&mut decoder, msg::GET_TABLE, &|_| ())?;
    if !decoder.is_empty() {
        for (message, table_attr) in [
            (msg::GET_SET, abi::set::NFTA_SET_TABLE),
            (msg::GET_CHAIN, abi::chain::NFTA_CHAIN_TABLE),
            (msg::GET_RULE, abi::rule::NFTA_RULE_TABLE),
        ] {
            dump(&mut decoder, message, &|attrs| attrs.push_text(table_attr, &id.name))?;
        }
        for set_name in decoder.list_set_names() {
            dump_elements(socket, id, &set_name, &mut decoder)?;
        }
    }
    Ok(decoder.finish())
}

fn dump_elements(
    socket: &Socket,
    id: &TableId,
    set_name: &str,
    decoder: &mut Decoder,
) -> Result<(), NetlinkError> {
    let request = build_read_request(id.family.number(), msg::GET_ELEMENTS, message::NLM_F_DUMP, |attrs| {
        attrs.push_text(abi::elements::NFTA_SET_ELEM_LIST_TABLE, &id.name);
        attrs.push_text(abi::elements::NFTA_SET_ELEM_LIST_SET, set_name);
    });
    socket.request(&request, |answer| decoder.add_message(answer))
}

fn build_read_request(
    family: u8,
    message: u16,
    flags: u16,
    write_attrs: impl FnOnce(&mut Attrs<'_>),
) -> Messages {
    Messages::single(abi::message_type(message), flags, &abi::header(family, 0), write_attrs)
}

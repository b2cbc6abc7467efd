//! Finds the changes of nftables tables by other programs in the kernel's notifications. Only [`Watch`] does I/O.
//!
//! The generation of the ruleset only shows that some table has changed, and does not name the table. kube-proxy
//! changes its own table very often.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::abi::{self, msg};
use super::error::NftError;
use super::model::{TableFamily, TableId};
use crate::netlink::{Attr, Message, Protocol, Socket};

/// The size of the kernel's buffer for notifications. The buffer has space for the notifications of about ten thousand
/// changed elements.
const NOTIFICATION_BUFFER_LENGTH: usize = 8 << 20;

/// A change of a table, as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableChange {
    /// The table.
    pub table: TableId,
    /// The object that was created, changed or deleted.
    pub object: ChangedObject,
    /// True if the object was deleted.
    pub is_deletion: bool,
}

/// An object of a table, with its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangedObject {
    /// The table itself.
    Table,
    /// A chain.
    Chain(String),
    /// A rule in this chain.
    RuleInChain(String),
    /// A set.
    Set(String),
    /// An element in this set.
    ElementOfSet(String),
    /// An object of another kind, such as a named counter or a flowtable.
    Other,
}

impl TableChange {
    /// Parses a notification. Returns `None` if the notification does not describe a change of a table in a known
    /// family.
    #[must_use]
    pub fn parse(message: &Message<'_>) -> Option<Self> {
        let attrs = message.attrs(abi::HEADER_LENGTH);
        let name = |kind| Attr::find_text(attrs, kind).map(ToOwned::to_owned);
        let message_number = abi::message_of_type(message.kind)?;
        let object = match message_number {
            msg::NEW_TABLE | msg::DEL_TABLE => ChangedObject::Table,
            msg::NEW_CHAIN | msg::DEL_CHAIN => ChangedObject::Chain(name(abi::chain::NFTA_CHAIN_NAME)?),
            msg::NEW_RULE | msg::DEL_RULE => ChangedObject::RuleInChain(name(abi::rule::NFTA_RULE_CHAIN)?),
            msg::NEW_SET | msg::DEL_SET => ChangedObject::Set(name(abi::set::NFTA_SET_NAME)?),
            msg::NEW_ELEMENTS | msg::DEL_ELEMENTS => {
                ChangedObject::ElementOfSet(name(abi::elements::NFTA_SET_ELEM_LIST_SET)?)
            }
            msg::NEW_OBJECT | msg::DEL_OBJECT | msg::NEW_FLOWTABLE | msg::DEL_FLOWTABLE => {
                ChangedObject::Other
            }
            _ => return None,
        };
        let is_deletion = matches!(
            message_number,
            msg::DEL_TABLE
                | msg::DEL_CHAIN
                | msg::DEL_RULE
                | msg::DEL_SET
                | msg::DEL_ELEMENTS
                | msg::DEL_OBJECT
                | msg::DEL_FLOWTABLE
        );
        let family = TableFamily::from_number(*message.payload.first()?)?;
        // The attribute with the table's name has the same type in all messages.
        Some(Self { table: TableId::new(family, name(abi::table::NFTA_TABLE_NAME)?), object, is_deletion })
    }
}

/// The changes of watched tables by other programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignChanges {
    /// The changes, without duplicates.
    pub changes: BTreeSet<TableChange>,
    /// The names of the programs that made the changes. The set is empty if the kernel does not report the programs.
    pub programs: BTreeSet<String>,
    /// True if the kernel discarded notifications because there were too many. After a loss of notifications, any table
    /// may have changed.
    pub is_incomplete: bool,
}

impl ForeignChanges {
    /// Returns true if all watched tables are certainly unchanged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.is_incomplete
    }
}

/// Collects the changes of watched tables from notifications.
#[derive(Clone, Debug)]
pub struct ChangeFilter {
    /// The tables to watch.
    pub tables: BTreeSet<TableId>,
    /// The port IDs of this program's sockets. Changes by these sockets are ignored.
    pub own_port_ids: BTreeSet<u32>,
}

impl ChangeFilter {
    /// Adds a notification to `changes`, if another program has changed a watched table.
    pub fn add_message(&self, message: &Message<'_>, changes: &mut ForeignChanges) {
        if self.own_port_ids.contains(&message.port_id) {
            return;
        }
        // The kernel reports the program after the changes of the same transaction.
        if abi::message_of_type(message.kind) == Some(msg::NEW_GENERATION) {
            if !changes.changes.is_empty()
                && let Some(program) =
                    Attr::find_text(message.attrs(abi::HEADER_LENGTH), abi::generation::NFTA_GEN_PROC_NAME)
            {
                changes.programs.insert(program.to_owned());
            }
        } else if let Some(change) = TableChange::parse(message)
            && self.tables.contains(&change.table)
        {
            changes.changes.insert(change);
        }
    }
}

/// Opens a socket that becomes readable when any program changes nftables in this thread's network namespace.
pub fn open_socket() -> Result<Socket, NftError> {
    Socket::listen(Protocol::Netfilter, abi::MULTICAST_GROUP)
        .map_err(|error| NftError::from_read(error, "watch nftables".to_owned()))
}

/// A socket that receives the kernel's notifications about changes of nftables in one network namespace. The socket
/// becomes readable when any program changes any table.
#[derive(Debug)]
pub struct Watch(Socket);

impl Watch {
    /// Opens a watch in this thread's network namespace.
    pub fn open() -> Result<Self, NftError> {
        let socket = open_socket()?;
        socket.set_receive_buffer_length(NOTIFICATION_BUFFER_LENGTH);
        Ok(Self(socket))
    }

    /// Returns the changes that the kernel has reported since the previous call.
    pub fn receive(&self, filter: &ChangeFilter) -> Result<ForeignChanges, NftError> {
        let mut changes = ForeignChanges::default();
        let is_complete = self
            .0
            .receive_notifications(|message| filter.add_message(message, &mut changes))
            .map_err(|error| NftError::from_read(error, "read notifications".to_owned()))?;
        changes.is_incomplete = !is_complete;
        Ok(changes)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

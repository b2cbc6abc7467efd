//! Reads an owner's objects from the kernel, and changes them. I/O only.

use std::io;

use akrobateo_core::family::Family;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_route::RouteNetlinkMessage;

use crate::codec;
use crate::description::describe;
use crate::difference::{Change, diff};
use crate::objects::{NetworkObjects, Owner};
use crate::observed::{ObservedDevice, ObservedObjects, ObservedRoute, ObservedRule};
use crate::socket::{RouteSocket, SocketError};

/// The maximum number of attempts to read a list. An attempt fails if the list changes during the read.
const MAX_READ_ATTEMPTS: usize = 10;
/// The maximum number of rounds of observation and changes. Two rounds are enough if no other program changes the
/// objects at the same time.
const MAX_RECONCILE_ROUNDS: usize = 5;
/// The error numbers that mean that the object does not exist (ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL).
const NOT_FOUND_ERRNOS: [i32; 4] = [2, 3, 19, 99];
/// The error number that means that the process lacks a capability (EPERM).
const EPERM: i32 = 1;

/// The reason why objects cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The objects of this kind cannot be read.
    #[error("cannot read {object_kind} from the kernel: {source}")]
    ReadFailed {
        /// The kind of the objects.
        object_kind: &'static str,
        /// The reason.
        source: SocketError,
    },
    /// A change failed.
    #[error("cannot {change}: {source}")]
    ChangeFailed {
        /// The change.
        change: Box<Change>,
        /// The reason.
        source: SocketError,
    },
    /// The socket cannot be opened.
    #[error(transparent)]
    Open(#[from] SocketError),
    /// After several rounds the kernel's objects still differ from the desired objects.
    #[error(
        "the kernel's objects still differ after {MAX_RECONCILE_ROUNDS} corrections, \
         because another program changes them: {}",
        describe(.0)
    )]
    NotConverged(Vec<Change>),
}

impl ClientError {
    /// Returns true if the process lacks the capability `NET_ADMIN`.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        let (Self::ReadFailed { source, .. } | Self::ChangeFailed { source, .. }) = self else {
            return false;
        };
        // The error EACCES does not count, because it also has other causes, for example a device without IPv6.
        matches!(source, SocketError::Rejected(error) if error.raw_os_error() == Some(EPERM))
    }
}

/// Reads and changes the objects of one owner in the kernel.
#[derive(Debug)]
pub struct Client {
    owner: Owner,
    socket: RouteSocket,
}

impl Client {
    /// Opens a client in the network namespace of the calling thread.
    pub fn open(owner: Owner) -> Result<Self, ClientError> {
        Ok(Self { owner, socket: RouteSocket::open()? })
    }

    /// Reads all objects of the owner.
    pub fn observe(&mut self) -> Result<ObservedObjects, ClientError> {
        let mut observed_objects =
            ObservedObjects { device: self.read_device()?, ..ObservedObjects::default() };
        let device_index = observed_objects.device.as_ref().map_or(0, |device| device.index);
        if observed_objects.device.is_some() {
            for message in self.list_objects("addresses", &codec::list_addresses(device_index))? {
                if let RouteNetlinkMessage::NewAddress(message) = message {
                    observed_objects.addresses.extend(codec::decode_address(&message, device_index));
                }
            }
            for message in self.list_objects("neighbours", &codec::list_neighbours(device_index))? {
                if let RouteNetlinkMessage::NewNeighbour(message) = message {
                    observed_objects.neighbours.extend(codec::decode_neighbour(&message, device_index));
                }
            }
            for message in
                self.list_objects("forwarding entries", &codec::list_forwarding_entries(device_index))?
            {
                if let RouteNetlinkMessage::NewNeighbour(message) = message {
                    observed_objects
                        .forwarding_entries
                        .extend(codec::decode_forwarding_entry(&message, device_index));
                }
            }
        }
        for family in Family::ALL {
            self.observe_family(family, device_index, &mut observed_objects)?;
        }
        Ok(observed_objects)
    }

    /// Makes the changes in the given order. The deletion of a missing object is not an error.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), ClientError> {
        let device_index = match changes {
            [] => return Ok(()),
            _ => self.read_device()?.map_or(0, |device| device.index),
        };
        for change in changes {
            let (message, flags) =
                codec::encode(change, &self.owner.device, device_index, self.owner.protocol);
            match self.socket.request(message, flags) {
                Err(source) if !is_deletion_of_missing_object(change, &source) => {
                    return Err(ClientError::ChangeFailed { change: Box::new(change.clone()), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Changes the kernel's objects until they are the desired objects, and returns the number of changes.
    pub fn reconcile(&mut self, desired: &NetworkObjects) -> Result<usize, ClientError> {
        let mut change_count = 0;
        let mut changes = diff(&self.observe()?, desired);
        for _ in 0..MAX_RECONCILE_ROUNDS {
            if changes.is_empty() {
                return Ok(change_count);
            }
            self.apply(&changes)?;
            change_count += changes.len();
            changes = diff(&self.observe()?, desired);
        }
        if changes.is_empty() { Ok(change_count) } else { Err(ClientError::NotConverged(changes)) }
    }

    /// Deletes all objects of the owner, and returns the number of deletions.
    pub fn cleanup(&mut self) -> Result<usize, ClientError> {
        self.reconcile(&NetworkObjects::default())
    }

    /// Returns the interface index of the owner's device; `None` if the device does not exist.
    pub fn device_index(&mut self) -> Result<Option<u32>, ClientError> {
        Ok(self.read_device()?.map(|device| device.index))
    }

    fn read_device(&mut self) -> Result<Option<ObservedDevice>, ClientError> {
        match self.socket.request(codec::get_device(&self.owner.device), NLM_F_ACK) {
            Ok(answers) => Ok(answers.iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(codec::decode_device(message)),
                _ => None,
            })),
            Err(SocketError::Rejected(error)) if is_not_found(&error) => Ok(None),
            Err(source) => Err(ClientError::ReadFailed { object_kind: "the tunnel device", source }),
        }
    }

    fn observe_family(
        &mut self,
        family: Family,
        device_index: u32,
        observed_objects: &mut ObservedObjects,
    ) -> Result<(), ClientError> {
        let protocol = self.owner.protocol;
        for message in self.list_objects("routes", &codec::list_routes(family, protocol))? {
            if let RouteNetlinkMessage::NewRoute(message) = message
                && message.header.protocol == protocol.into()
            {
                observed_objects
                    .routes
                    .push(ObservedRoute { route: codec::decode_route(&message, device_index), message });
            }
        }
        for message in self.list_objects("rules", &codec::list_rules(family))? {
            if let RouteNetlinkMessage::NewRule(message) = message
                && codec::has_protocol(&message, protocol)
            {
                observed_objects.rules.push(ObservedRule { rule: codec::decode_rule(&message), message });
            }
        }
        Ok(())
    }

    fn list_objects(
        &mut self,
        object_kind: &'static str,
        request: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, ClientError> {
        let mut result = self.socket.request(request.clone(), NLM_F_DUMP);
        for _ in 1..MAX_READ_ATTEMPTS {
            if !matches!(result, Err(SocketError::DumpInterrupted)) {
                break;
            }
            result = self.socket.request(request.clone(), NLM_F_DUMP);
        }
        match result {
            Ok(answers) => Ok(answers),
            // This error means that the device does not exist, or that the kernel has no IPv6.
            Err(SocketError::Rejected(error)) if is_not_found(&error) => Ok(Vec::new()),
            Err(source) => Err(ClientError::ReadFailed { object_kind, source }),
        }
    }
}

fn is_not_found(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| NOT_FOUND_ERRNOS.contains(&number))
}

fn is_deletion_of_missing_object(change: &Change, error: &SocketError) -> bool {
    let is_deletion = matches!(
        change,
        Change::DeleteDevice
            | Change::DeleteAddress(..)
            | Change::DeleteNeighbour(_)
            | Change::DeleteForwardingEntry(_)
            | Change::DeleteRoute(_)
            | Change::DeleteRule(_)
    );
    is_deletion && matches!(error, SocketError::Rejected(error) if is_not_found(error))
}

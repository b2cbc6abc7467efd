//! Notices when rules of nftables come into force, without the kernel having to tell of each. I/O only.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::netlink::NETFILTER;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::failure::{Failure, Tried};
use crate::namespace::Namespace;

/// Between two looks; short against what is measured.
const LOOK: Duration = Duration::from_micros(50);
/// A `nlmsghdr` and a `nfgenmsg`: `NFT_MSG_GETGEN` of `NFNL_SUBSYS_NFTABLES`, `NLM_F_REQUEST`.
const HEADERS: usize = 20;
const GET_GENERATION: u16 = 10 << 8 | 16;
const REQUEST: u16 = 1;
/// Where an answer has the value of its first attribute, the generation.
const GENERATION: std::ops::Range<usize> = HEADERS + 4..HEADERS + 8;

/// Sees the rules of a namespace change, from its making on.
#[derive(Debug)]
pub(crate) struct Watch {
    socket: OwnedFd,
    before: [u8; 4],
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn new(namespace: &Namespace) -> Result<Self, Failure> {
        namespace.run(|| {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER));
            let socket = socket.tried("a netlink socket")?;
            set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(5)))
                .tried("a netlink socket")?;
            let before = generation(&socket)?;
            Ok(Self { socket, before })
        })
    }

    /// Waits until a transaction is complete: the kernel counts them.
    pub(crate) fn changed(&self, patience: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        while generation(&self.socket)? == self.before {
            if start.elapsed() > patience {
                return Err(Failure::Late("rules come into force".to_owned(), patience));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

fn generation(socket: &OwnedFd) -> Result<[u8; 4], Failure> {
    let mut request = [0; HEADERS];
    request[..4].copy_from_slice(&20_u32.to_ne_bytes());
    request[4..6].copy_from_slice(&GET_GENERATION.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    send(socket, &request, SendFlags::empty()).tried("asking for the generation of rules")?;
    let mut answer = [0; 256];
    let (length, _) = recv(socket, &mut answer[..], RecvFlags::empty()).tried("the generation of rules")?;
    let answer = answer.get(..length).and_then(|answer| answer.get(GENERATION)?.try_into().ok());
    answer.ok_or_else(|| Failure::Wrong("the kernel tells no generation of rules".to_owned()))
}

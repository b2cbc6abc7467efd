//! The types, names and constants that Akrobateo's programs share. This crate is pure: it does no I/O, and does not
//! read the clock or the environment.

pub mod annotations;
pub mod data_path;
pub mod digest;
pub mod dns1123;
pub mod family;
pub mod forward;
pub mod frontend;
pub mod host_port;
pub mod labels;
pub mod names;
pub mod probe;
pub mod protocol;
pub mod proxy_args;
pub mod proxy_protocol;

pub use data_path::DataPath;
pub use digest::digest;
pub use family::Family;
pub use forward::Forward;
pub use frontend::Frontend;
pub use host_port::HostPort;
pub use protocol::Protocol;
pub use proxy_args::ProxyArgs;
pub use proxy_protocol::{ProxyProtocol, ProxyVersion};

/// The default name of an operator instance. Each operator in a cluster needs its own name.
///
/// The name is the field manager of each server-side apply, the reporting controller of each event, and the name of the
/// Lease. The label of each proxy contains the name, and the name of each proxy starts with the instance name.
/// Operators with different names therefore ignore each other's objects.
pub const DEFAULT_INSTANCE: &str = "akrobateo";

/// The `loadBalancerClass` of Akrobateo. No other load balancer serves a Service with this class.
pub const LOAD_BALANCER_CLASS: &str = "akrobateo.io/lb";

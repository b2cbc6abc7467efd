//! Starts the proxy of a variant: Akrobateo, klipper-lb, `HAProxy` or nginx. Does I/O.

pub(crate) mod akrobateo;
pub(crate) mod haproxy;
pub(crate) mod klipper;
pub(crate) mod nginx;
pub(crate) mod process;
pub(crate) mod programs;

use akrobateo_core::Protocol;
use netns_testkit::Namespace;

use crate::error::BenchError;
use crate::variant::{DataPath, UserspaceProxy, Variant};
use process::Process;
use programs::Programs;

/// Sets up the proxy pod of a variant. Returns the process of the proxy, or `None` if the variant needs no process.
///
/// The proxy forwards only one protocol, so that each Service port needs only one map entry or one set of rules.
pub(crate) fn start(
    variant: Variant,
    protocol: Protocol,
    pod: &Namespace,
    programs: &Programs,
) -> Result<Option<Process>, BenchError> {
    let process = match variant.data_path {
        DataPath::Direct | DataPath::NodeDnat | DataPath::Agent(_) => return Ok(None),
        DataPath::Klipper(iptables) => {
            klipper::set_rules(pod, iptables, protocol, variant.ports);
            return Ok(None);
        }
        DataPath::Kernel => {
            akrobateo::start(pod, &programs.lb, &akrobateo::kernel_args(protocol, variant.ports))?
        }
        DataPath::Userspace { proxy, proxy_header } => match proxy {
            UserspaceProxy::Akrobateo => akrobateo::start(pod, &programs.lb, &akrobateo::userspace_args())?,
            UserspaceProxy::HaProxy => haproxy::start(pod, programs, proxy_header, false)?,
            UserspaceProxy::HaProxySplice => haproxy::start(pod, programs, proxy_header, true)?,
            UserspaceProxy::Nginx => nginx::start(pod, programs)?,
        },
    };
    Ok(Some(process))
}

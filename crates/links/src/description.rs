//! Describes changes for error messages. Pure.

use std::fmt;

use crate::difference::Change;

/// Describes the change as a verb with its object, for example "set the device up".
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteDevice => f.write_str("delete the device"),
            Self::CreateDevice(device) => write!(f, "create the device with MTU {}", device.mtu),
            Self::ConfigureDevice(device) => write!(f, "configure the device with MTU {}", device.mtu),
            Self::DisableLinkLocalAddress => f.write_str("disable the device's link-local address"),
            Self::SetDeviceUp => f.write_str("set the device up"),
            Self::AddAddress(address) => write!(f, "add the address {address}"),
            Self::DeleteAddress(address, prefix_len) => {
                write!(f, "delete the address {address}/{prefix_len}")
            }
            Self::SetNeighbour(address, _) => write!(f, "set the neighbour {address}"),
            Self::DeleteNeighbour(address) => write!(f, "delete the neighbour {address}"),
            Self::SetForwardingEntry(_, node) => write!(f, "set the forwarding entry of node {node}"),
            Self::DeleteForwardingEntry(_) => f.write_str("delete a forwarding entry"),
            Self::SetRoute(route) => write!(f, "set the route to {}", route.destination),
            Self::DeleteRoute(_) => f.write_str("delete a route"),
            Self::AddRule(rule) => write!(f, "add the rule with priority {}", rule.priority),
            Self::DeleteRule(_) => f.write_str("delete a rule"),
        }
    }
}

/// Returns the descriptions of several changes.
pub(crate) fn describe(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn description_mentions_the_objects_of_changes() {
        let address = [10, 99, 0, 11].into();
        assert_eq!(
            describe(&[Change::SetDeviceUp, Change::DeleteAddress(address, 24)]),
            "set the device up, delete the address 10.99.0.11/24"
        );
    }
}

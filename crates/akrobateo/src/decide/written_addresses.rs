//! The addresses in a status that the operator wrote, in a compact form. Pure.
//!
//! The operator remembers the last status of each Service. A status has an address of each node, so complete objects
//! would need several times as much memory.

use std::sync::Arc;

use k8s_openapi::api::core::v1::LoadBalancerIngress;

/// The end of each part of the text. Addresses and names do not contain this character.
const SEPARATOR: char = '\n';

/// The addresses in a status that the operator wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WrittenAddresses(Arc<str>);

impl WrittenAddresses {
    pub(super) fn new(addresses: &[LoadBalancerIngress]) -> Self {
        let mut text = String::new();
        for part in addresses.iter().flat_map(parts) {
            text.push_str(part);
            text.push(SEPARATOR);
        }
        Self(text.into())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if the addresses are the same, in the same order. The operator writes no ports.
    pub(super) fn matches(&self, addresses: &[LoadBalancerIngress]) -> bool {
        let mut rest = &*self.0;
        for part in addresses.iter().flat_map(parts) {
            match rest.strip_prefix(part).and_then(|rest| rest.strip_prefix(SEPARATOR)) {
                Some(next) => rest = next,
                None => return false,
            }
        }
        rest.is_empty() && addresses.iter().all(|ingress| ingress.ports.is_none())
    }
}

fn parts(ingress: &LoadBalancerIngress) -> [&str; 3] {
    [&ingress.ip, &ingress.hostname, &ingress.ip_mode].map(|part| part.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PortStatus;

    use super::*;

    fn ingress(ip: &str, ip_mode: Option<&str>) -> LoadBalancerIngress {
        LoadBalancerIngress {
            ip: Some(ip.to_owned()),
            ip_mode: ip_mode.map(str::to_owned),
            ..LoadBalancerIngress::default()
        }
    }

    #[test]
    fn only_the_same_addresses_match() {
        let addresses = [ingress("192.0.2.1", Some("VIP")), ingress("192.0.2.10", Some("VIP"))];
        let written = WrittenAddresses::new(&addresses);
        assert!(written.matches(&addresses) && !written.is_empty());
        assert_eq!(written, WrittenAddresses::new(&addresses));
        for other in [
            vec![],
            vec![addresses[0].clone()],
            vec![addresses[1].clone(), addresses[0].clone()],
            vec![addresses[0].clone(), ingress("192.0.2.1", Some("VIP"))],
            vec![addresses[0].clone(), ingress("192.0.2.10", Some("Proxy"))],
            vec![addresses[0].clone(), ingress("192.0.2.10", None)],
            vec![
                addresses[0].clone(),
                LoadBalancerIngress { hostname: Some("a".to_owned()), ..addresses[1].clone() },
            ],
            vec![
                addresses[0].clone(),
                LoadBalancerIngress { ports: Some(vec![PortStatus::default()]), ..addresses[1].clone() },
            ],
            vec![addresses[0].clone(), addresses[1].clone(), addresses[1].clone()],
        ] {
            assert!(!written.matches(&other), "{other:?}");
        }
        assert!(WrittenAddresses::new(&[]).matches(&[]) && WrittenAddresses::new(&[]).is_empty());
    }
}

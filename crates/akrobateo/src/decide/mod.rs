//! What should be, from what is. Pure: no I/O, no clock.

mod addresses;
mod covers;
mod difference;
mod forwarding;
mod node_facts;
mod proxy;
mod refusal;
mod wanted;

#[cfg(test)]
mod fixtures;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};

use crate::observe::Observed;
pub(crate) use difference::{Change, difference};
pub(crate) use node_facts::NodeFacts;
pub(crate) use proxy::ProxySettings;
pub(crate) use refusal::Refusal;

/// What should be for one Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) proxy: Proxy,
    /// The status's addresses; `None` leaves them to whoever they belong to.
    pub(crate) addresses: Option<Vec<LoadBalancerIngress>>,
    /// What its author has to mend.
    pub(crate) refusal: Option<Refusal>,
}

/// What should be of a Service's proxy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Proxy {
    /// Nothing may run for this Service.
    Absent,
    /// This, exactly.
    Present(Box<DaemonSet>),
    /// Whatever there is: what is asked for now cannot be had.
    Unchanged,
}

/// Decides for one Service.
pub(crate) fn decide(settings: &ProxySettings, observed: &Observed) -> Decision {
    let Some(service) = observed.service.as_deref() else {
        return Decision { proxy: Proxy::Absent, addresses: None, refusal: None };
    };
    if !wanted::is_wanted(service) {
        let ours = wanted::is_status_ours(service);
        return Decision { proxy: Proxy::Absent, addresses: ours.then(Vec::new), refusal: None };
    }
    let addresses = |mode| Some(addresses::of(service, &observed.pods, &observed.nodes, mode));
    match expose(settings, service) {
        Ok((proxy, mode)) => {
            Decision { proxy: Proxy::Present(Box::new(proxy)), addresses: addresses(mode), refusal: None }
        }
        // The last good proxy keeps running, so its nodes' comings and goings still matter.
        Err(refusal) => Decision {
            proxy: Proxy::Unchanged,
            addresses: addresses(addresses::IpMode::published(service)),
            refusal: Some(refusal),
        },
    }
}

fn expose(settings: &ProxySettings, service: &Service) -> Result<(DaemonSet, addresses::IpMode), Refusal> {
    let mode = addresses::IpMode::of(service)?;
    let forwarding = forwarding::of(service)?;
    Ok((proxy::daemonset(settings, service, &forwarding), mode))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Service;

    use super::fixtures::{node, pod, service, settings};
    use super::*;

    fn observed(service: Service) -> Observed {
        Observed {
            service: Some(Arc::new(service)),
            pods: vec![Arc::new(pod("p").on("n1").ready().build())],
            nodes: vec![Arc::new(node("n1").internal("10.0.0.1").build())],
            ..Observed::default()
        }
    }

    fn with_proxy(mut observed: Observed) -> Observed {
        if let Proxy::Present(mut made) = decide(&settings(), &observed).proxy {
            made.metadata.uid = Some("uid".to_owned());
            observed.proxies.push(Arc::new(*made));
        }
        observed
    }

    fn changes(observed: &Observed) -> Vec<Change> {
        difference(observed, &decide(&settings(), observed))
    }

    #[test]
    fn a_new_service_gets_its_proxy_before_its_addresses() {
        let changes = changes(&observed(service("web").tcp(80).build()));
        assert!(
            matches!(&changes[..], [Change::ApplyProxy(_), Change::PublishAddresses { .. }]),
            "{changes:?}"
        );
    }

    #[test]
    fn nothing_is_written_when_nothing_differs() {
        let settled = service("web").tcp(80).published("10.0.0.1", "VIP", "akrobateo").build();
        assert_eq!(changes(&with_proxy(observed(settled))), []);
    }

    #[test]
    fn a_proxy_edited_by_hand_is_applied_again() {
        let settled = service("web").tcp(80).published("10.0.0.1", "VIP", "akrobateo").build();
        let mut observed = with_proxy(observed(settled));
        let mut edited = observed.proxies[0].as_ref().clone();
        edited
            .spec
            .iter_mut()
            .for_each(|s| s.template.spec.iter_mut().for_each(|s| s.containers[0].args = None));
        observed.proxies = vec![Arc::new(edited)];
        assert!(matches!(&changes(&observed)[..], [Change::ApplyProxy(_)]));
    }

    #[test]
    fn what_was_made_for_a_service_that_is_gone_or_no_longer_ours_is_removed() {
        let made = with_proxy(observed(service("web").tcp(80).build()));
        for now in [None, Some(service("web").tcp(80).kind("ClusterIP").build())] {
            let observed = Observed { service: now.map(Arc::new), ..made.clone() };
            assert!(matches!(&changes(&observed)[..], [Change::DeleteProxy { uid, .. }] if uid == "uid"));
        }
    }

    #[test]
    fn only_addresses_that_are_ours_are_cleared() {
        let given_up = |manager| {
            let service =
                service("web").tcp(80).class("example.com/lb").published("10.0.0.1", "VIP", manager);
            changes(&observed(service.build()))
        };
        let cleared = Change::PublishAddresses { uid: "uid-of-web".to_owned(), addresses: Vec::new() };
        assert_eq!(given_up("akrobateo"), [cleared]);
        assert_eq!(given_up("somebody-else"), []);
    }

    #[test]
    fn a_refused_service_keeps_its_last_good_proxy_and_its_addresses_stay_true() {
        let good = with_proxy(observed(service("web").tcp(80).build()));
        let bad = service("web").tcp(81).annotation(contract::annotations::IP_MODE, "vip");
        let bad = bad.published("10.0.0.9", "Proxy", "akrobateo").build();
        let observed = Observed { service: Some(Arc::new(bad)), ..good };
        let decision = decide(&settings(), &observed);
        assert!(decision.refusal.is_some());
        let [Change::PublishAddresses { addresses, .. }] = &difference(&observed, &decision)[..] else {
            panic!("{decision:?}")
        };
        assert_eq!(addresses[0].ip.as_deref(), Some("10.0.0.1"));
        assert_eq!(addresses[0].ip_mode.as_deref(), Some("Proxy"));
    }

    #[test]
    fn a_proxy_of_another_name_gives_way_first() {
        let mut observed = with_proxy(observed(service("web").tcp(80).build()));
        let mut other = observed.proxies[0].as_ref().clone();
        other.metadata.name = Some("akrobateo-old".to_owned());
        observed.proxies = vec![Arc::new(other)];
        let changes = changes(&observed);
        assert!(matches!(&changes[..2], [Change::DeleteProxy { .. }, Change::ApplyProxy(_)]), "{changes:?}");
    }
}

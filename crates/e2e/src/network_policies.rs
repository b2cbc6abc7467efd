//! The network policies that tests create. Does I/O.

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use crate::delete::delete_if_exists;
use crate::failure::Failure;
use crate::namespace::Namespace;

impl Namespace {
    /// Creates a `NetworkPolicy` for all pods of the namespace. The pods then accept only packets from these address
    /// ranges; an empty list denies all packets.
    pub async fn allow_only(&self, policy: &str, ranges: &[String]) -> Result<(), Failure> {
        let peers = ranges.iter().map(|range| NetworkPolicyPeer {
            ip_block: Some(IPBlock { cidr: range.clone(), except: None }),
            ..NetworkPolicyPeer::default()
        });
        let rule = NetworkPolicyIngressRule { from: Some(peers.collect()), ports: None };
        let object = NetworkPolicy {
            metadata: ObjectMeta { name: Some(policy.to_owned()), ..ObjectMeta::default() },
            spec: Some(NetworkPolicySpec {
                pod_selector: Some(LabelSelector::default()),
                policy_types: Some(vec!["Ingress".to_owned()]),
                ingress: Some(Vec::from_iter((!ranges.is_empty()).then_some(rule))),
                ..NetworkPolicySpec::default()
            }),
        };
        self.network_policies().create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Deletes a `NetworkPolicy` of [`Self::allow_only`].
    pub async fn delete_network_policy(&self, policy: &str) -> Result<(), Failure> {
        delete_if_exists(&self.network_policies(), policy, &DeleteParams::default()).await
    }

    fn network_policies(&self) -> Api<NetworkPolicy> {
        Api::namespaced(self.client(), self.name())
    }
}

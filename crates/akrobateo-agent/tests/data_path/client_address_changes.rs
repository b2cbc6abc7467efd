//! Tests of a Service that changes between kept and masqueraded clients' addresses. The nodes learn of the change one
//! after the other.

use akrobateo_agent::agent::Agent;
use akrobateo_agent::config::Service;
use akrobateo_core::Protocol;
use netns_testkit::laboratory::{Options, PodNetwork};
use netns_testkit::{eventually, isolated};

use crate::agent::{Reports, endpoint_sees_client_address, start_agent, start_all_agents};
use crate::cluster::{Cluster, SERVICE_PORT, pod_endpoints, service};

/// Changes the Service of `cluster` on one node after the other. After each change, all new flows must be answered.
fn set_client_address(
    cluster: &mut Cluster,
    agents: &[(Agent, Reports)],
    keeps_client_address: bool,
    order: [usize; 3],
) {
    cluster.services[0].keeps_client_address = keeps_client_address;
    for node in order {
        let (agent, reports) = &agents[node - 1];
        let previous_count = *reports.apply_count.lock().unwrap();
        agent.set_config(1, cluster.config(node));
        eventually("the agent has applied the configuration", || {
            (*reports.apply_count.lock().unwrap() > previous_count).then_some(())
        });
        for family in cluster.families {
            let answer = cluster.request(&cluster.laboratory.client, Protocol::Tcp, *family, 1);
            answer.unwrap_or_else(|error| {
                panic!("{family} after node {node}, keeps address {keeps_client_address}: {error}")
            });
        }
    }
}

#[test]
fn new_flows_are_answered_while_nodes_disagree_about_client_addresses() {
    isolated(|| {
        for pod_network in [PodNetwork::HostRoutes, PodNetwork::Overlay] {
            let options = Options { pod_network, ..Options::default() };
            let (mut cluster, agents) = start_all_agents(&options, true, |_| ());
            let wait_kept = |cluster: &Cluster| {
                eventually("the endpoint sees the client", || {
                    endpoint_sees_client_address(cluster).then_some(())
                });
            };
            wait_kept(&cluster);
            set_client_address(&mut cluster, &agents, false, [2, 1, 3]);

            // The Service gets an endpoint without connections, and another Service keeps the clients' addresses.
            let endpoint = pod_endpoints(&cluster.laboratory, 2, 2);
            cluster.services =
                vec![Service { keeps_client_address: false, ..service(SERVICE_PORT, &endpoint) }];
            drop(agents);
            cluster.services.push(service(SERVICE_PORT + 1, &pod_endpoints(&cluster.laboratory, 3, 1)));
            let agents: Vec<_> = (1..=3).map(|node| start_agent(&cluster, node)).collect();
            eventually("all agents report paths", || {
                agents.iter().all(|(_, reports)| !reports.modes.lock().unwrap().is_empty()).then_some(())
            });
            set_client_address(&mut cluster, &agents, true, [1, 2, 3]);
            wait_kept(&cluster);
            set_client_address(&mut cluster, &agents, false, [2, 1, 3]);
        }
    });
}

//! The objects of an agent in the network of its node: nftables tables, devices, routes and routing rules. Does I/O.

use crate::failure::Failure;
use crate::faults::Faults;

/// A script that prints all objects of the agent in the node's network namespace. The marks of the agent and the
/// numbers of its routing tables begin with 0x6b. The priorities of its routing rules are 96 to 98.
const AGENT_OBJECTS_SCRIPT: &str = "
nft list tables | grep akrobateo
ip -o link show akr0 2>/dev/null
for family in -4 -6; do
  ip $family rule show | grep -E '^9[678]:|0x6b'
  ip $family route show table all proto 107
done
true";

/// A script that deletes the tunnel device, the routes and the routing rules of the agent.
const DELETE_ROUTING_SCRIPT: &str = "
ip link delete akr0 2>/dev/null
for family in -4 -6; do
  for priority in 96 97 98; do
    while ip $family rule delete priority $priority 2>/dev/null; do :; done
  done
  ip $family route flush table all proto 107 2>/dev/null
done
true";

impl Faults {
    /// Deletes the nftables table of the agent on a node, as another program could do.
    pub async fn delete_agent_table(&self, node: &str) -> Result<(), Failure> {
        let command = ["nft", "delete", "table", "inet", "akrobateo"];
        self.run_node_command(&[&["exec", node], &command[..]].concat()).await.map(drop)
    }

    /// Returns the nftables table of the agent on a node as JSON, without counters.
    pub async fn read_agent_table(&self, node: &str) -> Result<String, Failure> {
        let command = ["nft", "--json", "--stateless", "list", "table", "inet", "akrobateo"];
        self.run_node_command(&[&["exec", node], &command[..]].concat()).await
    }

    /// Deletes the tunnel device, the routes and the routing rules of the agent on a node, as another program could do.
    pub async fn delete_agent_routing(&self, node: &str) -> Result<(), Failure> {
        self.run_node_command(&["exec", node, "sh", "-c", DELETE_ROUTING_SCRIPT]).await.map(drop)
    }

    /// Returns a list of all objects of the agent on a node: tables, devices, routes and rules. Returns an empty text
    /// if the agent has no objects on the node.
    pub async fn list_agent_objects(&self, node: &str) -> Result<String, Failure> {
        self.run_node_command(&["exec", node, "sh", "-c", AGENT_OBJECTS_SCRIPT]).await
    }
}

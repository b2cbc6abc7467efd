//! The rights of the data path: the capability `NET_ADMIN` is enough, even if `/proc/sys` is read-only.

use akrobateo_agent::data_path::{DataPath, DataPathError};
use akrobateo_agent::probe::PeerPath;
use akrobateo_core::Family;
use netns_testkit::isolated_as_nobody;
use netns_testkit::laboratory::Options;
use netns_testkit::laboratory::addresses::client_address;
use netns_testkit::privileges::{CapabilitySet, keep_capabilities, make_sysctls_read_only};

use crate::cluster::{Cluster, SERVICE_PORT, pod_endpoints, service};

#[test]
fn user_with_only_net_admin_can_apply_the_configuration() {
    isolated_as_nobody(|| {
        let mut cluster = Cluster::new(&Options::default(), Some(PeerPath::Tunnel));
        make_sysctls_read_only();
        cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 2, 1))];
        cluster.apply_all();
        let seen_addresses = cluster.seen_client_addresses(&cluster.laboratory.client, 1, "n2p1");
        assert_eq!(seen_addresses, Family::ALL.map(client_address));
    });
}

#[test]
fn error_mentions_the_missing_capability_net_admin() {
    isolated_as_nobody(|| {
        let cluster = Cluster::new(&Options::default(), Some(PeerPath::Tunnel));
        let config = cluster.config(1);
        let error = cluster.laboratory.node(1).namespace.run(|| {
            keep_capabilities(CapabilitySet::empty());
            let error = DataPath::open().and_then(|data_path| data_path.check_kernel()).unwrap_err();
            assert!(matches!(error, DataPathError::NoNetAdmin), "{error}");
            DataPath::open().and_then(|mut data_path| data_path.apply(&config)).unwrap_err()
        });
        assert!(matches!(error, DataPathError::NoNetAdmin), "{error}");
        assert!(error.to_string().contains("NET_ADMIN"));
    });
}

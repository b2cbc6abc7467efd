//! Tests of the objects in the real kernel, in private network namespaces.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod objects;
mod properties;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use links::{Client, Monitor, NetworkObjects, Owner, diff};
use netns_testkit::privileges::{CapabilitySet, keep_capabilities, make_sysctls_read_only};
use netns_testkit::{DEADLINE, Namespace, eventually, isolated, isolated_as_nobody};

use crate::objects::{assert_has_desired_objects, example_objects, owner};

/// Returns the owner's objects as iproute2 lists them.
fn list_with_iproute2(namespace: &Namespace) -> String {
    [
        "ip -brief address show type vxlan",
        "ip -4 route show table all proto 107",
        "ip -6 route show table all proto 107",
        "ip -4 rule show protocol 107",
        "ip -6 rule show protocol 107",
        "ip neighbour show nud permanent",
        "ip -6 neighbour show nud permanent",
        "bridge fdb show",
    ]
    .map(|command| run(namespace, command))
    .concat()
}

/// Runs a command, which must succeed, and returns its output.
fn run(namespace: &Namespace, command: &str) -> String {
    let mut words = command.split(' ');
    namespace.run_program(Command::new(words.next().unwrap()).args(words), "")
}

#[test]
fn iproute2_lists_the_desired_objects() {
    isolated(|| {
        let namespace = Namespace::new();
        let objects = example_objects();
        namespace.run(|| {
            let mut client = Client::open(owner()).unwrap();
            assert!(client.reconcile(&objects).unwrap() > 0);
            assert_has_desired_objects(&client.observe().unwrap(), &objects);
            assert_eq!(client.reconcile(&objects).unwrap(), 0);
        });
        let details = run(&namespace, "ip -details link show akr0");
        for expected in [
            "mtu 1450",
            "02:61:6b:72:00:01",
            "addrgenmode none",
            "vxlan id 6384498 local 10.99.0.11",
            "dstport 8478",
            "nolearning",
        ] {
            assert!(details.contains(expected), "{expected}: {details}");
        }
        for (setting, value) in [("rp_filter", "2"), ("forwarding", "1")] {
            assert_eq!(namespace.read_sysctl(&format!("ipv4/conf/akr0/{setting}")), value);
        }
        let list = list_with_iproute2(&namespace);
        for expected in [
            "169.254.107.114/32",
            "default via 169.254.255.255 dev akr0 table 1802633216 onlink",
            "default via fe80::6b72:ffff dev akr0 table 1802633216",
            "96:\tfrom all fwmark 0x6b720000/0xffff0000 lookup 1802633216",
            "169.254.255.255 dev akr0 lladdr 02:61:6b:72:ff:ff PERMANENT",
            "fe80::6b72:ffff dev akr0 lladdr 02:61:6b:72:ff:ff PERMANENT",
            "02:61:6b:72:00:02 dev akr0 dst 10.99.0.12 self permanent",
        ] {
            assert!(list.contains(expected), "{expected}: {list}");
        }
        assert_eq!(list.matches("lookup 1802633216").count(), 2, "{list}");
    });
}

#[test]
fn cleanup_deletes_only_the_objects_of_the_owner() {
    isolated(|| {
        let namespace = Namespace::new();
        // Objects of other programs that look like the owner's objects.
        namespace.ip("link add other type vxlan id 5 dstport 8479 local 127.0.0.1\nlink set other up\n\
             rule add priority 96 fwmark 0x6b720000/0xffff0000 lookup 1802633216\n\
             route add 192.0.2.0/24 dev other table 1802633216 proto 106");
        let list_foreign_objects = || {
            run(&namespace, "ip rule show table 1802633216")
                + &run(&namespace, "ip route show table 1802633216")
                + &list_with_iproute2(&namespace)
        };
        let objects_before = list_foreign_objects();
        namespace.run(|| {
            let mut client = Client::open(owner()).unwrap();
            client.reconcile(&example_objects()).unwrap();
        });
        assert_ne!(list_foreign_objects(), objects_before);
        run(&namespace, "ip rule add priority 5 fwmark 1 lookup 7 protocol 107");
        run(&namespace, "ip route add blackhole 198.51.100.0/24 proto 107");
        run(&namespace, "ip -6 route add unreachable 2001:db8::/32 table 9 proto 107");
        namespace.run(|| {
            let mut client = Client::open(owner()).unwrap();
            assert!(client.cleanup().unwrap() > 0);
            assert_eq!(client.cleanup().unwrap(), 0);
        });
        assert_eq!(list_foreign_objects(), objects_before);
    });
}

#[test]
fn deletion_by_another_program_is_corrected_within_a_second() {
    isolated(|| {
        let namespace = Namespace::new();
        let objects = example_objects();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| namespace.run(|| keep_reconciled(&objects, &stop)));
            let _stop_on_drop = SetOnDrop(&stop);
            let missing_changes =
                || namespace.run(|| diff(&Client::open(owner()).unwrap().observe().unwrap(), &objects));
            eventually("the objects exist", || missing_changes().is_empty().then_some(()));
            for command in [
                "ip link delete akr0",
                "ip link set akr0 down",
                "ip link set akr0 address 02:00:00:00:00:99",
                "ip address flush dev akr0",
                "ip neighbour flush dev akr0 nud permanent",
                "ip route flush table 1802633216",
                "ip -6 route flush table 1802633216",
                "ip rule delete priority 96",
                "ip -6 rule delete priority 96",
                "ip rule add priority 97 lookup 5 protocol 107",
                "bridge fdb delete 02:61:6b:72:00:02 dev akr0",
                "sysctl -qw net.ipv4.conf.akr0.rp_filter=1",
            ] {
                run(&namespace, command);
                eventually(command, || missing_changes().is_empty().then_some(()));
            }
        });
    });
}

/// Sets the flag that stops the thread of [`keep_reconciled`] at the end of a test, even if the test fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does the work of an agent: corrects the objects after each notification.
fn keep_reconciled(objects: &NetworkObjects, stop: &AtomicBool) {
    let monitor = Monitor::open(owner()).unwrap();
    let mut client = Client::open(owner()).unwrap();
    let mut is_changed = true;
    while !stop.load(Ordering::Relaxed) {
        // A step fails if another program deletes the device before the step. The next round repeats the step.
        let is_failed = is_changed && client.reconcile(objects).is_err();
        let index = client.observe().unwrap().device.map(|device| device.index);
        is_changed = monitor.wait(index, "uplink", Duration::from_millis(100)).unwrap() || is_failed;
    }
}

#[test]
fn notification_of_foreign_objects_is_ignored() {
    isolated(|| {
        let namespace = Namespace::new();
        namespace.run(|| {
            let monitor = Monitor::open(owner()).unwrap();
            namespace.ip(
                "link add other type veth peer name peer\nlink set other up\naddress add 192.0.2.1/24 dev other\n\
                 neighbour add 192.0.2.2 lladdr 02:00:00:00:00:01 dev other\nroute add 198.51.100.0/24 via 192.0.2.2\n\
                 rule add priority 97 lookup 5\nlink delete other",
            );
            assert!(!monitor.read_notifications(None, "uplink").unwrap());
            namespace.ip("rule add priority 97 lookup 5 protocol 107");
            assert!(monitor.wait(None, "uplink", DEADLINE).unwrap());
            assert!(!monitor.wait(None, "uplink", Duration::ZERO).unwrap());
            // The kernel does not report the IPv4 routes that it deletes with an interface.
            namespace.ip("link add uplink type veth peer name peer");
            assert!(monitor.wait(None, "uplink", DEADLINE).unwrap());
            assert!(!monitor.wait(None, "uplink", Duration::ZERO).unwrap());
            namespace.ip("link set uplink up");
            assert!(monitor.wait(None, "uplink", DEADLINE).unwrap());
        });
    });
}

#[test]
fn capability_net_admin_suffices_with_read_only_sysctls() {
    isolated_as_nobody(|| {
        let namespace = Namespace::new();
        make_sysctls_read_only();
        let objects = example_objects();
        namespace.run(|| {
            keep_capabilities(CapabilitySet::NET_ADMIN);
            let mut client = Client::open(owner()).unwrap();
            client.reconcile(&objects).unwrap();
            assert_has_desired_objects(&client.observe().unwrap(), &objects);
            let _monitor = Monitor::open(owner()).unwrap();
            client.cleanup().unwrap();
            assert_has_desired_objects(&client.observe().unwrap(), &NetworkObjects::default());
        });
        namespace.run(|| {
            keep_capabilities(CapabilitySet::empty());
            let error = Client::open(owner()).unwrap().reconcile(&objects).unwrap_err();
            assert!(error.is_permission_denied(), "{error}");
        });
    });
}

#[test]
fn device_of_another_kind_with_the_owners_name_is_replaced() {
    isolated(|| {
        for command in [
            "link add akr0 type veth peer name x",
            "link add akr0 type vxlan id 5 dstport 8478 local 10.99.0.11 nolearning",
            "link add akr0 type vxlan id 6384498 dstport 8478 local 10.99.0.11",
            "link add akr0 type vxlan external dstport 8478",
            "link add akr0 type vxlan id 6384498 dstport 8478 local 10.99.0.11 nolearning remote 10.99.0.12",
        ] {
            let namespace = Namespace::new();
            namespace.ip(command);
            namespace.run(|| {
                let mut client = Client::open(Owner { device: "akr0".to_owned(), protocol: 107 }).unwrap();
                client.reconcile(&example_objects()).unwrap();
                assert_has_desired_objects(&client.observe().unwrap(), &example_objects());
            });
        }
    });
}

#[test]
fn address_of_a_larger_network_does_not_prevent_the_routes() {
    isolated(|| {
        let namespace = Namespace::new();
        let desired = example_objects();
        let objects_without_routes =
            NetworkObjects { addresses: BTreeSet::new(), routes: BTreeSet::new(), ..desired.clone() };
        namespace.run(|| Client::open(owner()).unwrap().reconcile(&objects_without_routes).unwrap());
        // The next hop of the IPv4 route is the broadcast address of this network.
        namespace.ip("address add 169.254.107.114/16 dev akr0");
        namespace.run(|| {
            let mut client = Client::open(owner()).unwrap();
            client.reconcile(&desired).unwrap();
            assert_has_desired_objects(&client.observe().unwrap(), &desired);
        });
    });
}

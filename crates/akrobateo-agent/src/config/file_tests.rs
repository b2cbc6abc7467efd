//! Tests of the JSON form of a configuration.

use std::collections::BTreeMap;

use akrobateo_core::Family;

use super::NodeConfig;
use crate::probe::PeerPath;

/// Parses a valid configuration after `edit` has changed it.
fn parse_edited(edit: impl Fn(&mut serde_json::Value)) -> Result<NodeConfig, String> {
    let mut json = serde_json::json!({
        "node": { "number": 1, "addresses": ["10.99.0.11"], "uplink": "eth0" },
        "podRanges": ["10.244.0.0/16"],
        "peers": [{
            "number": 2, "addresses": ["10.99.0.12"], "mac": "02:00:00:00:00:02",
            "ways": { "IPv4": "direct", "IPv6": "masquerade" }
        }],
        "services": [{
            "name": "default/web", "ipFamilies": ["IPv4"],
            "ports": [{ "protocol": "TCP", "port": 80, "endpoints": [
                { "address": "10.244.1.10:8080", "node": 1 },
                { "address": "10.244.1.11:8080", "node": 1, "serving": true, "terminating": true }
            ] }]
        }]
    });
    edit(&mut json);
    NodeConfig::from_json(json.to_string().as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn missing_values_have_defaults() {
    let config = parse_edited(|_| ()).unwrap();
    assert_eq!(config.node.uplink_mtu, 1500);
    assert_eq!(config.peers[0].paths, BTreeMap::from([(Family::V4, PeerPath::Direct)]));
    let service = &config.services[0];
    assert!(service.keeps_client_address && !service.is_traffic_policy_local);
    let [ready, terminating] = &service.ports[0].endpoints[..] else { panic!("expected two endpoints") };
    assert!(ready.is_ready && !terminating.is_ready && terminating.is_serving_while_terminating);
}

#[test]
fn error_mentions_the_invalid_field_and_the_allowed_values() {
    type Edit = fn(&mut serde_json::Value);
    let cases: [(Edit, &str); 10] = [
        (|json| json["node"]["number"] = 0.into(), "the number of a node is \"0\"; expected a number from 1"),
        (|json| json["node"]["addresses"][0] = "127.0.0.1".into(), "node.addresses is \"127.0.0.1\""),
        (|json| json["node"]["uplink"] = "".into(), "node.uplink is \"\"; expected the name"),
        (
            |json| json["node"]["uplinkMtu"] = 0.into(),
            "node.uplinkMtu is \"0\"; expected a number from 1280 to 65535",
        ),
        (|json| json["peers"][0]["mac"] = "02".into(), "peers.mac is \"02\"; expected a MAC address"),
        (|json| json["peers"][0]["number"] = 1.into(), "peer 1 and another node have the same number 1"),
        (|json| json["services"][0]["ipFamilies"][0] = "IPv5".into(), "services.ipFamilies is \"IPv5\""),
        (
            |json| json["services"][0]["ports"][0]["protocol"] = "tcp".into(),
            "services.ports.protocol is \"tcp\"",
        ),
        (
            |json| json["services"][0]["sessionAffinitySeconds"] = 0.into(),
            "expected a number from 1 to 86400",
        ),
        (|json| json["services"][0]["policy"] = "Local".into(), "unknown field `policy`"),
    ];
    for (edit, message) in cases {
        let error = parse_edited(edit).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn example_configuration_is_valid() {
    let example = include_bytes!("../../../../examples/node-agent/node1.json");
    let config = NodeConfig::from_json(example).unwrap();
    assert_eq!((config.peers.len(), config.services.len()), (1, 1));
}

#[test]
fn services_cannot_share_a_port_in_the_same_family() {
    let parse_with_other_service = |family: &'static str| {
        parse_edited(move |json| {
            let mut service = json["services"][0].clone();
            service["name"] = "default/other".into();
            service["ipFamilies"][0] = family.into();
            json["services"].as_array_mut().unwrap().push(service);
        })
    };
    let error = parse_with_other_service("IPv4").unwrap_err();
    assert!(
        error.contains("Service default/web and Service default/other have the same port 80/TCP of IPv4")
    );
    assert!(parse_with_other_service("IPv6").is_ok());
}

//! The messages of the VXLAN device. Pure.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, InfoData, InfoKind, InfoVxlan,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use crate::difference::LOOSE_REVERSE_PATH_FILTER;
use crate::mac::MacAddress;
use crate::objects::Device;
use crate::observed::{ObservedDevice, VxlanSettings};

/// Returns the request for the device with this name.
pub(crate) fn get_device(name: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(link_message(0, vec![LinkAttribute::IfName(name.to_owned())]))
}

pub(super) fn create(name: &str, device: &Device) -> RouteNetlinkMessage {
    let local_address = match device.local_address {
        IpAddr::V4(address) => InfoVxlan::Local(address),
        IpAddr::V6(address) => InfoVxlan::Local6(address),
    };
    let settings = vec![
        InfoVxlan::Id(device.vni),
        local_address,
        InfoVxlan::Port(device.port),
        InfoVxlan::Learning(false),
    ];
    RouteNetlinkMessage::NewLink(link_message(
        0,
        vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(device.mac.0.to_vec()),
            LinkAttribute::Mtu(device.mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(settings)),
            ]),
        ],
    ))
}

pub(super) fn delete(name: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelLink(link_message(0, vec![LinkAttribute::IfName(name.to_owned())]))
}

pub(super) fn configure(device_index: u32, device: &Device) -> RouteNetlinkMessage {
    let mut settings = InetDevConf::default();
    settings.rp_filter = LOOSE_REVERSE_PATH_FILTER;
    settings.forwarding = 1;
    let settings = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(settings)]);
    RouteNetlinkMessage::SetLink(link_message(
        device_index,
        vec![
            LinkAttribute::Address(device.mac.0.to_vec()),
            LinkAttribute::Mtu(device.mtu),
            LinkAttribute::AfSpecUnspec(vec![settings]),
        ],
    ))
}

pub(super) fn disable_link_local_address(device_index: u32) -> RouteNetlinkMessage {
    let settings = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    RouteNetlinkMessage::SetLink(link_message(
        device_index,
        vec![LinkAttribute::AfSpecUnspec(vec![settings])],
    ))
}

pub(super) fn set_up(device_index: u32) -> RouteNetlinkMessage {
    let mut message = link_message(device_index, Vec::new());
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

fn link_message(device_index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = device_index;
    message.attributes = attributes;
    message
}

/// Returns the device that a message describes.
pub(crate) fn decode_device(message: &LinkMessage) -> ObservedDevice {
    let mut device = ObservedDevice {
        index: message.header.index,
        vxlan: None,
        mac: None,
        mtu: 0,
        is_up: message.header.flags.contains(LinkFlags::Up),
        reverse_path_filter: 0,
        is_forwarding: false,
        generates_link_local_address: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => device.mac = bytes[..].try_into().ok().map(MacAddress),
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => device.vxlan = infos.iter().find_map(decode_vxlan_settings),
            LinkAttribute::AfSpecUnspec(families) => {
                for family in families {
                    decode_family_settings(family, &mut device);
                }
            }
            _ => {}
        }
    }
    device
}

fn decode_vxlan_settings(info: &LinkInfo) -> Option<VxlanSettings> {
    let LinkInfo::Data(InfoData::Vxlan(settings)) = info else { return None };
    let (mut vni, mut local_address, mut port) = (None, None, None);
    for setting in settings {
        match setting {
            InfoVxlan::Id(id) => vni = Some(*id),
            InfoVxlan::Local(address) => local_address = Some(IpAddr::V4(*address)),
            InfoVxlan::Local6(address) => local_address = Some(IpAddr::V6(*address)),
            InfoVxlan::Port(number) => port = Some(*number),
            // With one of these settings, the device would also get destinations that are not in its forwarding
            // entries.
            InfoVxlan::Group(_)
            | InfoVxlan::Group6(_)
            | InfoVxlan::Link(_)
            | InfoVxlan::Learning(true)
            | InfoVxlan::CollectMetadata(true)
            | InfoVxlan::Gbp
            | InfoVxlan::Gpe => return None,
            _ => {}
        }
    }
    Some(VxlanSettings { vni: vni?, local_address: local_address?, port: port? })
}

fn decode_family_settings(family: &AfSpecUnspec, device: &mut ObservedDevice) {
    match family {
        AfSpecUnspec::Inet(settings) => {
            for setting in settings {
                if let AfSpecInet::DevConf(conf) = setting {
                    device.reverse_path_filter = conf.rp_filter;
                    device.is_forwarding = conf.forwarding != 0;
                }
            }
        }
        AfSpecUnspec::Inet6(settings) => {
            device.generates_link_local_address = settings.iter().any(
                |setting| matches!(setting, AfSpecInet6::AddrGenMode(mode) if *mode != In6AddrGenMode::None),
            );
        }
        _ => {}
    }
}

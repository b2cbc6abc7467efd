//! The messages of rules. Pure.

use akrobateo_core::family::Family;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::family::address_family;
use crate::objects::Rule;

/// The value of `suppress_prefixlength` that suppresses nothing.
const NO_SUPPRESSION: u32 = u32::MAX;

/// Returns the request for all rules of a family.
pub(crate) fn list_rules(family: Family) -> RouteNetlinkMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(family);
    RouteNetlinkMessage::GetRule(message)
}

pub(super) fn add(rule: &Rule, protocol: RouteProtocol) -> RouteNetlinkMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(rule.family);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::FwMark(rule.mark),
        RuleAttribute::FwMask(rule.mask),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(protocol),
    ];
    RouteNetlinkMessage::NewRule(message)
}

/// Returns true if the rule has this protocol number.
pub(crate) fn has_protocol(message: &RuleMessage, protocol: u8) -> bool {
    message.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::from(protocol)))
}

/// Returns the rule of a message, or `None` if the rule has other conditions than a mark.
pub(crate) fn decode_rule(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let family = match header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let matches_all_packets = header.dst_len == 0 && header.src_len == 0 && header.tos == 0;
    if header.action != RuleAction::ToTable
        || !matches_all_packets
        || header.flags.contains(RuleFlags::Invert)
    {
        return None;
    }
    let mut rule = Rule { family, priority: 0, mark: 0, mask: 0, table: u32::from(header.table) };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => rule.priority = *number,
            RuleAttribute::FwMark(mark) => rule.mark = *mark,
            RuleAttribute::FwMask(mask) => rule.mask = *mask,
            RuleAttribute::Table(number) => rule.table = *number,
            RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(NO_SUPPRESSION) => {}
            _ => return None,
        }
    }
    Some(rule)
}

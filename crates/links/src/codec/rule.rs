//! The messages of rules. Pure.

use akrobateo_core::family::Family;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction as ActionCode, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::family::address_family;
use crate::objects::{MaskedMark, Rule, RuleAction, RuleCondition};

/// The value of `suppress_prefixlength` with which the rule suppresses no routes.
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
    message.attributes = vec![RuleAttribute::Priority(rule.priority), RuleAttribute::Protocol(protocol)];
    match rule.condition {
        RuleCondition::All => {}
        RuleCondition::HasMark(mark) => message.attributes.extend(mark_attributes(mark)),
        RuleCondition::LacksMark(mark) => {
            message.header.flags = RuleFlags::Invert;
            message.attributes.extend(mark_attributes(mark));
        }
    }
    match rule.action {
        RuleAction::Table(table) => {
            message.header.action = ActionCode::ToTable;
            message.attributes.push(RuleAttribute::Table(table));
        }
        RuleAction::Goto(priority) => {
            message.header.action = ActionCode::Goto;
            message.attributes.push(RuleAttribute::Goto(priority));
        }
        RuleAction::Continue => message.header.action = ActionCode::Nop,
    }
    RouteNetlinkMessage::NewRule(message)
}

fn mark_attributes(mark: MaskedMark) -> [RuleAttribute; 2] {
    [RuleAttribute::FwMark(mark.value), RuleAttribute::FwMask(mark.mask)]
}

/// Returns true if the rule has this protocol number.
pub(crate) fn has_protocol(message: &RuleMessage, protocol: u8) -> bool {
    message.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::from(protocol)))
}

/// Returns the rule in a message; `None` if [`Rule`] cannot describe the rule.
pub(crate) fn decode_rule(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let family = match header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    if header.dst_len != 0 || header.src_len != 0 || header.tos != 0 {
        return None;
    }
    let (mut priority, mut mark) = (0, MaskedMark { value: 0, mask: 0 });
    let (mut table, mut target) = (u32::from(header.table), None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::FwMark(bits) => mark.value = *bits,
            RuleAttribute::FwMask(bits) => mark.mask = *bits,
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Goto(priority) => target = Some(*priority),
            RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(NO_SUPPRESSION) => {}
            _ => return None,
        }
    }
    let condition = match (mark.mask, header.flags.contains(RuleFlags::Invert)) {
        (0, false) => RuleCondition::All,
        (0, true) => return None,
        (_, false) => RuleCondition::HasMark(mark),
        (_, true) => RuleCondition::LacksMark(mark),
    };
    let action = match header.action {
        ActionCode::ToTable => RuleAction::Table(table),
        ActionCode::Goto => RuleAction::Goto(target?),
        ActionCode::Nop => RuleAction::Continue,
        _ => return None,
    };
    Some(Rule { family, priority, condition, action })
}
